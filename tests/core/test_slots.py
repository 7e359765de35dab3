"""How many jobs of ours belong in Marketo's queue, and when one that got no answer never came to exist."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.slots import is_absent, wanted_in_flight

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

gaps = st.timedeltas(timedelta(0), HOUR)


@given(slots=st.integers(1, 10), running=st.integers(1, 2), look_gap=gaps, quick=st.none() | gaps)
def test_never_more_than_the_slots_and_one_where_one_may_run(
    slots: int, running: int, look_gap: timedelta, quick: timedelta | None
) -> None:
    wanted = wanted_in_flight(slots, running, look_gap, quick)
    assert 1 <= wanted <= slots
    if running == 1:
        assert wanted == 1


@pytest.mark.parametrize(
    ("look_gap", "quick", "wanted"),
    [
        (30, None, 4),  # nothing is known: two running and two behind them
        (30, 600, 4),  # none ends between two looks
        (30, 30, 4),
        (30, 20, 5),  # three end between two looks
        (30, 10, 8),
        (30, 0, 10),
    ],
)
def test_as_many_wait_as_end_between_two_looks(look_gap: int, quick: int | None, wanted: int) -> None:
    quick_run = None if quick is None else timedelta(seconds=quick)
    assert wanted_in_flight(10, 2, timedelta(seconds=look_gap), quick_run) == wanted


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
