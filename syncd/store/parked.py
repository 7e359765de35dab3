"""Changes that wait for a field: set aside by a claim, and pending again once describe has told of the field anew."""

import orjson

from syncd.store.leases import Connection, Pool

# From each name to the next by the index, however many changes wait for one.
LACKING = """
WITH RECURSIVE lacking AS (
    SELECT min(lacks) AS lacks FROM syncd.outbox WHERE instance = $1 AND push = $2 AND state = 'parked' AND lacks IS NOT NULL
    UNION ALL
    SELECT (SELECT min(o.lacks) FROM syncd.outbox o
             WHERE o.instance = $1 AND o.push = $2 AND o.state = 'parked' AND o.lacks IS NOT NULL AND o.lacks > l.lacks)
      FROM lacking l WHERE l.lacks IS NOT NULL
)
SELECT lacks FROM lacking WHERE lacks IS NOT NULL
"""
# By the place among the ids, which are sorted (store/outbox.py).
PARK = """
UPDATE syncd.outbox SET state = 'parked', waits_for = NULL, lacks = $2::jsonb ->> width_bucket(id, $1::bigint[]) - 1,
       reason = $3::jsonb ->> width_bucket(id, $1::bigint[]) - 1
 WHERE id = ANY ($1::bigint[]) AND state = 'pending'
"""
# `lacks` stays: the claim knows by it that describe was asked since.
UNPARK = """
UPDATE syncd.outbox SET state = 'pending', reason = NULL
 WHERE id = ANY (ARRAY(SELECT id FROM syncd.outbox WHERE instance = $1 AND push = $2 AND state = 'parked' AND lacks = $3
                        ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED))
"""
UNPARK_OTHERS = """
UPDATE syncd.outbox SET state = 'pending', reason = NULL
 WHERE id = ANY (ARRAY(SELECT id FROM syncd.outbox WHERE instance = $1 AND push = $2 AND state = 'parked' AND lacks IS NULL
                        ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED))
"""


async def lacking(pool: Pool, instance: str, push: str) -> list[str]:
    """The fields that parked changes of the push wait for."""
    return [row["lacks"] for row in await pool.fetch(LACKING, instance, push)]


async def park(connection: Connection, changes: list[tuple[int, str, str]]) -> None:
    """pending → parked, each (change, field, reason)."""
    ids, names, reasons = zip(*sorted(changes), strict=True)
    await connection.execute(PARK, ids, orjson.dumps(names).decode(), orjson.dumps(reasons).decode())


async def unpark(connection: Connection, instance: str, push: str, field: str | None, limit: int) -> int:
    """parked → pending, for up to `limit` changes that wait for the field, or (None) for something else. Returns how many."""
    if field is None:
        done = await connection.execute(UNPARK_OTHERS, instance, push, limit)
    else:
        done = await connection.execute(UNPARK, instance, push, field, limit)
    return int(done.rpartition(" ")[2])
