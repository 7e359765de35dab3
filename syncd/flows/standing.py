"""Whether a pull runs, and what becomes of it when Marketo refuses: for the flows that read leads by other ways than pages."""

import random

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.retry import Block, decide
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.flows.plan import running
from syncd.ops.metrics import Metrics
from syncd.store import pulls
from syncd.store.leases import Lease
from syncd.store.pulls import PullState

log = structlog.get_logger()

ACCESS_DENIED = "603"


class Standing:
    """One flow's view of its pull. Faults in a row are counted here; `well` ends the row."""

    def __init__(self, instance: str, pull: str, lease: Lease, clock: Clock, metrics: Metrics, jitter: random.Random) -> None:
        self._instance = instance
        self._pull = pull
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._faults = 0
        self._log = log.bind(instance=instance, pull=pull)

    async def running(self) -> PullState | None:
        """How the pull stands; None when it does not run. One that was blocked long enough ago is let run again."""
        return await running(self._lease, self._instance, self._pull, self._clock.now())

    def well(self) -> None:
        """Marketo has answered."""
        self._faults = 0

    async def met(self, fault: Fault, permission: str) -> Outcome:
        """Block the pull, or wait. `permission` is the one that the API user's role lacks when access is denied."""
        self._faults += 1
        self._metrics.fault(self._instance, fault)
        now = self._clock.now()
        decision = decide(fault, self._faults, now, self._jitter.random())
        if isinstance(decision, Block):
            message = f"{fault}; {remedy(permission)}" if fault.code == ACCESS_DENIED else str(fault)
            async with self._lease.transaction() as connection:
                blocked = await pulls.block(connection, self._instance, self._pull, None, decision.at, message)
            if blocked:
                self._log.error("pull_blocked", fault=message, retry_at=decision.at.isoformat())
            return Worked(0)
        level = self._log.warning if self._faults > 1 else self._log.info
        level("pull_fault", fault=str(fault), attempt=self._faults, clock_skew=fault.clock_skew)
        return Idle(decision.at)


def remedy(permission: str) -> str:
    """What an administrator of Marketo is to do."""
    return f'let an administrator of Marketo give the role of the API user the permission "{permission}"'
