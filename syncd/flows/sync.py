"""Out, without a file: sync batches are filled with urgent changes, and sent by Sync Leads, one call at a time."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import orjson
import structlog

from syncd.core.batching import GATHER, MOST_BYTES, MOST_RECORDS
from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.hours import may_import
from syncd.core.pack import pack
from syncd.core.retry import SLOW_RETRY, backoff, decide
from syncd.core.settings import Push
from syncd.flows import gate
from syncd.flows.loop import DATABASE_FAULTS, SECOND, Idle, LastWrite, Outcome, Worked, describe_error
from syncd.flows.preflight import Checks, ruled, target_of
from syncd.marketo.errors import REST_NATURES
from syncd.marketo.sync import SyncAnswer, Synced, SyncLeads
from syncd.ops.metrics import Metrics
from syncd.store import batches, claims, outbox, pushes, ruling
from syncd.store.batches import Batch, Verdict
from syncd.store.leases import Lease
from syncd.store.outbox import kin_of

log = structlog.get_logger()

FULL = 0.9
"""Of a call's bytes: the next record may not fit any more."""
ABSENT_AFTER = timedelta(minutes=10)
"""Marketo has given up a call of which nobody knows the answer long before (protocol 2: after 90 s)."""
PASSING = frozenset({Nature.TRANSIENT, Nature.TOKEN, Nature.RATE, Nature.QUOTA})
FILES_CAN = frozenset({"1007", "1011", "1021"})
"""Several leads match, of which an import takes the one last updated; a key, or a field of a company, that Sync Leads does not know."""
MOST_ATTEMPTS = 5
"""Of a record that Marketo refuses for a passing reason."""


class Syncer:
    """Sends what must not wait for a file, or fills none."""

    name = "sync"

    def __init__(
        self,
        instance: str,
        settings: Sequence[Push],
        api: SyncLeads,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
        checks: Checks | None = None,
    ) -> None:
        self.instance = instance
        self._pushes = {push.name: push for push in settings}
        self._checks = checks
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._not_before: datetime | None = None
        self._ordinary_not_before: datetime | None = None  # a quota is spent but for what is kept for urgent calls
        self._faults = 0  # passing ones in a row
        self._log = log.bind(instance=instance)
        self._last = LastWrite("batch_not_written", self._log)

    async def step(self) -> Outcome:
        """Send one batch; or wait until there is one."""
        if (written := await self._last.again()) is not None:
            return written
        now = self._clock.now()
        running = await pushes.running(self._lease.pool, self.instance)
        if running and self._checks is not None and (held := await self._checks.take_up()) is not None:
            return held
        for name in sorted(running & self._pushes.keys()):
            await self._gather_urgent(self._pushes[name], now)
        live = await batches.live(self._lease.pool, self.instance)
        await self._clean_up(live, now)
        if self._not_before is not None and now < self._not_before:
            return Idle(min(self._not_before, now + SECOND))
        paused = self._ordinary_not_before is not None and now < self._ordinary_not_before
        closed = {push.name for push in self._pushes.values() if paused or not may_import(push, now)}
        free = (one for one in live if one.state == "open" and one.push in running and (one.urgent or one.push not in closed))
        batch = next((one for one in free if _is_due(one, now)), None)
        return Idle(now + SECOND) if batch is None else await self._send(batch)

    async def close(self) -> None:
        """Write what became of the last call, if the database would not take it before."""
        await self._last.close()

    async def _gather_urgent(self, push: Push, now: datetime) -> None:
        checks, kin = self._checks, kin_of(push, self._pushes.values())
        target = replace(target_of(push, checks), by_sync=True)
        async with self._lease.transaction() as connection:
            admitted = await gate.admitted(connection, self.instance, push, MOST_RECORDS, now, urgent=True)
            among, before = (None, None) if admitted is None else (admitted.ids, admitted.before)
            seen = await outbox.urgent(connection, self.instance, push, MOST_RECORDS, now, kin, among, before)
            self._metrics.forgotten(self.instance, "urgent", seen.refused)
            if not seen.changes:
                return
            target = ruled(target, push, await ruling.known(connection, self.instance, push, seen.changes))
            passing = await outbox.passable(connection, self.instance, push, seen, kin, before)
            ahead = pack(passing.changes, {}, (), replace(target, ids=passing.ids))
            passes = {change.id for change in passing.changes}
            rest = [change for change in seen.changes if change.id not in passes]
            packing = await asyncio.to_thread(pack, rest, seen.claimed, (), target)
            if admitted is not None:
                for each in (packing, ahead):
                    await gate.let_go(connection, self.instance, push, admitted, each, now)
            await claims.claim(connection, self.instance, push, packing, now, urgent=True)
            await claims.claim(connection, self.instance, push, ahead, now, urgent=True, passed=passing.chunks)
        for each in (packing, ahead):
            self._metrics.claimed(self.instance, push.name, each)
            if checks is not None:
                checks.note(each)

    async def _clean_up(self, live: Sequence[Batch], now: datetime) -> None:
        for batch in live:
            if batch.state == "submitting":
                # Between two steps no call is under way: it began in a commit that the database did not confirm; nothing was sent.
                message = "the database did not confirm its beginning, so that nothing was sent"
                async with self._lease.transaction() as connection:
                    await batches.to_refused(connection, batch.id, message, now)
                self._log.warning("batch_taken_back", push=batch.push, batch=batch.id)
            elif batch.state == "unconfirmed" and batch.submitted_at is not None and batch.submitted_at + ABSENT_AFTER <= now:
                message = "nobody knows whether Marketo executed it; its changes go again"
                async with self._lease.transaction() as connection:
                    await batches.to_absent(connection, batch.id, message, now)
                self._log.warning("batch_absent", push=batch.push, batch=batch.id, reason=message)

    async def _send(self, batch: Batch) -> Outcome:
        async with self._lease.transaction() as connection:
            row_count = await batches.to_submitting(connection, batch.id, self._clock.now())
        if row_count is None:
            return Worked(0)
        batch = replace(batch, row_count=row_count)  # the packer may have added some since it was read
        records = await batches.records(self._lease.pool, batch.id)
        try:
            answer = await self._api.write(
                [record for _, record in records], lookup_field=batch.lookup_field, partition=batch.partition, urgent=batch.urgent
            )
        except Fault as fault:
            self._metrics.fault(self.instance, fault)
            return await self._last.write(partial(self._met, fault, batch))
        except DATABASE_FAULTS as error:
            # The ledger of calls could not be asked, so that nothing was sent.
            unsent = Fault(Nature.TRANSIENT, "database", describe_error(error), "sync_leads", executed=False)
            return await self._last.write(partial(self._met, unsent, batch))
        return await self._last.write(partial(self._settle, batch, records, answer))

    async def _settle(self, batch: Batch, records: Sequence[tuple[int, str]], answer: SyncAnswer) -> Outcome:
        told = zip(records, answer.records, strict=True)
        skipped = {ordinal: (one, record) for (ordinal, record), one in told if one.status == "skipped"}
        attempts = await batches.attempts(self._lease.pool, batch.id) if skipped else {}
        verdicts = {ordinal: _verdict(one, attempts.get(ordinal, 0), record) for ordinal, (one, record) in skipped.items()}
        async with self._lease.transaction() as connection:
            counts = await batches.settle(connection, batch, verdicts, answer.request_id, self._clock.now())
        self._faults, self._not_before = 0, None
        if counts is not None:
            self._metrics.settled(self.instance, batch.push, counts)
            self._log.info("batch_settled", push=batch.push, batch=batch.id, urgent=batch.urgent, request_id=answer.request_id, **counts)
        return Worked(batch.row_count)

    async def _met(self, fault: Fault, batch: Batch) -> Outcome:
        """What a failed call leaves behind, by whether Marketo may have acted on it (architecture.md, sync batch)."""
        now, message = self._clock.now(), str(fault)
        bound = self._log.bind(push=batch.push, batch=batch.id, fault=message)
        async with self._lease.transaction() as connection:
            if fault.executed is None:
                await batches.to_unconfirmed(connection, batch.id, message)
            else:
                await batches.to_refused(connection, batch.id, message, now)
                if fault.nature not in PASSING:
                    await pushes.block(connection, self.instance, batch.push, now + SLOW_RETRY, message)
        self._faults += 1
        if fault.executed is None:
            bound.warning("batch_unconfirmed", records=batch.row_count)
        elif fault.nature in PASSING:
            bound.info("batch_refused", records=batch.row_count)
        else:
            bound.error("push_blocked", retry_at=(now + SLOW_RETRY).isoformat())
            return Worked(0)
        if fault.nature is not Nature.QUOTA:
            self._not_before = now + backoff(self._faults, self._jitter.random())
        elif batch.urgent:
            self._not_before = decide(fault, self._faults, now, self._jitter.random()).at
        else:
            self._ordinary_not_before = decide(fault, self._faults, now, self._jitter.random()).at
        return Worked(0)


def _is_due(batch: Batch, now: datetime) -> bool:
    full = batch.row_count >= MOST_RECORDS or batch.byte_count >= FULL * MOST_BYTES
    return batch.urgent or full or not now < batch.opened_at + GATHER


def _verdict(skipped: Synced, attempts: int, record: str) -> Verdict:
    """Bad data is rejected, passing trouble goes again a bounded number of times, and what a file can do goes by one."""
    reason = f"Marketo skipped it: {skipped.code} {skipped.message}".rstrip()
    if skipped.code in FILES_CAN and None not in orjson.loads(record).values():
        return Verdict("file", reason)
    if REST_NATURES.get(skipped.code, Nature.UNKNOWN) in PASSING | {Nature.UNKNOWN} and attempts + 1 < MOST_ATTEMPTS:
        return Verdict("pending", reason)
    return Verdict("rejected", reason)
