"""What is held, by guards and for plans. One function per edge; a change is held and released in pieces, by index."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.guard import Surge
from syncd.store.leases import Connection, Pool

PIECE = 20_000
"""Rows of a transaction: neither a claim nor the settling of a chunk is to wait for more."""

NEWEST = """
SELECT max(newest) FROM (
    SELECT max(id) AS newest FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'normal'
    UNION ALL
    SELECT max(id) FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent') each
"""
BEGIN_SURGE = """
UPDATE syncd.guard SET surge_since = $3, surge_after = $4, surge_upto = $5, held_at = coalesce(held_at, $6), held_why = $7
 WHERE instance = $1 AND push = $2
"""
MOVE_SURGE = "UPDATE syncd.guard SET surge_after = $3 WHERE instance = $1 AND push = $2"
END_SURGE = "UPDATE syncd.guard SET surge_since = NULL, surge_after = NULL, surge_upto = NULL WHERE instance = $1 AND push = $2"
NOTE_HELD = """
UPDATE syncd.guard SET held_at = coalesce(held_at, $3), held_why = $4 WHERE instance = $1 AND push = $2
"""
# Rows that a claim or an operator has locked are passed over, and found at the next look. Joined by the id alone, as they are locked:
# where nobody knows yet how many there are, a state would have the planner walk all of that state for each of them.
HOLD_SURGE = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM syncd.outbox
     WHERE id > $3 AND id <= $4 AND instance = $1 AND push = $2 AND state = 'pending' AND NOT admitted AND created_at >= $5
       AND id <> ALL ($6::bigint[])
     ORDER BY id LIMIT $7 FOR UPDATE SKIP LOCKED
), held AS (
    UPDATE syncd.outbox o SET state = 'held', waits_for = NULL, reason = $8 FROM chosen c WHERE o.id = c.id
    RETURNING o.id
)
SELECT count(*) AS changes, max(id) AS last FROM held
"""
HOLD_THESE = """
UPDATE syncd.outbox SET state = 'held', waits_for = NULL, reason = $2
 WHERE id IN (SELECT id FROM syncd.outbox WHERE id = ANY ($1::bigint[]) AND state = 'pending' AND NOT admitted
               ORDER BY id FOR UPDATE SKIP LOCKED)
"""
RELEASE = """
WITH chosen AS MATERIALIZED (
    SELECT id FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state = 'held' AND plan_id IS NOT DISTINCT FROM $3 AND id > $4 AND id <= $5
     ORDER BY id LIMIT $6 FOR UPDATE SKIP LOCKED
), released AS (
    UPDATE syncd.outbox o SET state = 'pending', admitted = true, reason = NULL FROM chosen c WHERE o.id = c.id RETURNING o.id
)
SELECT count(*) AS changes, max(id) AS last FROM released
"""
HOLDS = """
SELECT h.push, h.plan_id, h.changes, s.ids, h.newest, coalesce(p.made_at, g.held_at) AS since, coalesce(p.reason, g.held_why) AS why
  FROM (SELECT push, plan_id, count(*)::bigint AS changes, max(id) AS newest FROM syncd.outbox
         WHERE instance = $1 AND state = 'held' AND ($2::text IS NULL OR push = $2) GROUP BY push, plan_id) h
 CROSS JOIN LATERAL (
       SELECT array_agg(f.id) AS ids FROM (
              SELECT o.id FROM syncd.outbox o WHERE o.instance = $1 AND o.push = h.push AND o.state = 'held'
                 AND o.plan_id IS NOT DISTINCT FROM h.plan_id ORDER BY o.id LIMIT 5) f) s
  LEFT JOIN syncd.plan p ON p.id = h.plan_id
  LEFT JOIN syncd.guard g ON g.instance = $1 AND g.push = h.push AND h.plan_id IS NULL
 WHERE coalesce(p.state, '') <> 'making' ORDER BY h.push, h.plan_id NULLS FIRST
"""
RELEASED = """
UPDATE syncd.plan p SET state = 'released', decided_at = $4 WHERE p.instance = $1 AND p.push = $2 AND p.id = $3 AND p.state = 'waiting'
   AND NOT EXISTS (SELECT FROM syncd.outbox o WHERE o.plan_id = p.id AND o.state = 'held')
"""
DISCARDED = """
UPDATE syncd.plan p SET state = 'discarded', decided_at = $3 WHERE p.instance = $1 AND p.push = $2 AND p.state = 'waiting'
   AND NOT EXISTS (SELECT FROM syncd.outbox o WHERE o.plan_id = p.id AND o.state = 'held')
"""
NONE_HELD = """
UPDATE syncd.guard g SET held_at = NULL, held_why = NULL WHERE g.instance = $1 AND g.push = $2 AND g.surge_since IS NULL
   AND NOT EXISTS (SELECT FROM syncd.outbox o WHERE o.instance = $1 AND o.push = $2 AND o.state = 'held' AND o.plan_id IS NULL)
"""


@dataclass(frozen=True, slots=True)
class Hold:
    """Changes of a push that are held, by its guard or (`plan_id`) as a plan; `ids` are some of them, `newest` the highest."""

    push: str
    plan_id: int | None
    changes: int
    ids: Sequence[int]
    newest: int
    since: datetime | None
    why: str | None


async def begin_surge(connection: Connection, instance: str, push: str, since: datetime, first_id: int, why: str, now: datetime) -> Surge:
    """What was made since then and waits now is to be held; returns it."""
    upto = await connection.fetchval(NEWEST, instance, push) or first_id
    surge = Surge(since, first_id - 1, upto)
    await connection.execute(BEGIN_SURGE, instance, push, surge.since, surge.after, surge.upto, now, why)
    return surge


async def hold_surge(connection: Connection, instance: str, push: str, surge: Surge, but: Sequence[int], reason: str) -> tuple[int, bool]:
    """pending → held, for a piece of the surge, but for the ids `but`; how many, and whether these were the last."""
    row = await connection.fetchrow(HOLD_SURGE, instance, push, surge.after, surge.upto, surge.since, list(but), PIECE, reason)
    assert row is not None
    if row["changes"] < PIECE:
        await connection.execute(END_SURGE, instance, push)
        return row["changes"], True
    await connection.execute(MOVE_SURGE, instance, push, row["last"])
    return row["changes"], False


async def hold_these(connection: Connection, instance: str, push: str, ids: Sequence[int], reason: str, now: datetime) -> int:
    """pending → held, for these changes, a claim's worth at most."""
    await connection.execute(NOTE_HELD, instance, push, now, reason)
    done = await connection.execute(HOLD_THESE, list(ids), reason)
    return int(done.rpartition(" ")[2])


async def release(connection: Connection, instance: str, push: str, plan_id: int | None, upto: int) -> int:
    """held → pending, for what the guard holds, or a plan, of ids up to `upto`, a piece a transaction. Returns how many.

    None of it is held again. Those that somebody has locked stay as they are.
    """
    done, after = 0, 0
    while True:
        row = await connection.fetchrow(RELEASE, instance, push, plan_id, after, upto, PIECE)
        assert row is not None
        if not row["changes"]:
            return done
        done, after = done + row["changes"], row["last"]


async def settle_holds(connection: Connection, instance: str, push: str) -> None:
    """Forget since when and why, where nothing is held any more."""
    await connection.execute(NONE_HELD, instance, push)


async def holds(executor: Pool | Connection, instance: str, push: str | None = None) -> list[Hold]:
    """What is held, by push and plan; plans that are being made aside."""
    return [Hold(**row) for row in await executor.fetch(HOLDS, instance, push)]


async def plan_released(connection: Connection, instance: str, push: str, plan_id: int, now: datetime) -> None:
    """The plan is released when nothing of it is held any more."""
    await connection.execute(RELEASED, instance, push, plan_id, now)


async def plans_discarded(connection: Connection, instance: str, push: str, now: datetime) -> None:
    """Plans of which nothing is held any more, as it was cancelled, are discarded."""
    await connection.execute(DISCARDED, instance, push, now)
