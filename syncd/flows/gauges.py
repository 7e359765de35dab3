"""Shows what the database says: gauges are refreshed by this beat, however often they are scraped."""

from datetime import timedelta

from syncd.core.clock import Clock
from syncd.core.hours import may_import
from syncd.core.settings import Instance
from syncd.flows.loop import Idle, Outcome
from syncd.ops.metrics import Metrics
from syncd.store import gauges
from syncd.store.leases import Lease

BEAT = timedelta(seconds=15)  # as often as Prometheus scrapes by default
SHARE = 20
"""Behind a great backlog to count takes a while: it does so one in so many seconds at most."""


class Beat:
    """Asks, and shows."""

    name = "gauges"

    def __init__(self, instance: Instance, lease: Lease, clock: Clock, metrics: Metrics) -> None:
        self.instance = instance.name
        self._limits = instance.limits
        self._pushes = instance.pushes
        self._lease = lease
        self._clock = clock
        self._metrics = metrics

    async def step(self) -> Outcome:
        """Once."""
        began = self._clock.now()
        found = await gauges.read(self._lease.pool, self.instance, began)
        outside = {push.name: not may_import(push, began) for push in self._pushes}
        self._metrics.levels.show(self.instance, found, self._limits, outside)
        now = self._clock.now()
        return Idle(now + max(BEAT, SHARE * (now - began)))

    async def close(self) -> None:
        """Nothing is under way between two steps."""
