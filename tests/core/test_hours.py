"""Hours of a push: by the clock on the wall, over midnight, on days of 23 and 25 hours."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.hours import is_open, may_import
from syncd.core.settings import Hours, Push

CHICAGO = ZoneInfo("America/Chicago")
NIGHT = Hours(time(20), time(6), CHICAGO)
MINUTE = timedelta(minutes=1)
ZONES = [ZoneInfo(name) for name in ("America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")]

times = st.times(timezones=st.none()).map(lambda each: each.replace(second=0, microsecond=0))
moments = st.integers(0, 730 * 24 * 60).map(lambda n: datetime(2026, 1, 1, tzinfo=UTC) + n * MINUTE)


def open_minutes(hours: Hours, begins: datetime, length: timedelta) -> int:
    return sum(is_open(hours, begins + n * MINUTE) for n in range(int(length / MINUTE)))


@pytest.mark.parametrize(
    ("noon", "minutes"),
    [
        (datetime(2026, 1, 15, 18, tzinfo=UTC), 600),
        (datetime(2026, 3, 7, 18, tzinfo=UTC), 540),  # the night that skips an hour
        (datetime(2026, 10, 31, 17, tzinfo=UTC), 660),  # the one that repeats one
    ],
)
def test_a_night_lasts_as_long_as_the_clock_on_the_wall_says(noon: datetime, minutes: int) -> None:
    assert open_minutes(NIGHT, noon, timedelta(hours=24)) == minutes


def test_the_edges_of_a_night() -> None:
    def at(hour: int, minute: int) -> bool:
        return is_open(NIGHT, datetime(2026, 6, 1, hour, minute, 59, tzinfo=CHICAGO))

    assert [at(19, 59), at(20, 0), at(23, 59), at(0, 0), at(5, 59), at(6, 0), at(12, 0)] == [False, True, True, True, True, False, False]


def test_hours_that_begin_in_the_hour_that_is_skipped_begin_after_it() -> None:
    hours = Hours(time(2, 30), time(4), CHICAGO)
    assert open_minutes(hours, datetime(2026, 3, 8, 6, tzinfo=UTC), timedelta(hours=6)) == 60
    assert is_open(hours, datetime(2026, 3, 8, 8, 0, tzinfo=UTC)), "3:00, which follows 1:59"


def test_without_hours_a_push_may_always_import() -> None:
    now = datetime(2026, 6, 1, 18, tzinfo=UTC)
    assert may_import(Push("contacts"), now)
    assert not may_import(Push("contacts", hours=NIGHT), now)
    assert may_import(Push("contacts", hours=NIGHT), now + timedelta(hours=8))


@given(times, times, moments, st.sampled_from(ZONES))
def test_hours_and_those_that_are_left_fill_the_day(begins: time, ends: time, now: datetime, zone: ZoneInfo) -> None:
    if begins != ends:
        assert is_open(Hours(begins, ends, zone), now) != is_open(Hours(ends, begins, zone), now)


@given(times, times, moments, st.sampled_from(ZONES))
def test_it_opens_and_closes_at_its_times_or_where_the_clock_jumps(begins: time, ends: time, now: datetime, zone: ZoneInfo) -> None:
    """Counted along a day: whatever the zone does, minutes in which it turns read `begins` or `ends`, or follow a jump."""
    if begins == ends:
        return
    hours = Hours(begins, ends, zone)
    start = now.replace(second=0, microsecond=0)
    walls = [(start + n * MINUTE).astimezone(zone).replace(tzinfo=None) for n in range(24 * 60)]
    states = [is_open(hours, start + n * MINUTE) for n in range(24 * 60)]
    for n in range(1, len(walls)):
        if states[n] != states[n - 1] and walls[n] - walls[n - 1] == MINUTE:
            assert walls[n].time() == (begins if states[n] else ends)
