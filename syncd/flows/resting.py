"""A flow that rests while an operator has paused its direction, or the instance: for those that belong to no one pull or push."""

from syncd.core.clock import Clock
from syncd.flows.loop import SECOND, Flow, Idle, Outcome
from syncd.store import pauses
from syncd.store.leases import Lease
from syncd.store.pauses import Direction


class Resting:
    """`both` rests only while the whole instance is paused."""

    def __init__(self, flow: Flow, direction: Direction, lease: Lease, clock: Clock) -> None:
        self.name = flow.name
        self.instance = flow.instance
        self._flow = flow
        self._direction = direction
        self._lease = lease
        self._clock = clock

    async def step(self) -> Outcome:
        """A step of the flow, unless it is paused."""
        if await pauses.rests(self._lease.pool, self.instance, self._direction):
            return Idle(self._clock.now() + SECOND)
        return await self._flow.step()

    async def close(self) -> None:
        """As the flow does."""
        await self._flow.close()
