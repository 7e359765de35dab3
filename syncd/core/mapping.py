"""How a table's columns become Marketo's fields: which types have a form there, and the layout that the triggers are made by.

The SQL of it is made in the database (0006_attach.sql), which quotes every name.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from syncd.core.settings import FromColumn, FromTable

MADE_BY: Final = 1
"""Raised when triggers come to be made otherwise, so that those of before are told to be attached again."""

_AS_IS = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "numeric", "date"})
_FORMS: Final = {"money": "money", "timestamptz": "moment", "timestamp": "utc_moment"}
_TEXTS = frozenset({"text", "varchar", "bpchar", "char", "name", "citext", "uuid", "time", "timetz"})


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A column's type as people write it, and that which it comes down to where it is a domain."""

    shown: str
    base: str
    is_enum: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """A table: its quoted name with its schema, its columns, and the columns and their types by which its rows are told apart.

    One that is `compared` is a view, or a foreign table: it has no triggers, and its rows are told apart by the push's key.
    """

    name: str
    columns: Mapping[str, ColumnType]
    identity: Sequence[tuple[str, str]]
    compared: bool = False


class Unmappable(Exception):  # noqa: N818 - of the configuration or the table, not a mistake of ours
    """Columns that can't be sent; the message says which, one after the other, and what to do."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What triggers are made by, and views compared by, as JSON, and its digest, by which it is known again."""

    text: str
    digest: str
    triggers: int = 2


def layout_of(source: FromTable, relation: Relation) -> Layout:
    """The mapping of the configuration laid upon the table. Raises Unmappable."""
    problems: list[str] = []
    key = _column("from.key", source.key, relation, problems)
    fields: list[dict[str, Any]] = []
    for name, origin in sorted(source.fields.items()):
        if isinstance(origin, FromColumn):
            fields.append({"name": name, **_column(f"fields.{name}", origin.column, relation, problems)})
        else:
            fields.append({"name": name, "const": origin.text})
    if problems:
        raise Unmappable("; ".join(problems))
    if relation.compared:
        identity = [{"column": source.key, "type": "text"}]
    else:
        identity = [{"column": column, "type": type_} for column, type_ in relation.identity]
    made = {"made_by": MADE_BY, "relation": relation.name, "identity": identity, "key": key, "where": source.where, "fields": fields}
    if source.on_delete:
        made["on_delete"] = dict(sorted(source.on_delete.items()))
    text = json.dumps(made, ensure_ascii=False, sort_keys=True)
    triggers = 0 if relation.compared else 3 if source.on_delete else 2
    return Layout(text, hashlib.sha256(text.encode()).hexdigest(), triggers)


def _column(place: str, column: str, relation: Relation, problems: list[str]) -> dict[str, str]:
    found = relation.columns.get(column)
    if found is None:
        near = difflib.get_close_matches(column, relation.columns, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(relation.columns)}"
        problems.append(f'{place}: {relation.name} has no column "{column}"; {hint}')
        return {}
    form = _form(found)
    if form is None:
        problems.append(
            f"{place}: the column {column} is {found.shown}, which no field of Marketo takes: map a column with one value as a text, "
            "number, boolean, date or time, which a generated column can hold"
        )
        return {}
    return {"column": column, "form": form}


def _form(type_: ColumnType) -> str | None:
    if type_.base in _AS_IS:
        return "as_is"
    return "text" if type_.is_enum or type_.base in _TEXTS else _FORMS.get(type_.base)
