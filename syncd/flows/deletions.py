"""Deletions and merges, by the activity log: marked in the mirror, whichever source its leads come from; winners are read again."""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.following import MERGE, gone_by
from syncd.core.retry import Block, decide
from syncd.core.settings import Instance
from syncd.core.values import Activity, ActivityPage
from syncd.flows.looks import ACTIVITY_PERMISSION, Looks
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.flows.standing import ACCESS_DENIED, remedy
from syncd.marketo.activities import Activities
from syncd.ops.metrics import Metrics
from syncd.store import due, gone
from syncd.store.gone import Gone
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

EVERY = timedelta(minutes=5)
OVERLAP = timedelta(minutes=15)
KEPT_IN_THE_LOG = timedelta(days=14)
"""How far back deletions can be had (protocol 3.5)."""
IN_FLIGHT_FOR = timedelta(minutes=15)
"""How long a page may be under way between its request and its transaction."""
KEEP = timedelta(days=30)

DELETIONS, MERGES = gone.STREAMS


class Deletions:
    """Looks at the log each five minutes. Its faults hold up nothing else.

    `oldest_export` tells when the oldest extract that is not loaded yet was asked for: its leads are as of then.
    """

    name = "deletions"

    def __init__(
        self,
        instance: Instance,
        api: Activities,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
        marketo_now: Callable[[], datetime],
        oldest_export: Callable[[], Awaitable[datetime | None]] | None = None,
    ) -> None:
        self.instance = instance.name
        self._pulls = [pull.name for pull in instance.pulls]
        self._history = instance.history is not None
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._marketo_now = marketo_now
        self._oldest_export = oldest_export
        self._looks = {stream: Looks(instance.name, stream, OVERLAP, api.token_since, lease, marketo_now) for stream in (DELETIONS, MERGES)}
        self._to_read: list[str] = []
        self._under_way_since: datetime | None = None
        """When the oldest of what was under way at the end of the last look was asked for: it may have been written since."""
        self._next_at: datetime | None = None
        self._faults = 0
        self._told: str | None = None
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Read and write one page; or wait for the time of the next look."""
        now = self._clock.now()
        if not self._to_read:
            if self._next_at is not None and now < self._next_at <= now + EVERY:
                return Idle(self._next_at)
            self._to_read, self._next_at = [DELETIONS, MERGES], now + EVERY
        try:
            outcome = await self._read(self._to_read[0])
        except Fault as fault:
            return self._met(fault)
        self._faults, self._told = 0, None
        return outcome

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _read(self, stream: str) -> Outcome:
        async def read(token: str) -> ActivityPage:
            return await (self._api.deleted_leads(token) if stream == DELETIONS else self._api.of_types(token, (MERGE,)))

        looks = self._looks[stream]
        await looks.begin(await self._since())
        page = await looks.page(read)
        oldest = await self._oldest_export() if self._oldest_export is not None else None
        async with self._lease.transaction() as connection:
            at_marketo, now = self._marketo_now(), self._clock.now()  # at once: their difference dates what has gone
            fresh = await looks.write(connection, page)
            went = _gone(stream, fresh, now, at_marketo)
            marked = await gone.note(connection, self.instance, went, now, self._history) if went else 0
            if stream == MERGES:
                await self._note_winners(connection, fresh, now)
            ends = page.last and len(self._to_read) == 1
            if ends:
                since = now - KEEP if self._under_way_since is None else self._under_way_since
                marked += await gone.reapply(connection, self.instance, since, now, self._history)
                await gone.forget(connection, self.instance, now - KEEP)
        if page.last:
            self._to_read.pop(0)
        if ends:
            self._under_way_since = now - IN_FLIGHT_FOR if oldest is None else min(oldest, now - IN_FLIGHT_FOR)
        self._metrics.gone(self.instance, marked)
        if marked:
            self._log.info("leads_gone", stream=stream, leads=marked)
        return Worked(len(went))

    async def _since(self) -> datetime:
        """Where the log is first read: as far back as it goes, when there are leads that may have gone since."""
        now = self._marketo_now()
        return now - (KEPT_IN_THE_LOG if await gone.has_leads(self._lease.pool, self.instance) else OVERLAP)

    async def _note_winners(self, connection: Connection, merges: Sequence[Activity], now: datetime) -> None:
        merged = [(entry.lead_id, lead_id) for entry in merges for lead_id in (entry.lead_id, *entry.merged)]
        if merged:
            await due.note_winners(connection, self.instance, self._pulls, merged, now)

    def _met(self, fault: Fault) -> Outcome:
        """Told once, until it is another one."""
        self._faults += 1
        self._metrics.fault(self.instance, fault)
        decision = decide(fault, self._faults, self._clock.now(), self._jitter.random())
        blocked = isinstance(decision, Block)
        if fault.code != self._told and (blocked or self._faults > 1):
            help_ = remedy(ACTIVITY_PERMISSION) if fault.code == ACCESS_DENIED else "tried again; all else goes on"
            level = self._log.error if blocked else self._log.warning
            level("deletions_unknown", fault=str(fault), code=fault.code, remedy=help_)
            self._told = fault.code
        return Idle(decision.at)


def _gone(stream: str, entries: Sequence[Activity], now: datetime, at_marketo: datetime) -> list[Gone]:
    if stream == DELETIONS:
        return [Gone(entry.lead_id, gone_by(entry.at, now, at_marketo)) for entry in entries]
    return [Gone(lost, gone_by(entry.at, now, at_marketo), entry.lead_id) for entry in entries for lost in entry.merged]
