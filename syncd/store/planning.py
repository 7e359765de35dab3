"""Windows: planned, and split into smaller ones."""

from collections.abc import Sequence
from datetime import datetime

import orjson

from syncd.core.route import Route
from syncd.core.windows import Window
from syncd.store import backfills, cursors
from syncd.store.cursors import OpenWindow
from syncd.store.leases import Connection

CLOSINGS = 2
"""The first covers the time that the fill took; the second the minutes of the first, in which a lead must move once more to be missed."""
PLAN_WINDOWS = """
INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at, backfill_id, parent_id, by_creation, ids_only, depth)
SELECT $1, $2, $3, w.starts_at, w.ends_at, $6, $7, $8, $9, $10, coalesce((SELECT p.depth + 1 FROM syncd.pull_window p WHERE p.id = $8), 0)
  FROM unnest($4::timestamptz[], $5::timestamptz[]) AS w (starts_at, ends_at)
"""
FORGET_WALK = (
    "DELETE FROM syncd.pull_window WHERE instance = $1 AND pull = $2 AND starts_at IS NULL AND state IN ('done', 'split', 'abandoned')"
)
PLAN_LIST = "INSERT INTO syncd.pull_window (instance, pull, source, planned_at, backfill_id, ids_only) VALUES ($1, $2, $3, $4, $5, $6)"
PLAN_KEYS = """
INSERT INTO syncd.pull_window (instance, pull, source, planned_at, backfill_id, parent_id, keys)
SELECT $1, $2, $3, $4, $5, $6, ARRAY(SELECT jsonb_array_elements_text(k.keys::jsonb)) FROM unnest($7::text[]) AS k (keys)
"""
PLANNED = "UPDATE syncd.pull SET planned_until = $3, planned_at = $4 WHERE instance = $1 AND pull = $2"
TO_BE_CLOSED = """
UPDATE syncd.pull SET closings = $3, closes_from = CASE WHEN closings > 0 THEN least(closes_from, planned_until) ELSE planned_until END
 WHERE instance = $1 AND pull = $2
"""
CLOSING = "UPDATE syncd.pull SET closings = closings - 1, closes_from = $3 WHERE instance = $1 AND pull = $2"
WALKED = "UPDATE syncd.pull SET planned_at = $3 WHERE instance = $1 AND pull = $2"
SPLIT = """
UPDATE syncd.pull_window SET state = 'split', keys = NULL, finished_at = $2, expected = coalesce($3, expected)
 WHERE id = $1 AND state = 'open' RETURNING instance, pull, source, backfill_id, by_creation, ids_only
"""


async def plan(
    connection: Connection,
    instance: str,
    pull: str,
    source: str,
    windows: Sequence[Window],
    until: datetime,
    now: datetime,
    route: Route | None = None,
) -> None:
    """Insert windows and note that all update times before `until` are planned."""
    await _insert(connection, instance, pull, source, windows, now, route=route)
    await connection.execute(PLANNED, instance, pull, until, now)
    await _to_be_closed(connection, instance, pull, route)


async def plan_closing(
    connection: Connection, instance: str, pull: str, source: str, windows: Sequence[Window], until: datetime, now: datetime, route: Route
) -> None:
    """Insert windows for what was updated out of former ones before they were asked for; how far the pull has come stays."""
    await _insert(connection, instance, pull, source, windows, now, route=route)
    await connection.execute(CLOSING, instance, pull, until)


async def _to_be_closed(connection: Connection, instance: str, pull: str, route: Route | None) -> None:
    """Other pulls meet what moves out of a window in a later one; times of creation don't move."""
    if route is not None and route.follows == "activities" and not route.by_creation:
        await connection.execute(TO_BE_CLOSED, instance, pull, CLOSINGS)


async def plan_backfill(
    connection: Connection,
    instance: str,
    pull: str,
    source: str,
    windows: Sequence[Window],
    backfill: int,
    now: datetime,
    route: Route | None = None,
) -> None:
    """Insert the windows of a backfill."""
    await _insert(connection, instance, pull, source, windows, now, backfill, route=route)
    await backfills.planned(connection, backfill, now)
    await _to_be_closed(connection, instance, pull, route)


async def plan_list(
    connection: Connection, instance: str, pull: str, source: str, now: datetime, backfill: int | None, ids_only: bool = False
) -> None:
    """Begin a walk of a list; the windows of the one before are forgotten."""
    await connection.execute(FORGET_WALK, instance, pull)
    await connection.execute(PLAN_LIST, instance, pull, source, now, backfill, ids_only)
    await _walk_begins(connection, instance, pull, now, backfill)


async def plan_keys(
    connection: Connection, instance: str, pull: str, source: str, keys: Sequence[Sequence[str]], now: datetime, backfill: int | None
) -> None:
    """Begin a walk of keys, each of `keys` being those of one window; the windows of the one before are forgotten."""
    await connection.execute(FORGET_WALK, instance, pull)
    await _insert_keys(connection, instance, pull, source, keys, now, backfill, None)
    await _walk_begins(connection, instance, pull, now, backfill)
    if not keys:
        await cursors.walk_ends(connection, instance, pull, now, backfill, now)


async def _walk_begins(connection: Connection, instance: str, pull: str, now: datetime, backfill: int | None) -> None:
    await connection.execute(WALKED, instance, pull, now)
    if backfill is not None:
        await backfills.planned(connection, backfill, now)


async def _insert(
    connection: Connection,
    instance: str,
    pull: str,
    source: str,
    windows: Sequence[Window],
    now: datetime,
    backfill: int | None = None,
    parent: int | None = None,
    route: Route | None = None,
) -> None:
    starts, ends = [window.starts_at for window in windows], [window.ends_at for window in windows]
    by_creation, ids_only = (route.by_creation, route.ids_only) if route is not None else (False, False)
    await connection.execute(PLAN_WINDOWS, instance, pull, source, starts, ends, now, backfill, parent, by_creation, ids_only)


async def _insert_keys(
    connection: Connection,
    instance: str,
    pull: str,
    source: str,
    keys: Sequence[Sequence[str]],
    now: datetime,
    backfill: int | None,
    parent: int | None,
) -> None:
    texts = [orjson.dumps(list(some)).decode() for some in keys]
    await connection.execute(PLAN_KEYS, instance, pull, source, now, backfill, parent, texts)


async def split(connection: Connection, window_id: int, parts: Sequence[Window], now: datetime, expected: int | None = None) -> int | None:
    """open → split, into `parts`, which are open. `expected` is what the first reply promised of the whole."""
    row = await connection.fetchrow(SPLIT, window_id, now, expected)
    if row is None:
        return None
    route = Route(row["by_creation"], row["ids_only"], "windows", "as before")
    await _insert(connection, row["instance"], row["pull"], row["source"], parts, now, row["backfill_id"], window_id, route)
    return window_id


async def split_keys(connection: Connection, window: OpenWindow, parts: Sequence[Sequence[str]]) -> int | None:
    """open → split, its keys into `parts`, which are open."""
    row = await connection.fetchrow(SPLIT, window.id, window.planned_at, None)
    if row is None:
        return None
    await _insert_keys(connection, row["instance"], row["pull"], row["source"], parts, window.planned_at, row["backfill_id"], window.id)
    return window.id
