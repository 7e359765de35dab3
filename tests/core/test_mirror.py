"""Values arrive in the mirror exactly as Marketo gave them, or among the misfits."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.mirror import Dictionary, MirrorRow, mirror_row
from syncd.core.values import Field, FieldName, LeadRecord

NO_NAMES = Dictionary({})


def row(*attributes: tuple[str, str, str], email: str | None = "a@x", names: Dictionary = NO_NAMES) -> MirrorRow:
    return mirror_row(LeadRecord(1, email, attributes), names)


def field(rest: str | None, soap: str | None, data_type: str = "string") -> Field:
    return Field("", data_type, None, FieldName(rest, False) if rest else None, FieldName(soap, False) if soap else None)


@pytest.mark.parametrize(
    ("type", "value", "json_text"),
    [
        ("integer", "12345678901234567890123", "12345678901234567890123"),
        ("integer", "-007", "-7"),
        ("integer", " 0 ", "0"),
        ("score", "+5", "5"),
        ("float", "1.10", "1.10"),
        ("currency", "000.50", "0.50"),
        ("percent", "1e-7", "1e-7"),
        ("boolean", "1", "true"),
        ("boolean", "FALSE", "false"),
        ("date", "2024-02-29", '"2024-02-29"'),
        ("datetime", "2013-08-06T15:45:00-07:00", '"2013-08-06T22:45:00Z"'),
        ("datetime", "2013-08-06T22:45:00.999Z", '"2013-08-06T22:45:00Z"'),
        ("datetime", " 2013-12-31 23:45:00-00:30 ", '"2014-01-01T00:15:00Z"'),
        ("datetime", "2013-12-31T23:45:00-00:30", '"2014-01-01T00:15:00Z"'),
        ("string", "00.5", '"00.5"'),
        ("string", ' "\\\n\u2028é😀', json.dumps(' "\\\n\u2028é😀', ensure_ascii=False)),
        ("whatever", "true", '"true"'),
        ("text", "a\0b", '"ab"'),
    ],
)
def test_a_value_is_kept_exactly(type: str, value: str, json_text: str) -> None:  # noqa: A002
    one = row(("f", type, value))
    assert (one.attributes, one.misfits) == (f'{{"f":{json_text}}}', "{}")


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("integer", "1.5"),
        ("integer", "٣"),
        ("integer", " "),
        ("float", "NaN"),
        ("float", ".5"),
        ("float", "1,5"),
        ("boolean", "yes"),
        ("date", "2023-02-29"),
        ("date", "2013-08-06T15:45:00Z"),
        ("datetime", "2013-08-06T15:45:00"),
        ("datetime", "2013-08-06"),
        ("datetime", "2013-02-29T15:45:00Z"),
        ("datetime", "2013-08-06T24:00:00Z"),
        ("datetime", "2013-W32-2T15:45:0Z"),
        ("datetime", "20130806T154500.00Z"),
        ("datetime", "2013-08-06_15:45:00Z"),
        ("datetime", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_a_value_that_does_not_fit_its_type_is_a_misfit(type: str, value: str) -> None:  # noqa: A002
    one = row(("f", type, value))
    assert (one.attributes, json.loads(one.misfits)) == ("{}", {"f": value})


@pytest.mark.parametrize("value", ["", "\0"])
def test_an_empty_value_is_none(value: str) -> None:
    assert row(("f", "string", value)).attributes == "{}"


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_any_number_stays_exact(number: Decimal) -> None:
    attributes = json.loads(row(("f", "float", str(number))).attributes, parse_int=Decimal, parse_float=Decimal)
    assert attributes["f"] == number


@given(st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.timezones()))  # noqa: DTZ001
def test_any_moment_is_kept_in_utc_to_the_second(moment: datetime) -> None:
    for written in (moment, moment.replace(microsecond=0)):
        (text,) = json.loads(row(("f", "datetime", written.isoformat())).attributes).values()
        assert text == moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


@given(st.dates())
def test_a_date_never_shifts(day: object) -> None:
    assert json.loads(row(("f", "date", str(day))).attributes) == {"f": str(day)}


@given(st.permutations([("b", "string", "1"), ("a", "integer", "2"), ("c", "float", "x")]))
def test_the_digest_does_not_depend_on_the_order_of_attributes(attributes: list[tuple[str, str, str]]) -> None:
    assert row(*attributes) == row(("a", "integer", "2"), ("b", "string", "1"), ("c", "float", "x"))


def test_the_digest_is_of_what_the_mirror_holds_alone() -> None:
    assert row(("a", "integer", "2"), email=None).digest == mirror_row(LeadRecord(7, None, [("a", "integer", "02")]), NO_NAMES).digest


def test_the_digest_tells_apart_what_differs() -> None:
    rows = [
        row(),
        row(email=None),
        row(email="None"),
        row(("a", "integer", "1")),
        row(("a", "string", "1")),
        row(("a", "integer", "x")),
        row(("a", "string", "x")),
        row(("b", "string", "x")),
    ]
    assert len({one.digest for one in rows}) == len(rows)


def test_fields_take_their_rest_names_where_they_have_one() -> None:
    names = Dictionary.of_soap([field("company", "Company"), field(None, "OnlySoap"), field("onlyRest", None)])
    attributes = row(("Company", "string", "x"), ("OnlySoap", "string", "y"), ("Unknown", "string", "z"), names=names).attributes
    assert json.loads(attributes) == {"company": "x", "OnlySoap": "y", "Unknown": "z"}


@pytest.mark.parametrize(
    ("described", "said", "json_text"),
    [
        ("integer", "string", "7"),
        ("string", "integer", '"07"'),
        ("text", "integer", '"07"'),
        ("email", "integer", '"07"'),
        ("phone", "integer", '"07"'),
        ("url", "integer", '"07"'),
        ("formula", "integer", "7"),
        ("reference", "integer", "7"),
        ("", "integer", "7"),
        ("what nobody knows", "integer", "7"),
        ("formula", "what nobody knows", '"07"'),
    ],
)
def test_describe_decides_on_a_type_where_it_knows_else_the_reply(described: str, said: str, json_text: str) -> None:
    names = Dictionary.of_soap([field("company", "Company", described)])
    assert row(("Company", said, "07"), names=names).attributes == f'{{"company":{json_text}}}'


def test_a_value_that_does_not_fit_what_describe_says_is_a_misfit() -> None:
    names = Dictionary.of_soap([field("score", "Score", "integer")])
    one = row(("Score", "string", "seven"), names=names)
    assert (one.attributes, one.misfits) == ("{}", '{"score":"seven"}')


def test_a_pull_owns_what_it_asks_for_as_long_as_describe_knows_it() -> None:
    names = Dictionary.of_soap([field("company", "Company"), field("title", "Title")])
    assert names.owned(["Company", "Vanished"]) == ["company"]
    assert NO_NAMES.owned(["Company"]) == ["Company"]


def test_a_pull_of_all_fields_owns_them_all() -> None:
    names = Dictionary.of_soap([field("company", "Company"), field("title", "Title")])
    assert names.owned([]) == ["company", "title"]
    assert NO_NAMES.owned([]) is None
