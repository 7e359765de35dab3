"""Jobs, what past ones took, the day's calls, now → when to look at which next (protocol 4: every look counts against the daily quota)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.settings import Poll

SWEEP = timedelta(minutes=5)
"""How long a job behind the heads goes unlooked at: the queue should be FIFO, but nobody promises it."""

STRAGGLES = 2
"""So many typical runs of a job, and its end is no longer near: it is looked at ever more rarely."""

STRAGGLER_SHARE = 6
"""A straggler's end is noticed this part of its run too late at most."""

LAST_SHARE = 16
"""Where nothing waits behind it, only its own looks tell that all is done."""

SEEN_LATE = timedelta(seconds=30)
"""A job may have run this long before it was first seen to."""

LOOKS_SHARE = 2
"""Looks may take one in so many of the calls that are left of the day."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job of ours in Marketo's queue. `looked_at` is None until its status was asked for, `running_since` until it was seen to run.

    `waits` says that the last look saw it wait.
    """

    id: int
    submitted_at: datetime
    looked_at: datetime | None
    poll: Poll
    running_since: datetime | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """A job of ours that has ended, by what was seen of it; `started_at` is None where it was never seen to run."""

    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime


def gap(poll: Poll, typical_run: timedelta | None, least: timedelta = timedelta()) -> timedelta:
    """How long to wait between looks at a running job: about half of what jobs take, within the push's `poll` bounds.

    `least` is what the quota allows (`affordable_gap`); no bound of a push stands above it.
    """
    wanted = poll.min if typical_run is None else min(max(typical_run / 2, poll.min), poll.max)
    return max(wanted, least)


def noticed_within(poll: Poll, typical_run: timedelta | None, least: timedelta = timedelta()) -> timedelta:
    """The longest time until the end of a job, or a look at a new head, comes to be noticed, stragglers aside."""
    return max(gap(poll, typical_run, least), min(typical_run or timedelta(), SWEEP))


def affordable_gap(calls_left: int, until_reset: timedelta, running: int) -> timedelta:
    """The shortest gap at which looks at `running` heads leave calls of the day to others; SWEEP where hardly any are left."""
    for_looks = calls_left // LOOKS_SHARE
    if for_looks <= 0:
        return SWEEP
    return min(SWEEP, until_reset * running / for_looks)


def next_looks(
    jobs: Sequence[QueuedJob],
    running: int,
    typical_run: timedelta | None,
    free_since: datetime | None = None,
    least: timedelta = timedelta(),
) -> list[tuple[datetime, QueuedJob]]:
    """When each job is to be looked at next, soonest first. `jobs` come in the order of the queue.

    The queue is FIFO, so only the first `running` jobs can be running or done. No new head has begun before `free_since`, when
    the last job that ended was yet seen to run; one that may have run for a typical run since then is overdue at once. A head that
    was seen to wait has strangers before it: what is behind it waits too.
    """
    looks = []
    share = STRAGGLER_SHARE if len(jobs) > running else LAST_SHARE
    for place, job in enumerate(jobs):
        since = job.looked_at or job.submitted_at
        if place >= running:
            wait = SWEEP
        elif job.running_since is not None:
            wait = _gap_running(job, typical_run, least, share)
        else:
            wait = noticed_within(job.poll, typical_run, least)
            since = since if free_since is None else max(since, free_since)
            running = place if job.waits else running
        looks.append((min(since + wait, (job.looked_at or job.submitted_at) + SWEEP), job))
    return sorted(looks, key=lambda look: look[0])


def _gap_running(job: QueuedJob, typical_run: timedelta | None, least: timedelta, share: int) -> timedelta:
    usual = gap(job.poll, typical_run, least)
    if typical_run is None or job.running_since is None or job.looked_at is None:
        return usual
    seen_to_run = job.looked_at - job.running_since
    return usual if seen_to_run < STRAGGLES * typical_run else min(max(usual, seen_to_run / share), max(usual, SWEEP))


def runs_of(finished: Sequence[Finished], running: int) -> list[timedelta]:
    """How long each job ran, for jobs in the order of the queue.

    One that was never seen to run began when all but `running - 1` of those before it had ended: a time in the queue is no run.
    """
    runs: list[timedelta] = []
    latest: list[datetime] = []  # ends of the jobs before, the latest `running` of them
    for job in finished:
        began = max(job.submitted_at, latest[0]) if len(latest) == running else job.submitted_at
        if job.started_at is not None:
            began = max(began, job.started_at - SEEN_LATE)
        runs.append(max(job.finished_at - began, timedelta()))
        latest = sorted([*latest, job.finished_at])[-running:]
    return runs


def median(durations: Iterable[timedelta]) -> timedelta | None:
    """The middle one, None of none."""
    ordered = sorted(durations)
    return ordered[len(ordered) // 2] if ordered else None
