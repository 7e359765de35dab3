"""Exports of which nobody knows how far they came, as an answer was lost: looked for in Marketo's list, or asked about."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

from syncd.core import extract
from syncd.core.faults import Fault
from syncd.flows.exporting import KEPT_FOR, UNKNOWN_JOB, Reach
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.store import exports
from syncd.store.exports import Export

log = structlog.get_logger()

FIND_AFTER, GIVE_UP_AFTER = timedelta(minutes=1), timedelta(minutes=10)
"""When a job whose creation got no answer is first looked for, and when it is given up: one that was never queued does no harm."""
CLOCKS_DIFFER = timedelta(minutes=5)


class Doubts:
    """Those of one pull, or of the census."""

    def __init__(self, instance: str, of: str, reach: Reach) -> None:
        self._instance = instance
        self._of = of
        self._api, self._lease, self._clock = reach.api, reach.lease, reach.clock
        self.certain: set[int] = set()
        """Created exports that are known not to be queued; of others, left by a fault or a former daemon, the status is asked first."""
        self._find_at = self._clock.now()
        self._log = log.bind(instance=instance, pull=of)

    async def orphans(self) -> Outcome:
        """Between two steps nobody waits for an answer: what is being created was left so by a crash, or while the database was away."""
        async with self._lease.transaction() as connection:
            for export in await exports.orphaned(connection, self._instance, self._of):
                self._log.warning("export_unconfirmed", export=export, fault="its answer was not written")
        return Worked(0)

    def may_look_for(self, job: Export, now: datetime) -> bool:
        """Whether it is time."""
        return self._find_at <= now and job.begun_at + FIND_AFTER <= now

    async def look_for(self, job: Export, jobs: Sequence[Export], now: datetime) -> Outcome:
        """Look for a job whose creation got no answer: the only one that was created since and that is not ours otherwise.

        Where another creation is in doubt, too, or was given up since, it may be that one's. Raises Fault.
        """
        self._find_at = now + FIND_AFTER
        found = [
            one for one in await self._api.jobs(("created",)) if one.created_at is None or one.created_at >= job.begun_at - CLOCKS_DIFFER
        ]
        known = await exports.known(self._lease.pool, self._instance, [one.export_id for one in found])
        strange = [one for one in found if one.export_id not in known]
        oldest = min((one.created_at or job.begun_at for one in strange), default=now)
        given_up = await exports.absent_since(self._lease.pool, self._instance, oldest - CLOCKS_DIFFER)
        async with self._lease.transaction() as connection:
            in_doubt = [one for one in jobs if one.state in ("creating", "unconfirmed")]
            if len(strange) == len(in_doubt) + given_up == 1 and len(job.fields) >= extract.TELLING_FIELDS:
                await exports.adopt(connection, job.id, strange[0].export_id, now)
            elif not strange or job.begun_at + GIVE_UP_AFTER <= now:
                await exports.to_absent(connection, job.id, "Marketo's list has none that it could be", now)
            else:
                return Idle(self._find_at)
        self._log.info("export_looked_for", window=job.window_id, export=job.id, candidates=len(strange))
        return Worked(0)

    async def ask_status(self, job: Export) -> Outcome:
        """Whether an export that was created has been queued. Raises Fault."""
        assert job.export_id is not None
        try:
            status = await self._api.status(job.export_id)
        except Fault as fault:
            if fault.code not in UNKNOWN_JOB and job.begun_at + KEPT_FOR > self._clock.now():
                raise
            async with self._lease.transaction() as connection:
                await exports.to_cancelled(connection, job.id, f"Marketo does not know it: {fault}", self._clock.now())
            return Worked(0)
        async with self._lease.transaction() as connection:
            state = await exports.looked(connection, job.id, status, self._clock.now())
        self._log.info("export_status", window=job.window_id, export=job.id, export_id=job.export_id, state=status.state)
        if state == "created":
            self.certain.add(job.id)
        return Worked(0)
