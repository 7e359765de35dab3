"""How many jobs of ours belong in Marketo's queue, what strangers leave to us, and when one that got no answer never came to exist."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.slots import GROW_AFTER, PROBE_AT_MOST_AFTER, Room, is_absent, wanted_in_flight

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

gaps = st.timedeltas(timedelta(0), HOUR)


@given(slots=st.integers(1, 10), running=st.integers(1, 2), look_gap=gaps, runs=st.lists(gaps, max_size=25))
def test_never_more_than_the_slots_and_one_where_one_may_run(slots: int, running: int, look_gap: timedelta, runs: list[timedelta]) -> None:
    wanted = wanted_in_flight(slots, running, look_gap, runs)
    assert 1 <= wanted <= slots
    if running == 1:
        assert wanted == 1


@pytest.mark.parametrize(
    ("look_gap", "runs", "wanted"),
    [
        (30, [], 4),  # nothing is known: two running and two behind them
        (30, [600, 600], 4),  # none ends between two looks
        (30, [600, 20, 600], 4),  # one does
        (30, [600, 20, 20, 20, 600], 6),  # two workers end three between two looks
        (30, [20, 600, 20, 600, 20], 4),  # short ones apart fill no gap together
        (30, [0] * 25, 10),
    ],
)
def test_as_many_wait_as_have_ended_between_two_looks_and_one_more(look_gap: int, runs: list[int], wanted: int) -> None:
    assert wanted_in_flight(10, 2, look_gap * SECOND, [run * SECOND for run in runs]) == wanted


def test_a_refusal_gives_way_and_probes_ever_more_rarely() -> None:
    room, waits = Room(), []
    for _ in range(5):
        room = room.refused(in_flight=5, running=2, now=NOW, jitter=0.5)
        assert room.not_before is not None
        waits.append(room.not_before - NOW)
    assert waits == [5 * SECOND, 10 * SECOND, 20 * SECOND, PROBE_AT_MOST_AFTER, PROBE_AT_MOST_AFTER]
    assert (room.limit, room.probing) == (4, True)
    assert not room.accepted().probing
    assert room.free(wanted=8, in_flight=3) == 1


def test_what_is_held_beside_strangers_grows_one_by_one_and_at_once_when_they_have_left() -> None:
    room = Room().refused(in_flight=3, running=2, now=NOW, jitter=0.5).accepted()
    assert room.looked(6, 2, ours_running=1, running=2, now=NOW + GROW_AFTER - SECOND).limit == 2
    grown = room.looked(6, 2, ours_running=1, running=2, now=NOW + GROW_AFTER)
    assert (grown.limit, grown.grow_at) == (3, NOW + 2 * GROW_AFTER)
    assert room.looked(6, 2, ours_running=2, running=2, now=NOW).limit == 4, "the workers would idle next"
    assert room.looked(2, 2, ours_running=1, running=2, now=NOW) == Room(), "there is room for all that is wanted"
    again = grown.refused(in_flight=3, running=2, now=NOW, jitter=0.5)
    assert again.grow_at == NOW + 2 * GROW_AFTER, "that was in vain: later the next time"


@given(st.lists(st.tuples(st.sampled_from(["refused", "accepted", "looked"]), st.integers(0, 10), st.integers(0, 2)), max_size=30))
def test_whatever_is_answered_as_many_may_be_ours_as_marketo_works_on(answers: list[tuple[str, int, int]]) -> None:
    """Less would leave a worker idle when strangers have left; and no wait is longer than a probe's."""
    room = Room()
    for second, (answer, in_flight, running) in enumerate(answers):
        now = NOW + second * MINUTE
        if answer == "refused":
            room = room.refused(in_flight, 2, now, 0.999)
            assert room.not_before is not None
            assert room.not_before - now <= 1.25 * PROBE_AT_MOST_AFTER
        else:
            room = room.accepted() if answer == "accepted" else room.looked(6, in_flight, running, 2, now)
        assert room.free(wanted=6, in_flight=0) >= 2
        assert room.free(wanted=6, in_flight=0) <= 6


@pytest.mark.parametrize(
    ("submitted", "later_finished", "longest", "absent"),
    [
        (HOUR, None, MINUTE, False),
        (6 * HOUR, None, MINUTE, True),
        (6 * HOUR - MINUTE, None, MINUTE, False),
        (HOUR, MINUTE, MINUTE, True),
        (HOUR, MINUTE, 2 * MINUTE, False),
        (7 * HOUR, MINUTE, 2 * MINUTE, True),
    ],
)
def test_absence_is_known_by_a_later_job_or_by_time(
    submitted: timedelta, later_finished: timedelta | None, longest: timedelta, absent: bool
) -> None:
    later_finished_at = None if later_finished is None else NOW - later_finished
    assert is_absent(NOW - submitted, later_finished_at, longest, NOW, 6 * HOUR) is absent
