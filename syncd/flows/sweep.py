"""What time alone decides: jobs that never came to exist, pushes to be tried again, partitions, what may be forgotten."""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Push
from syncd.core.slots import is_absent
from syncd.flows.loop import Idle, Outcome
from syncd.store import chunks, cursors, imports, outbox, pushes
from syncd.store.leases import Lease

log = structlog.get_logger()

EVERY = timedelta(seconds=10)
PARTITIONS_AHEAD = 3  # days
KEEP_WINDOWS = timedelta(days=30)
RUNS_SEEN_WITHIN = timedelta(days=7)


class Sweep:
    """Runs every ten seconds; each of its chores is a few short statements."""

    name = "sweep"

    def __init__(self, instance: str, settings: Sequence[Push], lease: Lease, clock: Clock) -> None:
        self.instance = instance
        self._unconfirmed_after = {push.name: push.unconfirmed_after for push in settings}
        self._lease = lease
        self._clock = clock
        self._log = log.bind(instance=instance)

    async def step(self) -> Outcome:
        """All the chores, once."""
        now = self._clock.now()
        await self._absent()
        async with self._lease.transaction() as connection:
            for push in await pushes.unblock_due(connection, self.instance, now):
                self._log.info("push_tried_again", push=push)
            for days in range(PARTITIONS_AHEAD):
                await outbox.ensure_partition(connection, (now + timedelta(days=days)).date())
            await cursors.forget_finished(connection, self.instance, now - KEEP_WINDOWS)
            for chunk_id in await chunks.of_removed_pushes(connection, self.instance, list(self._unconfirmed_after)):
                await chunks.dissolve(connection, chunk_id, "the configuration no longer has this push", now)
                self._log.warning("chunk_dissolved", chunk=chunk_id, reason="the configuration no longer has its push")
        return Idle(now + EVERY)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

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
