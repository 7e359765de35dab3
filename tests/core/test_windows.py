"""Windows cover a span of update time without a gap, and never ask for more than Marketo allows."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.windows import SECOND, Window, floor_second, halves, increment, plan

MOST = timedelta(days=30)  # protocol 1.3, fault 20022

moments = st.datetimes(datetime(2016, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
days = st.integers(-5, 120).map(lambda days: timedelta(days=days))
odd = st.timedeltas(timedelta(0), timedelta(days=1))


@given(starts_at=moments, span=days, more=odd, widest=st.timedeltas(timedelta(hours=6), timedelta(days=400)))
def test_a_plan_is_whole_ordered_and_never_asks_for_over_30_days(
    starts_at: datetime, span: timedelta, more: timedelta, widest: timedelta
) -> None:
    ends_at = starts_at + span + more
    windows = list(plan(starts_at, ends_at, widest))
    first, last = floor_second(starts_at), floor_second(ends_at)
    assert bool(windows) == (first < last)
    if windows:
        assert (windows[0].starts_at, windows[-1].ends_at) == (first, last)
    for one, two in pairwise(windows):
        assert one.ends_at == two.starts_at
    for window in windows:
        oldest, latest = window.asked()
        assert SECOND <= window.ends_at - window.starts_at <= widest
        assert latest - oldest <= MOST
        assert not window.starts_at.microsecond
        assert not window.ends_at.microsecond


@given(starts_at=moments, span=st.integers(1, 300))
def test_a_width_below_a_second_is_taken_as_a_second(starts_at: datetime, span: int) -> None:
    assert len(list(plan(starts_at, starts_at + span * SECOND, timedelta(milliseconds=3)))) == span


def test_neighbours_ask_for_the_second_they_meet_in_whichever_end_is_inclusive() -> None:
    start = datetime(2026, 3, 8, tzinfo=UTC)
    one, two = plan(start, start + 2 * SECOND, SECOND)
    assert two.asked()[0] < one.asked()[1] == two.starts_at


@given(planned=moments, later=st.timedeltas(timedelta(days=-3), timedelta(days=60)), overlap=odd, margin=odd)
def test_an_increment_goes_on_where_the_plan_ends_and_waits_when_a_clock_stepped_back(
    planned: datetime, later: timedelta, overlap: timedelta, margin: timedelta
) -> None:
    planned, now = floor_second(planned), planned + later
    span = increment(planned, now, overlap, margin)
    if floor_second(now - margin) <= planned:
        assert span is None
    else:
        assert span == (planned - overlap, floor_second(now - margin))


@given(starts_at=moments.map(floor_second), seconds=st.integers(0, 10**7))
def test_halves_are_the_whole_and_never_below_a_second(starts_at: datetime, seconds: int) -> None:
    parts = halves(Window(starts_at, starts_at + seconds * SECOND))
    if seconds < 2:
        assert parts is None
        return
    assert parts is not None
    one, two = parts
    assert one.starts_at < one.ends_at == two.starts_at < two.ends_at
    assert (one.starts_at, two.ends_at) == (starts_at, starts_at + seconds * SECOND)
    assert not one.ends_at.microsecond
