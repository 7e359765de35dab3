"""Which job to look at next, and when."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.polling import SWEEP, QueuedJob, gap, median, next_looks
from syncd.core.settings import Poll

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLL = Poll(timedelta(seconds=5), timedelta(seconds=30))
durations = st.timedeltas(timedelta(0), timedelta(hours=1))


def job(number: int, submitted: float = 0, looked: float | None = None) -> QueuedJob:
    looked_at = None if looked is None else NOW + timedelta(seconds=looked)
    return QueuedJob(number, NOW + timedelta(seconds=submitted), looked_at, POLL)


@given(typical=st.none() | durations)
def test_the_gap_is_half_a_typical_run_within_the_bounds(typical: timedelta | None) -> None:
    found = gap(POLL, typical)
    assert POLL.min <= found <= POLL.max
    assert found in (POLL.min, POLL.max) or (typical is not None and found == typical / 2)


def test_only_the_heads_are_looked_at_and_the_rest_swept() -> None:
    looks = next_looks([job(3), job(1), job(2)], running=2, typical_run=timedelta(seconds=20))
    ten = timedelta(seconds=10)
    assert [(at, one.id) for at, one in looks] == [(NOW + ten, 1), (NOW + ten, 2), (NOW + SWEEP, 3)]


def test_a_job_that_becomes_a_head_after_a_long_wait_is_due_at_once() -> None:
    ((at, one), *_) = next_looks([job(2, looked=-1), job(1, submitted=-300)], running=2, typical_run=timedelta(seconds=20))
    assert (one.id, at < NOW) == (1, True)


@given(st.lists(st.tuples(st.integers(-99, 0), st.none() | st.integers(-99, 0)), max_size=8), st.integers(1, 2), st.none() | durations)
def test_every_job_is_looked_at_some_time_soonest_first(
    jobs: list[tuple[int, int | None]], running: int, typical: timedelta | None
) -> None:
    looks = next_looks([job(number, *times) for number, times in enumerate(jobs)], running, typical)
    assert sorted(one.id for _, one in looks) == list(range(len(jobs)))
    assert [at for at, _ in looks] == sorted(at for at, _ in looks)
    assert all(at <= (one.looked_at or one.submitted_at) + SWEEP for at, one in looks)


@pytest.mark.parametrize(("seconds", "middle"), [([], None), ([3], 3), ([9, 1, 5], 5), ([1, 2, 3, 100], 3)])
def test_the_median(seconds: list[int], middle: int | None) -> None:
    expected = None if middle is None else timedelta(seconds=middle)
    assert median(timedelta(seconds=second) for second in seconds) == expected
