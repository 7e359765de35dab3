"""What guards know, and what they hold. One function per edge; a change is held and released in pieces, by index."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from syncd.core.guard import Arrival, CanaryState, Known, Surge, Waiting, Why
from syncd.store.leases import Connection, Pool

PIECE = 20_000
"""Rows of a transaction: neither a claim nor the settling of a chunk is to wait for more."""

KNOWN = """
SELECT digest, canary, why, canary_ids, begun_at, surge_since, surge_after, surge_upto, held_at FROM syncd.guard
 WHERE instance = $1 AND push = $2
"""
LOCKED = KNOWN + " FOR UPDATE"
# Claims hold it as it is until they end, and don't wait for each other.
SHARED = KNOWN + " FOR SHARE"
EXPECT = """
INSERT INTO syncd.guard (instance, push, digest, why) VALUES ($1, $2, $3, $4)
ON CONFLICT (instance, push) DO UPDATE SET digest = excluded.digest, why = excluded.why, canary = 'none', canary_ids = '{}',
       begun_at = NULL, ended_at = NULL, failed = 0
"""
OLDEST = """
SELECT id, created_at, admitted FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'normal' ORDER BY id LIMIT $3
"""
OLDEST_URGENT = """
SELECT id, created_at, admitted FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent' ORDER BY id LIMIT $3
"""
OF_IDS = """
SELECT id, created_at, admitted FROM syncd.outbox
 WHERE id = ANY ($1::bigint[]) AND state = 'pending' AND waits_for IS NULL AND priority = 'normal' ORDER BY id
"""
# The oldest are enough: a claim takes none of which not as many that came after it are counted as a surge needs.
ARRIVALS = """
SELECT created_at, count(*)::integer AS changes, min(id) AS first_id FROM (
    (SELECT id, created_at, admitted FROM syncd.outbox
      WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'normal' ORDER BY id LIMIT $3)
    UNION ALL
    (SELECT id, created_at, admitted FROM syncd.outbox
      WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent' ORDER BY id LIMIT $3)) oldest
 WHERE NOT admitted AND NOT coalesce(created_at >= $4 AND id <= $5, false)
 GROUP BY created_at ORDER BY created_at
"""
NEWEST = """
SELECT max(newest) FROM (
    SELECT max(id) AS newest FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'normal'
    UNION ALL
    SELECT max(id) FROM syncd.outbox
     WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent') each
"""
COUNTED = """
SELECT minute, changes FROM syncd.guard_count
 WHERE instance = $1 AND push = $2 AND minute > $3 AND minute <= $4 AND changes > 0 ORDER BY minute
"""
CREATED = "SELECT coalesce(sum(created), 0) FROM syncd.guard_count WHERE instance = $1 AND push = $2 AND minute >= $3 AND minute < $4"
COUNT = """
INSERT INTO syncd.guard_count AS c (instance, push, minute, changes, created)
SELECT $1, $2, m.minute, m.changes, m.created FROM unnest($3::timestamptz[], $4::int[], $5::int[]) AS m (minute, changes, created)
 ORDER BY m.minute
ON CONFLICT (instance, push, minute) DO UPDATE SET changes = c.changes + excluded.changes, created = c.created + excluded.created
"""
FORGET_COUNTS = "DELETE FROM syncd.guard_count WHERE instance = $1 AND minute < $2"
# Whom we have brought there lately, the pulls may not have brought back yet. The LIMITs keep it one probe of an index for each change:
# as joins, and with nothing known of the tables, all leads were walked for each.
UNKNOWN = """
SELECT o.id, o.key_norm FROM syncd.outbox o
 WHERE o.id = ANY ($2::bigint[])
   AND (SELECT true FROM syncd.lead l
         WHERE l.instance = $1 AND lower(l.email) = o.key_norm AND l.deleted_at IS NULL LIMIT 1) IS NULL
   AND (SELECT true FROM syncd.change_history h
         WHERE h.instance = $1 AND h.key_norm = o.key_norm AND h.state IN ('applied', 'warned') AND h.settled_at >= $3 LIMIT 1) IS NULL
 ORDER BY o.id
"""
BEGIN_CANARY = """
UPDATE syncd.guard SET canary = 'under_way', why = $3, canary_ids = $4, begun_at = $5, ended_at = NULL, failed = 0
 WHERE instance = $1 AND push = $2 AND canary <> 'under_way'
"""
END_CANARY = """
UPDATE syncd.guard SET canary = $3, failed = $4, ended_at = $5 WHERE instance = $1 AND push = $2 AND canary = 'under_way'
"""
FATES = """
SELECT state, coalesce(reason, '') AS reason, count(*)::integer AS changes FROM (
    SELECT state, reason FROM syncd.outbox WHERE id = ANY ($1::bigint[])
    UNION ALL
    SELECT state, reason FROM syncd.change_history WHERE id = ANY ($1::bigint[]) AND settled_at >= $2) fate
 GROUP BY 1, 2
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
TRUST = """
UPDATE syncd.guard SET canary = 'good', ended_at = $3 WHERE instance = $1 AND push = $2 AND canary = 'bad'
"""
TRY_AGAIN = """
UPDATE syncd.guard SET canary = 'none', canary_ids = '{}', begun_at = NULL, ended_at = NULL, failed = 0
 WHERE instance = $1 AND push = $2 AND canary = 'bad'
"""


@dataclass(frozen=True, slots=True)
class Fate:
    """How many changes of a canary are in one state, for one reason."""

    state: str
    reason: str
    changes: int


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


async def known(connection: Connection, instance: str, push: str, *, share: bool = False) -> Known | None:
    """What the guard of a push knows; locked until the transaction ends, or by `share` kept as it is."""
    row = await connection.fetchrow(SHARED if share else LOCKED, instance, push)
    return None if row is None else _known(row)


async def look(connection: Connection, instance: str, push: str) -> Known | None:
    """What the guard of a push knows, as of now."""
    row = await connection.fetchrow(KNOWN, instance, push)
    return None if row is None else _known(row)


async def expect(connection: Connection, instance: str, push: str, digest: str, why: Why) -> None:
    """A canary is to go first, for settings of that digest."""
    await connection.execute(EXPECT, instance, push, digest, why)


async def oldest(connection: Connection, instance: str, push: str, limit: int) -> list[Waiting]:
    """The oldest changes that could be packed, urgent ones aside."""
    return [_waiting(row) for row in await connection.fetch(OLDEST, instance, push, limit)]


async def oldest_urgent(connection: Connection, instance: str, push: str, limit: int) -> list[Waiting]:
    """The oldest urgent changes."""
    return [_waiting(row) for row in await connection.fetch(OLDEST_URGENT, instance, push, limit)]


async def waiting_of(connection: Connection, ids: Sequence[int]) -> list[Waiting]:
    """Those of the changes that could be packed."""
    return [_waiting(row) for row in await connection.fetch(OF_IDS, list(ids))]


async def arrivals(connection: Connection, instance: str, push: str, limit: int, surge: Surge | None) -> list[Arrival]:
    """When the oldest of what waits was made, what has been admitted or belongs to `surge` aside; by moment."""
    since, upto = (surge.since, surge.upto) if surge is not None else (None, None)
    return [Arrival(*row) for row in await connection.fetch(ARRIVALS, instance, push, limit, since, upto)]


async def counted(connection: Connection, instance: str, push: str, after: datetime, upto: datetime) -> list[tuple[datetime, int]]:
    """What was let go, by the minute in which it was made."""
    return [(row["minute"], row["changes"]) for row in await connection.fetch(COUNTED, instance, push, after, upto)]


async def created(connection: Connection, instance: str, push: str, since: datetime) -> int:
    """How many leads the changes were to create that were let go in the day from `since`."""
    return await connection.fetchval(CREATED, instance, push, since, since + timedelta(days=1))  # type: ignore[no-any-return]


async def count(connection: Connection, instance: str, push: str, changes: Mapping[datetime, int], created: Mapping[datetime, int]) -> None:
    """Add to what was let go: changes by the minute of their making, leads to be created by the minute of now."""
    minutes = sorted(changes.keys() | created.keys())
    columns = (minutes, [changes.get(each, 0) for each in minutes], [created.get(each, 0) for each in minutes])
    await connection.execute(COUNT, instance, push, *columns)


async def forget_counts(connection: Connection, instance: str, before: datetime) -> None:
    """What was let go before then is no longer asked for."""
    await connection.execute(FORGET_COUNTS, instance, before)


async def unknown(connection: Connection, instance: str, ids: Sequence[int], since: datetime) -> list[tuple[int, str]]:
    """Those of the changes, with their keys, whose lead neither the mirror knows nor any change that Marketo took `since` then."""
    return [(row["id"], row["key_norm"]) for row in await connection.fetch(UNKNOWN, instance, list(ids), since)]


async def begin_canary(connection: Connection, instance: str, push: str, why: Why, ids: Sequence[int], now: datetime) -> None:
    """From now on nothing but these changes is packed."""
    await connection.execute(BEGIN_CANARY, instance, push, why, list(ids), now)


async def end_canary(connection: Connection, instance: str, push: str, canary: CanaryState, failed: int, now: datetime) -> None:
    """The canary has its verdict."""
    await connection.execute(END_CANARY, instance, push, canary, failed, now)


async def fates(connection: Connection, ids: Sequence[int], since: datetime) -> list[Fate]:
    """What has become of changes that were packed `since` then."""
    return [Fate(**row) for row in await connection.fetch(FATES, list(ids), since)]


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
    return _affected(await connection.execute(HOLD_THESE, list(ids), reason))


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


async def plan_released(connection: Connection, instance: str, push: str, plan_id: int, now: datetime) -> None:
    """The plan is released when nothing of it is held any more."""
    await connection.execute(RELEASED, instance, push, plan_id, now)


async def plans_discarded(connection: Connection, instance: str, push: str, now: datetime) -> None:
    """Plans of which nothing is held any more, as it was cancelled, are discarded."""
    await connection.execute(DISCARDED, instance, push, now)


async def settle_holds(connection: Connection, instance: str, push: str) -> None:
    """Forget since when and why, where nothing is held any more."""
    await connection.execute(NONE_HELD, instance, push)


async def trust(connection: Connection, instance: str, push: str, now: datetime) -> bool:
    """An operator lets go on what a bad canary has stopped. False: there was none."""
    return _affected(await connection.execute(TRUST, instance, push, now)) > 0


async def try_again(connection: Connection, instance: str, push: str) -> bool:
    """After a bad canary the next one is to begin. False: there was none."""
    return _affected(await connection.execute(TRY_AGAIN, instance, push)) > 0


async def holds(executor: Pool | Connection, instance: str, push: str | None = None) -> list[Hold]:
    """What is held, by push and plan; plans that are being made aside."""
    return [Hold(**row) for row in await executor.fetch(HOLDS, instance, push)]


def minutes_of(made: Iterable[datetime]) -> dict[datetime, int]:
    """How many were made in each minute."""
    found: dict[datetime, int] = {}
    for each in made:
        minute = each.replace(second=0, microsecond=0)
        found[minute] = found.get(minute, 0) + 1
    return found


def _known(row: asyncpg.Record) -> Known:
    surge = None if row["surge_since"] is None else Surge(row["surge_since"], row["surge_after"], row["surge_upto"])
    return Known(row["digest"], row["canary"], row["why"], row["canary_ids"], row["begun_at"], surge, row["held_at"])


def _waiting(row: asyncpg.Record) -> Waiting:
    return Waiting(*row)


def _affected(status: str) -> int:
    return int(status.rpartition(" ")[2])
