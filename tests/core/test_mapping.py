"""Which columns have a form that Marketo takes, and what the triggers are made by."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from syncd.core.mapping import ColumnType, Relation, Unmappable, layout_of
from syncd.core.settings import Constant, FromColumn, FromTable

RELATION = Relation(
    "crm.contact",
    {
        "id": ColumnType("bigint", "int8"),
        "email": ColumnType("crm.address", "text"),
        "seen_at": ColumnType("timestamp with time zone", "timestamptz"),
        "mood": ColumnType("crm.mood", "mood", True),
        "tags": ColumnType("text[]", "_text"),
        "raw": ColumnType("jsonb", "jsonb"),
    },
    [("id", "pg_catalog.int8")],
)


def source(key: str = "email", where: str | None = None, **fields: str) -> FromTable:
    return FromTable("crm.contact", key, {name: FromColumn(column) for name, column in fields.items()}, where)


def test_each_column_gets_its_form() -> None:
    layout = json.loads(layout_of(source(a="id", b="email", c="seen_at", d="mood"), RELATION).text)
    assert [(field["name"], field["form"]) for field in layout["fields"]] == [("a", "as_is"), ("b", "text"), ("c", "moment"), ("d", "text")]
    assert layout["key"] == {"column": "email", "form": "text"}
    assert layout["identity"] == [{"column": "id", "type": "pg_catalog.int8"}]


@pytest.mark.parametrize(
    ("base", "form"),
    [("bool", "as_is"), ("numeric", "as_is"), ("date", "as_is"), ("money", "money"), ("timestamp", "utc_moment"), ("uuid", "text")],
)
def test_forms(base: str, form: str) -> None:
    relation = Relation("t", {"email": ColumnType("text", "text"), "x": ColumnType(base, base)}, [])
    assert json.loads(layout_of(source(f="x"), relation).text)["fields"] == [{"name": "f", "column": "x", "form": form}]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Unmappable) as caught:
        layout_of(source("emial", a="tags", b="raw", c="nothing_like_it"), RELATION)
    assert str(caught.value).split("; ")[:2] == ['from.key: crm.contact has no column "emial"', 'did you mean "email"?']
    for part in (
        "fields.a: the column tags is text[], which",
        "fields.b: the column raw is jsonb, which",
        'fields.c: crm.contact has no column "nothing',
    ):
        assert part in str(caught.value)


def test_the_digest_is_of_what_matters() -> None:
    def digest(given: FromTable, relation: Relation = RELATION) -> str:
        return layout_of(given, relation).digest

    plain = digest(source(a="id", b="mood"))
    assert digest(source(b="mood", a="id")) == plain, "the order of fields does not"
    other_types = Relation("crm.contact", {**RELATION.columns, "mood": ColumnType("integer", "int4")}, RELATION.identity)
    others = [
        digest(source(a="id")),
        digest(source(a="mood", b="id")),
        digest(source(a="id", b="mood", where="true")),
        digest(source("id", a="id", b="mood")),
        digest(FromTable("crm.contact", "email", {"a": FromColumn("id"), "b": Constant("mood")})),
        digest(source(a="id", b="mood"), other_types),
        digest(replace(source(a="id", b="mood"), on_delete={"a": "1"})),
        digest(source(a="id", b="mood"), replace(RELATION, compared=True)),
    ]
    assert len({plain, *others}) == 9
    assert digest(replace(source(a="id", b="mood"), every=timedelta(hours=1))) == plain, "how often does not"


def test_a_view_has_no_triggers_and_its_rows_are_told_apart_by_the_key() -> None:
    layout = layout_of(source(a="id"), replace(RELATION, identity=(), compared=True))
    assert (layout.triggers, json.loads(layout.text)["identity"]) == (0, [{"column": "email", "type": "text"}])
    assert layout_of(source(a="id"), RELATION).triggers == 2
    assert layout_of(replace(source(a="id"), on_delete={"a": None}), RELATION).triggers == 3
