"""Spans of update time → windows. Marketo keeps timestamps to the second (protocol, head): so do windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

SECOND = timedelta(seconds=1)

# The selector is asked for one second more than the window (see `asked`), and fault 20022 comes above 30 days (protocol 1.3).
WIDEST = timedelta(days=30) - SECOND


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


def plan(starts_at: datetime, ends_at: datetime, widest: timedelta) -> Iterator[Window]:
    """Consecutive windows that cover `starts_at` to `ends_at`, each at most `widest` (and never over 30 days).

    Each begins where the one before it ends. An empty span, or one that runs backwards because a clock stepped, has none.
    """
    step = max(SECOND, min(timedelta(seconds=widest // SECOND), WIDEST))
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


def halves(window: Window) -> tuple[Window, Window] | None:
    """The two halves of a window, None when it is too short to be split (never below one second)."""
    span = window.ends_at - window.starts_at
    if span < 2 * SECOND:
        return None
    middle = floor_second(window.starts_at + span / 2)
    return Window(window.starts_at, middle), Window(middle, window.ends_at)
