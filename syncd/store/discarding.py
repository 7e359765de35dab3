"""Cancelling changes that are on no way yet. What a chunk or a batch carries is never touched: it may be at Marketo already.

A change waits for a chunk, never for another change; so nothing waits for what is cancelled here.
"""

from dataclasses import dataclass, field
from datetime import datetime

from syncd.store.history import ensure_partition
from syncd.store.leases import Connection

REASON = "discarded by an operator"
BATCH = 20_000
"""Rows of a transaction: neither a claim nor the settling of a chunk is to wait for more."""

TIME = "SELECT now()"
COUNT = """
SELECT state, count(*) AS changes, max(id) AS newest FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND created_at < $3 AND ($4::text IS NULL OR key_norm LIKE $4)
   AND (NOT $5::boolean OR state = 'held' AND plan_id IS NOT DISTINCT FROM $6::bigint) GROUP BY state
"""
FIRST = """
SELECT id FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state IN ('pending', 'held', 'parked') AND created_at < $3
   AND ($4::text IS NULL OR key_norm LIKE $4) AND (NOT $6::boolean OR state = 'held' AND plan_id IS NOT DISTINCT FROM $7::bigint)
 ORDER BY id LIMIT $5
"""
# Rows that a claim holds at this moment are passed over: waiting for them while holding others could end in a circle.
# The chosen are locked, so that their ids suffice: by the state, too, a planner that does not know how many there are would walk all of it.
CANCEL = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state IN ('pending', 'held', 'parked') AND created_at < $3
       AND ($4::text IS NULL OR key_norm LIKE $4) AND id > $5 AND id <= $6
       AND (NOT $10::boolean OR state = 'held' AND plan_id IS NOT DISTINCT FROM $11::bigint)
     ORDER BY id LIMIT $7 FOR UPDATE SKIP LOCKED
), ended AS (
    DELETE FROM syncd.outbox o USING chosen c WHERE o.id = c.id RETURNING o.*
), told AS (
    INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of)
    SELECT id, instance, push, key, key_norm, fields, 'cancelled', $8, attempt, created_at, $9, retry_of FROM ended RETURNING id
)
SELECT count(*) AS changes, max(id) AS last FROM told
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Changes of a push that were created before a time, of all keys or of those like `key_like`, an SQL pattern of `key_norm`.

    `held`: only those that its guard holds, or that are held for the plan `plan_id`.
    """

    instance: str
    push: str
    before: datetime
    key_like: str | None = None
    held: bool = False
    plan_id: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the chosen may be cancelled, by state; `carried` are in a chunk or a batch. `newest` is the highest id of the former."""

    states: dict[str, int] = field(default_factory=dict)
    carried: int = 0
    newest: int = 0

    @property
    def count(self) -> int:
        return sum(self.states.values())


async def time(connection: Connection) -> datetime:
    """By the database's clock, which changes are created by."""
    return await connection.fetchval(TIME)  # type: ignore[no-any-return]


async def find(connection: Connection, chosen: Chosen) -> Found:
    """Count the chosen changes."""
    rows = await connection.fetch(COUNT, chosen.instance, chosen.push, chosen.before, chosen.key_like, chosen.held, chosen.plan_id)
    free = {row["state"]: row for row in rows if row["state"] in ("pending", "held", "parked")}
    return Found(
        {state: row["changes"] for state, row in sorted(free.items())},
        sum(row["changes"] for row in rows if row["state"] not in free),
        max((row["newest"] for row in free.values()), default=0),
    )


async def first_ids(connection: Connection, chosen: Chosen, limit: int) -> list[int]:
    """Some of those that may be cancelled, the oldest."""
    rows = await connection.fetch(FIRST, chosen.instance, chosen.push, chosen.before, chosen.key_like, limit, chosen.held, chosen.plan_id)
    return [row["id"] for row in rows]


async def cancel(connection: Connection, chosen: Chosen, upto: int, now: datetime) -> int:
    """pending | held | parked → cancelled, for the chosen with ids up to `upto`, a batch a transaction. Returns how many.

    Those that somebody has locked stay as they are.
    """
    done, after = 0, 0
    while True:
        async with connection.transaction():
            await ensure_partition(connection, now.date())
            whose = (chosen.instance, chosen.push, chosen.before, chosen.key_like)
            row = await connection.fetchrow(CANCEL, *whose, after, upto, BATCH, REASON, now, chosen.held, chosen.plan_id)
        assert row is not None
        if not row["changes"]:
            return done
        done, after = done + row["changes"], row["last"]
