"""What time alone decides: jobs that never came to exist, pauses that are over, pushes to be tried again, what may be forgotten."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.core.slots import is_absent
from syncd.flows.loop import Idle, Outcome
from syncd.flows.unpack import unpack
from syncd.store import backfills, batches, chunks, cursors, history, imports, leads, pauses, pushes
from syncd.store.leases import Lease

log = structlog.get_logger()

EVERY = timedelta(seconds=10)
PARTITIONS_AHEAD = 3  # days
KEEP_WINDOWS = timedelta(days=30)
DROP_HISTORY_EVERY = timedelta(hours=1)
KEEP_FORMER_HISTORY = timedelta(days=90)
"""Of an instance whose history was turned off."""
RUNS_SEEN_WITHIN = timedelta(days=7)


class Sweep:
    """Runs every ten seconds; each of its chores is a few short statements."""

    name = "sweep"

    def __init__(self, instance: Instance, lease: Lease, clock: Clock) -> None:
        self.instance = instance.name
        self._history = instance.history
        self._drop_history_at = datetime.min.replace(tzinfo=UTC)
        self._unconfirmed_after = {push.name: push.unconfirmed_after for push in instance.pushes}
        self._lease = lease
        self._clock = clock
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """All the chores, once."""
        now = self._clock.now()
        await self._absent()
        await self._pauses(now)
        async with self._lease.transaction() as connection:
            for push in await pushes.unblock_due(connection, self.instance, now):
                self._log.info("push_tried_again", push=push)
            for days in range(PARTITIONS_AHEAD):
                day = (now + timedelta(days=days)).date()
                await history.ensure_partition(connection, day)
                if self._history is not None:
                    await leads.ensure_history(connection, self.instance, day)
            await cursors.forget_finished(connection, self.instance, now - KEEP_WINDOWS)
            await backfills.forget_finished(connection, self.instance, now - KEEP_WINDOWS)
        await self._unpack_removed(now)
        await self._drop_history(now.date())
        return Idle(now + EVERY)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _unpack_removed(self, now: datetime) -> None:
        """What is packed of pushes that the configuration no longer names."""
        named = list(self._unconfirmed_after)
        async with self._lease.pool.acquire() as connection:
            packed = await chunks.of_removed_pushes(connection, self.instance, named)
            gathered = await batches.of_removed_pushes(connection, self.instance, named)
        await unpack(self._lease, self.instance, packed, gathered, "the configuration no longer has this push", now)

    async def _pauses(self, now: datetime) -> None:
        async with self._lease.transaction() as connection:
            ended = await pauses.enforce(connection, self.instance, now)
        for each in ended:
            self._log.info("pause_ended", direction=each.direction, name=each.name or "all")

    async def _drop_history(self, today: date) -> None:
        """Now and then, in a transaction of its own."""
        if self._clock.now() < self._drop_history_at:
            return
        self._drop_history_at = self._clock.now() + DROP_HISTORY_EVERY
        try:
            async with self._lease.transaction() as connection:
                dropped = await leads.drop_history(connection, self.instance, today, self._history or KEEP_FORMER_HISTORY)
        except asyncpg.LockNotAvailableError:
            self._log.info("history_busy", reason="somebody reads it; what is too old is dropped later")
            return
        if dropped:
            self._log.info("history_dropped", days=dropped)

    async def _absent(self) -> None:
        now, pool = self._clock.now(), self._lease.pool
        for job in await imports.live(pool, self.instance):
            if job.state != "unconfirmed":
                continue
            later = await imports.later_finished_at(pool, self.instance, job.id)
            longest = await imports.longest_run(pool, self.instance, now - RUNS_SEEN_WITHIN, job.id)
            give_up_after = self._unconfirmed_after.get(job.push, timedelta(hours=6))
            if is_absent(job.submitted_at, later, longest, now, give_up_after):
                message = "no sign of it: a later import has finished meanwhile" if later else "no sign of it for too long"
                async with self._lease.transaction() as connection:
                    await imports.to_absent(connection, job.id, message)
                self._log.warning("import_absent", push=job.push, job=job.id, reason=message)
