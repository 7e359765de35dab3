"""A lead of a reply → its form in the mirror: REST names, JSON text, a digest by which an unchanged lead is known.

Values travel as text and become jsonb in Postgres, so that 23-digit integers and decimals stay exact (architecture.md, Values).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b

import orjson

from syncd.core.values import Field, LeadRecord

Value = str | bool | orjson.Fragment
"""What a field holds in the mirror; a number is a fragment, the JSON text of all its digits."""

LONGEST_EMAIL = 600
"""Characters: what an index of Postgres can hold, whatever they are. A longer one is no address, but a misfit."""

_FRACTION = r"(\.[0-9]{1,1000})?([eE][+-]?[0-9]{1,3})?"
_LEADING_ZEROS = re.compile(r"^([+-]?)0+(?=[0-9])")


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """A lead as the mirror writes it; `attributes` and `misfits` are JSON texts."""

    lead_id: int
    email: str | None
    attributes: str
    misfits: str
    digest: str


@dataclass(frozen=True, slots=True)
class Dictionary:
    """What describe says of the fields: their names in the mirror (REST's where there is one, else the source's), and their types."""

    names: Mapping[str, str]
    """Name on the wire → name in the mirror, for the fields that describe lists."""
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Name on the wire → describe's dataType (protocol 3.3)."""

    @classmethod
    def of_soap(cls, fields: Iterable[Field]) -> "Dictionary":
        """The dictionary for replies that use SOAP names."""
        by_name = {one.soap.name: one for one in fields if one.soap is not None}
        return cls(
            {name: (one.rest.name if one.rest else name) for name, one in by_name.items()},
            {name: one.data_type for name, one in by_name.items()},
        )

    def owned(self, asked: Sequence[str]) -> list[str] | None:
        """The mirror names that a pull of `asked` may empty: those asked for, as long as they are in the dictionary.

        Who names none asks for all (protocol 1.4: absent from a full reply is empty now); None is all there are, where no
        dictionary says which.
        """
        if not self.names:
            return list(asked) or None
        return [self.names[name] for name in asked or self.names if name in self.names]


def _number(fraction: str) -> Callable[[str], Value | None]:
    as_json_has_it = re.compile(rf"-?(0|[1-9][0-9]{{0,999}}){fraction}").fullmatch
    as_people_have_it = re.compile(rf"[+-]?[0-9]{{1,1000}}{fraction}").fullmatch

    def convert(text: str) -> Value | None:
        if not as_json_has_it(text):
            text = text.strip()
            if not as_people_have_it(text):
                return None
            text = _LEADING_ZEROS.sub(r"\1", text).removeprefix("+")
        return orjson.Fragment(text)

    return convert


def _boolean(text: str) -> Value | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())


def _date(text: str) -> Value | None:
    """A date never shifts zone (protocol 1.4: `YYYY-MM-DD`)."""
    text = text.strip()
    try:
        return text if date.fromisoformat(text).isoformat() == text else None
    except ValueError:
        return None


def _datetime(text: str) -> Value | None:
    """A moment in UTC, to the second, so that every source gives the same text for the same moment."""
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            return None
        return f"{moment.astimezone(UTC).isoformat(timespec='seconds').removesuffix('+00:00')}Z"
    except (ValueError, OverflowError):
        return None


_CONVERT: Mapping[str, Callable[[str], Value | None]] = {
    "integer": _number(""),
    "score": _number(""),
    "percent": _number(_FRACTION),
    "float": _number(_FRACTION),
    "currency": _number(_FRACTION),
    "boolean": _boolean,
    "date": _date,
    "datetime": _datetime,
}
"""attrType or dataType → the value, None for one that does not fit; every other type is text."""
_DECISIVE = frozenset((*_CONVERT, "string", "text", "email", "phone", "url"))
"""The dataTypes that say what values look like; others (a formula, a reference, a word unknown) leave that to attrType."""


def mirror_row(lead: LeadRecord, dictionary: Dictionary) -> MirrorRow:
    """The mirror's form of `lead`. Values that don't fit their declared type become misfits; NUL, which Postgres refuses, is cut.

    A type is declared by describe's dataType (protocol 3.3) where that is decisive, else by the reply's attrType (1.4).
    """
    attributes: dict[str, Value] = {}
    misfits: dict[str, Value] = {}
    names, kinds = dictionary.names, dictionary.kinds
    for source_name, kind, text in lead.attributes:
        if "\0" in text:
            text = text.replace("\0", "")
        if not text:
            continue
        described = kinds.get(source_name)
        name, convert = names.get(source_name, source_name), _CONVERT.get(described if described in _DECISIVE else kind)
        value = text if convert is None else convert(text)
        if value is None:
            misfits[name] = text
        else:
            attributes[name] = value
    email = lead.email
    if email is not None and len(email) > LONGEST_EMAIL:
        misfits["email"], email = email, None
    attributes_json, misfits_json = _json(attributes), _json(misfits)
    digest = blake2b(b"\n".join((repr(email).encode(), attributes_json, misfits_json)), digest_size=12).hexdigest()
    return MirrorRow(lead.lead_id, email, attributes_json.decode(), misfits_json.decode(), digest)


def _json(values: Mapping[str, Value]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS)
