"""Leads of the mirror drawn by chance, by probes of its primary key alone."""

import random

from syncd.store import verifying
from syncd.store.leases import Connection

ROUNDS, EVEN_ROUNDS = 15, 10
"""How often ids are drawn; so often only those that are leads count, which makes each lead as likely as any other. Where ids have such
gaps that this does not find enough, the next lead behind an id does, too."""
LEAST, MOST = 1_000, 20_000
"""Ids a round."""


async def draw(connection: Connection, instance: str, wanted: int, chance: random.Random, *, others_too: bool) -> list[int]:
    """The ids of `wanted` leads, or of all where there are no more; `others_too`: and at most as many that the mirror does not have."""
    span = await verifying.span(connection, instance)
    if span is None:
        return []
    ids_there_may_be = range(span[0], span[1] + 1)
    chosen: set[int] = set()
    absent: set[int] = set()
    for number in range(ROUNDS):
        count = min(max(LEAST, 2 * (wanted - len(chosen))), MOST)
        all_at_once = len(ids_there_may_be) <= count
        drawn = set(ids_there_may_be if all_at_once else chance.choices(ids_there_may_be, k=count)) - chosen - absent
        if number < EVEN_ROUNDS:
            hits = await verifying.there(connection, instance, list(drawn))
            absent |= drawn - hits
        else:
            hits = await verifying.at_or_after(connection, instance, list(drawn)) - chosen
        chosen.update(chance.sample(sorted(hits), min(len(hits), wanted - len(chosen))))
        if len(chosen) == wanted or all_at_once:
            break
    others = chance.sample(sorted(absent), min(len(absent), len(chosen))) if others_too else []
    return sorted([*chosen, *others])
