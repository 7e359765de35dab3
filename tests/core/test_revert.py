"""What a field had before our imports, edge by edge."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.core.drift import KnownField
from syncd.core.preflight import Preflight
from syncd.core.revert import Before, Found, Frame, Line, Reason, Sent, fields_of, revert
from syncd.core.rules import Rules
from syncd.core.settings import FieldRule, Mend, Push
from syncd.core.verify import Coverage, Sender

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
FIELDS = [
    KnownField(name, name, name, name, kind, length, name == "createdAt", name == "gone", None)
    for name, kind, length in (
        ("email", "email", 255),
        ("id", "integer", None),
        ("firstName", "string", 10),
        ("company", "string", 255),
        ("leadScore", "score", None),
        ("unsubscribed", "boolean", None),
        ("revenue", "currency", None),
        ("seenAt", "datetime", None),
        ("owner", "reference", None),
        ("unpulled", "string", 255),
        ("gone", "string", 255),
        ("createdAt", "datetime", None),
    )
]
PUSH = Push("contacts")
PULLED = frozenset(field.name for field in FIELDS) - {"unpulled", "id"}


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def frame(push: Push = PUSH, until: float = 600, fields: frozenset[str] | None = None, brought_to: float = 600, **more: Any) -> Frame:
    """A revert of what was sent from noon on, asked for when the pull has come so far."""
    senders = {
        each.name: Sender(each.lookup_field, Preflight(FIELDS, each.lookup_field, each.mend), Rules(each))
        for each in (push, Push("other"), Push("by id", lookup_field="id"))
    }
    coverage = Coverage({"people": PULLED}, {"people": at(brought_to)})
    return replace(Frame(push, NOON, at(until), fields, at(-600), senders, coverage), **more)


def change(number: int, sent: float, push: str = "contacts", state: str = "applied", place: int | None = None, **fields: Any) -> Sent:
    """Sent then, and settled a minute later."""
    return Sent(number, place or number, push, "a@x", json.dumps(fields), state, None, at(sent), at(sent + 1), at(sent))


def line(seen: float, old: Any, new: Any) -> Line:
    return Line(at(seen), None if old is None else json.dumps(old), None if new is None else json.dumps(new))


def found(lines: Sequence[Line] = (), name: str = "leadScore", first_seen: float = -900, asked: float = -900, **values: Any) -> Found:
    texts = {each: json.dumps(value) for each, value in values.items() if value is not None}
    return Found(7, texts, at(first_seen), at(asked), frozenset({"people"}), {name: lines})


def outcome(changes: Sequence[Sent], lead: Found | Reason, of: Frame | None = None, on_the_way: Sequence[str] = ()) -> Any:
    """Of the one field: the value to be put back and its place, or the reason why not."""
    before, left = revert(of or frame(), changes, lead, on_the_way)
    assert len(before) + len(left) <= 1
    for each in before.values():
        return each.place, None if each.value is None else json.loads(each.value)
    return next(iter(left.values()), None)


BAD = change(10, 5, leadScore=0)
CAME = line(8, 42, 0)


def test_what_the_mirror_saw_before_ours_came_is_put_back_in_the_place_of_ours() -> None:
    assert outcome([BAD], found([CAME], leadScore=0)) == (10, 42)


@pytest.mark.parametrize("state", ["warned", "unverified"])
def test_what_came_was_applied_whatever_marketo_said(state: str) -> None:
    assert outcome([replace(BAD, state=state)], found([CAME], leadScore=0)) == (10, 42)


def test_what_went_more_than_once_may_have_come_the_first_time() -> None:
    again = replace(BAD, sent_at=at(60), settled_at=at(61))
    assert outcome([again], found([CAME], leadScore=0)) == (10, 42)
    assert outcome([replace(again, first_at=at(60))], found([CAME], leadScore=0)) == "same"
    assert outcome([again], found(leadScore=0, first_seen=8)) == "created"


def test_nothing_before_is_cleared() -> None:
    assert outcome([BAD], found([line(8, None, 0)], leadScore=0)) == (10, None)


def test_what_was_cleared_comes_back() -> None:
    assert outcome([change(10, 5, firstName=None)], found([line(8, "Ada", None)], "firstName")) == (10, "Ada")
    assert outcome([change(10, 5, firstName="")], found([line(8, "Ada", None)], "firstName")) == (10, "Ada")


@pytest.mark.parametrize(
    ("name", "sent", "kept", "before"),
    [
        ("unsubscribed", "0", False, True),
        ("revenue", "12.50", 12.5, 99999999.25),
        ("leadScore", " 007", 7, 5),
        ("seenAt", "2026-03-02T13:00:00+01:00", "2026-03-02T12:00:00Z", "2020-01-01T00:00:00Z"),
        ("owner", 4711, "4711", "12"),
        ("firstName", "é", "é", "Zoë"),
    ],
)
def test_values_are_compared_in_marketos_form(name: str, sent: Any, kept: Any, before: Any) -> None:
    assert outcome([change(10, 5, **{name: sent})], found([line(8, before, kept)], name, **{name: kept})) == (10, before)


def test_all_digits_are_put_back() -> None:
    lead = found([Line(at(8), "12345678901234567890123", "0")], leadScore=0)
    before, _ = revert(frame(), [BAD], lead, ())
    assert fields_of(before) == [(10, '{"leadScore": 12345678901234567890123}')]


def test_of_several_of_ours_the_value_before_the_first_comes_back_in_the_place_of_the_last() -> None:
    several = [BAD, change(20, 15, leadScore=3), change(30, 25, leadScore=4)]
    assert outcome(several, found([CAME, line(18, 0, 3), line(28, 3, 4)], leadScore=4)) == (30, 42)
    assert outcome(several, found([line(28, 42, 4)], leadScore=4)) == (30, 42), "no pull has seen those between"


def test_a_value_that_somebody_set_between_two_of_ours_comes_back() -> None:
    lead = found([CAME, line(12, 0, 7), line(18, 7, 0)], leadScore=0)
    assert outcome([BAD, change(20, 15, leadScore=0)], lead) == (20, 7)


def test_what_somebody_set_since_stays() -> None:
    assert outcome([BAD], found([CAME, line(30, 0, 7)], leadScore=7)) == "changed"
    assert outcome([BAD], found([CAME, line(30, 0, 7), line(40, 7, 0)], leadScore=0)) == "changed", "it is theirs, though as ours was"
    assert outcome([BAD], found([CAME, line(30, 0, None)])) == "changed"
    assert outcome([BAD], found(leadScore=42)) == "changed", "ours never arrived, or was changed before a pull saw it"


def test_what_no_pull_has_seen_yet_is_not_judged() -> None:
    behind = frame(brought_to=5.5)
    assert outcome([BAD], found(leadScore=42), behind) == "not_seen"
    assert outcome([BAD], found(leadScore=42, asked=7), behind) == "changed", "a pull has asked for the lead since"
    assert outcome([BAD], found([CAME], leadScore=0), behind) == (10, 42), "it came before it was settled"


def test_what_was_so_before_needs_nothing() -> None:
    assert outcome([BAD], found(leadScore=0)) == "same"
    assert outcome([BAD], found([line(-3, 5, 0)], leadScore=0)) == "same"


def test_what_was_reverted_needs_nothing() -> None:
    revert_of_bad = change(50, 60, place=10, leadScore=42)
    assert outcome([BAD, revert_of_bad], found([CAME, line(63, 0, 42)], leadScore=42)) == "same"
    assert outcome([BAD, revert_of_bad], found([CAME], leadScore=0), frame(brought_to=60)) == "not_seen"


def test_a_revert_can_be_reverted() -> None:
    lead = found([line(-8, 42, 0), line(8, 0, 42)], leadScore=42)
    assert outcome([change(10, -10, leadScore=0), change(50, 5, place=10, leadScore=42)], lead) == (10, 0)


def test_another_change_of_ours_since_is_left() -> None:
    lead = found([CAME], leadScore=0)
    assert outcome([BAD, change(20, 15, "other", leadScore=0)], lead) == "set_since"
    assert outcome([BAD, change(9, 15, "other", leadScore=0)], lead) == "set_since", "it was made before, and went after"
    assert outcome([BAD, change(20, 15, "other", firstName="Ada")], lead) == (10, 42)
    assert outcome([BAD, change(20, 15, "removed", leadScore=0)], lead) == "set_since"
    assert outcome([BAD, change(20, 15, state="echo", leadScore=0)], lead, frame(until=10)) == "set_since"
    assert outcome([BAD, change(20, 15, leadScore=0)], lead, frame(until=10)) == "set_since", "what was sent at --until or after"


def test_our_own_repetition_is_reverted_with_it() -> None:
    lead = found([CAME], leadScore=0)
    assert outcome([BAD, change(20, 15, state="echo", leadScore=0)], lead) == (20, 42)
    assert outcome([BAD, change(20, 15, state="noop", leadScore=5)], lead) == (20, 42), "a claim takes it for a later change"
    assert outcome([change(20, 15, state="echo", leadScore=0)], lead) is None, "nothing was sent"


def test_a_change_of_ours_just_before_that_no_pull_has_seen_leaves_it_unclear() -> None:
    for other in (change(9, 3, "other", leadScore=5), change(9, -3, leadScore=5)):
        assert outcome([BAD, other], found([CAME], leadScore=0)) == "unclear"
        assert outcome([BAD, other], found([line(4, 42, 5), line(8, 5, 0)], leadScore=0)) == (10, 5)
        assert outcome([BAD, other], found([line(8, 5, 0)], leadScore=0)) == (10, 5)


def test_what_is_on_its_way_is_left() -> None:
    assert outcome([BAD], found([CAME], leadScore=0), on_the_way=["leadScore"]) == "on_the_way"
    assert outcome([BAD], found([CAME], leadScore=0), on_the_way=["firstName"]) == (10, 42)


def test_a_lead_that_came_after_the_import_had_nothing_before() -> None:
    assert outcome([BAD], found(leadScore=0, first_seen=8)) == "created"
    assert outcome([BAD, change(20, 15, leadScore=3)], found([line(18, 0, 3)], leadScore=3, first_seen=8)) == "created"


@pytest.mark.parametrize("reason", ["no_lead", "deleted", "several"])
def test_without_the_one_lead_there_is_nothing_to_put_back(reason: Reason) -> None:
    assert outcome([BAD], reason) == reason


def test_what_no_pull_brings_is_left() -> None:
    assert outcome([change(10, 5, unpulled="x")], found()) == "not_pulled"
    assert outcome([BAD], replace(found([CAME], leadScore=0), pulls=frozenset({"another"}))) == "not_pulled"


def test_what_was_sent_before_the_history_begins_is_left() -> None:
    assert outcome([BAD], found([CAME], leadScore=0), frame(history_from=at(6))) == "pruned"
    assert outcome([BAD, change(20, 15, leadScore=3)], found([line(18, 0, 3)], leadScore=3), frame(history_from=at(6))) == "pruned"


def test_values_that_are_no_longer_kept_are_left() -> None:
    erased = replace(BAD, fields="{}", erased=["leadScore", "email"])
    assert outcome([erased], found([CAME], leadScore=0)) == "erased"
    assert outcome([erased, change(20, 15, leadScore=3)], found([CAME, line(18, 0, 3)], leadScore=3)) == "erased"
    assert outcome([erased], found([CAME], leadScore=0), on_the_way=["leadScore"]) == "on_the_way"


@pytest.mark.parametrize(
    ("rule", "before"),
    [
        (FieldRule(only_set=True), None),
        (FieldRule(never=("5",)), 5),
        (FieldRule(owner="marketo"), 42),
    ],
)
def test_rules_hold_for_what_was_before(rule: FieldRule, before: Any) -> None:
    push = replace(PUSH, rules={"leadScore": rule})
    assert outcome([BAD], found([line(8, before, 0)], leadScore=0), frame(push)) == "ruled"


def test_what_a_rule_has_kept_back_was_not_sent() -> None:
    push = replace(PUSH, rules={"leadScore": FieldRule(never=("0",))})
    assert outcome([BAD], found([CAME], leadScore=0), frame(push)) is None


@pytest.mark.parametrize(("name", "before"), [("gone", "was"), ("createdAt", "2020-01-01T00:00:00Z"), ("firstName", "A very long name")])
def test_what_marketo_would_not_take_is_left(name: str, before: Any) -> None:
    sent: dict[str, Any] = {name: "is"}
    assert outcome([change(10, 5, **sent)], found([line(8, before, "is")], name, **sent)) == "unfit"


def test_what_this_push_cannot_clear_is_left() -> None:
    company, nothing = change(10, 5, company="X"), found([line(8, None, "X")], "company", company="X")
    assert outcome([company], nothing) == "unfit", "Sync Leads has no fields of companies"
    assert outcome([company], nothing, frame(replace(PUSH, clear_with="blank"))) == (10, None)
    assert outcome([BAD], found([line(8, None, 0)], leadScore=0), frame(replace(PUSH, list_id=7))) == "unfit"


def test_only_what_is_meant() -> None:
    both = change(10, 5, leadScore=0, firstName="X", email="a@x")
    lead = replace(found([CAME], leadScore=0, firstName="X"), lines={"leadScore": [CAME], "firstName": [line(8, "Ada", "X")]})
    assert revert(frame(), [both], lead, ()) == ({"leadScore": Before(10, "42"), "firstName": Before(10, '"Ada"')}, {})
    assert revert(frame(fields=frozenset({"firstName"})), [both], lead, ()) == ({"firstName": Before(10, '"Ada"')}, {})
    assert outcome([change(10, -5, leadScore=0)], found([line(-2, 42, 0)], leadScore=0)) is None, "it was sent before"


def test_names_are_mended_as_they_were_when_they_went() -> None:
    push = replace(PUSH, mend=Mend(spelling="mend", decimals="round"))
    assert outcome([change(10, 5, LEADSCORE="0.2")], found([CAME], leadScore=0), frame(push)) == (10, 42)


def test_a_change_has_one_place_and_none_clears_beside_company_fields() -> None:
    before = {"firstName": Before(10, '"Ada"'), "leadScore": Before(20, "1"), "company": Before(10, '"X"')}
    assert fields_of(before) == [(10, '{"firstName": "Ada", "company": "X"}'), (20, '{"leadScore": 1}')]
    assert fields_of(before | {"title": Before(10, None)}) == [
        (10, '{"firstName": "Ada", "title": null}'),
        (10, '{"company": "X"}'),
        (20, '{"leadScore": 1}'),
    ]
