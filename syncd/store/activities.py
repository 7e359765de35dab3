"""How far the activity log has been read: tokens of looks that have ended, where the one under way is, and what was seen lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.values import Activity
from syncd.store.leases import Connection, Pool

# The look that is under way goes on; else the newest token that is old enough, else the oldest. By their ids: the clock may have stepped.
START = """
SELECT token, looked_at, under_way FROM syncd.activity_token WHERE instance = $1 AND stream = $2
 ORDER BY under_way DESC, looked_at <= $3 DESC, CASE WHEN looked_at <= $3 THEN -id ELSE id END LIMIT 1
"""
NEWEST = "SELECT looked_at FROM syncd.activity_token WHERE instance = $1 AND stream = $2 AND NOT under_way ORDER BY id DESC LIMIT 1"
FORGET_ALL = "DELETE FROM syncd.activity_token WHERE instance = $1 AND stream = $2"
BEGIN = "INSERT INTO syncd.activity_token (instance, stream, looked_at, token) VALUES ($1, $2, $3, $4)"
ADVANCE = """
INSERT INTO syncd.activity_token (instance, stream, looked_at, token, under_way) VALUES ($1, $2, $3, $4, true)
ON CONFLICT (instance, stream) WHERE under_way DO UPDATE SET token = excluded.token
"""
ARRIVE = "DELETE FROM syncd.activity_token WHERE instance = $1 AND stream = $2 AND under_way"
FORGET_OLDER = """
DELETE FROM syncd.activity_token
 WHERE instance = $1 AND stream = $2
   AND id < (SELECT max(t.id) FROM syncd.activity_token t
              WHERE t.instance = $1 AND t.stream = $2
                AND t.looked_at <= (SELECT looked_at FROM syncd.activity_token WHERE instance = $1 AND stream = $2 ORDER BY id DESC LIMIT 1)
                                   - $3::interval)
"""
# Looks that follow each other fast keep few of their tokens: a longer overlap costs less.
KEEP = """
INSERT INTO syncd.activity_token (instance, stream, looked_at, token)
SELECT $1, $2, $3::timestamptz, $4
 WHERE NOT coalesce((SELECT looked_at BETWEEN $3::timestamptz - $5::interval AND $3
                       FROM syncd.activity_token WHERE instance = $1 AND stream = $2 ORDER BY id DESC LIMIT 1), false)
"""
SEE = """
INSERT INTO syncd.activity_seen (instance, stream, guid, seen_at)
SELECT $1, $2, p.guid, $4 FROM (SELECT DISTINCT unnest($3::text[]) AS guid ORDER BY 1) p
ON CONFLICT (instance, stream, guid) DO NOTHING RETURNING guid
"""
# The LIMIT makes each entry a probe of the primary key: a plain condition walked all that was seen, as the table is hardly ever analyzed.
SEEN = """
SELECT p.guid
  FROM unnest($3::text[]) AS p (guid)
 CROSS JOIN LATERAL (SELECT FROM syncd.activity_seen s WHERE s.instance = $1 AND s.stream = $2 AND s.guid = p.guid LIMIT 1) s
"""
FORGET_SEEN = """
DELETE FROM syncd.activity_seen
 WHERE instance = $1 AND stream = $2
   AND seen_at < (SELECT looked_at FROM syncd.activity_token WHERE instance = $1 AND stream = $2 ORDER BY id LIMIT 1) - $3::interval
"""

OVERLAPS_KEPT = 2
TOKENS_PER_OVERLAP = 4


@dataclass(frozen=True, slots=True)
class Start:
    """Where a page is to be read. `began_at` is when its look began, None where that is yet to begin."""

    token: str
    began_at: datetime | None


async def start(pool: Pool, instance: str, stream: str, before: datetime) -> Start | None:
    """Where the look under way goes on, or one may begin that is to see what was committed since `before`; None of a new stream."""
    row = await pool.fetchrow(START, instance, stream, before)
    return Start(row["token"], row["looked_at"] if row["under_way"] else None) if row else None


async def last_look(pool: Pool, instance: str, stream: str) -> datetime | None:
    """When about the last look came to its end; None of a new stream."""
    return await pool.fetchval(NEWEST, instance, stream)  # type: ignore[no-any-return]


async def begin(connection: Connection, instance: str, stream: str, since: datetime, token: str) -> None:
    """Let the stream go on from `token`, which was asked for `since`, and from no other."""
    await forget(connection, instance, stream)
    await connection.execute(BEGIN, instance, stream, since, token)


async def forget(connection: Connection, instance: str, stream: str) -> None:
    """Let the stream begin anew."""
    await connection.execute(FORGET_ALL, instance, stream)


async def advance(connection: Connection, instance: str, stream: str, began_at: datetime, token: str) -> None:
    """The look that began then goes on at `token`; in the transaction that writes the page."""
    await connection.execute(ADVANCE, instance, stream, began_at, token)


async def finish(connection: Connection, instance: str, stream: str, ended_at: datetime, token: str, overlap: timedelta) -> None:
    """A look has come to its end, which is `token`, then; forget what no later look can need."""
    await connection.execute(ARRIVE, instance, stream)
    await connection.execute(KEEP, instance, stream, ended_at, token, overlap / TOKENS_PER_OVERLAP)
    await connection.execute(FORGET_OLDER, instance, stream, overlap)
    await connection.execute(FORGET_SEEN, instance, stream, OVERLAPS_KEPT * overlap)


async def unseen(
    connection: Connection, instance: str, stream: str, activities: Sequence[Activity], began_at: datetime, overlap: timedelta
) -> list[Activity]:
    """Those that no look has seen yet, each once; from now on they are seen.

    Old ones, which come when a stream begins far back, are not noted: no later look begins before them. They may have been noted when
    they were young.
    """
    each = {activity.guid: activity for activity in activities}
    noted = [guid for guid, activity in each.items() if activity.at >= began_at - OVERLAPS_KEPT * overlap]
    fresh = {row["guid"] for row in await connection.fetch(SEE, instance, stream, noted, began_at)} if noted else set()
    dropped = set(noted) - fresh
    if old := list(each.keys() - set(noted)):
        dropped |= {row["guid"] for row in await connection.fetch(SEEN, instance, stream, old)}
    return [activity for guid, activity in each.items() if guid not in dropped]
