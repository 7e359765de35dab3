"""The census: now and then all ids of Marketo's beside the mirror's, as deletions may be pruned from the log unread (protocol 3.5).

The ids come by extracts of `id` alone, whose windows are those of a pull that no YAML names; whoever runs extracts hands them in here.
"""

import random
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.extract import BEGINNING
from syncd.core.faults import Fault
from syncd.core.retry import Block, decide
from syncd.core.settings import Instance, Pull, UpdatedSince
from syncd.core.windows import Window, plan
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.marketo.leads import MOST_IDS, Leads
from syncd.ops.metrics import Metrics
from syncd.store import census, gone
from syncd.store.census import Census
from syncd.store.gone import Gone
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

WINDOW = timedelta(days=30)
SETTLED = timedelta(hours=1)
"""How old a lead is before its absence is told from its being on its way."""
LOOK_EVERY = timedelta(minutes=1)
TOO_EARLY = timedelta(hours=1)
AFTER_NOTHING = timedelta(days=1)
FILL = timedelta(days=1)
"""A pull that is further behind is filling the mirror: then a census would find that, and take its share of Marketo's queue and bytes.
A mirror that is younger than this has nothing that could have been pruned.
"""

PULL = Pull(census.PULL, "bulk_extract", UpdatedSince(BEGINNING), ("id",), window=WINDOW)
"""What the extracts are asked for with. They come last: nobody waits for them."""


class CensusTaker:
    """Begins a census when it is due, and compares once the ids are there."""

    name = "census"

    def __init__(
        self,
        instance: Instance,
        api: Leads,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
        marketo_now: Callable[[], datetime],
    ) -> None:
        self.instance = instance.name
        self._every = instance.census
        self._history = instance.history is not None
        self._since = {pull.name: pull.select.since for pull in instance.pulls if isinstance(pull.select, UpdatedSince) and not pull.where}
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._marketo_now = marketo_now
        self._faults = 0
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Begin a census, compare some leads; or wait."""
        now = self._clock.now()
        under_way = await census.latest(self._lease.pool, self.instance)
        if under_way is None or under_way.finished_at is not None:
            return await self._start(under_way, now)
        if not await census.is_whole(self._lease.pool, self.instance, under_way.id):
            return await self._give_up(under_way, now)
        if under_way.compared_to is None:
            if await census.is_collecting(self._lease.pool, self.instance):
                return Idle(now + LOOK_EVERY)
            async with self._lease.transaction() as connection:
                await census.begin_to_compare(connection, under_way.id)
            return Worked(0)
        try:
            outcome = await self._compare(under_way, under_way.compared_to)
        except Fault as fault:
            return self._met(fault)
        self._faults = 0
        return outcome

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def found(self, connection: Connection, window: Window, ids: Sequence[int], asked_at: datetime, now: datetime) -> None:
        """An extract of a window of the census has brought these ids; in the transaction that loads it, slice by slice.

        What a pull must have, as it selects all that was ever updated since before they were created, and has not, is to be read.
        Where a pull lets in some leads only, absence tells nothing.
        """
        if not ids:
            return
        await census.collect(connection, self.instance, ids, window.starts_at)
        pulls = [name for name, since in self._since.items() if since <= window.starts_at]
        for pull in await census.beyond(connection, self.instance, pulls, window.ends_at) if pulls else ():
            await census.note_lacking(connection, self.instance, pull, ids, asked_at, now)

    async def _start(self, last: Census | None, now: datetime) -> Outcome:
        assert self._every is not None, "without `census` there is none"
        every = self._every if last is None or last.message is None else min(self._every, AFTER_NOTHING)
        if last is not None and last.started_at <= now < last.started_at + every:
            return Idle(min(last.started_at + every, now + TOO_EARLY))
        if await census.is_early(self._lease.pool, self.instance, now - FILL):
            return Idle(now + TOO_EARLY)
        first = await census.first_at(self._lease.pool, self.instance) or BEGINNING
        windows = list(plan(first, self._marketo_now() - SETTLED, WINDOW))
        if not windows:
            return Idle(now + TOO_EARLY)
        async with self._lease.transaction() as connection:
            await census.start(connection, self.instance, windows, now)
        self._log.info("census_started", windows=len(windows), since=first.isoformat())
        return Worked(0)

    async def _give_up(self, under_way: Census, now: datetime) -> Outcome:
        message = "a crash of the database has emptied the ids that were collected"
        async with self._lease.transaction() as connection:
            await census.finish(connection, self.instance, under_way.id, now, message)
        self._log.warning("census_given_up", reason=message, remedy="it begins anew tomorrow")
        return Worked(0)

    async def _compare(self, under_way: Census, after: int) -> Outcome:
        """A slice of the mirror: what no extract has brought is asked for by id; only what is not there either is gone."""
        found = await census.suspects(self._lease.pool, self.instance, after, under_way.started_at, MOST_IDS)
        if found.upto is None:
            return await self._finish(under_way)
        lost: list[int] = []
        asked_at = self._clock.now()
        if found.ids:
            read = await self._api.by_id(found.ids, ())
            asked_at = read.asked_at
            lost = sorted(set(found.ids) - {lead.lead_id for lead in read.leads})
        async with self._lease.transaction() as connection:
            now = self._clock.now()
            each = [Gone(lead_id, asked_at) for lead_id in lost]
            marked = await gone.note(connection, self.instance, each, now, self._history) if each else 0
            await census.compared(connection, self.instance, under_way, found.upto, marked)
        self._metrics.gone(self.instance, marked)
        return Worked(len(found.ids))

    async def _finish(self, under_way: Census) -> Outcome:
        now = self._clock.now()
        async with self._lease.transaction() as connection:
            await census.finish(connection, self.instance, under_way.id, now)
        self._metrics.drift(self.instance, under_way.missing, under_way.surplus)
        level = self._log.warning if under_way.missing or under_way.surplus else self._log.info
        took = round((now - under_way.started_at).total_seconds() / 60)
        level("census", leads=under_way.leads, missing=under_way.missing, surplus=under_way.surplus, minutes=took)
        return Worked(0)

    def _met(self, fault: Fault) -> Outcome:
        self._faults += 1
        self._metrics.fault(self.instance, fault)
        decision = decide(fault, self._faults, self._clock.now(), self._jitter.random())
        level = self._log.warning if self._faults > 1 or isinstance(decision, Block) else self._log.info
        level("census_fault", fault=str(fault), attempt=self._faults)
        return Idle(decision.at)
