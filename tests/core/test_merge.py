"""An echo is known for what it is, whatever form its values have; everything else is sent."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from syncd.core.merge import Mirror, Mirrored
from syncd.core.pending import PendingChange

KINDS = {
    "name": "string",
    "score": "integer",
    "worth": "currency",
    "out": "boolean",
    "born": "date",
    "seen": "datetime",
    "rating": "formula",
}
ALL = frozenset(KINDS)


def mirror(pulls: tuple[str, ...] = ("people",), owned: dict[str, frozenset[str]] | None = None, **values: Any) -> Mirror:
    lead = Mirrored("a@x", 1, datetime(2026, 1, 1, tzinfo=UTC), pulls, values)
    return Mirror([lead], {"people": ALL} if owned is None else owned, KINDS)


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("name", "Ada", "Ada"),
        ("score", "7", Decimal(7)),
        ("score", "007", Decimal(7)),
        ("score", "12345678901234567890123", Decimal(12345678901234567890123)),
        ("worth", "1.50", Decimal("1.5")),
        ("out", "false", False),
        ("out", "1", True),
        ("born", "1815-12-10", "1815-12-10"),
        ("seen", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"),
        ("name", "", None),
        ("name", None, None),
    ],
)
def test_equal_values_are_equal_in_any_form(name: str, cell: str | None, value: Any) -> None:
    assert mirror(**{name: value}).has("a@x", {name: cell})


@pytest.mark.parametrize(
    ("name", "cell", "value"),
    [
        ("name", "Ada", "ada"),
        ("name", "7", Decimal(7)),
        ("name", "Ada", None),
        ("name", "", "Ada"),
        ("score", "0", None),
        ("score", "", Decimal(0)),
        ("score", "1", True),
        ("out", "1", Decimal(1)),
        ("out", "false", None),
        ("worth", "1.51", Decimal("1.5")),
        ("seen", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z"),
        ("rating", "5", "5"),
    ],
)
def test_different_ones_are_sent(name: str, cell: str, value: Any) -> None:
    assert not mirror(**{name: value}).has("a@x", {name: cell})


def test_only_what_was_asked_for_is_known() -> None:
    assert not mirror(name="Ada").has("b@x", {"name": "Ada"})
    assert not mirror(name="Ada").has("a@x", {"name": "Ada", "score": ""}), "not looked up"
    assert not mirror(owned={"people": frozenset({"score"})}, name=None).has("a@x", {"name": ""})
    assert not mirror(owned={}, name="Ada").has("a@x", {"name": "Ada"}), "a pull of before"
    assert not mirror(pulls=(), name="Ada").has("a@x", {"name": "Ada"})


def test_of_several_pulls_the_last_to_ask_may_have_been_any() -> None:
    owned = {"people": ALL, "scores": frozenset({"score"})}
    both = mirror(("people", "scores"), owned, name="Ada", score=Decimal(7))
    assert both.has("a@x", {"score": "7"})
    assert not both.has("a@x", {"score": "7", "name": "Ada"})


def change(number: int, fields: str, place: int | None = None) -> PendingChange:
    return PendingChange(number, "a@x", "a@x", fields, place=place)


def test_the_changes_of_a_key_are_looked_at_together() -> None:
    ours = mirror(name="Ada", score=Decimal(7))
    assert ours.candidates([change(2, '{"name": "Ada"}', 2), change(1, '{"name": "Bob", "score": 7}', 1)], "email")
    assert not ours.candidates([change(2, '{"name": "Ada"}', 2), change(1, '{"score": 8}', 1)], "email")
    assert not ours.candidates([change(2, '{"name": "Bob"}', 2), change(1, '{"name": "Ada"}', 1)], "email")
    assert ours.candidates([change(1, '{"email": "A@x", "name": "Ada"}')], "email")
    assert not ours.candidates([change(1, '{"name": ' + "[" * 100_000 + "]" * 100_000 + "}")], "email")
    assert ours.only([]).leads == {}
