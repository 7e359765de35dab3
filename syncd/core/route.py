"""Which way the leads of a pull come, by what the instance offers and what each way costs."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from syncd.core.price import Price, by_extract, by_ids
from syncd.core.settings import Limits, Pull, UpdatedSince

Follows = Literal["windows", "activities"]

WORTH_READING = 1.5
"""How many times the days of reading by id the extracts must take, before a day's calls are spent on it: pushes need some too."""
CATCH_UP_AFTER = timedelta(days=1)
"""Behind by more, an extract is asked once for what the activity log would tell change by change."""


@dataclass(frozen=True, slots=True)
class Offers:
    """What the instance lets us do, found by asking."""

    by_update: bool = True
    """Whether extracts select by updatedAt, which not every subscription can (1035)."""
    activities: bool = True
    """Whether the API user may read the activity log."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way; `reason` is for people. With neither a way to fill nor one to follow there is none, and the pull stands still."""

    by_creation: bool
    ids_only: bool
    follows: Follows
    reason: str


class NoWay(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """The instance offers nothing that this pull could go by; the message says what to ask Adobe or its administrator for."""


ASK_FOR_ACTIVITIES = "give the API user's role the permission Read-Only Activity (Admin > Users & Roles)"
ASK_FOR_UPDATES = "ask Adobe's support for the extract filter updatedAt"


def route(pull: Pull, offers: Offers, leads: int, each: int, windows: int, limits: Limits) -> Route:
    """The way of a pull through REST. About `leads` leads of `each` bytes come in `windows` windows. Raises NoWay."""
    if pull.source == "activities":
        if not offers.activities:
            raise NoWay(f"the API user may not read the activity log: {ASK_FOR_ACTIVITIES}")
        return Route(False, False, "activities", "source: activities reads the activity log, and fills nothing")
    if not isinstance(pull.select, UpdatedSince):
        return Route(False, False, "windows", "a list is extracted whole at each walk")
    way = _fill(pull, offers)
    if pull.source == "bulk_extract":
        return way
    if offers.activities and way.follows == "windows":
        way = replace(way, follows="activities", reason=f"{way.reason}; the activity log then, which is minutes behind for few calls")
    content, ids = by_extract(leads, windows, each, limits), by_ids(leads, windows, limits)
    if content.days > 1 and content.days > WORTH_READING * ids.days:
        cheaper = f"{_days(content)} at {limits.export_daily_bytes / 1e6:,.0f} MB a day, {_days(ids)} by ids and {ids.calls:,} calls"
        way = replace(way, ids_only=True, reason=f"{way.reason}; leads are read by their ids: {cheaper}")
    return way


def wants_extract(pull: Pull, way: Route, behind: timedelta) -> bool:
    """Whether a pull that follows the activity log, and is that far behind it, had better catch up by an extract."""
    return pull.source == "auto" and way.follows == "activities" and not way.by_creation and behind > CATCH_UP_AFTER


def _fill(pull: Pull, offers: Offers) -> Route:
    if offers.by_update:
        return Route(False, False, "windows", "extracts select by updatedAt")
    if not offers.activities:
        raise NoWay(
            f"extracts can't select by updatedAt here (1035), and the API user may not read the activity log: {ASK_FOR_ACTIVITIES}, "
            f"or {ASK_FOR_UPDATES}"
        )
    return Route(True, False, "activities", "extracts can't select by updatedAt here (1035): createdAt fills once, activities go on")


def _days(price: Price) -> str:
    return f"{price.days:,.1f} days"
