"""The way that each pull goes: chosen now and then, read by every flow that brings its leads."""

from dataclasses import dataclass
from datetime import datetime

from syncd.core.route import Follows, Route
from syncd.store.leases import Connection, Pool

READ = """
SELECT by_creation, ids_only, follows, route_reason AS reason, routed_at, planned_at IS NOT NULL AS begun, planned_until
  FROM syncd.pull WHERE instance = $1 AND pull = $2
"""
WRITE = """
UPDATE syncd.pull SET by_creation = $3, ids_only = $4, follows = $5, route_reason = $6, routed_at = $7 WHERE instance = $1 AND pull = $2
"""
# Everything begins anew by the same way; a walk that has begun goes on by its own windows.
FORGET = "UPDATE syncd.pull SET routed_at = NULL WHERE instance = $1 AND pull = $2"
WEIGHED = """
SELECT sum(bytes)::float8 / nullif(sum(records), 0)
  FROM (SELECT bytes, records FROM syncd.export
         WHERE instance = $1 AND pull = $2 AND parts = 1 AND cardinality(fields) > 1 AND finished_at IS NOT NULL AND bytes IS NOT NULL
         ORDER BY finished_at DESC LIMIT 30) e
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The way of a pull. `route` is None as long as none was chosen; `begun` once windows were planned for it."""

    route: Route | None
    routed_at: datetime | None
    begun: bool
    planned_until: datetime | None


async def read(pool: Pool, instance: str, pull: str) -> Chosen:
    """The way of a pull that is registered."""
    row = await pool.fetchrow(READ, instance, pull)
    assert row is not None, "the pull was registered when the daemon took the instance"
    follows: Follows = row["follows"]
    route = None if row["routed_at"] is None else Route(row["by_creation"], row["ids_only"], follows, row["reason"] or "")
    return Chosen(route, row["routed_at"], row["begun"], row["planned_until"])


async def choose(connection: Connection, instance: str, pull: str, route: Route, now: datetime) -> None:
    """Let the pull go that way from now on."""
    await connection.execute(WRITE, instance, pull, route.by_creation, route.ids_only, route.follows, route.reason, now)


async def forget(connection: Connection, instance: str, pull: str) -> None:
    """Let the way be chosen anew, for the instance does not offer it any more."""
    await connection.execute(FORGET, instance, pull)


async def bytes_per_lead(pool: Pool, instance: str, pull: str) -> float | None:
    """What a lead has weighed in the pull's latest extracts of all its fields; None as long as there were none."""
    return await pool.fetchval(WEIGHED, instance, pull)  # type: ignore[no-any-return]
