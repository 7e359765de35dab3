"""Windows cover a span of update time without a gap, and never ask for more than Marketo allows."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.windows import (
    FAR_MORE,
    SECOND,
    WORTH_SPLITTING,
    Around,
    Window,
    floor_second,
    halves,
    increment,
    parts,
    plan,
    reached,
    stepped_back,
)

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


CHANGES = [datetime(2026, 3, 8, 2, tzinfo=ZoneInfo("America/Chicago")), datetime(2026, 11, 1, 1, tzinfo=ZoneInfo("America/Chicago"))]
ticks = st.tuples(
    st.timedeltas(timedelta(0), timedelta(hours=3)),  # real time until the next look
    st.one_of(st.just(timedelta(0)), st.timedeltas(timedelta(minutes=-50), timedelta(minutes=50))),  # how far the clock is off then
)


@given(
    began=st.sampled_from(CHANGES),
    first=st.timedeltas(timedelta(0), timedelta(days=90)),
    looks=st.lists(ticks, min_size=1, max_size=30),
    overlap=st.sampled_from([timedelta(seconds=5), timedelta(minutes=15), timedelta(hours=2)]),
    margin=st.sampled_from([timedelta(0), timedelta(minutes=1), timedelta(hours=1)]),
    widest=st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=30)]),
)
def test_looks_by_a_clock_that_steps_miss_no_update(
    began: datetime, first: timedelta, looks: list[tuple[timedelta, timedelta]], overlap: timedelta, margin: timedelta, widest: timedelta
) -> None:
    """Every second since the beginning is in a window that was planned after it had passed, as far as a right clock has come.

    Marketo's Date tells how far ours is off from the first reply on; an error at the very first look must be within the overlap.
    """
    real = floor_second(began.astimezone(UTC))
    since = planned_until = real - first
    never = True
    planned: list[tuple[datetime, Window]] = []
    for passes, ahead in [*looks, (timedelta(hours=3), timedelta(0))]:
        real += passes
        now = reached(real + (min(ahead, overlap) if never else ahead), None if never else -ahead.total_seconds())
        if not never and stepped_back(planned_until, now, overlap, margin):
            too_far = [window.starts_at for _, window in planned if window.ends_at > now - margin]
            planned_until = min(too_far, default=floor_second(now - margin))
        span = increment(planned_until, now, timedelta(0) if never else overlap, margin)
        if span is not None:
            windows = list(plan(*span, widest))
            assert [window.starts_at for window in windows[1:]] == [window.ends_at for window in windows[:-1]]
            assert all(latest - oldest <= MOST for oldest, latest in (window.asked() for window in windows))
            planned += [(real, window) for window in windows]
            planned_until, never = span[1], False
    covered = since
    for walked_at, window in sorted(planned, key=lambda each: (each[1].starts_at, each[1].ends_at)):
        if window.starts_at <= covered:
            covered = max(covered, min(window.ends_at, floor_second(walked_at)))
    assert never or covered >= floor_second(real - margin)


windows = st.builds(
    lambda start, seconds: Window(floor_second(start), floor_second(start) + seconds * SECOND), moments, st.integers(1, 10**6)
)
arounds = st.builds(
    Around,
    st.integers(0, 20),
    st.one_of(st.none(), st.floats(0, 10**6)),
    st.one_of(st.none(), st.integers(0, 10**7)),
    st.integers(0, 20),
)


@given(window=windows, expected=st.integers(0, 10**7), page=st.integers(1, 1000), streams=st.integers(1, 8), around=arounds)
def test_parts_are_the_whole_in_order_and_never_below_a_second(
    window: Window, expected: int, page: int, streams: int, around: Around
) -> None:
    shares = parts(window, expected, page, streams, around)
    assert len(shares) != 1
    for one, two in pairwise(shares):
        assert one.ends_at == two.starts_at
    if shares:
        assert (shares[0].starts_at, shares[-1].ends_at) == (window.starts_at, window.ends_at)
        assert all(share.ends_at - share.starts_at >= SECOND for share in shares)
        assert streams > 1
        assert expected >= WORTH_SPLITTING * page


DAY = Window(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


def test_a_window_is_split_when_it_holds_far_more_than_its_neighbours_or_streams_would_idle() -> None:
    busy = Around(others=20, typical=1000.0, parent=None)
    assert parts(DAY, FAR_MORE * 1000, 300, 4, busy) == []
    assert len(parts(DAY, 12_000, 300, 4, busy)) == 5
    assert len(parts(DAY, 3_000, 300, 4, Around(others=2, typical=1000.0, parent=None))) == 4
    assert parts(DAY, 3_000, 300, 4, Around(others=3, typical=1000.0, parent=None)) == []
    assert parts(DAY, 2_000, 300, 4, Around(others=0, typical=None, parent=None)) == [], "a few pages are not worth it"


def test_a_burst_is_walked_by_one_stream() -> None:
    """Five thousand leads in one second: narrower windows would only cost calls."""
    assert parts(DAY, 5_000, 300, 4, Around(others=0, typical=10.0, parent=5_100, depth=3)) == []
    assert len(parts(DAY, 5_000, 300, 4, Around(others=0, typical=10.0, parent=5_100, depth=2))) >= 4, "it may only be narrow"
    assert parts(Window(DAY.starts_at, DAY.starts_at + SECOND), 5_000, 300, 4, Around(0, 10.0, None)) == []
