"""Look at the exports in Marketo's queue, and end those that nobody needs or can have any more."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from syncd.core.faults import Fault
from syncd.core.polling import QueuedJob, median, next_looks
from syncd.core.quota import day_began, resume_at
from syncd.core.retry import decide
from syncd.core.states import IN_EXPORT_QUEUE
from syncd.core.values import ExportStatus
from syncd.flows.exporting import KEPT_FOR, POLL, UNKNOWN_JOB, Exporting, Reach, shares
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.store import cursors, export_figures, exports, planning
from syncd.store.exports import Export

log = structlog.get_logger()

FORGET_AFTER = timedelta(days=30)
FORGET_EVERY = timedelta(hours=1)
STILL_CREATED = timedelta(minutes=10)
"""How long Marketo may go on to call a queued export created; it renews what it says once a minute at most (protocol 3.1)."""


class ExportPoller:
    """One of an instance, for all its pulls."""

    name = "export poll"

    def __init__(self, instance: str, shared: Exporting, reach: Reach) -> None:
        self.instance = instance
        self._shared = shared
        self._api, self._lease, self._clock = reach.api, reach.lease, reach.clock
        self._metrics, self._jitter = reach.metrics, reach.jitter
        self._faults: dict[int, int] = {}  # in a row, by export
        self._not_before: dict[int, datetime] = {}
        self._forget_at = self._clock.now()
        self._log = log.bind(instance=instance)

    async def step(self) -> Outcome:
        """Look at one export that is due, or end one; or wait until one is due."""
        now, pool = self._clock.now(), self._lease.pool
        jobs = await exports.unfinished(pool, self.instance)
        await self._tell(jobs, now)
        unwanted = await exports.unwanted(pool, self.instance)
        for job in jobs:
            if job.id in unwanted and job.window_id not in self._shared.loading:
                return await self._drop(job, now)
            if job.state == "completed" and job.finished_at is not None and job.finished_at + KEPT_FOR <= now:
                return await self._expire(job, now)
        queued = {job.id: job for job in jobs if job.state in IN_EXPORT_QUEUE}
        looks = next_looks(
            [
                QueuedJob(job.id, job.enqueued_at or job.begun_at, job.looked_at, POLL, job.looked_at or job.begun_at)
                for job in sorted(queued.values(), key=lambda job: job.id)
            ],
            self._shared.limits.export_running,
            median(await export_figures.recent_runs(pool, self.instance)),
        )
        looks = [(max(at, self._not_before.get(job.id, at)), job) for at, job in looks]
        at, due = min(looks, key=lambda look: look[0], default=(now + POLL.min, None))
        if due is None or at > now:
            return Idle(min(at, now + POLL.min))
        return await self._look(queued[due.id])

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _tell(self, jobs: Sequence[Export], now: datetime) -> None:
        counts: dict[str, int] = {}
        for job in jobs:
            counts[job.state] = counts.get(job.state, 0) + 1
        spent = await export_figures.spent(self._lease.pool, self.instance, day_began(now))
        self._metrics.exports(self.instance, counts, spent, self._shared.limits.export_daily_bytes)
        if self._forget_at <= now:
            self._forget_at = now + FORGET_EVERY
            async with self._lease.transaction() as connection:
                await exports.forget_ended(connection, self.instance, now - FORGET_AFTER)

    async def _look(self, job: Export) -> Outcome:
        assert job.export_id is not None
        self._metrics.polled(self.instance, "export")
        try:
            status = await self._api.status(job.export_id)
            now = self._clock.now()
            if status.state == "created" and job.state == "queued" and (job.enqueued_at or job.begun_at) + STILL_CREATED <= now:
                await self._queue_again(job)
        except Fault as fault:
            return await self._in_vain(job, fault)
        self._healed(job)
        again_at = None
        async with self._lease.transaction() as connection:
            state = await exports.looked(connection, job.id, status, now)
            window = await cursors.extract_window(self._lease.pool, job.window_id)
            if state in ("failed", "cancelled"):
                again_at = self._failed(job, status, now)
                halves = shares(window) if window is not None and state == "failed" and not is_about_quota(status) else None
                if halves is not None:
                    await planning.split(connection, job.window_id, halves, now)
        bound = self._log.bind(pull=job.pull, window=job.window_id, export=job.id, export_id=job.export_id)
        if state in ("failed", "cancelled"):
            self._metrics.export_ended(self.instance, job.pull, state)
            bound.warning("export_failed" if state == "failed" else "export_cancelled", reason=status.message, again_at=again_at)
        elif state == "completed":
            self._shared.completed(job.pull)
            bound.info("export_completed", records=status.records, bytes=status.bytes)
        return Worked()

    async def _queue_again(self, job: Export) -> None:
        """Marketo once said that it was queued, and it is not: of the same job that makes no second one."""
        assert job.export_id is not None
        self._log.warning("export_queued_again", pull=job.pull, window=job.window_id, export=job.id, export_id=job.export_id)
        try:
            await self._api.enqueue(job.export_id)
        except Fault as fault:
            if fault.code != "1029_already":
                raise

    def _failed(self, job: Export, status: ExportStatus, now: datetime) -> str:
        if is_about_quota(status):
            self._shared.not_before = resume_at(now)
            return self._shared.not_before.isoformat()
        return self._shared.failed(job.pull, now).isoformat()

    async def _in_vain(self, job: Export, fault: Fault) -> Outcome:
        """A look that met a fault: tried again as long as Marketo keeps the job."""
        now = self._clock.now()
        faults = self._faults[job.id] = self._faults.get(job.id, 0) + 1
        self._not_before[job.id] = max(decide(fault, faults, now, self._jitter.random()).at, now + POLL.min)
        self._metrics.fault(self.instance, fault)
        gone = fault.code in UNKNOWN_JOB or job.begun_at + KEPT_FOR + FORGET_EVERY <= now
        async with self._lease.transaction() as connection:
            await exports.in_vain(connection, job.id, fault, now, looked_at=True)
            if gone:
                await exports.to_cancelled(connection, job.id, f"Marketo does not know it any more: {fault}", now)
        bound = self._log.bind(pull=job.pull, window=job.window_id, export=job.id, export_id=job.export_id, fault=str(fault))
        if gone:
            self._healed(job)
            self._metrics.export_ended(self.instance, job.pull, "cancelled")
        bound.warning("export_gone" if gone else "export_look_failed", attempt=faults)
        return Worked(0)

    async def _drop(self, job: Export, now: datetime) -> Outcome:
        """Nobody waits for its window any more: the selector has changed, or it was shared."""
        message = "nobody waits for its window any more"
        if job.state != "completed" and job.export_id is not None:
            with suppress(Fault):  # then it runs to its end for nothing
                await self._api.cancel(job.export_id)
        async with self._lease.transaction() as connection:
            ended = exports.to_expired if job.state == "completed" else exports.to_cancelled
            await ended(connection, job.id, message, now)
        self._metrics.export_ended(self.instance, job.pull, "cancelled")
        self._log.info("export_dropped", pull=job.pull, window=job.window_id, export=job.id, export_id=job.export_id, reason=message)
        return Worked(0)

    async def _expire(self, job: Export, now: datetime) -> Outcome:
        message = "its file was not read within the 7 days that Marketo keeps it; its window is asked for anew"
        async with self._lease.transaction() as connection:
            await exports.to_expired(connection, job.id, message, now)
        self._metrics.export_ended(self.instance, job.pull, "expired")
        self._log.error("export_expired", pull=job.pull, window=job.window_id, export=job.id, export_id=job.export_id, reason=message)
        return Worked(0)

    def _healed(self, job: Export) -> None:
        self._faults.pop(job.id, None)
        self._not_before.pop(job.id, None)


def is_about_quota(status: ExportStatus) -> bool:
    """Whether an export failed because the day's bytes were spent when its turn came."""
    return "quota" in (status.message or "").lower()
