"""Quota days begin at midnight US Central, on the days the clock changes too."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.quota import ASK_AGAIN, CENTRAL, UNSURE, next_reset, quota_day, resume_at

DAY = timedelta(days=1)


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


@pytest.mark.parametrize(
    ("now", "resume"),
    [
        ("2026-01-15 05:59:59", "2026-01-15 06:00"),
        ("2026-01-15 06:00", "2026-01-15 06:10"),
        ("2026-01-15 07:55", "2026-01-15 08:00"),  # cut where the answer becomes another
        ("2026-01-15 08:00", "2026-01-16 06:00"),
        ("2026-07-15 05:59", "2026-07-15 06:09"),  # midnight, if CST is meant literally, is at 06:00
        ("2026-03-08 05:50", "2026-03-08 06:00"),
        ("2026-03-08 07:59", "2026-03-08 08:00"),
        ("2026-03-08 08:00", "2026-03-09 05:00"),  # the clocks go forward at this moment
        ("2026-11-01 04:50", "2026-11-01 05:00"),
        ("2026-11-01 06:30", "2026-11-01 06:40"),
        ("2026-11-01 07:00", "2026-11-02 06:00"),  # the clocks go back at this moment
    ],
)
def test_when_to_try_again(now: str, resume: str) -> None:
    assert resume_at(utc(now)) == utc(resume)


AROUND_A_CHANGE = st.sampled_from([utc("2026-03-08 08:00"), utc("2026-11-01 07:00")]).flatmap(
    lambda change: st.datetimes(*(moment.replace(tzinfo=None) for moment in (change - DAY * 2, change + DAY * 2)), timezones=st.just(UTC))
)
ANY_TIME = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(AROUND_A_CHANGE | ANY_TIME)
def test_it_is_tried_again_at_midnight_or_soon_after_it(now: datetime) -> None:
    resume = resume_at(now)
    assert now < resume <= next_reset(now)
    if resume == next_reset(now):
        assert resume.astimezone(CENTRAL).time() == time()
        assert quota_day(now - UNSURE) == quota_day(now)
    else:
        assert resume - now <= ASK_AGAIN
        assert quota_day(now - UNSURE) < quota_day(now)


@given(AROUND_A_CHANGE | ANY_TIME, st.floats(0, 1, exclude_max=True))
def test_whoever_is_refused_during_a_pause_is_not_sent_away_for_longer_than_its_kind(now: datetime, share: float) -> None:
    until = resume_at(now)
    later = min(now + (until - now) * share, until - timedelta.resolution)  # the product is rounded
    assert until <= resume_at(later) <= max(until, later + ASK_AGAIN)
