"""Quota days: Marketo's daily quotas reset at midnight US Central (protocol, head)."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

CENTRAL = ZoneInfo("America/Chicago")

Api = Literal["soap", "rest"]

UNSURE = timedelta(hours=2)  # after our midnight, in which Marketo's may be yet to come
ASK_AGAIN = timedelta(minutes=10)


class CallLedger(Protocol):
    """Keeps count of the calls made in a quota day, so that a restart does not forget them."""

    async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
        """Charge up to `wanted` calls to `day` without its sum over all APIs passing `limit`; returns how many were granted."""

    async def give_back(self, api: Api, day: date, unused: int) -> None:
        """Take calls that were reserved but not made off the day's count again."""


def quota_day(now: datetime) -> date:
    """The quota day that the moment `now` belongs to."""
    return now.astimezone(CENTRAL).date()


def day_began(now: datetime) -> datetime:
    """When the quota day began that the moment belongs to, in UTC."""
    return datetime.combine(quota_day(now), time(), CENTRAL).astimezone(UTC)


def next_reset(now: datetime) -> datetime:
    """The next midnight US Central after `now`, in UTC; right across both changes of the clock."""
    return datetime.combine(quota_day(now) + timedelta(days=1), time(), CENTRAL).astimezone(UTC)


def resume_at(now: datetime) -> datetime:
    """When to try again after a quota was found spent at `now`, in UTC: at the next midnight US Central.

    Soon after a midnight only in ASK_AGAIN: clocks differ, and "12:00 AM CST", as Marketo calls its reset, may be meant
    literally, which in summer is one o'clock. Whoever asks before the moment that it named comes to that moment or an earlier
    one: hence the last time is cut at the end of UNSURE, from which on the answer is another.
    """
    sure = day_began(now) + UNSURE
    return min(now + ASK_AGAIN, sure) if now < sure else next_reset(now)
