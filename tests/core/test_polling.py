"""Which job to look at next, and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.polling import (
    LAST_SHARE,
    STRAGGLER_SHARE,
    SWEEP,
    Finished,
    QueuedJob,
    affordable_gap,
    gap,
    median,
    next_looks,
    noticed_within,
    runs_of,
)
from syncd.core.settings import Poll

SECOND = timedelta(seconds=1)
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLL = Poll(timedelta(seconds=5), timedelta(seconds=30))
durations = st.timedeltas(timedelta(0), timedelta(hours=1))


def job(number: int, submitted: float = 0, looked: float | None = None) -> QueuedJob:
    looked_at = None if looked is None else NOW + timedelta(seconds=looked)
    return QueuedJob(number, NOW + timedelta(seconds=submitted), looked_at, POLL)


def running(number: int, since: float, looked: float) -> QueuedJob:
    return replace(job(number, since, looked), running_since=NOW + timedelta(seconds=since))


def due(*jobs: QueuedJob, typical: float | None = 20, free_since: float | None = None) -> list[tuple[float, int]]:
    looks = next_looks(jobs, 2, None if typical is None else SECOND * typical, None if free_since is None else NOW + SECOND * free_since)
    return [((at - NOW).total_seconds(), one.id) for at, one in looks]


@given(typical=st.none() | durations)
def test_the_gap_is_half_a_typical_run_within_the_bounds(typical: timedelta | None) -> None:
    found = gap(POLL, typical)
    assert POLL.min <= found <= POLL.max
    assert found in (POLL.min, POLL.max) or (typical is not None and found == typical / 2)
    assert found <= noticed_within(POLL, typical) <= max(POLL.max, SWEEP)


def test_only_the_heads_are_looked_at_and_the_rest_swept() -> None:
    assert due(running(1, 0, 0), running(2, 0, 1), job(3)) == [(10, 1), (11, 2), (300, 3)]


def test_a_job_that_becomes_a_head_after_a_long_wait_is_due_at_once() -> None:
    assert due(job(1, submitted=-200)) == [(-180, 1)]
    assert due(job(1, submitted=-200), free_since=-5) == [(15, 1)], "it began 5 seconds ago at the most"


def test_behind_a_head_that_waits_for_strangers_nothing_is_looked_at() -> None:
    waiting = replace(job(1, looked=0), waits=True)
    assert due(waiting, job(2)) == [(20, 1), (300, 2)]


def test_a_straggler_is_looked_at_ever_more_rarely_and_less_so_when_nothing_waits_behind_it() -> None:
    late = running(1, 0, 1200)
    assert (1200 + 1200 / STRAGGLER_SHARE, 1) in due(late, job(2), job(3))
    assert (1200 + 1200 / LAST_SHARE, 1) in due(late)
    assert (50, 1) in due(running(1, 0, 40 - 0.5), typical=21), "not before it has taken twice a typical run"


@given(
    st.lists(st.tuples(st.integers(-99, 0), st.none() | st.integers(-99, 0), st.booleans()), max_size=8),
    st.integers(1, 2),
    st.none() | durations,
    st.none() | st.integers(-99, 0),
)
def test_every_job_is_looked_at_some_time_soonest_first(
    jobs: list[tuple[int, int | None, bool]], workers: int, typical: timedelta | None, free_since: int | None
) -> None:
    queue = [replace(job(number, submitted, looked), waits=waits) for number, (submitted, looked, waits) in enumerate(jobs)]
    looks = next_looks(queue, workers, typical, None if free_since is None else NOW + SECOND * free_since)
    assert sorted(one.id for _, one in looks) == list(range(len(jobs)))
    assert [at for at, _ in looks] == sorted(at for at, _ in looks)
    assert all(at <= (one.looked_at or one.submitted_at) + SWEEP for at, one in looks)


@given(left=st.integers(-10, 30_000), fewer=st.integers(0, 30_000), hours=st.floats(0, 25))
def test_the_fewer_calls_are_left_the_wider_the_gap_and_half_of_them_suffice(left: int, fewer: int, hours: float) -> None:
    reset = timedelta(hours=hours)
    found = affordable_gap(left, reset, 2)
    assert found <= affordable_gap(left - fewer, reset, 2) <= SWEEP
    if timedelta() < found < SWEEP:
        assert 2 * reset / (found + timedelta.resolution) <= left / 2 + 1  # it is rounded


def test_a_short_quota_stands_above_the_bounds_of_a_push() -> None:
    assert gap(POLL, SECOND * 20, least=SECOND * 90) == SECOND * 90


def test_a_run_begins_when_a_worker_is_free_for_it() -> None:
    def ended(submitted: float, finished: float, started: float | None = None) -> Finished:
        return Finished(NOW + SECOND * submitted, None if started is None else NOW + SECOND * started, NOW + SECOND * finished)

    seen = [ended(0, 10), ended(0, 40), ended(0, 45), ended(50, 60), ended(0, 200, started=190)]
    assert [run.total_seconds() for run in runs_of(seen, 2)] == [10, 40, 35, 10, 40]


@pytest.mark.parametrize(("seconds", "middle"), [([], None), ([3], 3), ([9, 1, 5], 5), ([1, 2, 3, 100], 3)])
def test_the_median(seconds: list[int], middle: int | None) -> None:
    expected = None if middle is None else timedelta(seconds=middle)
    assert median(timedelta(seconds=second) for second in seconds) == expected
