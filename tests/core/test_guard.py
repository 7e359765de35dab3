"""What a guard decides: how fast is too fast, how a canary stands, who would be created too many."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.guard import (
    HOUR,
    Arrival,
    Known,
    Surge,
    Waiting,
    bad_canary,
    beyond_room,
    canary_is_due,
    digest_of,
    guard_notes,
    may_go,
    not_of_a_surge,
    surge_from,
    verdict,
)
from syncd.core.settings import Constant, FromColumn, FromTable, Guard, Mend, Poll, Push

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
GOOD = Known("d", "good")


def test_a_statement_that_crosses_the_rate_is_a_surge_as_a_whole_and_what_came_before_is_none() -> None:
    arrivals = [Arrival(NOON - 5 * MINUTE, 300), Arrival(NOON, 1_000_000), Arrival(NOON + MINUTE, 1)]
    assert surge_from(arrivals, [], 20_000) == NOON
    assert surge_from(arrivals[:1], [], 300) is None
    assert surge_from(arrivals[:1], [], 299) == NOON - 5 * MINUTE


def test_what_has_gone_counts_for_an_hour() -> None:
    gone = [(NOON - 30 * MINUTE, 15_000)]
    assert surge_from([Arrival(NOON, 5_000)], gone, 20_000) is None
    assert surge_from([Arrival(NOON, 5_001)], gone, 20_000) == NOON
    assert surge_from([Arrival(NOON + 31 * MINUTE, 5_001)], gone, 20_000) is None
    assert surge_from([Arrival(NOON - 31 * MINUTE, 5_001)], gone, 20_000) is None, "it came before them"


def test_what_gathered_over_a_weekend_of_pause_is_no_surge() -> None:
    arrivals = [Arrival(NOON + n * HOUR, 15_000) for n in range(48)]
    assert surge_from(arrivals, [], 20_000) is None


moments = st.integers(0, 240).map(lambda n: NOON + n * MINUTE)
counts = st.lists(st.tuples(moments, st.integers(1, 40)), max_size=20).map(lambda each: sorted(dict(each).items()))


@given(counts, counts, st.integers(1, 100))
def test_the_surge_begins_where_any_hour_before_holds_more(
    waiting: list[tuple[datetime, int]], gone: list[tuple[datetime, int]], most: int
) -> None:
    def came(at: datetime) -> int:
        return sum(count for when, count in [*waiting, *gone] if at - HOUR < when <= at)

    expected = next((at for at, _ in waiting if came(at) > most), None)
    assert surge_from([Arrival(at, count) for at, count in waiting], gone, most) == expected


def test_the_canary_goes_alone() -> None:
    waiting = [Waiting(n, NOON) for n in (1, 2, 3)]
    assert may_go(Known("d", "under_way", canary_ids=(1, 3, 9)), waiting, None) == [1, 3]
    assert may_go(Known("d", "none"), waiting, None) == []
    assert may_go(Known("d", "bad"), waiting, None) == []
    assert may_go(GOOD, waiting, None) == [1, 2, 3]


def test_older_work_and_what_was_admitted_goes_on_beside_a_surge() -> None:
    old, part, late, admitted, after = (
        Waiting(1, NOON - HOUR),
        Waiting(2, NOON),
        Waiting(9, NOON + MINUTE),
        Waiting(3, NOON, True),
        Waiting(8, NOON - MINUTE),
    )
    waiting = [old, part, late, admitted, after]
    assert may_go(GOOD, waiting, NOON) == [1, 3, 8]
    held = replace(GOOD, surge=Surge(NOON, 0, 5))
    assert may_go(held, waiting, None) == [1, 9, 3, 8], "what came after the surge was seen is judged anew"
    assert not_of_a_surge(replace(held, canary="none"), waiting, NOON + MINUTE) == [1, 3, 8]


def test_when_a_canary_is_due() -> None:
    assert canary_is_due(Known("d"), False, NOON)
    assert not canary_is_due(GOOD, False, NOON)
    assert canary_is_due(GOOD, True, NOON)
    good = replace(GOOD, begun_at=NOON)
    assert not canary_is_due(good, True, NOON + HOUR - MINUTE), "one an hour: the next would be of the same surge"
    assert canary_is_due(good, True, NOON + HOUR)
    assert canary_is_due(good, True, NOON - MINUTE), "a clock set back"
    assert not canary_is_due(Known("d", "under_way"), True, NOON)
    assert not canary_is_due(Known("d", "bad"), True, NOON)


def test_how_a_canary_stands() -> None:
    most = Decimal("0.02")
    assert verdict(200, 150, 4, 0, most) == "under_way"
    assert verdict(200, 150, 5, 0, most) == "bad", "whatever becomes of the rest"
    assert verdict(200, 0, 4, 0, most) == "good"
    assert verdict(200, 0, 4, 50, most) == "bad", "four of those that were tried"
    assert verdict(200, 0, 0, 200, most) == "none", "nothing was tried"
    assert verdict(1, 0, 0, 0, most) == "good"
    assert verdict(100, 0, 29, 0, Decimal("0.29")) == "good", "by the very digits"
    assert verdict(3, 0, 3, 0, Decimal(1)) == "good"


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 300), st.decimals(0, 1, places=4))
def test_a_canary_that_is_bad_early_is_bad_in_the_end(size: int, failed: int, under_way: int, most: Decimal) -> None:
    failed, under_way = min(failed, size), min(under_way, size - min(failed, size))
    if verdict(size, under_way, failed, 0, most) == "bad":
        assert all(verdict(size, 0, failed + more, 0, most) == "bad" for more in range(under_way + 1))


def test_leads_beyond_the_room() -> None:
    unknown = [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "b"), (6, "d")]
    assert beyond_room(unknown, 2) == (frozenset({4, 6}), 2)
    assert beyond_room(unknown, 9) == (frozenset(), 4)
    assert beyond_room(unknown, -3) == (frozenset(range(1, 7)), 0)


def test_a_digest_is_of_what_a_push_does_to_leads() -> None:
    push = Push("contacts")
    same = [
        replace(push, flush_after=HOUR),
        replace(push, max_body_bytes=5_000),
        replace(push, poll=Poll(max=HOUR)),
        replace(push, guard=Guard(canary=7)),
        replace(push, name="others"),
    ]
    others = [
        replace(push, lookup_field="id"),
        replace(push, list_id=7),
        replace(push, partition="EU"),
        replace(push, clear_with="blank"),
        replace(push, mend=Mend(length="cut")),
        replace(push, format="tsv"),
    ]
    assert {digest_of(each) for each in same} == {digest_of(push)}
    assert len({digest_of(each) for each in [push, *others]}) == 7


def test_a_table_looked_at_more_often_or_told_in_another_order_is_the_same() -> None:
    mapped: dict[str, FromColumn | Constant] = {"firstName": FromColumn("first_name"), "leadSource": Constant("CRM")}
    push = Push("contacts", from_table=FromTable("crm.contact", "email", mapped, on_delete={"a": None, "b": "1"}))
    assert push.from_table is not None
    for same in (
        replace(push.from_table, every=HOUR),
        replace(push.from_table, fields=dict(reversed(mapped.items()))),
        replace(push.from_table, on_delete={"b": "1", "a": None}),
    ):
        assert digest_of(replace(push, from_table=same)) == digest_of(push)
    for other in (
        replace(push.from_table, where="consent"),
        replace(push.from_table, fields=mapped | {"leadSource": Constant("ERP")}),
        replace(push.from_table, on_delete={}),
    ):
        assert digest_of(replace(push, from_table=other)) != digest_of(push)


def test_a_bad_canary_is_told_in_numbers_with_the_most_frequent_reasons() -> None:
    failed = [("rejected", "b", 3), ("rejected", "a", 90), ("unverified", "c", 1), ("parked", "d", 2)]
    assert bad_canary(200, failed, 100, Decimal("0.02"), "syncd release") == (
        "of a canary of 100 changes 96 failed (parked 2, rejected 93, unverified 1), of which 2% may: "
        "90 times a; 3 times b; 2 times d. syncd release"
    )


def notes(known: Known | None, surge: tuple[datetime, int] | None = None, creating: int = 0, created: int = 0) -> list[str]:
    return guard_notes(Guard(canary=200, hold_above=1000, max_created=50), known, "d", surge, 5000, creating, created, NOON)


def test_a_plan_tells_what_the_guard_would_do() -> None:
    good = Known("d", "good", begun_at=NOON - 2 * HOUR)
    assert notes(good) == []
    (first,) = notes(None)
    assert first == "the guard would send 200 first, and hold the rest until these have ended well: of them 2% may fail"
    assert notes(replace(good, digest="another")) == [first], "its settings are others"
    assert notes(good, (NOON, 3000)) == [
        first,
        "the guard would then hold 3,000 at least, made since 2026-03-02 12:00:00Z: more than 1,000 came within an hour (hold_above)",
    ]
    assert len(notes(replace(good, begun_at=NOON), (NOON, 3000))) == 1, "a canary has gone within the hour"
    assert notes(good, creating=70, created=10) == ["the guard would hold what creates 30 of 70 leads: 50 a day may be (max_created)"]
    assert notes(good, creating=40, created=10) == []
    assert "is held" in notes(replace(good, canary="bad"))[0]
    assert "under way" in notes(replace(good, canary="under_way"))[0]
