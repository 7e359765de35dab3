"""Which leads a pull selects, which of their fields it asks for, what it calls them, and which leads it keeps."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from syncd.config import Problem
from syncd.core.settings import Keys, KeyType, Pull, Select, SmartList, StaticList, UpdatedSince

from .conftest import Load, Problems, document

PULL = "instances.acme.pulls.people."
SOURCE = "instances.acme.pulls.people.source"
SELECT = PULL + "select"
FIELDS = PULL + "fields"
WHERE = PULL + "where"
FOUR = "needs exactly one of updated_since, static_list, static_list_id, smart_list, smart_list_id and keys"
SINCE = {"updated_since": "2016-01-01"}


def pull(loaded: Load, changes: dict[str, Any]) -> Pull:
    return loaded(document(changes)).instances[0].pulls[0]


def told(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.path, problem.message) for problem in problems]


def line_of(text: str, part: str) -> int:
    (line,) = (number for number, line in enumerate(text.splitlines(), 1) if part in line)
    return line


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"updated_since": "2016-01-01T02:00:00+02:00"}, UpdatedSince(datetime(2016, 1, 1, tzinfo=UTC))),
        ({"updated_since": "beginning"}, UpdatedSince(datetime(2006, 1, 1, tzinfo=UTC))),
        ({"static_list": "Events.Guests 2026"}, StaticList("Events.Guests 2026")),
        ({"static_list_id": 1}, StaticList(1)),
        ({"static_list_id": "1001"}, StaticList(1001)),
        ({"static_list_id": 1001, "updated_since": None, "static_list": None, "keys": None}, StaticList(1001)),
        ({"keys": {"type": "IDNUM", "values": [7, 8]}}, Keys("IDNUM", ("7", "8"))),
        ({"keys": {"type": "IDNUM", "values": ["7"], "file": None}}, Keys("IDNUM", ("7",))),
    ],
)
def test_select(select: dict[str, Any], expected: Select, loaded: Load) -> None:
    assert pull(loaded, {SELECT: select}).select == expected


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"updated_since": None},
        {"updated_since": "2016-01-01", "static_list": "Program.List"},
        {"static_list": "Program.List", "static_list_id": 1001},
        {"updated_since": "beginning", "static_list": "P.L", "static_list_id": 1, "keys": {"type": "IDNUM", "values": [1]}},
    ],
)
def test_exactly_one_kind_of_leads(select: dict[str, Any], problems: Problems) -> None:
    text = document({SELECT: select})
    found = problems(text)
    assert told(found) == [(SELECT, FOUR)]
    assert found[0].line == line_of(text, "select:")


def test_a_select_without_a_kind_is_told_beside_what_is_in_it(problems: Problems) -> None:
    text = document({SELECT: {"static_list": "List", "static_list_id": 0}})
    assert sorted(told(problems(text))) == [
        (SELECT, FOUR),
        (
            SELECT + ".static_list",
            "List is not allowed; a list's name is written ProgramName.ListName; its id goes under static_list_id",
        ),
        (SELECT + ".static_list_id", "0 is not allowed; a whole number, 1 or more"),
    ]


def test_another_kind_than_in_defaults(loaded: Load, problems: Problems) -> None:
    defaults = {"pulls": {"people": {"select": SINCE}}}
    merged = problems(document({"defaults": defaults, SELECT: {"static_list_id": 5}}))
    assert told(merged) == [(SELECT, FOUR)]
    assert pull(loaded, {"defaults": defaults, SELECT: {"static_list_id": 5, "updated_since": None}}).select == StaticList(5)


def test_an_unknown_kind(problems: Problems) -> None:
    assert told(problems(document({SELECT: {**SINCE, "statik_list": "P.L"}}))) == [
        (SELECT + ".statik_list", 'unknown key "statik_list"; did you mean "static_list"?')
    ]


@pytest.mark.parametrize(
    ("source", "select", "able"),
    [
        ("soap", {"smart_list": "Customers"}, "bulk_extract or auto"),
        ("soap", {"smart_list_id": 7}, "bulk_extract or auto"),
        ("activities", {"static_list": "P.L"}, "soap or bulk_extract or auto"),
        ("activities", {"smart_list_id": 7}, "bulk_extract or auto"),
        ("activities", {"keys": {"type": "IDNUM", "values": [1]}}, "soap"),
        ("bulk_extract", {"keys": {"type": "IDNUM", "values": [1]}}, "soap"),
        ("auto", {"keys": {"type": "IDNUM", "values": [1]}}, "soap"),
    ],
)
def test_what_a_source_cannot_select_by(source: str, select: dict[str, Any], able: str, problems: Problems) -> None:
    (key,) = select
    found = problems(document({SELECT: select, SOURCE: source}))
    assert told(found) == [(f"{SELECT}.{key}", f"is not known to {source}: use source: {able}")]


@pytest.mark.parametrize("source", ["bulk_extract", "auto"])
@pytest.mark.parametrize(
    ("select", "expected"), [({"smart_list": "Customers"}, SmartList("Customers")), ({"smart_list_id": 7}, SmartList(7))]
)
def test_smart_lists(source: str, select: dict[str, Any], expected: SmartList, loaded: Load) -> None:
    assert pull(loaded, {SELECT: select, SOURCE: source}).select == expected


@pytest.mark.parametrize(("source", "needed"), [("soap", "soap"), ("bulk_extract", "rest"), ("activities", "rest"), ("auto", "rest")])
def test_a_source_needs_its_interface(source: str, needed: str, problems: Problems) -> None:
    found = problems(document({SOURCE: source, "instances.acme.pushes": {}}, without=f"instances.acme.{needed}"))
    assert told(found) == [(SOURCE, f"{source} needs instances.acme.{needed}, which is missing")]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("static_list", 1001, "1001 is not allowed; a list's name is written ProgramName.ListName; its id goes under static_list_id"),
        ("static_list", ["P.L"], "a list is not allowed; a list's name"),
        ("static_list", "P.\tL\x01", "P.\\tL\\x01 is not allowed; a text without control characters"),
        ("static_list_id", "Program.List", "Program.List is not allowed; a whole number, 1 or more"),
        ("static_list_id", 1.5, "1.5 is not allowed; a whole number, 1 or more"),
        ("keys", "a@example.com", "needs a mapping (key: value), not a text; {} is one without keys"),
    ],
)
def test_refused_selects(key: str, value: Any, message: str, problems: Problems) -> None:
    assert told(problems(document({SELECT: {key: value}}))) == [(f"{SELECT}.{key}", message)]


@pytest.mark.parametrize("kind", get_args(KeyType))
def test_types_of_keys(kind: KeyType, loaded: Load) -> None:
    assert pull(loaded, {SELECT: {"keys": {"type": kind, "values": ["a"]}}}).select == Keys(kind, ("a",))


@pytest.mark.parametrize(("kind", "shown"), [("PHONE", "PHONE"), ("email", "email"), (None, "null"), (["EMAIL"], "a list")])
def test_another_type_of_keys(kind: Any, shown: str, problems: Problems) -> None:
    known = "IDNUM, COOKIE, EMAIL, LEADOWNEREMAIL, SFDCACCOUNTID, SFDCCONTACTID, SFDCLEADID, SFDCLEADOWNERID or SFDCOPPTYID"
    found = problems(document({SELECT: {"keys": {"type": kind, "values": ["a"]}}}))
    assert told(found) == [(SELECT + ".keys.type", f"{shown} is not allowed; {known}")]


def test_keys_need_a_type(problems: Problems) -> None:
    assert told(problems(document({SELECT: {"keys": {"values": ["a"]}}}))) == [(SELECT + ".keys.type", "is missing")]


def test_keys_are_stripped_and_taken_once_in_their_order(loaded: Load) -> None:
    values = [" b@example.com", "a@example.com\t", "b@example.com", "B@example.com", "a@example.com"]
    selected = pull(loaded, {SELECT: {"keys": {"type": "EMAIL", "values": values}}}).select
    assert selected == Keys("EMAIL", ("b@example.com", "a@example.com", "B@example.com"))


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        ([], "", "needs at least one key"),
        ("a@example.com", "", "needs a list of keys"),
        ({"a@example.com": 1}, "", "needs a list of keys"),
        (["a", ""], "[1]", '"" is not allowed; a text that is not empty'),
        ([" \t", "a"], "[0]", " \\t is not allowed; a text that is not empty"),
        (["a", None], "[1]", "null is not allowed; a text"),
        (["a", ["b@example.com"]], "[1]", "a list is not allowed; a text"),
        (["a@example.com\0"], "[0]", "the value is not allowed; a text without control characters"),
    ],
)
def test_refused_keys(values: Any, path: str, message: str, problems: Problems) -> None:
    text = document({SELECT: {"keys": {"type": "EMAIL", "values": values}}})
    assert told(problems(text)) == [(f"{SELECT}.keys.values{path}", message)]


@pytest.mark.parametrize("keys", [{}, {"values": None}, {"values": ["1"], "file": "keys.txt"}])
def test_exactly_one_source_of_keys(keys: dict[str, Any], problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("1\n")
    text = document({SELECT: {"keys": {"type": "IDNUM", **keys}}})
    found = problems(text)
    assert told(found) == [(SELECT + ".keys", "needs exactly one of values and file")]
    assert found[0].line == line_of(text, "keys:")


def test_a_file_of_keys_is_relative_to_the_yaml_and_read_later(loaded: Load, tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"  # it may come later
    assert pull(loaded, {SELECT: {"keys": {"type": "IDNUM", "file": "keys.txt"}}}).select == Keys("IDNUM", file=file)
    assert pull(loaded, {SELECT: {"keys": {"type": "IDNUM", "file": str(file)}}}).select == Keys("IDNUM", file=file)


@pytest.mark.parametrize("content", [b"", b"\xe9\n"])
def test_what_is_in_a_file_of_keys_is_not_the_configuration_s(content: bytes, loaded: Load, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes(content)
    loaded(document({SELECT: {"keys": {"type": "EMAIL", "file": "keys.txt"}}}))
    loaded(document({SELECT: {"keys": {"type": "EMAIL", "file": "."}}}))


@pytest.mark.parametrize(
    ("name", "allowed"), [("", "a text that is not empty"), ("nul\0", "a text without control characters"), ([], "a path")]
)
def test_a_file_of_keys_is_a_path(name: Any, allowed: str, problems: Problems) -> None:
    (problem,) = problems(document({SELECT: {"keys": {"type": "IDNUM", "file": name}}}))
    assert problem.path == SELECT + ".keys.file"
    assert problem.message.endswith(f" is not allowed; {allowed}")


def test_keys_are_in_no_repr(loaded: Load) -> None:
    assert "a@example.com" not in repr(loaded(document({SELECT: {"keys": {"type": "EMAIL", "values": ["a@example.com"]}}})))


def test_what_has_no_meaning_for_a_list_is_let_through(loaded: Load) -> None:
    changes = {SELECT: {"static_list_id": 1}, PULL + "window": "1d", PULL + "overlap": "1m", PULL + "margin": "2m", PULL + "streams": 2}
    made = pull(loaded, changes)
    assert (made.window, made.overlap, made.margin, made.streams) == (timedelta(days=1), timedelta(minutes=1), timedelta(minutes=2), 2)


def test_fields_by_their_columns(loaded: Load) -> None:
    made = pull(loaded, {FIELDS: {"score": "LeadScore", "first_name": "FirstName", "no": "No"}})
    assert sorted(made.fields) == ["FirstName", "LeadScore", "No"]
    assert made.columns == {"LeadScore": "score", "FirstName": "first_name", "No": "no"}


def test_fields_keep_the_order_in_which_they_are_written(loaded: Load) -> None:
    text = document({FIELDS: "MARK"}).replace("MARK", "{z: Zulu, a: Alpha, m: Mike}")
    assert loaded(text).instances[0].pulls[0].fields == ("Zulu", "Alpha", "Mike")


@pytest.mark.parametrize("fields", [["LeadScore"], [], {}])
def test_fields_without_columns(fields: Any, loaded: Load) -> None:
    made = pull(loaded, {FIELDS: fields})
    assert (made.fields, made.columns) == (tuple(fields), {})


@pytest.mark.parametrize("column", ["lead_id", "email", "first_seen_at", "changed_at", "deleted_at", "merged_into"])
def test_columns_that_the_view_has_of_its_own(column: str, problems: Problems) -> None:
    text = document({FIELDS: {"score": "LeadScore", column: "Email"}})
    found = problems(text)
    message = "the view has lead_id, email, first_seen_at, changed_at, deleted_at, merged_into of its own"
    assert told(found) == [(f"{FIELDS}.{column}", f"{column} is not allowed; {message}")]
    assert found[0].line == line_of(text, f" {column}: Email")


@pytest.mark.parametrize("column", ["FirstName", "1st", "first-name", "", "é", "a" * 64])
def test_columns_are_names(column: str, problems: Problems) -> None:
    (problem,) = problems(document({FIELDS: {column: "FirstName"}}))
    assert problem.path.startswith(FIELDS)
    assert problem.message.endswith(" is not allowed; a name is 1 to 63 of a-z, 0-9 and _, beginning with a letter")


@pytest.mark.parametrize(
    ("field", "message"),
    [("", '"" is not allowed; a text that is not empty'), (None, "null is not allowed; a text"), (["A"], "a list is not allowed; a text")],
)
def test_fields_of_columns_are_texts(field: Any, message: str, problems: Problems) -> None:
    assert told(problems(document({FIELDS: {"a": field, "b": "B"}}))) == [(FIELDS + ".a", message)]


TWO_PULLS = """\
database: {dsn: postgresql://localhost/syncd}
instances:
  acme:
    soap: {endpoint: https://soap.example.com, user_id: u, encryption_key: k}
    pulls:
      people:
        source: soap
        select: {updated_since: beginning}
        fields:
          first_name: FirstName
          score: LeadScore
      guests:
        source: soap
        select: {static_list: Events.Guests}
        fields:
          company: Company
          score: LeadScore
"""


def test_two_pulls_may_agree(loaded: Load) -> None:
    people, guests = loaded(TWO_PULLS).instances[0].pulls
    assert people.columns == {"FirstName": "first_name", "LeadScore": "score"}
    assert guests.columns == {"Company": "company", "LeadScore": "score"}
    beside = TWO_PULLS.replace("        fields:\n          company: Company\n          score: LeadScore\n", "        fields: [LeadScore]\n")
    assert loaded(beside).instances[0].pulls[1].columns == {}


def test_one_field_under_two_columns(problems: Problems) -> None:
    (again,) = problems(TWO_PULLS.replace("company: Company", "firstname: FirstName"))
    assert (again.line, again.path) == (16, "instances.acme.pulls.guests.fields.firstname")
    assert again.message == "FirstName is already the column first_name, on line 10"
    (within,) = problems(
        TWO_PULLS.replace("score: LeadScore\n      guests", "score: FirstName\n      guests").replace("score: Lead", "s: Lead")
    )
    assert (within.line, within.path) == (11, "instances.acme.pulls.people.fields.score")
    assert within.message == "FirstName is already the column first_name, on line 10"


def test_one_column_for_two_fields(problems: Problems) -> None:
    (problem,) = problems(TWO_PULLS.replace("company: Company", "first_name: Company"))
    assert (problem.line, problem.path) == (16, "instances.acme.pulls.guests.fields.first_name")
    assert problem.message == "first_name is already the column of FirstName, on line 10"


def test_columns_crossed(problems: Problems) -> None:
    found = problems(TWO_PULLS.replace("company: Company", "first_name: LeadScore").replace("          score: LeadScore\n", "", 1))
    assert [(problem.line, problem.message) for problem in found] == [
        (15, "first_name is already the column of FirstName, on line 10"),
        (16, "LeadScore is already the column first_name, on line 15"),
    ]


def test_instances_name_columns_apart(loaded: Load) -> None:
    content = yaml.safe_load(TWO_PULLS)
    content["instances"]["other"] = yaml.safe_load(TWO_PULLS.replace("FirstName", "Vorname"))["instances"]["acme"]
    assert [instance.pulls[0].columns["LeadScore"] for instance in loaded(yaml.safe_dump(content)).instances] == ["score", "score"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, {}),
        (None, {}),
        ({"Country": "DE"}, {"Country": ("DE",)}),
        ({"Country": ["DE", "AT", "DE"]}, {"Country": ("DE", "AT")}),
        ({"Country": ["NO", ""], "Unsubscribed": False}, {"Country": ("NO", ""), "Unsubscribed": ("false",)}),
        ({"Country": ""}, {"Country": ("",)}),
        ({"Country": None}, {"Country": ("",)}),
        ({"Country": ["DE", None, ""]}, {"Country": ("DE", "")}),
        ({"LeadScore": [10, 20.5]}, {"LeadScore": ("10", "20.5")}),
    ],
)
def test_where(where: Any, expected: dict[str, tuple[str, ...]], loaded: Load) -> None:
    made = pull(loaded, {WHERE: where})
    assert (made.where, made.fields) == (expected, ())  # all fields come anyway


def test_where_takes_the_texts_that_are_written(loaded: Load) -> None:
    text = document({WHERE: "MARK"}).replace("MARK", "{Country: [NO, 'true', 007], Unsubscribed: false}")
    assert loaded(text).instances[0].pulls[0].where == {"Country": ("NO", "true", "007"), "Unsubscribed": ("false",)}


def test_a_field_of_where_is_asked_for_too(loaded: Load) -> None:
    made = pull(loaded, {FIELDS: ["FirstName", "Country"], WHERE: {"Country": "DE", "Unsubscribed": "false"}})
    assert made.fields == ("FirstName", "Country", "Unsubscribed")
    made = pull(loaded, {FIELDS: {"score": "LeadScore"}, WHERE: {"Country": "DE"}})
    assert (made.fields, made.columns) == (("LeadScore", "Country"), {"LeadScore": "score"})


def test_id_and_email_come_without_being_asked_for(loaded: Load) -> None:
    made = pull(loaded, {FIELDS: ["FirstName"], WHERE: {"Email": "a@example.com", "Id": 7, "Country": "DE"}})
    assert made.fields == ("FirstName", "Country")


@pytest.mark.parametrize(
    ("values", "path", "message"),
    [
        (["DE", ["AT"]], "[1]", "a list is not allowed; a text"),
        (["DE", {}], "[1]", "a mapping is not allowed; a text"),
        (["DE", "A\x01"], "[1]", "A\\x01 is not allowed; a text without control characters"),
    ],
)
def test_refused_values_of_where(values: Any, path: str, message: str, problems: Problems) -> None:
    assert told(problems(document({WHERE: {"Country": values}}))) == [(f"{WHERE}.Country{path}", message)]


def test_a_field_of_where_has_a_name(problems: Problems) -> None:
    text = document({WHERE: {" ": "DE"}})
    found = problems(text)
    assert told(found) == [(WHERE + ". ", "  is not allowed; a text that is not empty")]
    assert found[0].line == line_of(text, ": DE")


def test_where_in_defaults(loaded: Load) -> None:
    defaults = {"pulls": {"people": {"where": {"Country": "DE", "Unsubscribed": "false"}}}}
    assert pull(loaded, {"defaults": defaults, WHERE: {"Country": "AT"}}).where == {"Country": ("AT",), "Unsubscribed": ("false",)}
    assert pull(loaded, {"defaults": defaults, WHERE: None}).where == {}
