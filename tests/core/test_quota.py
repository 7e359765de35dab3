"""Quota days begin at midnight US Central, on the days the clock changes too."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.quota import CENTRAL, next_reset, quota_day


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "day", "reset"),
    [
        ("2026-01-15 05:59:59", date(2026, 1, 14), "2026-01-15 06:00"),
        ("2026-01-15 06:00", date(2026, 1, 15), "2026-01-16 06:00"),
        ("2026-07-15 04:59:59", date(2026, 7, 14), "2026-07-15 05:00"),
        ("2026-03-08 06:00", date(2026, 3, 8), "2026-03-09 05:00"),  # 23 hours
        ("2026-03-08 12:00", date(2026, 3, 8), "2026-03-09 05:00"),
        ("2026-11-01 05:00", date(2026, 11, 1), "2026-11-02 06:00"),  # 25 hours
        ("2026-11-01 06:30", date(2026, 11, 1), "2026-11-02 06:00"),
    ],
)
def test_a_quota_day(now: str, day: date, reset: str) -> None:
    assert quota_day(utc(now)) == day
    assert next_reset(utc(now)) == utc(reset)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_reset_is_the_first_moment_of_the_next_quota_day(now: datetime) -> None:
    reset = next_reset(now)
    assert now < reset <= now + timedelta(hours=25)
    assert quota_day(reset) == quota_day(now) + timedelta(days=1)
    assert quota_day(reset - timedelta(microseconds=1)) == quota_day(now)
    assert reset.astimezone(CENTRAL).hour == 0
