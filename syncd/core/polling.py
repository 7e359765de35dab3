"""Jobs, what past ones took, now → when to look at which next (protocol 4: every look counts against the daily quota)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.settings import Poll

SWEEP = timedelta(minutes=5)
"""How long a job behind the heads goes unlooked at: the queue should be FIFO, but nobody promises it."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job of ours in Marketo's queue. `looked_at` is None until its status has been asked for."""

    id: int
    submitted_at: datetime
    looked_at: datetime | None
    poll: Poll


def gap(poll: Poll, typical_run: timedelta | None) -> timedelta:
    """How long to wait between looks at a running job: about half of what jobs take, within the push's `poll` bounds."""
    if typical_run is None:
        return poll.min
    return min(max(typical_run / 2, poll.min), poll.max)


def next_looks(jobs: Sequence[QueuedJob], running: int, typical_run: timedelta | None) -> list[tuple[datetime, QueuedJob]]:
    """When each job is to be looked at next, soonest first.

    The queue is FIFO, so only the first `running` jobs can be running or done; a job that becomes a head after a long wait is
    overdue at once.
    """
    looks = [
        ((job.looked_at or job.submitted_at) + (gap(job.poll, typical_run) if place < running else SWEEP), job)
        for place, job in enumerate(sorted(jobs, key=lambda job: job.id))
    ]
    return sorted(looks, key=lambda look: (look[0], look[1].id))


def median(durations: Iterable[timedelta]) -> timedelta | None:
    """The middle one, None of none."""
    ordered = sorted(durations)
    return ordered[len(ordered) // 2] if ordered else None
