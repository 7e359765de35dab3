"""Learns now and then what all integrations together have spent of the day's REST calls (protocol 3.5)."""

from datetime import timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.quota import quota_day, resume_at
from syncd.core.settings import Limits
from syncd.flows.loop import Idle, Outcome
from syncd.marketo.limiter import Limiter
from syncd.marketo.rest import RestApi
from syncd.marketo.usage import usage
from syncd.ops.metrics import Metrics
from syncd.store.leases import Lease
from syncd.store.usage import Ledger, remember_users

log = structlog.get_logger()

NEAR, FAR = timedelta(minutes=10), timedelta(minutes=30)
NEAR_SHARE = 0.5  # of what ordinary calls may spend: from there on it is asked for more often
AFTER_FAULT, AFTER_REFUSAL = timedelta(minutes=10), timedelta(hours=1)


class Usage:
    """Asks, writes it down for the operator, and tells the limiter. Its faults hold up nothing else."""

    name = "usage"

    def __init__(
        self, instance: str, limits: Limits, rest: RestApi, limiter: Limiter, lease: Lease, clock: Clock, metrics: Metrics
    ) -> None:
        self.instance = instance
        self._limits = limits
        self._rest = rest
        self._limiter = limiter
        self._lease = lease
        self._ledger = Ledger(instance, lease.pool)
        self._clock = clock
        self._metrics = metrics
        self._fault: str | None = None
        self._log = log.bind(instance=instance)

    async def step(self) -> Outcome:
        """Ask once."""
        asked_at = self._clock.now()
        day = quota_day(asked_at)
        mark = self._limiter.mark((await self._ledger.calls_of(day)).get("rest", 0))
        try:
            found = await usage(self._rest)
        except Fault as fault:
            return self._met(fault)
        self._fault = None
        # Just after midnight it may still be the old day's, which is none of the new one's.
        total, users = (found.total, found.users) if found.day is None or found.day >= day else (0, {})
        async with self._lease.transaction() as connection:
            await remember_users(connection, self.instance, day, users, asked_at)
        self._limiter.learn(mark, total)
        self._metrics.subscription(self.instance, mark.ours, max(0, total - mark.ours))
        return Idle(self._clock.now() + (NEAR if self._is_near(total) else FAR))

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    def _is_near(self, total: int) -> bool:
        calls = self._limits.subscription_calls
        return calls is not None and total >= NEAR_SHARE * (calls - self._limits.urgent_reserve)

    def _met(self, fault: Fault) -> Outcome:
        """Told once, until it is another one; what needs a person is tried again at long intervals."""
        now = self._clock.now()
        if fault.code != self._fault:
            self._log.warning("usage_unknown", fault=str(fault), code=fault.code)
        self._fault = fault.code
        self._metrics.fault(self.instance, fault)
        if fault.nature is Nature.QUOTA:
            return Idle(resume_at(now))
        passing = fault.nature in (Nature.TRANSIENT, Nature.RATE, Nature.TOKEN)
        return Idle(now + (AFTER_FAULT if passing else AFTER_REFUSAL))
