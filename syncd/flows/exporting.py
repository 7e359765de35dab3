"""What the flows of an instance's extracts share: its queue at Marketo, its quota, what is being loaded."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from syncd.core.clock import Clock
from syncd.core.polling import gap, median
from syncd.core.quota import day_began
from syncd.core.settings import Limits, Poll
from syncd.core.slots import wanted_in_flight
from syncd.core.states import IN_EXPORT_QUEUE
from syncd.core.windows import Window, halves
from syncd.marketo.exports import Exports
from syncd.ops.metrics import Metrics
from syncd.store import export_figures
from syncd.store.cursors import ExtractWindow
from syncd.store.exports import Export
from syncd.store.leases import Lease, Pool

CENSUS = "#census"
"""The pull of the windows by which all ids are compared."""

POLL = Poll(timedelta(seconds=60), timedelta(seconds=300))
"""Marketo renews a job's status once a minute; one to five minutes between looks is right (protocol 3.1)."""

KEPT_FOR = timedelta(days=7)
"""Jobs and their files (protocol 3.1)."""

DEEPEST_SPLIT = 12
"""Splits after which a failed export splits no more: a Marketo that fails them all would be asked second by second."""

UNKNOWN_JOB = frozenset({"1003", "610", "702", "http_404"})
"""What is said of a job that Marketo does not know, or no longer."""

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

AFTER_FAILURE, AT_MOST = timedelta(minutes=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Reach:
    """What asks an instance, and what keeps the right to."""

    api: Exports
    lease: Lease
    clock: Clock
    metrics: Metrics
    jitter: random.Random


@dataclass(slots=True)
class Exporting:
    """Of one instance. `asking` lets one pull at a time see the room in the queue and take it."""

    limits: Limits
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    not_before: datetime = LONG_AGO
    """The queue was full, or the day's bytes spent: nobody asks before."""
    refusals: int = 0
    """How often in a row the queue was full."""
    failures: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    """Pull → how many exports in a row Marketo has failed, and when the next may be asked for."""
    loading: set[int] = field(default_factory=set)
    """Windows that a loader has taken."""
    load_again_at: dict[int, tuple[int, datetime]] = field(default_factory=dict)
    """Window → how many times in a row it could not be loaded, and when to try again."""

    def failed(self, pull: str, now: datetime) -> datetime:
        """An export of the pull failed; returns when the next may be asked for."""
        count = self.failures.get(pull, (0, now))[0] + 1
        again_at = now + min(AFTER_FAILURE * (1 << min(count - 1, 10)), AT_MOST)
        self.failures[pull] = count, again_at
        return again_at

    def completed(self, pull: str) -> None:
        """One came to a good end."""
        self.failures.pop(pull, None)

    def may_ask_at(self, pull: str) -> datetime:
        """Before when nothing is to be asked for the pull."""
        return max(self.not_before, self.failures.get(pull, (0, self.not_before))[1])

    async def room(self, pool: Pool, instance: str, jobs: Sequence[Export]) -> int:
        """How many more exports are to be under way."""
        runs = await export_figures.recent_runs(pool, instance)
        wanted = wanted_in_flight(self.limits.export_slots, self.limits.export_running, gap(POLL, median(runs)), runs)
        return wanted - sum(job.state == "created" or job.state in IN_EXPORT_QUEUE for job in jobs)

    async def bytes_left(self, pool: Pool, instance: str, now: datetime) -> int:
        """What is left of the day's bytes when all that is under way has come."""
        spent = await export_figures.spent(pool, instance, day_began(now))
        return self.limits.export_daily_bytes - spent - await export_figures.promised(pool, instance)


def shares(window: ExtractWindow) -> tuple[Window, Window] | None:
    """The halves in which to ask for a window that came to nothing as a whole."""
    return halves(window.window) if window.window is not None and window.depth < DEEPEST_SPLIT else None
