"""Leads that are due, read by their ids and written to the mirror; the next ones are asked for while these are written."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from syncd.core.batch import BatchSize
from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.following import readable
from syncd.core.mirror import MirrorRow, Vocabulary, mirror_row
from syncd.core.settings import Instance, Pull
from syncd.core.values import ReadLeads
from syncd.core.where import keeps
from syncd.flows.asking import asker_of
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.flows.reading import SLICE, TOO_MUCH, asked_fields, where_on_the_wire
from syncd.flows.standing import Standing
from syncd.marketo.leads import MOST_IDS, Leads
from syncd.ops.metrics import Metrics
from syncd.store import cursors, due, leads
from syncd.store.due import Due
from syncd.store.leads import Asker
from syncd.store.leases import Lease

log = structlog.get_logger()

LEAD_PERMISSION = "Read-Only Lead"
IN_FLIGHT = 2


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Marketo said of some leads, in the mirror's form; those that it does not have are missing."""

    rows: Sequence[MirrorRow]
    kept: Sequence[bool] | None
    asker: Asker
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class _Batch:
    """Leads that were asked for, and their answer to come."""

    due: Sequence[Due]
    answer: asyncio.Task[_Answer]


class Fetcher:
    """Reads for one pull, whatever its source: an id is due because it changed, won a merge, was listed, overtaken, or missing."""

    def __init__(
        self,
        instance: Instance,
        pull: Pull,
        api: Leads,
        vocabulary: Callable[[], Awaitable[Vocabulary]],
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance.name
        self.name = f"fetch {pull.name}"
        self._settings = instance
        self._pull = pull
        self._api = api
        self._vocabulary = vocabulary
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._standing = Standing(instance.name, pull.name, lease, clock, metrics, jitter)
        self._batch = BatchSize(MOST_IDS)
        self._in_flight: deque[_Batch] = deque()
        self._log = log.bind(instance=instance.name, pull=pull.name)

    async def step(self) -> Outcome:
        """Write the answer to one batch; or wait until something is due."""
        if await self._standing.running() is None:
            await self.close()
            return Idle(self._clock.now() + SECOND)
        await self._ask()
        if not self._in_flight:
            self._metrics.due(self.instance, self._pull.name, None)
            return Idle(self._clock.now() + SECOND)
        batch = self._in_flight[0]
        try:
            answer = await batch.answer
        except Fault as fault:
            await self.close()
            return await self._standing.met(fault, LEAD_PERMISSION)
        self._standing.well()
        try:
            outcome = await self._write(batch, answer)
        except Exception:
            await self.close()  # nothing was written: the leads are due as before
            raise
        self._in_flight.popleft()
        return outcome

    async def close(self) -> None:
        """Discard what was asked for and not written."""
        for batch in self._in_flight:
            batch.answer.cancel()
        await asyncio.gather(*(batch.answer for batch in self._in_flight), return_exceptions=True)
        self._in_flight.clear()

    async def _ask(self) -> None:
        """Ask for those that are due next, and for the ones behind them."""
        while len(self._in_flight) < IN_FLIGHT:
            under_way = [each.lead_id for batch in self._in_flight for each in batch.due]
            found = await due.take(self._lease.pool, self.instance, self._pull.name, under_way, min(self._batch.size, MOST_IDS))
            if not found:
                return
            if not under_way:
                self._metrics.due(self.instance, self._pull.name, self._clock.now() - min(each.noted_at for each in found))
            ids = sorted(each.lead_id for each in found)
            self._in_flight.append(_Batch(found, asyncio.create_task(self._read(ids))))

    async def _read(self, ids: Sequence[int]) -> _Answer:
        vocabulary = await self._vocabulary()
        asked_fields(self._pull, vocabulary.rest)
        fields = readable(self._pull, vocabulary)
        try:
            read = await self._api.by_id(ids, fields)
        except Fault as fault:
            if fault.code in TOO_MUCH:
                self._batch = self._batch.failed(len(ids))
            raise
        self._batch = self._batch.answered(len(ids), len(ids), self._clock.now() - read.asked_at)
        asker = asker_of(self._settings, self._pull, vocabulary)
        if asker.owned is not None:
            asker = replace(asker, owned=fields)  # a pull of another source has fields that REST can't tell of
        return await self._mirrored(read, vocabulary, asker)

    async def _mirrored(self, read: ReadLeads, vocabulary: Vocabulary, asker: Asker) -> _Answer:
        rows = []
        for number, lead in enumerate(read.leads):
            if number % SLICE == 0:
                await asyncio.sleep(0)  # wide leads must not hold up the rest of the daemon
            rows.append(mirror_row(lead, vocabulary.rest))
        where = where_on_the_wire(self._pull, vocabulary.rest)
        kept = [keeps(lead, where, vocabulary.rest.kinds) for lead in read.leads] if where else None
        return _Answer(rows, kept, asker, read.asked_at)

    async def _write(self, batch: _Batch, answer: _Answer) -> Outcome:
        ids = {each.lead_id for each in batch.due}
        name = self._pull.name
        async with self._lease.transaction() as connection:
            now = self._clock.now()
            upserted = await leads.upsert(connection, self.instance, answer.asker, answer.rows, answer.asked_at, now, answer.kept)
            if upserted.refused:  # another pull's later answer told nothing of our fields: they stay due
                ids -= await due.overtaken(connection, self.instance, ids, answer.asked_at, now)
            read = [each for each in batch.due if each.lead_id in ids]
            for window in await due.read(connection, self.instance, name, read, answer.asked_at):
                await cursors.finish_if_read(connection, window, now)
        self._metrics.page(self.instance, name, len(answer.rows), upserted.created, upserted.changed, upserted.dropped)
        self._metrics.forgotten(self.instance, "id", upserted.forgotten)
        missing = len(batch.due) - len(answer.rows)
        if missing:
            self._log.debug("leads_missing", leads=missing, reason="Marketo has none with these ids: deleted, merged, or not to be seen")
        return Worked(len(batch.due))
