"""When a push may import: by the clock on the wall, so that a day of 23 or 25 hours needs no care."""

from datetime import datetime

from syncd.core.settings import Hours, Push


def may_import(push: Push, now: datetime) -> bool:
    """Whether `now` is within the hours of the push."""
    return push.hours is None or is_open(push.hours, now)


def is_open(hours: Hours, now: datetime) -> bool:
    """From the minute in which the hours begin to the one before they end; in an hour that the clock repeats, both times."""
    wall = now.astimezone(hours.zone).time()
    if hours.begins < hours.ends:
        return hours.begins <= wall < hours.ends
    return wall >= hours.begins or wall < hours.ends
