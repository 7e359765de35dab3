"""Open windows: which is next, and how far each stream of pages, or each extract, has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from syncd.core.windows import Around, Window
from syncd.store.leases import Connection, Pool


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """`window` is None for a list, and for up to 100 `keys`."""

    id: int
    window: Window | None
    position: str | None
    leads: int
    expected: int | None
    walks: int
    planned_at: datetime
    keys: Sequence[str] | None = None
    backfill: int | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class ExtractWindow:
    """An open window that is asked for by extract; `window` is None for a list."""

    id: int
    window: Window | None
    backfill: int | None
    depth: int
    by_creation: bool
    ids_only: bool


# News come before backfills.
NEXT_WINDOW = """
SELECT id, starts_at, ends_at, keys, backfill_id, depth, planned_at, position, leads, expected, walks FROM syncd.pull_window
 WHERE instance = $1 AND pull = $2 AND state = 'open' AND id <> ALL ($3::bigint[])
 ORDER BY backfill_id IS NOT NULL, starts_at, id LIMIT 1
"""
AROUND = """
SELECT (SELECT count(*) FROM (SELECT FROM syncd.pull_window
         WHERE instance = $1 AND pull = $2 AND state = 'open' AND id <> $3 LIMIT 20) o) AS others,
       (SELECT avg(leads)::float8 FROM (SELECT leads FROM syncd.pull_window
         WHERE instance = $1 AND pull = $2 AND starts_at IS NOT NULL AND state = 'done' ORDER BY starts_at DESC LIMIT 50) d) AS typical,
       w.depth, (SELECT p.expected FROM syncd.pull_window p WHERE p.id = w.parent_id) AS parent
  FROM syncd.pull_window w WHERE w.id = $3
"""
ADVANCE = """
UPDATE syncd.pull_window SET position = $3, leads = $4, expected = $5, dropped = dropped + $6
 WHERE id = $1 AND state = 'open' AND position IS NOT DISTINCT FROM $2 RETURNING id
"""
FINISH = """
UPDATE syncd.pull_window
   SET state = 'done', keys = NULL, leads = $2, expected = $3, finished_at = $4, dropped = dropped + $5, message = coalesce($6, message)
 WHERE id = $1 AND state = 'open' RETURNING instance, pull, starts_at, planned_at, backfill_id
"""
FINISH_IF_READ = """
UPDATE syncd.pull_window w SET state = 'done', finished_at = $2
 WHERE w.id = $1 AND w.state = 'open' AND w.ids_only
   AND EXISTS (SELECT FROM syncd.export e WHERE e.window_id = w.id AND e.state = 'loaded')
   AND NOT EXISTS (SELECT FROM syncd.lead_due d WHERE d.window_id = w.id)
RETURNING instance, pull, starts_at, planned_at, backfill_id
"""
# A list or keys have been walked when the last window of the walk is done; a backfill likewise. Of two streams that finish the last
# two windows at once, the lock lets the second see what the first has done.
LOCK_PULL = "SELECT FROM syncd.pull WHERE instance = $1 AND pull = $2 FOR UPDATE"
WALK_DONE = """
UPDATE syncd.pull SET planned_until = $3
 WHERE instance = $1 AND pull = $2
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE instance = $1 AND pull = $2 AND backfill_id IS NULL AND state IN ('open', 'blocked'))
"""
LOCK_BACKFILL = "SELECT FROM syncd.backfill WHERE id = $1 FOR UPDATE"
BACKFILL_DONE = """
UPDATE syncd.backfill SET finished_at = $2
 WHERE id = $1 AND finished_at IS NULL
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE backfill_id = $1 AND state IN ('open', 'blocked'))
"""
WALK_AGAIN = """
UPDATE syncd.pull_window SET position = NULL, leads = 0, expected = NULL, dropped = 0, walks = walks + 1, message = $2
 WHERE id = $1 AND state = 'open' RETURNING id
"""
RESTART = """
UPDATE syncd.pull_window SET position = NULL, leads = 0, expected = NULL, dropped = 0, restarts = restarts + 1, message = $2
 WHERE id = $1 AND state = 'open' RETURNING restarts
"""
# Those of which a part is neither under way nor loaded: what is loaded of ids alone waits for their leads.
TO_ASK_FOR = """
SELECT w.id, w.starts_at, w.ends_at, w.backfill_id, w.depth, w.by_creation, w.ids_only FROM syncd.pull_window w
 WHERE w.instance = $1 AND w.pull = $2 AND w.state = 'open' AND w.source = 'bulk_extract'
   AND coalesce((SELECT count(*) < min(e.parts) FROM syncd.export e
                  WHERE e.window_id = w.id AND e.state NOT IN ('absent', 'failed', 'cancelled', 'expired')),
                true)
 ORDER BY w.backfill_id IS NOT NULL, w.starts_at, w.id LIMIT $3
"""
EXTRACT_WINDOW = """
SELECT id, starts_at, ends_at, backfill_id, depth, by_creation, ids_only FROM syncd.pull_window WHERE id = $1 AND state = 'open'
"""
LEFT_OF_PULL = """
SELECT coalesce(sum(extract(epoch FROM ends_at - starts_at)), 0)::float8 FROM syncd.pull_window
 WHERE instance = $1 AND pull = $2 AND state = 'open' AND starts_at IS NOT NULL
"""
LOADED = "UPDATE syncd.pull_window SET leads = $2, expected = $3 WHERE id = $1 AND state = 'open' RETURNING id"
FORGET_FINISHED = """
DELETE FROM syncd.pull_window WHERE state IN ('done', 'split', 'abandoned') AND finished_at < $1 AND instance = $2
"""


async def next_window(pool: Pool, instance: str, pull: str, taken: Sequence[int]) -> OpenWindow | None:
    """The oldest open window that no other stream of this daemon walks; those of backfills come last."""
    row = await pool.fetchrow(NEXT_WINDOW, instance, pull, list(taken))
    if row is None:
        return None
    return OpenWindow(
        id=row["id"],
        window=Window(row["starts_at"], row["ends_at"]) if row["starts_at"] is not None else None,
        position=row["position"],
        leads=row["leads"],
        expected=row["expected"],
        walks=row["walks"],
        planned_at=row["planned_at"],
        keys=row["keys"],
        backfill=row["backfill_id"],
        depth=row["depth"],
    )


async def to_ask_for(pool: Pool, instance: str, pull: str, limit: int = 50) -> list[ExtractWindow]:
    """Open windows of which no export is under way, or not one for each part; those of backfills come last."""
    return [_extract_window(row) for row in await pool.fetch(TO_ASK_FOR, instance, pull, limit)]


async def extract_window(pool: Pool, window_id: int) -> ExtractWindow | None:
    """The window, as long as it is open."""
    row = await pool.fetchrow(EXTRACT_WINDOW, window_id)
    return _extract_window(row) if row is not None else None


def _extract_window(row: asyncpg.Record) -> ExtractWindow:
    window = Window(row["starts_at"], row["ends_at"]) if row["starts_at"] is not None else None
    return ExtractWindow(row["id"], window, row["backfill_id"], row["depth"], row["by_creation"], row["ids_only"])


async def span_left(pool: Pool, instance: str, pull: str) -> timedelta:
    """How much time the open windows of the pull cover."""
    return timedelta(seconds=await pool.fetchval(LEFT_OF_PULL, instance, pull))


async def around(connection: Connection, instance: str, pull: str, window_id: int) -> Around:
    """What is known around a window that a stream has begun to walk; at most 20 other open ones are counted."""
    row = await connection.fetchrow(AROUND, instance, pull, window_id)
    assert row is not None
    return Around(row["others"], row["typical"], row["parent"], row["depth"])


async def advance(
    connection: Connection, window_id: int, before: str | None, position: str, leads: int, expected: int, dropped: int = 0
) -> int | None:
    """open → open: move the position with the rows, in their transaction. None when the window has moved otherwise meanwhile."""
    return await connection.fetchval(ADVANCE, window_id, before, position, leads, expected, dropped)  # type: ignore[no-any-return]


async def finish(
    connection: Connection, window_id: int, leads: int, expected: int, now: datetime, dropped: int = 0, message: str | None = None
) -> int | None:
    """open → done; with the last window of a walk or a backfill, that is done too."""
    row = await connection.fetchrow(FINISH, window_id, leads, expected, now, dropped, message)
    if row is None:
        return None
    begun_at = row["planned_at"] if row["starts_at"] is None else None
    await walk_ends(connection, row["instance"], row["pull"], begun_at, row["backfill_id"], now)
    return window_id


async def ids_loaded(connection: Connection, window_id: int, leads: int, expected: int) -> int | None:
    """open → open: the ids of the window are in `lead_due`, and wait there for their leads to be read."""
    return await connection.fetchval(LOADED, window_id, leads, expected)  # type: ignore[no-any-return]


async def finish_if_read(connection: Connection, window_id: int, now: datetime) -> bool:
    """open → done, when all the leads whose ids the window has brought have been read. To be asked only once its ids are due."""
    row = await connection.fetchrow(FINISH_IF_READ, window_id, now)
    if row is None:
        return False
    begun_at = row["planned_at"] if row["starts_at"] is None else None
    await walk_ends(connection, row["instance"], row["pull"], begun_at, row["backfill_id"], now)
    return True


async def walk_ends(
    connection: Connection, instance: str, pull: str, begun_at: datetime | None, backfill: int | None, now: datetime
) -> None:
    """Perhaps: where another window is open, nothing happens. `begun_at` is when a walk of a list or of keys began."""
    if begun_at is not None:
        await connection.execute(LOCK_PULL, instance, pull)
        await connection.execute(WALK_DONE, instance, pull, begun_at)
    if backfill is not None:
        await connection.execute(LOCK_BACKFILL, backfill)
        await connection.execute(BACKFILL_DONE, backfill, now)


async def walk_again(connection: Connection, window_id: int, message: str) -> int | None:
    """open → open, from the beginning: fewer leads came than were promised."""
    return await connection.fetchval(WALK_AGAIN, window_id, message)  # type: ignore[no-any-return]


async def restart(connection: Connection, window_id: int, message: str) -> int | None:
    """open → open, position cleared (fault 20122). Returns how often that has happened."""
    return await connection.fetchval(RESTART, window_id, message)  # type: ignore[no-any-return]


async def forget_finished(connection: Connection, instance: str, before: datetime) -> None:
    """Delete windows that were finished before then."""
    await connection.execute(FORGET_FINISHED, before, instance)
