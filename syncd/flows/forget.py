"""Forgets people: erases them here, and deletes them in Marketo where that is asked for, once nothing can bring them back."""

import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.retry import SLOW_RETRY, decide
from syncd.core.settings import Instance
from syncd.flows.loop import SECOND, Idle, Outcome
from syncd.marketo.deleting import MOST_IDS, LeadDeletion
from syncd.ops.metrics import Metrics
from syncd.store import erasing, forget_requests
from syncd.store.forget_requests import Request
from syncd.store.leases import Lease

log = structlog.get_logger()

CARRIED_LOOK = timedelta(seconds=5)


class Forgetter:
    """Sees to every request; one that waits holds up no other."""

    name = "forget"

    def __init__(
        self,
        instance: Instance,
        api: LeadDeletion | None,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
        logger: Any = log,
    ) -> None:
        self.instance = instance.name
        self._pushes = {push.name: push.lookup_field for push in instance.pushes}
        self._api = api
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._faults = 0
        self._not_before: datetime | None = None
        self._log = logger.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Bring each request on by one step: erase at once, then wait for imports, delete in Marketo, and erase what is left."""
        requests = await forget_requests.open_ones(self._lease.pool, self.instance)
        moved = [await self._advance(request) for request in requests]
        return Idle(self._clock.now() + (CARRIED_LOOK if moved and not any(moved) else SECOND))

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _advance(self, request: Request) -> bool:
        if request.untouched:
            await self._erase(request)
            return True
        if not request.written:
            return True
        if request.in_marketo == "waits" and self._not_before is not None and self._clock.now() < self._not_before:
            return False
        _, carried = await self._live(request)
        # An import that is under way would make them anew in Marketo.
        if carried or (request.in_marketo == "waits" and not await self._delete(request)):
            return False
        await self._erase(request)
        return True

    async def _live(self, request: Request) -> tuple[list[int], int]:
        async with self._lease.pool.acquire() as connection:
            return await erasing.live(connection, self.instance, request.person, self._pushes)

    async def _erase(self, request: Request) -> None:
        async with self._lease.transaction() as connection:
            erasure = await erasing.erase(connection, self.instance, request.person, self._pushes, self._clock.now())
            await forget_requests.erased(connection, request, erasure.erased)
            done = not request.untouched and not erasure.carried
            if done:
                await forget_requests.finish(connection, request)
        if done:
            self._log.info("person_forgotten", receipt=request.receipt_id)
        elif request.untouched:
            self._log.info("person_erased", receipt=request.receipt_id, carried=erasure.carried, **erasure.erased)

    async def _delete(self, request: Request) -> bool:
        """Have Marketo delete the leads; False where that has to be tried again. Those that are not there any more are deleted."""
        now = self._clock.now()
        if self._not_before is not None and now < self._not_before:
            return False
        if self._api is None:
            return await self._in_vain(request, "the YAML has no rest for this instance any more", now + SLOW_RETRY)
        deleted, refused = 0, Counter[str]()
        ids = request.person.ids
        try:
            for first in range(0, len(ids), MOST_IDS):
                answer = await self._api.delete(ids[first : first + MOST_IDS])
                deleted, refused = deleted + answer.deleted, refused + answer.refused
        except Fault as fault:
            self._faults += 1
            self._metrics.fault(self.instance, fault)
            # By its code alone: what Marketo says of it may name the lead.
            again_at = decide(fault, self._faults, now, self._jitter.random()).at
            return await self._in_vain(request, f"the call met {fault.code}", again_at)
        self._faults, self._not_before = 0, None
        async with self._lease.transaction() as connection:
            await forget_requests.answered(connection, request, deleted, bool(refused))
        level = self._log.warning if refused else self._log.info
        level("person_deleted_in_marketo", receipt=request.receipt_id, deleted=deleted, refused=dict(refused))
        return True

    async def _in_vain(self, request: Request, message: str, again_at: datetime) -> bool:
        """Asked again, as often as it takes: what was deleted already is no fault then."""
        self._not_before = again_at
        async with self._lease.transaction() as connection:
            await forget_requests.in_vain(connection, request, message)
        self._log.warning("person_not_deleted", receipt=request.receipt_id, reason=message, again_at=again_at.isoformat())
        return False
