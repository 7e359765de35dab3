"""How the lead database moves by itself: others update, create, delete and merge leads, by chance."""

import math
import random
from typing import TYPE_CHECKING

from syncd.simulator.clock import seeded
from syncd.simulator.people import invent, stir
from syncd.simulator.settings import SimulatorSettings

if TYPE_CHECKING:
    from syncd.simulator.world import World


class Mover:
    """Two streams of events, each with its own chance: what a seed does without losses, it does beside them too."""

    def __init__(self, settings: SimulatorSettings, now: float) -> None:
        rates = settings.movement
        self._chance, self._losses = seeded(settings.seed, "movement"), seeded(settings.seed, "deletions and merges")
        self._updates, self._creations = rates.updates_per_second, rates.creations_per_second
        self._deletions, self._merges = rates.deletions_per_second, rates.merges_per_second
        self._next_event = _after(self._chance, now, self._updates + self._creations)
        self._next_loss = _after(self._losses, now, self._deletions + self._merges)

    @property
    def next(self) -> float:
        """When the next event comes (unix seconds)."""
        return min(self._next_event, self._next_loss)

    def step(self, world: "World") -> None:
        """Let the next event happen; the world stands at its moment."""
        if self._next_loss < self._next_event:
            self._lose_one(world)
            self._next_loss = _after(self._losses, self._next_loss, self._deletions + self._merges)
            return
        if len(world) and self._chance.random() * (self._updates + self._creations) < self._updates:
            world.update(_some_lead(world, self._chance), world.still_there(stir(self._chance)))
        else:
            world.create(world.still_there(invent(self._chance, world.next_id)))
        self._next_event = _after(self._chance, self._next_event, self._updates + self._creations)

    def _lose_one(self, world: "World") -> None:
        merging = self._losses.random() * (self._deletions + self._merges) < self._merges
        if len(world) < 2:
            return
        lead_id = _some_lead(world, self._losses)
        if not merging:
            world.delete(lead_id)
        elif (other := _some_lead(world, self._losses)) != lead_id:
            world.merge(other, [lead_id])


def _some_lead(world: "World", chance: random.Random) -> int:
    # Ids may have holes after deletions: take the next one that lives.
    first = next(iter(world)).id
    lead_id = chance.randrange(first, world.next_id)
    while world.get(lead_id) is None:
        lead_id = lead_id + 1 if lead_id + 1 < world.next_id else first
    return lead_id


def _after(chance: random.Random, now: float, rate: float) -> float:
    return now + chance.expovariate(rate) if rate > 0 else math.inf
