"""A push from a table: what the YAML may say of it."""

from datetime import timedelta
from typing import Any

import pytest

from syncd.core.settings import Constant, FromColumn, FromTable

from .conftest import Load, Problems, document

PUSH = "instances.acme.pushes.contacts"
TABLE = {"table": "crm.contact", "key": "email"}


def lines(text: str, part: str) -> list[int]:
    return [number for number, line in enumerate(text.splitlines(), 1) if part in line]


def test_a_table_and_its_fields(loaded: Load) -> None:
    fields = {"firstName": "first_name", "unsubscribed": {"column": "opt_out"}, "source": {"const": "CRM"}}
    source = {**TABLE, "where": "consent\n AND score > 0"}
    (push,) = loaded(document({f"{PUSH}.from": source, f"{PUSH}.fields": fields})).instances[0].pushes
    assert push.from_table == FromTable(
        "crm.contact",
        "email",
        {"firstName": FromColumn("first_name"), "unsubscribed": FromColumn("opt_out"), "source": Constant("CRM")},
        "consent\n AND score > 0",
    )


@pytest.mark.parametrize("changes", [{}, {f"{PUSH}.from": "outbox"}])
def test_the_outbox_is_the_default(loaded: Load, changes: dict[str, Any]) -> None:
    (push,) = loaded(document(changes)).instances[0].pushes
    assert push.from_table is None


def test_where_may_be_null(loaded: Load) -> None:
    (push,) = loaded(document({f"{PUSH}.from": {**TABLE, "where": None}, f"{PUSH}.fields": {"firstName": "a"}})).instances[0].pushes
    assert push.from_table is not None
    assert push.from_table.where is None


def test_how_often_a_view_is_compared_and_what_rows_that_go_leave(loaded: Load) -> None:
    source = {**TABLE, "every": "1h", "on_delete": {"active": "false", "phone": None}}
    fields = {"active": {"const": "true"}, "phone": "phone"}
    (push,) = loaded(document({f"{PUSH}.from": source, f"{PUSH}.fields": fields})).instances[0].pushes
    assert push.from_table is not None
    assert (push.from_table.every, push.from_table.on_delete) == (timedelta(hours=1), {"active": "false", "phone": None})
    (push,) = loaded(document({f"{PUSH}.from": TABLE, f"{PUSH}.fields": fields})).instances[0].pushes
    assert push.from_table is not None
    assert (push.from_table.every, push.from_table.on_delete) == (timedelta(minutes=15), {})


def test_on_delete_sets_fields_that_a_row_which_comes_back_sets_again(problems: Problems) -> None:
    source = {**TABLE, "on_delete": {"unsubscribed": "true"}}
    (problem,) = problems(document({f"{PUSH}.from": source, f"{PUSH}.fields": {"firstName": "a"}}))
    assert problem.path == f"{PUSH}.from.on_delete.unsubscribed"
    assert problem.message == "is not among the push's fields: a row that comes back could not set it again"


@pytest.mark.parametrize(
    ("source", "fields", "path", "message"),
    [
        ("tables", None, "from", "tables is not allowed; outbox, or a mapping such as {table: crm.contact, key: email}"),
        (None, None, "from", "null is not allowed; outbox, or a mapping"),
        ({"table": "crm.contact"}, {"a": "b"}, "from.key", "is missing"),
        ({"key": "email"}, {"a": "b"}, "from.table", "is missing"),
        ({**TABLE, "were": "x"}, {"a": "b"}, "from.were", 'unknown key "were"; did you mean "where"?'),
        ({**TABLE, "table": ""}, {"a": "b"}, "from.table", '"" is not allowed; a text that is not empty'),
        ({**TABLE, "where": ["a"]}, {"a": "b"}, "from.where", "a list is not allowed; an SQL condition or null"),
        ({**TABLE, "every": "5s"}, {"a": "b"}, "from.every", "5s is not allowed; between 10s and 365d"),
        ({**TABLE, "on_delete": "clear"}, {"a": "b"}, "from.on_delete", "needs a mapping (key: value)"),
        (TABLE, None, "fields", "needs at least one field and its column, such as {firstName: first_name}"),
        (TABLE, {}, "fields", "needs at least one field and its column, such as {firstName: first_name}"),
        (TABLE, {"a": None}, "fields.a", "needs a column, or a mapping such as {column: opt_out} or {const: CRM}"),
        (TABLE, {"a": {}}, "fields.a", "needs exactly one of column and const"),
        (TABLE, {"a": {"column": "a", "const": "b"}}, "fields.a", "needs exactly one of column and const"),
        (TABLE, {"a": {"colum": "a"}}, "fields.a.colum", 'unknown key "colum"; did you mean "column"?'),
        (TABLE, {"email": "mail"}, "fields.email", "is the push's lookup_field, which from.key fills: leave it out"),
        (None, {"a": "b"}, "from", "null is not allowed; outbox"),
        ("outbox", {"a": "b"}, "fields", "goes with from: {table: …} only; rows of the outbox bring their own fields"),
    ],
)
def test_what_is_refused(problems: Problems, source: Any, fields: Any, path: str, message: str) -> None:
    text = document({f"{PUSH}.from": source, **({f"{PUSH}.fields": fields} if fields is not None else {})})
    found = [problem for problem in problems(text) if problem.path == f"{PUSH}.{path}"]
    assert [problem.message.startswith(message) for problem in found] == [True], problems(text)
    key = "from" if message == "is missing" else path.rpartition(".")[2]
    assert found[0].line in (lines(text, f" {key}:") or lines(text, " from:"))


def test_fields_without_from_are_refused(problems: Problems) -> None:
    (problem,) = problems(document({f"{PUSH}.fields": {"a": "b"}}))
    assert problem.message == "goes with from: {table: …} only; rows of the outbox bring their own fields"


def test_another_lookup_field_may_not_be_mapped_either(problems: Problems, loaded: Load) -> None:
    source = {f"{PUSH}.from": TABLE, f"{PUSH}.lookup_field": "crmId"}
    assert "from.key fills" in problems(document({**source, f"{PUSH}.fields": {"crmId": "id"}}))[0].message
    loaded(document({**source, f"{PUSH}.fields": {"email": "mail"}}))
