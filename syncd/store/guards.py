"""What guards know: of their canary, of what waits before them, and of what they have let go."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from syncd.core.guard import Arrival, CanaryState, Known, Surge, Waiting, Why
from syncd.store.leases import Connection

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


async def begin_canary(connection: Connection, instance: str, push: str, why: Why, ids: Sequence[int], now: datetime) -> None:
    """From now on nothing but these changes is packed."""
    await connection.execute(BEGIN_CANARY, instance, push, why, list(ids), now)


async def end_canary(connection: Connection, instance: str, push: str, canary: CanaryState, failed: int, now: datetime) -> None:
    """The canary has its verdict."""
    await connection.execute(END_CANARY, instance, push, canary, failed, now)


async def fates(connection: Connection, ids: Sequence[int], since: datetime) -> list[Fate]:
    """What has become of changes that were packed `since` then."""
    return [Fate(**row) for row in await connection.fetch(FATES, list(ids), since)]


async def trust(connection: Connection, instance: str, push: str, now: datetime) -> bool:
    """An operator lets go on what a bad canary has stopped. False: there was none."""
    return await connection.execute(TRUST, instance, push, now) == "UPDATE 1"


async def try_again(connection: Connection, instance: str, push: str) -> bool:
    """After a bad canary the next one is to begin. False: there was none."""
    return await connection.execute(TRY_AGAIN, instance, push) == "UPDATE 1"


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


async def unknown(connection: Connection, instance: str, ids: Sequence[int], since: datetime) -> list[tuple[int, str]]:
    """Those of the changes, with their keys, whose lead neither the mirror knows nor any change that Marketo took `since` then."""
    return [(row["id"], row["key_norm"]) for row in await connection.fetch(UNKNOWN, instance, list(ids), since)]


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
