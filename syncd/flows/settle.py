"""Learn each import job's outcome, and write it to each of its changes."""

import asyncio
import random
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.polling import QueuedJob, affordable_gap, median, next_looks
from syncd.core.quota import next_reset, quota_day
from syncd.core.results import ResultRow, Verdicts, keys_of, parse_results, settle_rows
from syncd.core.retry import backoff, decide
from syncd.core.settings import Limits, Poll, Push
from syncd.flows.loop import SECOND, Idle, Outcome, Worked, shielded
from syncd.marketo.imports import Imports
from syncd.ops.metrics import Metrics
from syncd.store import chunks, imports
from syncd.store.chunks import Chunk
from syncd.store.imports import Job
from syncd.store.leases import Lease
from syncd.store.usage import Ledger

log = structlog.get_logger()

BATCH_VALID_FOR = timedelta(days=7)  # protocol 4
SPLIT_BACKOFF_FROM = 4
OTHERS_FIRST = timedelta(seconds=10)
"""Should a job's outcome not be written, as somebody holds its rows, the other jobs are seen to before it is tried again."""
SHORT_RESULTS_TRIES = 5
"""A file that names fewer rows than failed may have been cut on its way: read it anew before calling the others unverified."""


class Settler:
    """Looks at the jobs in Marketo's queue, and settles those that have finished."""

    name = "settle"

    def __init__(
        self,
        instance: str,
        pushes: tuple[Push, ...],
        limits: Limits,
        api: Imports,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance
        self._polls = {push.name: push.poll for push in pushes}
        self._running = limits.import_running
        self._daily_calls = limits.daily_calls - limits.urgent_calls
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._faults: dict[int, int] = {}  # in a row, by job
        self._not_before: dict[int, datetime] = {}
        self._free_since: datetime | None = None  # when the last job that ended was yet seen to run: no new head began before
        self._log = log.bind(instance=instance)

    async def step(self) -> Outcome:
        """Settle one finished job, or look at one that is due; or wait until one is."""
        now = self._clock.now()
        jobs = await imports.live(self._lease.pool, self.instance)
        ready = [job for job in jobs if self._not_before.get(job.id, now) <= now]
        for job in ready:
            if job.batch_id is not None and job.submitted_at + BATCH_VALID_FOR <= now:
                return await self._lose(job, now)
            if job.state in ("complete", "failed"):
                return await self._settle(job)
        queued = {job.id: job for job in jobs if job.state in ("queued", "importing")}
        looks = next_looks(
            [self._queued(job) for job in queued.values()],
            self._running,
            median(await imports.recent_runs(self._lease.pool, self.instance, self._running)),
            self._free_since,
            await self._affordable_gap(now) if queued else timedelta(),
        )
        looks = [(max(at, self._not_before.get(job.id, at)), job) for at, job in looks]
        at, due = min(looks, key=lambda look: look[0], default=(now + SECOND, None))
        if due is None or at > now:
            return Idle(min(at, now + SECOND))
        return await self._look(queued[due.id])

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    def _queued(self, job: Job) -> QueuedJob:
        waits = job.state == "queued" and job.looked_at is not None
        return QueuedJob(job.id, job.submitted_at, job.looked_at, self._polls.get(job.push, Poll()), job.started_at, waits)

    async def _affordable_gap(self, now: datetime) -> timedelta:
        spent = await Ledger(self.instance, self._lease.pool).calls_of(quota_day(now))
        return affordable_gap(self._daily_calls - sum(spent.values()), next_reset(now) - now, self._running)

    async def _look(self, job: Job) -> Outcome:
        assert job.batch_id is not None
        self._metrics.polled(self.instance, "import")
        try:
            status = await self._api.status(job.batch_id)
        except Fault as fault:
            return await self._in_vain(job, fault)
        self._healed(job)
        if status.state in ("complete", "failed"):
            self._free_since = job.looked_at or job.submitted_at
        async with self._lease.transaction() as connection:
            await imports.looked(connection, job.id, status, self._clock.now())
        return Worked()

    async def _settle(self, job: Job) -> Outcome:
        chunk = await chunks.get(self._lease.pool, job.chunk_id)
        failures: list[ResultRow] = []
        warnings: list[ResultRow] = []
        assert job.batch_id is not None
        try:
            if job.failed:
                failures = parse_results((await self._api.failures(job.batch_id)).decode(errors="replace"), chunk.format)
            if job.warnings:
                warnings = parse_results((await self._api.warnings(job.batch_id)).decode(errors="replace"), chunk.format)
            if len(failures) < job.failed and self._faults.get(job.id, 0) < SHORT_RESULTS_TRIES:
                message = f"the failures file names {len(failures)} rows, the status counts {job.failed}"
                raise Fault(Nature.TRANSIENT, "short_results", message, "import_failures")
        except Fault as fault:
            return await self._in_vain(job, fault)
        verdicts: Verdicts = {}
        again: list[int] = []
        if job.state == "failed":
            rows = await chunks.sent_rows(self._lease.pool, chunk)
            # Of a job that failed as a whole, the rows that its results don't name go again anyway: none of them is in doubt.
            verdicts = await asyncio.to_thread(settle_rows, rows, failures, warnings, chunk.columns[0], 0)
            again = [row.ordinal for row in rows if row.ordinal not in verdicts]
        elif failures or warnings or job.failed:
            verdicts = await self._verdicts(job, chunk, failures, warnings)
        if again and chunk.row_count == 1:
            verdicts, again = {again[0]: ("unverified", "Marketo failed the import of this row as a whole")}, []
        now = self._clock.now()
        not_before = now + backoff(chunk.split_depth, 1.0) if chunk.split_depth >= SPLIT_BACKOFF_FROM else None
        self._not_before[job.id] = now + OTHERS_FIRST
        await shielded(self._write(job, chunk.row_count, verdicts, again, not_before, now))
        self._healed(job)
        return Worked(chunk.row_count)

    async def _verdicts(self, job: Job, chunk: Chunk, failures: list[ResultRow], warnings: list[ResultRow]) -> Verdicts:
        """By the rows that the results name; by all, of which there may be very many, only when one is in doubt."""
        for keys in (keys_of([*failures, *warnings], chunk.columns[0]), None):
            rows = await chunks.sent_rows(self._lease.pool, chunk, keys)
            verdicts = await asyncio.to_thread(settle_rows, rows, failures, warnings, chunk.columns[0], job.failed)
            if keys is None or (verdicts and all(verdict != "unverified" for verdict, _ in verdicts.values())):
                break
        return verdicts

    async def _write(
        self, job: Job, row_count: int, verdicts: Verdicts, again: list[int], not_before: datetime | None, now: datetime
    ) -> None:
        async with self._lease.transaction() as connection:
            counts = await imports.settle(connection, job, row_count, verdicts, now, again, not_before)
        if counts is not None:
            self._metrics.settled(self.instance, job.push, counts)
            self._metrics.import_ended(self.instance, job.submitted_at, job.started_at, job.finished_at, now)
            self._log.info("import_settled", push=job.push, job=job.id, batch=job.batch_id, **counts)

    async def _lose(self, job: Job, now: datetime) -> Outcome:
        message = "its results were not read within the 7 days that Marketo keeps them"
        async with self._lease.transaction() as connection:
            await imports.to_lost(connection, job, message, now)
        self._healed(job)
        self._log.error("import_lost", push=job.push, job=job.id, batch=job.batch_id, reason=message)
        return Worked()

    async def _in_vain(self, job: Job, fault: Fault) -> Outcome:
        """A look that met a fault: tried again until the seven days are over."""
        now = self._clock.now()
        faults = self._faults[job.id] = self._faults.get(job.id, 0) + 1
        self._not_before[job.id] = decide(fault, faults, now, self._jitter.random()).at
        self._metrics.fault(self.instance, fault)
        async with self._lease.transaction() as connection:
            await imports.looked_in_vain(connection, job.id, str(fault), now)
        self._log.warning("look_failed", push=job.push, job=job.id, batch=job.batch_id, fault=str(fault), attempt=faults)
        return Worked(0)

    def _healed(self, job: Job) -> None:
        self._faults.pop(job.id, None)
        self._not_before.pop(job.id, None)
