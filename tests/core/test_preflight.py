"""What Marketo would refuse or cut never gets through, what it takes always does, and what is mended fits."""

import re
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.drift import KnownField
from syncd.core.preflight import Preflight, Refusal
from syncd.core.settings import Mend


def field(name: str, data_type: str, length: int | None = None, *, read_only: bool = False, soap: str | None = None) -> KnownField:
    return KnownField(name, name, soap, name, data_type, length, read_only)


FIELDS = [
    field("id", "integer", read_only=True),
    field("email", "email", 30),
    field("firstName", "string", 10, soap="FirstName"),
    field("leadScore", "integer"),
    field("worth", "currency"),
    field("unsubscribed", "boolean"),
    field("born", "date"),
    field("seenAt", "datetime", soap="Last_Seen"),
    field("rating", "formula", read_only=True),
    replace(field("faxNumber", "string"), vanished=True),
    KnownField("Legacy", None, "Legacy", "Legacy", "string", 9, False),
    replace(field("named", "string"), data_type=None),
]
STRICT = Preflight(FIELDS, "email", Mend())
MENDING = Preflight(FIELDS, "email", Mend("mend", "round", "cut", "strip"))
KEY = "ada@example.com"


def sent(checks: Preflight = STRICT, key: str = KEY, **cells: str) -> dict[str, str] | str:
    judged = checks.judge(key, dict(cells))
    return judged.reason if isinstance(judged, Refusal) else judged


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("firstName", "Łukasz"),
        ("firstName", "x" * 10),
        ("leadScore", "-7"),
        ("leadScore", " 12345678901234567890123 "),
        ("worth", "1.50"),
        ("worth", "1e3"),
        ("unsubscribed", "false"),
        ("unsubscribed", "TRUE"),
        ("born", "2024-02-29"),
        ("seenAt", "2026-01-31T12:00:00Z"),
        ("seenAt", "2026-01-31 12:00:00.123+0100"),
        ("seenAt", "2026-01-31"),
        ("leadScore", ""),
        ("email", "ada@example.com"),
    ],
)
def test_what_fits_goes_as_it_is(name: str, value: str) -> None:
    cells = {name: value}
    assert STRICT.judge(KEY, cells) is cells
    assert MENDING.judge(KEY, cells) == cells


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("firstName", "x" * 11, "firstName has 11 characters: Marketo takes 10"),
        ("firstName", "hi \U0001f600", "outside the Basic Multilingual Plane"),
        ("leadScore", "1.5", "leadScore takes whole numbers only"),
        ("leadScore", "1.0", "leadScore takes whole numbers only"),
        ("leadScore", "many", "leadScore is no number"),
        ("leadScore", "٣", "leadScore is no number"),
        ("worth", "1,000", "worth is no number"),
        ("worth", ".", "worth is no number"),
        ("unsubscribed", "yes", "unsubscribed is no boolean"),
        ("born", "2023-02-29", "born is no date"),
        ("born", "29.02.2024", "born is no date"),
        ("seenAt", "2026-01-31T25:00:00Z", "seenAt is no time"),
        ("seenAt", "yesterday", "seenAt is no time"),
        ("email", "jürgen@example.com", "email has characters outside ASCII"),
        ("rating", "5", "rating is read-only in Marketo"),
        ("rating", "", "rating is read-only in Marketo"),
        ("firstname", "Ada", "describe spells firstname as firstName"),
        ("n" * 300, "x", "no field has a name as long as"),
    ],
)
def test_what_does_not_is_rejected_with_its_reason(name: str, value: str, reason: str) -> None:
    judged = STRICT.judge(KEY, {"leadScore": "1", name: value})
    assert isinstance(judged, Refusal)
    assert judged.lacks is None
    assert reason in judged.reason
    assert value == "" or len(value) < 3 or value not in judged.reason


def test_a_key_must_fit_and_is_never_mended() -> None:
    assert sent(MENDING, "jürgen@example.com", leadScore="1") == "email has characters outside ASCII"
    assert sent(MENDING, "a" * 31, leadScore="1") == "email has 31 characters: Marketo takes 30"
    by_id = Preflight(FIELDS, "id", Mend())
    assert sent(by_id, "7", leadScore="1") == {"leadScore": "1"}
    assert sent(by_id, "seven", leadScore="1") == "id is no number"
    assert sent(Preflight(FIELDS, "sfdcId", Mend()), "ü", leadScore="1") == {"leadScore": "1"}, "what describe does not list is not judged"


@pytest.mark.parametrize(
    ("name", "value", "mended"),
    [
        ("firstName", "x" * 11, "x" * 10),
        ("firstName", "a\U0001f600b", "ab"),
        ("firstName", "\U0001f600" + "x" * 10, "x" * 10),
        ("leadScore", "1.5", "2"),
        ("leadScore", "-0.4", "0"),
        ("leadScore", "12345678901234567890123.5", "12345678901234567890124"),
        ("leadScore", "1e3", "1000"),
    ],
)
def test_what_the_settings_say_is_mended(name: str, value: str, mended: str) -> None:
    assert sent(MENDING, **{name: value}) == {name: mended}


def test_a_value_of_which_nothing_would_be_left_is_rejected_for_it_would_clear_the_field() -> None:
    assert "nothing but characters outside" in str(sent(MENDING, firstName="\U0001f600 "))


def test_names_are_mended_but_for_doubt() -> None:
    assert MENDING.spelled(["FIRSTNAME", "leadScore", "nobody"]) == {"FIRSTNAME": "firstName"}
    assert MENDING.spelled(["firstname", "firstName"]) == {}
    assert MENDING.spelled(["firstname", "FIRSTNAME"]) == {}
    assert STRICT.spelled(["firstname"]) == {}
    twins = Preflight([field("a", "string"), field("A", "string"), field("bB", "string")], "email", Mend("mend"))
    assert twins.spelled(["BB"]) == {"BB": "bB"}
    assert twins.judge(KEY, {"a": "1", "A": "2"}) == {"a": "1", "A": "2"}


def test_an_unknown_field_is_asked_for_once_more_before_it_is_refused() -> None:
    unsure = STRICT.judge(KEY, {"fristName": "Ada"})
    assert unsure == Refusal("describe does not know the field fristName; did you mean firstName?", "fristName")
    assert STRICT.judge(KEY, {"fristName": "Ada"}, "fristName") == Refusal(unsure.reason)
    assert STRICT.judge(KEY, {"fristName": "Ada"}, "other") == unsure
    assert "did you mean seenAt?" in str(sent(Last_Seen="2026-01-01"))
    assert sent(Legacy="x") == "describe does not know the field Legacy"
    assert sent(named="x") == "describe does not know the field named"


def test_a_field_that_has_vanished_is_waited_for_however_often_it_was_asked_for() -> None:
    gone = Refusal("the field faxNumber has vanished from Marketo: it goes when the field is back", "faxNumber")
    assert STRICT.judge(KEY, {"faxNumber": "1"}) == gone
    assert STRICT.judge(KEY, {"faxNumber": "1"}, "faxNumber") == gone
    assert STRICT.judge(KEY, {"faxNumber": "1", "rating": "5"}) == Refusal("rating is read-only in Marketo")
    assert Preflight(FIELDS, "faxNumber", Mend()).judge("1", {"leadScore": "1"}) == gone


values = st.one_of(st.text(max_size=14), st.decimals(allow_nan=False, allow_infinity=False).map(str), st.integers().map(str))
known = st.sampled_from(["firstName", "leadScore", "worth", "unsubscribed"])


@given(st.dictionaries(known, values, min_size=1))
def test_whatever_is_sent_fits(cells: dict[str, str]) -> None:
    for checks in (STRICT, MENDING):
        judged = checks.judge(KEY, dict(cells))
        if isinstance(judged, Refusal):
            assert not any(len(value) > 2 and value in judged.reason for value in cells.values())
            continue
        assert list(judged) == list(cells)
        assert len(judged.get("firstName", "")) <= 10
        assert all(ord(letter) < 0x10000 for letter in judged.get("firstName", ""))
        assert re.fullmatch(r"\s*[+-]?[0-9]+\s*|", judged.get("leadScore", ""))
        assert all(bool(judged[name]) == bool(cells[name]) for name in cells), "only what was asked for clears a field"
        if checks is STRICT:
            assert judged == cells


@given(st.decimals(-(10**30), 10**30, places=3))
def test_decimals_are_rounded_half_up(number: Decimal) -> None:
    mended = sent(MENDING, leadScore=f"{number:f}")
    assert isinstance(mended, dict)
    assert Decimal(mended["leadScore"]) == number.to_integral_value(ROUND_HALF_UP)
