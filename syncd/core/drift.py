"""The dictionary drifts: what describe says now beside what it said before, and what that makes of the typed view's columns."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from syncd.core.settings import Pull, Source
from syncd.core.values import Field, FieldName

ColumnType = Literal["text", "numeric", "boolean", "date", "timestamptz"]

OWN_COLUMNS = ("lead_id", "email", "first_seen_at", "changed_at", "deleted_at", "merged_into")
"""What the view has of every lead."""

SHOWN_ANYWAY = frozenset({"id", "Id", "email", "Email"})
"""Fields that two of those columns show: they get no second one, unless the YAML names it."""

LONGEST_NAME = 63  # bytes
MOST_COLUMNS = 1600 - len(OWN_COLUMNS)
"""Postgres has no wider relations."""

_TYPES: Mapping[str, ColumnType] = {
    "integer": "numeric",
    "score": "numeric",
    "percent": "numeric",
    "float": "numeric",
    "currency": "numeric",
    "boolean": "boolean",
    "date": "date",
    "datetime": "timestamptz",
}
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Column:
    """A field's column of the view; `position` counts from 1, behind the view's own columns."""

    position: int
    name: str
    type: ColumnType


@dataclass(frozen=True, slots=True)
class KnownField:
    """A field as it was last described (protocol 3.3). `data_type` is None where only the YAML tells of it."""

    name: str
    """In the mirror: REST's, or SOAP's where there is no other."""
    rest_name: str | None
    soap_name: str | None
    display_name: str
    data_type: str | None
    length: int | None
    read_only: bool
    vanished: bool = False
    column: Column | None = None

    def own_name(self, source: Source) -> str | None:
        """What the source calls the field; None when it does not know it."""
        return self.soap_name if source == "soap" else self.rest_name

    def is_called(self, names: Iterable[str]) -> bool:
        """Whether one of its names is among these."""
        return not {self.soap_name, self.rest_name}.isdisjoint(names)

    def as_described(self) -> Field:
        """The field as describe gave it; of one that nobody described, a text."""
        rest, soap = (FieldName(name, self.read_only) if name else None for name in (self.rest_name, self.soap_name))
        return Field(self.display_name, self.data_type or "string", self.length, rest, soap)


@dataclass(frozen=True, slots=True)
class Drift:
    """What differs, in describe's order. Of retyped ones, (the field now, its type before)."""

    appeared: Sequence[KnownField] = ()
    vanished: Sequence[KnownField] = ()
    retyped: Sequence[tuple[KnownField, str]] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What the view shows: a column for each field, in order. What differs from what the YAML and describe want waits for a rebuild."""

    columns: Mapping[str, Column]
    retyped: Mapping[str, ColumnType]
    """Column → the type that describe's dataType asks for now."""
    renamed: Mapping[str, str]
    """Column → the name that the YAML asks for now."""
    left_out: int = 0
    """Fields for which a relation of Postgres has no room."""


def known(fields: Iterable[Field]) -> list[KnownField]:
    """Describe's answer by the names that the mirror uses, each once; REST's meaning of a name goes first."""
    found: dict[str, KnownField] = {}
    for one in fields:
        named = one.rest or one.soap
        assert named is not None, "a field has one name at least"
        if named.name in found and (one.rest is None or found[named.name].rest_name is not None):
            continue
        rest, soap = (side.name if side else None for side in (one.rest, one.soap))
        display_name, data_type = (text.replace("\0", "") for text in (one.display_name, one.data_type))  # Postgres refuses NUL
        found[named.name] = KnownField(named.name, rest, soap, display_name, data_type, one.length, named.read_only)
    return list(found.values())


def mirror_names(fields: Iterable[KnownField]) -> dict[str, str]:
    """Either interface's name of a field → the mirror's; REST's meaning of a name goes first."""
    listed = list(fields)
    soap = {field.soap_name: field.name for field in listed if field.soap_name is not None}
    return soap | {field.rest_name: field.name for field in listed if field.rest_name is not None}


def named_fields(pulls: Iterable[Pull]) -> list[str]:
    """The fields that pulls name, each once; where there is no REST, nobody else tells of them."""
    return list(dict.fromkeys(name for pull in pulls for name in pull.fields))


def compare(before: Iterable[KnownField], now: Sequence[KnownField]) -> Drift:
    """What has drifted. A field that comes back has appeared; the very first answer is no drift."""
    old = {field.name: field for field in before if field.data_type is not None}
    if not old:
        return Drift()
    names = {field.name for field in now}
    return Drift(
        [field for field in now if field.name not in old or old[field.name].vanished],
        [field for field in old.values() if field.name not in names and not field.vanished],
        [
            (field, was.data_type)
            for field in now
            if (was := old.get(field.name)) and not was.vanished and was.data_type is not None and was.data_type != field.data_type
        ],
    )


def asking(field: KnownField, pulls: Iterable[Pull]) -> list[str]:
    """The names of the pulls that ask for the field: by either of its names, or for all that their source knows."""
    return [pull.name for pull in pulls if field.own_name(pull.source) is not None and (not pull.fields or field.is_called(pull.fields))]


def type_of(data_type: str | None) -> ColumnType:
    """The column's type for a dataType; everything that is no number, boolean or time is text. Integers may have 23 digits."""
    return _TYPES.get(data_type or "", "text")


def appended(fields: Sequence[KnownField], pulls: Sequence[Pull]) -> View:
    """The view with columns for what is asked for and has none yet; those that are there stay as they are."""
    named = _named(fields, pulls)
    present = {field.name: field.column for field in fields if field.column is not None}
    taken = {column.name for column in present.values()}
    last = max((column.position for column in present.values()), default=0)
    missing = [field for field in _asked(fields, pulls) if field.column is None and not field.vanished]
    room = max(0, MOST_COLUMNS - len(present))
    columns = present | _given(missing[:room], named, taken, last)
    retyped, renamed = {}, {}
    for field in fields:
        column = columns.get(field.name)
        if column is None:
            continue
        if not field.vanished and column.type != type_of(field.data_type):
            retyped[column.name] = type_of(field.data_type)
        wanted = named.get(field.name)
        if wanted is not None and wanted != column.name:
            renamed[column.name] = wanted
    return View(columns, retyped, renamed, max(0, len(missing) - room))


def rebuilt(fields: Sequence[KnownField], pulls: Sequence[Pull]) -> View:
    """The view as it were if it were made now: what no pull asks for goes, what has vanished but is asked for stays."""
    asked = [field for field in _asked(fields, pulls) if not field.vanished or (field.column and field.data_type is not None)]
    return View(_given(asked[:MOST_COLUMNS], _named(fields, pulls), set(), 0), {}, {}, max(0, len(asked) - MOST_COLUMNS))


def column_name(field: str) -> str:
    """`field` in snake_case, as PostgreSQL takes it without quotes: firstName → first_name, Custom_Field__c → custom_field_c."""
    plain = unicodedata.normalize("NFKD", field).encode("ascii", "ignore").decode()
    name = "_".join(part for part in _WORDS.split(plain) if part).lower() or "field"
    return (f"f_{name}" if name[0].isdigit() else name)[:LONGEST_NAME]


def _asked(fields: Sequence[KnownField], pulls: Sequence[Pull]) -> list[KnownField]:
    """The fields that some pull asks for and that get a column, in the pulls' order, else in describe's."""
    named = _named(fields, pulls)
    found: dict[str, KnownField] = {}
    for pull in pulls:
        called = _called(fields, pull.source)
        wanted = [called[name] for name in pull.fields if name in called] if pull.fields else _own(fields, pull.source)
        found |= {field.name: field for field in wanted if field.name not in SHOWN_ANYWAY or field.name in named}
    return list(found.values())


def _own(fields: Sequence[KnownField], source: Source) -> list[KnownField]:
    """The fields that the source knows; REST may have given one another name, which makes it another field: the living one counts."""
    own: dict[str, KnownField] = {}
    for field in sorted(fields, key=lambda field: field.vanished):
        name = field.own_name(source)
        if name is not None:
            own.setdefault(name, field)
    return list(own.values())


def _called(fields: Sequence[KnownField], source: Source) -> dict[str, KnownField]:
    """The fields that the source knows by what the YAML may call them: its own name for each, else the other interface's."""
    own = _own(fields, source)
    called = {str(field.own_name(source)): field for field in own}
    for field in own:
        for name in (field.soap_name, field.rest_name):
            if name is not None:
                called.setdefault(name, field)
    return called


def _named(fields: Sequence[KnownField], pulls: Iterable[Pull]) -> dict[str, str]:
    """Field → the column that the YAML asks for."""
    return {
        called[name].name: column
        for pull in pulls
        for called in (_called(fields, pull.source),)
        for name, column in pull.columns.items()
        if name in called
    }


def _given(fields: Sequence[KnownField], named: Mapping[str, str], taken: Iterable[str], last: int) -> dict[str, Column]:
    """A column for each; names that the YAML gives go first."""
    used = {*OWN_COLUMNS, *taken}
    names = {}
    for field in sorted(fields, key=lambda field: field.name not in named):
        wanted = named.get(field.name) or column_name(field.name)
        names[field.name] = _unique(wanted, used)
        used.add(names[field.name])
    return {field.name: Column(at, names[field.name], type_of(field.data_type)) for at, field in enumerate(fields, last + 1)}


def _unique(wanted: str, used: set[str]) -> str:
    name, number = wanted, 1
    while name in used:
        number += 1
        suffix = f"_{number}"
        name = wanted[: LONGEST_NAME - len(suffix)] + suffix
    return name
