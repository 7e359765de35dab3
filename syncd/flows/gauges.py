"""Shows what the database says: gauges are refreshed by this beat, however often they are scraped."""

from datetime import timedelta

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.flows.loop import Idle, Outcome
from syncd.ops.metrics import Metrics
from syncd.store import gauges
from syncd.store.leases import Lease

BEAT = timedelta(seconds=15)  # as often as Prometheus scrapes by default


class Beat:
    """Asks, and shows."""

    name = "gauges"

    def __init__(self, instance: Instance, lease: Lease, clock: Clock, metrics: Metrics) -> None:
        self.instance = instance.name
        self._limits = instance.limits
        self._lease = lease
        self._clock = clock
        self._metrics = metrics

    async def step(self) -> Outcome:
        """Once."""
        found = await gauges.read(self._lease.pool, self.instance, self._clock.now())
        self._metrics.levels.show(self.instance, found, self._limits)
        return Idle(self._clock.now() + BEAT)

    async def close(self) -> None:
        """Nothing is under way between two steps."""
