"""Out: pending changes are packed into chunks, and chunks submitted within the slots."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256

import structlog

from syncd.core.batching import may_go_by_sync
from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.hours import may_import
from syncd.core.pack import pack
from syncd.core.polling import median, noticed_within
from syncd.core.retry import SLOW_RETRY, backoff, decide
from syncd.core.settings import Limits, Push
from syncd.core.slots import Room, wanted_in_flight
from syncd.core.states import IN_QUEUE
from syncd.flows import gate
from syncd.flows.loop import DATABASE_FAULTS, SECOND, Idle, LastWrite, Outcome, Worked, describe_error
from syncd.flows.preflight import Checks, ruled, target_of
from syncd.marketo.imports import Imports, Submitted
from syncd.ops.metrics import Metrics
from syncd.store import chunks, claims, endings, imports, outbox, pushes, ruling
from syncd.store.chunks import Chunk
from syncd.store.imports import Job
from syncd.store.leases import Lease
from syncd.store.outbox import kin_of

log = structlog.get_logger()

CLAIM = 20_000
"""Rows of one claim at most: bounds its memory, and how long its transaction lasts, at any backlog."""

LIST_BUSY_FOR = timedelta(seconds=30)
PASSING = frozenset({Nature.TRANSIENT, Nature.TOKEN, Nature.RATE, Nature.QUOTA})


class Packer:
    """Claims pending changes into chunks and seals those that are full or old enough, push after push."""

    name = "pack"

    def __init__(
        self,
        instance: str,
        settings: Sequence[Push],
        limits: Limits,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        checks: Checks | None = None,
    ) -> None:
        self.instance = instance
        self._pushes = settings
        self._checks = checks
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        # Packing further ahead than the slots can use would only freeze cells that later changes could still be merged with.
        self._sealed_ahead = 2 * limits.import_slots

    async def step(self) -> Outcome:
        """One claim of each push that has room ahead."""
        running = await pushes.running(self._lease.pool, self.instance)
        worked = 0
        if running and self._checks is not None:
            held = await self._checks.take_up()
            if held is not None:
                return held
        for push in self._pushes:
            if push.name in running and may_import(push, self._clock.now()):
                worked += await self._pack(push)
        return Worked(worked) if worked else Idle(self._clock.now() + SECOND)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _pack(self, push: Push) -> int:
        waiting = await chunks.counts(self._lease.pool, self.instance, push.name)
        now = self._clock.now()
        worked = 0
        if waiting.sealed < self._sealed_ahead:
            worked = await self._claim(push, now)
        if waiting.oldest_open_at is not None and waiting.oldest_open_at + push.flush_after <= now:
            worked += await self._flush(push, now)
        return worked

    async def _flush(self, push: Push, now: datetime) -> int:
        """Seal the open chunks that are old enough, but for those whose rows cost less by Sync Leads."""
        worked = 0
        async with self._lease.transaction() as connection:
            by_file: list[int] = []
            rare: list[int] = []
            rows = 0
            for chunk in await chunks.old_open(connection, self.instance, push.name, now - push.flush_after):
                if not may_go_by_sync(push.list_id, chunk.columns, chunk.row_count, chunk.byte_count, chunk.by_file):
                    by_file.append(chunk.id)
                elif rows + chunk.row_count <= CLAIM:
                    rare.append(chunk.id)
                    rows += chunk.row_count
            if rare:
                out = await endings.take_out(connection, rare, now)
                seen = await outbox.these(connection, self.instance, push, out, kin_of(push, self._pushes))
                known = await ruling.known(connection, self.instance, push, seen.changes)
                target = ruled(replace(target_of(push, self._checks), by_sync=True), push, known)
                packing = await asyncio.to_thread(pack, seen.changes, seen.claimed, (), target, seen.open_batch)
                await claims.claim(connection, self.instance, push, packing, now)
                worked += rows
            for chunk_id in by_file:  # last: others lock keys, as was done above, before they lock chunks
                worked += await chunks.seal(connection, chunk_id, now) is not None
        return worked

    async def _claim(self, push: Push, now: datetime) -> int:
        checks = self._checks
        target = target_of(push, checks)
        async with self._lease.transaction() as connection:
            admitted = await gate.admitted(connection, self.instance, push, CLAIM, now)
            among = None if admitted is None else admitted.ids
            seen = await outbox.claimable(connection, self.instance, push, CLAIM, kin_of(push, self._pushes), among)
            self._metrics.forgotten(self.instance, "push", seen.refused)
            if not seen.changes:
                return 0
            mirror = await checks.mirror(connection, push, seen) if checks is not None else None
            target = ruled(target, push, await ruling.known(connection, self.instance, push, seen.changes))
            packing = await asyncio.to_thread(pack, seen.changes, seen.claimed, seen.open_chunks, target, seen.open_batch, mirror)
            if admitted is not None:
                await gate.let_go(connection, self.instance, push, admitted, packing, now)
            for chunk_id in await claims.claim(connection, self.instance, push, packing, now):
                await chunks.seal(connection, chunk_id, now)
        self._metrics.claimed(self.instance, push.name, packing)
        if checks is not None:
            checks.note(packing)
        return len(seen.changes) - len(packing.left)


class Submitter:
    """Gives sealed chunks to Marketo's import queue, as many as keep its workers busy."""

    name = "submit"

    def __init__(
        self,
        instance: str,
        settings: Sequence[Push],
        limits: Limits,
        api: Imports,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance
        self._pushes = {push.name: push for push in settings}
        self._limits = limits
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._not_before: datetime | None = None
        self._room = Room()
        self._faults = 0  # other passing faults in a row
        self._log = log.bind(instance=instance)
        self._last = LastWrite("import_not_written", self._log)

    async def step(self) -> Outcome:
        """Submit one chunk; or wait until there is one, and room for it."""
        if (written := await self._last.again()) is not None:
            return written
        now = self._clock.now()
        if self._not_before is not None and now < self._not_before:
            return Idle(self._not_before)
        jobs = await imports.live(self._lease.pool, self.instance)
        await self._take_back(job for job in jobs if job.state == "submitting")
        in_flight = sum(job.state in IN_QUEUE for job in jobs)
        wanted = await self._wanted()
        importing = sum(job.state == "importing" for job in jobs)
        self._room = self._room.looked(wanted, in_flight, importing, self._limits.import_running, now)
        if self._room.free(wanted, in_flight) <= 0:
            return Idle(now + SECOND)
        if self._room.not_before is not None and now < self._room.not_before:
            return Idle(min(self._room.not_before, now + SECOND))
        async with self._lease.transaction() as connection:
            closed = [push.name for push in self._pushes.values() if not may_import(push, now)]
            chunk = await chunks.next_sealed(connection, self.instance, now, smallest=self._room.probing, closed=closed)
        if chunk is None:
            return Idle(now + SECOND)
        return await self._submit(chunk)

    async def close(self) -> None:
        """Write what became of the last POST, if the database would not take it before."""
        await self._last.close()

    async def _take_back(self, jobs: Iterable[Job]) -> None:
        """Between two steps no POST is under way: such a job began in a commit that the database did not confirm; nothing was sent."""
        for job in jobs:
            async with self._lease.transaction() as connection:
                await imports.to_refused(connection, job.id, "the database did not confirm its beginning, so that nothing was sent")
                await chunks.to_sealed(connection, job.chunk_id, None)
            self._log.warning("import_taken_back", push=job.push, job=job.id)

    async def _wanted(self) -> int:
        slots, running = self._limits.import_slots, self._limits.import_running
        runs = await imports.recent_runs(self._lease.pool, self.instance, running)
        typical = median(runs)
        look_gap = max((noticed_within(push.poll, typical) for push in self._pushes.values()), default=timedelta())
        return wanted_in_flight(slots, running, look_gap, runs)

    async def _submit(self, chunk: Chunk) -> Outcome:
        body = await chunks.render(self._lease.pool, chunk.id)
        if await asyncio.to_thread(lambda: sha256(body).digest()) != chunk.sha256:
            return await self._dissolve(chunk)
        async with self._lease.transaction() as connection:
            job_id = await imports.start(connection, chunk, self._clock.now())
        if job_id is None:
            return Worked(0)
        try:
            submitted = await self._api.submit(
                [body],
                sha256=chunk.sha256.hex(),
                format=chunk.format,
                lookup_field=chunk.columns[0],
                list_id=chunk.list_id,
                partition=chunk.partition,
            )
        except Fault as fault:
            self._metrics.fault(self.instance, fault)
            return await self._last.write(partial(self._met, fault, chunk, job_id))
        except DATABASE_FAULTS as error:
            # The ledger of calls could not be asked, so that nothing was sent.
            unsent = Fault(Nature.TRANSIENT, "database", describe_error(error), "import", executed=False)
            return await self._last.write(partial(self._met, unsent, chunk, job_id))
        return await self._last.write(partial(self._accepted, submitted, chunk, job_id))

    async def _accepted(self, submitted: Submitted, chunk: Chunk, job_id: int) -> Outcome:
        now = self._clock.now()
        async with self._lease.transaction() as connection:
            # This answer counts no failures: what has finished already is finished for us once its status was asked for.
            state = "queued" if submitted.status == "queued" else "importing"
            await imports.to_answered(connection, job_id, submitted.batch_id, state, submitted.request_id, now)
        self._metrics.accepted(self.instance, chunk.push, chunk.byte_count, self._pushes[chunk.push].max_body_bytes)
        self._room = self._room.accepted()
        self._faults = 0
        self._not_before = None
        self._log.info(
            "import_submitted",
            push=chunk.push,
            job=job_id,
            batch=submitted.batch_id,
            rows=chunk.row_count,
            bytes=chunk.byte_count,
            request_id=submitted.request_id,
        )
        return Worked(chunk.row_count)

    async def _dissolve(self, chunk: Chunk) -> Outcome:
        """Never send what differs from what was sealed: the rows may have been touched by hand."""
        async with self._lease.transaction() as connection:
            await endings.dissolve(connection, chunk.id, "its chunk no longer rendered to the bytes that were sealed", self._clock.now())
        self._log.warning("chunk_dissolved", push=chunk.push, chunk=chunk.id, reason="its file differs from what was sealed")
        return Worked(0)

    async def _met(self, fault: Fault, chunk: Chunk, job_id: int) -> Outcome:
        """What a failed POST leaves behind, by whether Marketo may have acted on it (architecture.md, import job)."""
        now = self._clock.now()
        message = str(fault)
        bound = self._log.bind(push=chunk.push, job=job_id, fault=message)
        if fault.executed is None:
            async with self._lease.transaction() as connection:
                await imports.to_unconfirmed(connection, job_id, message)
            bound.warning("import_unconfirmed", rows=chunk.row_count)
            return self._back_off(fault, now)
        async with self._lease.transaction() as connection:
            await imports.to_refused(connection, job_id, message)
            if fault.nature is Nature.TOO_LARGE and chunk.row_count == 1:
                await imports.end_changes(connection, chunk.id, job_id, {}, "rejected", now, reason=message)
                await endings.to_done(connection, chunk.id, now)
            elif fault.nature is Nature.TOO_LARGE:
                ordinals = [row.ordinal for row in await chunks.sent_rows(self._lease.pool, chunk)]
                await endings.to_split(connection, chunk.id, ordinals, None, now)
            else:
                await chunks.to_sealed(connection, chunk.id, None)
                if fault.nature is Nature.LIST_BUSY:
                    await chunks.put_off(connection, self.instance, chunk.list_id, now + LIST_BUSY_FOR)
                if fault.nature not in PASSING | {Nature.NO_SLOT, Nature.LIST_BUSY}:
                    await pushes.block(connection, self.instance, chunk.push, now + SLOW_RETRY, message)
        match fault.nature:
            case Nature.NO_SLOT:
                return await self._give_way(now)
            case Nature.LIST_BUSY | Nature.TOO_LARGE:
                bound.info("import_refused")
                return Worked(0)
            case nature if nature in PASSING:
                bound.info("import_refused")
                return self._back_off(fault, now)
            case _:
                bound.error("push_blocked", retry_at=(now + SLOW_RETRY).isoformat())
                return Worked(0)

    async def _give_way(self, now: datetime) -> Outcome:
        """The queue is full (1016): hold fewer, and probe again soon, with the smallest chunk, and less and less often."""
        in_flight = sum(job.state in IN_QUEUE for job in await imports.live(self._lease.pool, self.instance))
        self._room = self._room.refused(in_flight, self._limits.import_running, now, self._jitter.random())
        self._log.info("queue_full", refusals=self._room.refusals, ours=in_flight, fit=self._room.limit)
        return Idle(now + SECOND)

    def _back_off(self, fault: Fault, now: datetime) -> Outcome:
        self._faults += 1
        decision = decide(fault, self._faults, now, self._jitter.random())
        self._not_before = decision.at if fault.nature is Nature.QUOTA else now + backoff(self._faults, self._jitter.random())
        return Idle(self._not_before)
