"""Spans of update time → windows. Marketo keeps timestamps to the second (protocol, head): so do windows."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

SECOND = timedelta(seconds=1)

# The selector is asked for one second more than the window (see `asked`), and fault 20022 comes above 30 days (protocol 1.3).
WIDEST = timedelta(days=30) - SECOND

NOTICED, BELIEVED = timedelta(seconds=3), timedelta(hours=1)
"""How far clocks differ from which on that is more than a slow reply, and up to which it is not nonsense."""

WORTH_SPLITTING = 8
"""Pages; sharing fewer would cost nearly as many calls as it lets go in parallel."""

FAR_MORE = 4
"""Times what its neighbours hold."""

MOST_PARTS = 32
MOST_OF_PARENT = 0.8


@dataclass(frozen=True, slots=True)
class Window:
    """Update times from `starts_at` to `ends_at`, UTC, whole seconds."""

    starts_at: datetime
    ends_at: datetime

    def asked(self) -> tuple[datetime, datetime]:
        """The oldest and the latest update time to ask for.

        Nobody documents whether a selector's ends are inclusive [unknown]; neighbours share one second, so that the second they
        meet in is asked for in full whichever way it is.
        """
        return self.starts_at - SECOND, self.ends_at


def floor_second(moment: datetime) -> datetime:
    """`moment` without its fraction of a second."""
    return moment.replace(microsecond=0)


def plan(starts_at: datetime, ends_at: datetime, widest: timedelta, most: timedelta = WIDEST) -> Iterator[Window]:
    """Consecutive windows that cover `starts_at` to `ends_at`, each at most `widest` (and never over `most`: 30 days for SOAP).

    Each begins where the one before it ends. An empty span, or one that runs backwards because a clock stepped, has none.
    """
    step = max(SECOND, min(timedelta(seconds=widest // SECOND), most))
    at, end = floor_second(starts_at), floor_second(ends_at)
    while at < end:
        upto = min(at + step, end)
        yield Window(at, upto)
        at = upto


def increment(planned_until: datetime, now: datetime, overlap: timedelta, margin: timedelta) -> tuple[datetime, datetime] | None:
    """The span of the next windows: from `overlap` before what is planned to `margin` before `now`; None if it is too early."""
    ends_at = floor_second(now - margin)
    if ends_at <= planned_until:
        return None
    return planned_until - overlap, ends_at


def reached(now: datetime, skew: float | None) -> datetime:
    """How far Marketo's clock has come, which is `skew` seconds ahead of ours: a window must not end at times it has yet to reach.

    When it is ahead, or what its Date header tells is beyond belief (it would refuse our signatures), ours counts.
    """
    if skew is None or not -BELIEVED < timedelta(seconds=skew) < -NOTICED:
        return now
    return now + timedelta(seconds=skew)


def stepped_back(planned_until: datetime, now: datetime, overlap: timedelta, margin: timedelta) -> bool:
    """Whether the clock was ahead when windows were planned, by more than the overlap makes good.

    Those windows were walked too early: they end at times that had not come yet.
    """
    return planned_until - overlap > now - margin


def halves(window: Window) -> tuple[Window, Window] | None:
    """The two halves of a window, None when it is too short to be split (never below one second)."""
    span = window.ends_at - window.starts_at
    if span < 2 * SECOND:
        return None
    middle = floor_second(window.starts_at + span / 2)
    return Window(window.starts_at, middle), Window(middle, window.ends_at)


@dataclass(frozen=True, slots=True)
class Around:
    """What is known around a window: other open ones, leads in the finished ones, leads in what it was split from, and how often
    that had been split.
    """

    others: int
    typical: float | None
    parent: int | None
    depth: int = 0


def parts(window: Window, expected: int, page: int, streams: int, around: Around) -> list[Window]:
    """How to share a window whose first reply promises `expected` leads in pages of `page`; one part or none: walk it whole.

    It is shared when it holds far more than its neighbours, or when other streams would have nothing to do. One that holds nearly
    all of what it was split from may be a burst, which narrower windows don't spread, as a second can't be split: the search for
    its bounds ends before it costs half as many calls as its pages.
    """
    if streams == 1 or expected < WORTH_SPLITTING * page:
        return []
    if around.parent is not None and expected > MOST_OF_PARENT * around.parent and around.depth > expected // page // (2 * streams):
        return []
    far_more = around.typical is not None and expected > FAR_MORE * max(around.typical, page)
    if not far_more and around.others >= streams - 1:
        return []
    count = max(streams, math.ceil(expected / max(around.typical or 0, WORTH_SPLITTING * page))) if far_more else streams
    seconds = (window.ends_at - window.starts_at) // SECOND
    count = min(count, MOST_PARTS, seconds)
    if count < 2:
        return []
    edges = [window.starts_at + SECOND * (seconds * part // count) for part in range(count)] + [window.ends_at]
    return [Window(*edge) for edge in itertools.pairwise(edges)]
