"""What is kept of settled changes, and no longer than the configuration says: one piece of work a step, each in a short transaction."""

from datetime import datetime, timedelta

import asyncpg
import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.flows.loop import SECOND, Idle, Outcome
from syncd.store import keeping
from syncd.store.keeping import Place
from syncd.store.leases import Lease

log = structlog.get_logger()

EVERY = timedelta(hours=1)
PIECE = 2_000  # changes
CHUNKS = 500
ONE_DAY = timedelta(days=1)


class Keeper:
    """Erases the values of changes that are older than `keep.payloads`, forgets all that is older than `keep.outcomes`."""

    name = "keep"

    def __init__(self, instance: Instance, lease: Lease, clock: Clock) -> None:
        self.instance = instance.name
        self._keep = instance.keep
        self._lease = lease
        self._clock = clock
        self._erasing: Place | None = None
        self._deleting: Place | None = None
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """The next piece of work; a second's rest after each, an hour's when there is none."""
        now = await keeping.earlier(self._lease.pool, self._clock.now())
        try:
            worked = await self._erase(now) or await self._drop(now) or await self._forget(now)
        except asyncpg.LockNotAvailableError:
            # Nothing else is forgotten before it: what carried a change outlives the change.
            self._log.info("outcomes_busy", reason="somebody reads the history; what is too old is dropped later")
            worked = False
        return Idle(self._clock.now() + (SECOND if worked else EVERY))

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _erase(self, now: datetime) -> bool:
        """The values of whole days: a day is over when all of it is too old."""
        before = (now - self._keep.payloads).date()
        async with self._lease.transaction() as connection:
            for day in await keeping.to_erase(connection, self.instance, before):
                place = self._erasing if self._erasing and self._erasing.day == day else Place(day)
                done = await keeping.erase(connection, self.instance, place, PIECE)
                if done is not None:
                    break
                await keeping.erased_before(connection, self.instance, day + ONE_DAY)
            else:
                return await keeping.erase_retried(connection, self.instance, before, PIECE) > 0
        self._erasing = done  # not before it is committed
        return True

    async def _drop(self, now: datetime) -> bool:
        """A day as a whole where it is all ours, else our changes of it."""
        async with self._lease.transaction() as connection:
            for day in await keeping.days(connection, (now - self._keep.outcomes).date()):
                if await keeping.drop(connection, self.instance, day):
                    self._log.info("outcomes_dropped", day=day.isoformat())
                    return True
                if not await keeping.has_changes(connection, self.instance, day):
                    continue
                place = self._deleting if self._deleting and self._deleting.day == day else Place(day)
                done = await keeping.delete(connection, self.instance, place, PIECE)
                break
            else:
                return False
        self._deleting = done
        return True

    async def _forget(self, now: datetime) -> bool:
        """What carried the changes that are gone: their lookup field is told by it as long as they are there."""
        async with self._lease.transaction() as connection:
            before = (now - self._keep.outcomes).date()
            chunks = await keeping.forget_chunks(connection, self.instance, before, CHUNKS)
            return chunks + await keeping.forget_batches(connection, self.instance, before, CHUNKS) > 0
