"""Answers what commands by hand ask through the database, so that they need not call Marketo beside the daemon."""

import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.flows.check import probe
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.marketo.wire import Wire
from syncd.store import requests
from syncd.store.leases import Lease

log = structlog.get_logger()


class Answer:
    """Looks for requests each second; a check is made with the daemon's own token, limiter and ledger."""

    name = "answer"

    def __init__(self, settings: Instance, wire: Wire, lease: Lease, clock: Clock) -> None:
        self.instance = settings.name
        self._settings = settings
        self._wire = wire
        self._lease = lease
        self._clock = clock

    async def step(self) -> Outcome:
        """Answer the oldest request."""
        request_id = await requests.next_check(self._lease.pool, self.instance)
        if request_id is None:
            return Idle(self._clock.now() + SECOND)
        findings = await probe(self._settings, self._wire, self._clock)
        async with self._lease.transaction() as connection:
            await requests.answer(connection, self.instance, request_id, findings)
        log.info("check_answered", instance=self.instance, request=request_id, failed=sum(not finding.ok for finding in findings))
        return Worked()

    async def close(self) -> None:
        """Nothing is under way between two steps."""
