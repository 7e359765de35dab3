"""Rules keep back what must not be sent, and say why when nothing is left."""

import pytest

from syncd.core.pack import Packing, pack
from syncd.core.pending import PendingChange, Target
from syncd.core.rules import ALL_DROPPED, DELETED, NO_LEAD, SEVERAL, UNKNOWN, Known, Rules, Stopped
from syncd.core.settings import ClearWith, FieldRule, Push

RULES = {
    "unsubscribed": FieldRule(never=("false",)),
    "leadSource": FieldRule(only_set=True),
    "title": FieldRule(owner="marketo"),
    "leadScore": FieldRule(never=("7", "8"), only_set=True),
}
PUSH = Push("contacts", rules=RULES)


def left(known: Known = UNKNOWN, push: Push = PUSH, **cells: str | None) -> dict[str, str | None] | Stopped:
    return Rules(push).apply(cells, known)


def test_without_rules_all_is_sent() -> None:
    assert left(push=Push("contacts"), unsubscribed="false", leadSource=None) == {"unsubscribed": "false", "leadSource": None}


@pytest.mark.parametrize("spelt", ["false", "False", " FALSE ", "0"])
def test_an_unsubscribed_lead_is_never_subscribed_again_however_that_is_spelt(spelt: str) -> None:
    assert left(unsubscribed=spelt, lastName="L") == {"lastName": "L"}
    assert left(unsubscribed=spelt) == ALL_DROPPED


def test_other_values_pass() -> None:
    assert left(unsubscribed="true", leadScore="9") == {"unsubscribed": "true", "leadScore": "9"}
    assert left(unsubscribed=None) == {"unsubscribed": None}, "to clear is not to send that value"
    assert left(leadScore="7") == ALL_DROPPED


def test_a_field_is_set_and_never_cleared() -> None:
    assert left(leadSource="Web") == {"leadSource": "Web"}
    assert left(leadSource=None, lastName=None) == {"lastName": None}


def test_a_field_of_marketo_is_only_filled_where_it_is_empty() -> None:
    assert left(title="CEO") == {"title": "CEO"}
    assert left(Known(has=frozenset({"title"})), title="CEO", lastName="L") == {"lastName": "L"}
    assert left(Known(has=frozenset({"title"})), title=None) == ALL_DROPPED
    assert left(Known(has=frozenset({"lastName"})), lastName="L") == {"lastName": "L"}, "which is ours"


def test_a_deleted_lead_is_not_brought_back_unless_that_is_wanted() -> None:
    assert left(Known(deleted=True), lastName="L") == DELETED
    assert left(Known(deleted=True), Push("contacts", deleted_in_marketo="recreate"), lastName="L") == {"lastName": "L"}


def test_a_push_that_may_only_update_needs_the_one_lead() -> None:
    push = Push("contacts", mode="update_only", rules=RULES)
    assert left(push=push, lastName="L") == NO_LEAD
    assert left(Known(lead_id=7, several=True), push, lastName="L") == SEVERAL
    assert left(Known(lead_id=7), push, lastName="L", unsubscribed="false") == {"lastName": "L"}
    assert left(Known(deleted=True), push, lastName="L") == DELETED


def test_a_lead_that_may_only_be_updated_is_named_by_its_id() -> None:
    rules = Rules(Push("contacts", mode="update_only"))
    known = {"a": Known(lead_id=7), "b": Known(lead_id=8, several=True)}
    target = Target("email", "csv", 1_000_000, 200, rules=rules, known=known, ids={"a": 7, "b": 8})
    fields = '{"lastName": "L"}'
    packing = pack([PendingChange(number, key, key, fields) for number, key in enumerate("abc", 1)], {}, (), target)
    (chunk,) = packing.chunks
    assert (chunk.header, chunk.columns, lines(packing)) == ("id,lastName\n", ("id", "lastName"), ["7,L\n"])
    assert packing.ended == [(2, "rejected", SEVERAL.reason), (3, "noop", NO_LEAD.reason)]
    packing = pack([PendingChange(1, "a", "a", '{"lastName": null}')], {}, (), target)
    assert lines(packing) == ['{"id":7,"lastName":null}']


def packed(*changes: tuple[str, str], known: dict[str, Known] | None = None, clear_with: ClearWith = "sync") -> Packing:
    target = Target("email", "csv", 1_000_000, 200, clear_with, rules=Rules(PUSH), known=known or {})
    return pack([PendingChange(number, key, key, fields) for number, (key, fields) in enumerate(changes, 1)], {}, (), target)


def lines(packing: Packing) -> list[str]:
    rows = [row for chunk in packing.chunks for row in chunk.rows] + [row for batch in packing.batches for row in batch.rows]
    return [row.line for row in rows]


def test_a_change_of_which_nothing_is_left_ends_as_noop() -> None:
    packing = packed(("a", '{"unsubscribed": false}'), ("b", '{"unsubscribed": false, "lastName": "B"}'), ("c", '{"lastName": "C"}'))
    assert packing.ended == [(1, "noop", ALL_DROPPED.reason)]
    assert lines(packing) == ["b,B\n", "c,C\n"]
    packing = packed(("a", '{"lastName": "A"}'), known={"a": Known(deleted=True)})
    assert packing.ended == [(1, "noop", DELETED.reason)]


def test_a_clear_that_a_rule_keeps_back_does_not_take_the_value_of_before_with_it() -> None:
    packing = packed(("a", '{"leadSource": "Web"}'), ("a", '{"leadSource": null, "lastName": "A"}'))
    assert packing.ended == []
    assert lines(packing) == ["a,A,Web\n"]


@pytest.mark.parametrize("clear_with", ["sync", "blank", "NULL"])
def test_a_clear_is_known_however_it_is_sent(clear_with: ClearWith) -> None:
    packing = packed(("a", '{"leadSource": ""}'), clear_with=clear_with)
    assert packing.ended == [(1, "noop", ALL_DROPPED.reason)]


def test_a_clear_that_is_kept_back_parks_nothing() -> None:
    target = Target("email", "csv", 1_000_000, 200, list_id=7, rules=Rules(PUSH))
    packing = pack([PendingChange(1, "a", "a", '{"leadSource": null, "lastName": "A"}')], {}, (), target)
    assert packing.parked == []
    assert lines(packing) == ["a,A\n"]
