"""`pushes.NAME.guard` and `hours`: what may be written, and what is said about the rest."""

from datetime import time
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from syncd.config.values import NotAllowed, hours, per_day, per_hour, share
from syncd.core.settings import Guard, Hours
from tests.config.conftest import Load, Problems, document

PUSH = "instances.acme.pushes.contacts"


def test_a_guard_and_hours(loaded: Load) -> None:
    guard = {"canary": 50, "canary_max_failures": "0.5%", "hold_above": "1000/h", "max_created": "5000/d"}
    text = document({PUSH: {"guard": guard, "hours": "20:00-06:00 America/Chicago"}})
    (push,) = loaded(text).instances[0].pushes
    assert push.guard == Guard(50, Decimal("0.005"), 1000, 5000)
    assert push.hours == Hours(time(20), time(6), ZoneInfo("America/Chicago"))


def test_without_a_guard_there_is_none_and_an_empty_one_has_the_defaults(loaded: Load) -> None:
    for written, expected in (({}, None), ({"guard": None, "hours": None}, None), ({"guard": {}}, Guard())):
        (push,) = loaded(document({PUSH: written})).instances[0].pushes
        assert (push.guard, push.hours) == (expected, None)
    (push,) = loaded(document({PUSH: {"guard": {"hold_above": None}}})).instances[0].pushes
    assert push.guard == Guard(hold_above=None)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("canary", "0", "between 1 and 10,000"),
        ("canary_max_failures", "2", "a share is written like 2% or 0.5%, from 0% to 100%"),
        ("canary_max_failures", "101%", "from 0% to 100%"),
        ("hold_above", "20000", "a rate an hour is written like 20000/h"),
        ("hold_above", "20000/d", "a rate an hour is written like 20000/h"),
        ("max_created", "0/d", "between 1 and 1,000,000,000"),
    ],
)
def test_what_is_no_guard(problems: Problems, key: str, value: str, expected: str) -> None:
    (problem,) = problems(document({f"{PUSH}.guard": {key: value}}))
    assert expected in str(problem)
    assert f"guard.{key}" in str(problem)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("20-06 UTC", "hours are written like"),
        ("20:00-06:00", "hours are written like"),
        ("24:00-06:00 UTC", "hours are written like"),
        ("06:00-06:00 UTC", "are none"),
        ("20:00-06:00 America/Chicgo", "its time zone is not known"),
        ("20:00-06:00 ../etc/passwd", "its time zone is not known"),
    ],
)
def test_what_are_no_hours(problems: Problems, written: str, expected: str) -> None:
    (problem,) = problems(document({f"{PUSH}.hours": written}))
    assert expected in str(problem)


def test_who_would_be_created_is_told_by_a_mirror_and_by_address(problems: Problems) -> None:
    guard = {"guard": {"max_created": "5000/d"}}
    (problem,) = problems(document({PUSH: {**guard, "lookup_field": "crmId"}}))
    assert "needs lookup_field: email" in str(problem)
    (problem,) = problems(document({PUSH: guard, "instances.acme.pulls": {}}))
    assert "needs a pull" in str(problem)


def test_values() -> None:
    assert (share("2%"), share("0%"), share("100 %"), share("0.25%")) == tuple(map(Decimal, ("0.02", "0", "1", "0.0025")))
    assert (per_hour("20_000/h"), per_day("5000 / d")) == (20_000, 5_000)
    assert hours(" 6:30 - 18:00  Europe/Berlin ") == Hours(time(6, 30), time(18), ZoneInfo("Europe/Berlin"))
    for read, text in ((share, "-2%"), (share, "2.00001%"), (per_hour, "-1/h"), (per_day, "/d"), (hours, "")):
        with pytest.raises(NotAllowed):
            read(text)
