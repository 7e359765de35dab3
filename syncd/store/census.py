"""The comparison of all ids of Marketo's with the mirror's: what has been collected, and how far it is compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.windows import Window
from syncd.store.leases import Connection, Pool

PULL = "#census"
"""Whose the windows are: a pull that no YAML can name."""

LATEST = """
SELECT id, started_at, first_at, compared_to, finished_at, leads, missing, surplus, message
  FROM syncd.census WHERE instance = $1 ORDER BY id DESC LIMIT 1
"""
FIRST_AT = """
SELECT first_at FROM syncd.census
 WHERE instance = $1 AND finished_at IS NOT NULL AND message IS NULL AND first_at IS NOT NULL ORDER BY id DESC LIMIT 1
"""
# The lead with the lowest id stands for those that came first: the mirror has no index by time.
FILLING = """
SELECT EXISTS (SELECT FROM syncd.pull_window WHERE instance = $1 AND pull <> $2 AND state = 'open' AND ends_at < $3)
       OR EXISTS (SELECT FROM syncd.pull WHERE instance = $1 AND pull <> $2 AND configured AND state = 'running'
                     AND (planned_at IS NULL OR closings > 0))
       OR coalesce((SELECT first_seen_at FROM syncd.lead WHERE instance = $1 ORDER BY lead_id LIMIT 1) >= $3, true)
"""
START = "INSERT INTO syncd.census (instance, started_at) VALUES ($1, $2) RETURNING id"
REGISTER = """
INSERT INTO syncd.pull (instance, pull, selector, planned_until, by_creation, ids_only)
VALUES ($1, $2, '{"kind": "census"}', $3, true, true)
ON CONFLICT (instance, pull) DO UPDATE SET planned_until = excluded.planned_until, planned_at = $4
"""
PLAN = """
INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at, by_creation, ids_only)
SELECT $1, $2, 'bulk_extract', w.starts_at, w.ends_at, $5, true, true
  FROM unnest($3::timestamptz[], $4::timestamptz[]) AS w (starts_at, ends_at)
"""
ABANDON = """
UPDATE syncd.pull_window SET state = 'abandoned', finished_at = $3, message = 'its census came to nothing'
 WHERE instance = $1 AND pull = $2 AND state IN ('open', 'blocked')
"""
CLEAR = "DELETE FROM syncd.census_id WHERE instance = $1"
# An unlogged table is emptied by a crash: as long as this row is there, so are all others.
MARK = "INSERT INTO syncd.census_id (instance, lead_id) VALUES ($1, -$2::bigint)"
IS_WHOLE = "SELECT EXISTS (SELECT FROM syncd.census_id WHERE instance = $1 AND lead_id = -$2::bigint)"
UNFINISHED = "SELECT EXISTS (SELECT FROM syncd.pull_window WHERE instance = $1 AND pull = $2 AND state IN ('open', 'blocked'))"
COLLECT = """
WITH seen AS (
    INSERT INTO syncd.census_id (instance, lead_id)
    SELECT $1, p.lead_id FROM (SELECT DISTINCT unnest($2::bigint[]) AS lead_id ORDER BY 1) p
    ON CONFLICT (instance, lead_id) DO NOTHING RETURNING 1
)
UPDATE syncd.census SET leads = leads + (SELECT count(*) FROM seen), first_at = least(first_at, $3)
 WHERE id = (SELECT max(id) FROM syncd.census WHERE instance = $1) AND finished_at IS NULL
"""
# Of a pull that has come past a time, all leads created before it are here.
BEYOND = """
SELECT p.pull FROM syncd.pull p
 WHERE p.instance = $1 AND p.pull = ANY ($2::text[]) AND p.planned_at IS NOT NULL
   AND coalesce((SELECT min(w.starts_at) FROM syncd.pull_window w
                  WHERE w.instance = $1 AND w.pull = p.pull AND w.backfill_id IS NULL AND w.state IN ('open', 'blocked')),
                p.planned_until) >= $3
 ORDER BY 1
"""
# Those that are due already are no news.
NOTE_LACKING = """
WITH noted AS (
    INSERT INTO syncd.lead_due (instance, pull, lead_id, reason, noted_at)
    SELECT $1, $2, p.lead_id, 'census', $5
      FROM (SELECT DISTINCT unnest($3::bigint[]) AS lead_id ORDER BY 1) p
      LEFT JOIN LATERAL (
           SELECT true AS there FROM syncd.lead l
            WHERE l.instance = $1 AND l.lead_id = p.lead_id AND l.digests ? $2 AND (l.deleted_at IS NULL OR l.deleted_at >= $4) LIMIT 1
           ) l ON true
     WHERE l.there IS NULL
    ON CONFLICT (instance, pull, lead_id) DO NOTHING RETURNING 1
)
UPDATE syncd.census SET missing = missing + (SELECT count(*) FROM noted)
 WHERE id = (SELECT max(id) FROM syncd.census WHERE instance = $1) AND finished_at IS NULL
"""
# On a mirror that was never analyzed all that is left would be sorted for each slice.
IN_ORDER = "SET LOCAL enable_bitmapscan = off"
SUSPECTS = """
WITH slice AS MATERIALIZED (
    SELECT lead_id, deleted_at, first_seen_at FROM syncd.lead WHERE instance = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $4
)
SELECT (SELECT max(lead_id) FROM slice) AS upto,
       ARRAY(SELECT s.lead_id FROM slice s
               LEFT JOIN LATERAL (
                    SELECT true AS there FROM syncd.census_id c WHERE c.instance = $1 AND c.lead_id = s.lead_id LIMIT 1
                    ) c ON true
              WHERE c.there IS NULL AND s.deleted_at IS NULL AND s.first_seen_at < $3 ORDER BY 1 LIMIT $5) AS suspects
"""
COMPARED = "UPDATE syncd.census SET compared_to = $2, surplus = surplus + $3 WHERE id = $1 AND finished_at IS NULL"
FORGET_COMPARED = "DELETE FROM syncd.census_id WHERE instance = $1 AND lead_id BETWEEN $2 AND $3"
FINISH = "UPDATE syncd.census SET finished_at = $2, message = $3 WHERE id = $1 AND finished_at IS NULL"

SLICE = 20_000


@dataclass(frozen=True, slots=True)
class Census:
    """One comparison; `compared_to` is None as long as ids are collected."""

    id: int
    started_at: datetime
    first_at: datetime | None
    compared_to: int | None
    finished_at: datetime | None
    leads: int
    missing: int
    surplus: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Suspects:
    """Leads of the mirror that no extract brought, of those up to the id `upto`; it is None behind the last."""

    ids: Sequence[int]
    upto: int | None


async def latest(pool: Pool, instance: str) -> Census | None:
    """The census under way, or the last one."""
    row = await pool.fetchrow(LATEST, instance)
    return Census(**row) if row else None


async def first_at(pool: Pool, instance: str) -> datetime | None:
    """Where the leads of the last census that came to its end began."""
    return await pool.fetchval(FIRST_AT, instance)  # type: ignore[no-any-return]


async def is_early(pool: Pool, instance: str, before: datetime) -> bool:
    """Whether pulls are still to bring what was updated before then, or have begun to bring anything only since."""
    return await pool.fetchval(FILLING, instance, PULL, before)  # type: ignore[no-any-return]


async def start(connection: Connection, instance: str, windows: Sequence[Window], now: datetime) -> int:
    """Begin a census whose ids come by these windows of creation time. Returns its id."""
    census: int = await connection.fetchval(START, instance, now)
    await connection.execute(CLEAR, instance)
    await connection.execute(MARK, instance, census)
    await connection.execute(ABANDON, instance, PULL, now)
    await connection.execute(REGISTER, instance, PULL, windows[-1].ends_at, now)
    starts, ends = [window.starts_at for window in windows], [window.ends_at for window in windows]
    await connection.execute(PLAN, instance, PULL, starts, ends, now)
    return census


async def is_whole(pool: Pool, instance: str, census: int) -> bool:
    """Whether all ids that were collected are there; False when a crash of the database has emptied the table."""
    return await pool.fetchval(IS_WHOLE, instance, census)  # type: ignore[no-any-return]


async def is_collecting(pool: Pool, instance: str) -> bool:
    """Whether ids are still to come."""
    return await pool.fetchval(UNFINISHED, instance, PULL)  # type: ignore[no-any-return]


async def collect(connection: Connection, instance: str, ids: Sequence[int], created_since: datetime) -> None:
    """Marketo has leads with these ids, created since then."""
    await connection.execute(COLLECT, instance, list(ids), created_since)


async def beyond(connection: Connection, instance: str, pulls: Sequence[str], moment: datetime) -> list[str]:
    """Those of the pulls that have brought all that was created before `moment`."""
    return [row["pull"] for row in await connection.fetch(BEYOND, instance, list(pulls), moment)]


async def note_lacking(connection: Connection, instance: str, pull: str, ids: Sequence[int], asked_at: datetime, now: datetime) -> None:
    """Those of the leads that the pull lacks are to be read; they lived when it was asked for them at `asked_at`."""
    await connection.execute(NOTE_LACKING, instance, pull, list(ids), asked_at, now)


async def suspects(pool: Pool, instance: str, after: int, seen_before: datetime, most: int) -> Suspects:
    """Of the next leads of the mirror behind `after`, first seen before then, up to `most` that no extract brought."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(IN_ORDER)
        row = await connection.fetchrow(SUSPECTS, instance, after, seen_before, SLICE, most)
    assert row is not None
    return Suspects(row["suspects"], row["suspects"][-1] if len(row["suspects"]) == most else row["upto"])


async def compared(connection: Connection, instance: str, census: Census, upto: int, surplus: int) -> None:
    """The mirror is compared up to an id; `surplus` more of its leads are Marketo's no longer."""
    await connection.execute(COMPARED, census.id, upto, surplus)
    await connection.execute(FORGET_COMPARED, instance, max(census.compared_to or 0, 0), upto)


async def finish(connection: Connection, instance: str, census: int, now: datetime, message: str | None = None) -> None:
    """The census has ended; `message` says why it came to nothing, where it did."""
    await connection.execute(FINISH, census, now, message)
    await connection.execute(ABANDON, instance, PULL, now)
    await connection.execute(CLEAR, instance)


async def begin_to_compare(connection: Connection, census: int) -> None:
    """All ids are collected."""
    await connection.execute(COMPARED, census, 0, 0)
