"""Pulls and their windows: what is planned, and how far each stream of pages has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg
import orjson

from syncd.core.route import Route
from syncd.core.windows import Around, Window
from syncd.store import backfills
from syncd.store.leases import Connection, Pool

CLOSINGS = 2
"""The first covers the time that the fill took; the second the minutes of the first, in which a lead must move once more to be missed."""


@dataclass(frozen=True, slots=True)
class PullState:
    """`planned_until` is None for a list or keys before their first complete walk; `unfinished`: a window is open or blocked, and
    `news_unfinished`: one that is no backfill's. `paused`: an operator's pause covers the pull, which may be blocked beside.
    """

    state: str
    planned_until: datetime | None
    planned_at: datetime | None
    retry_at: datetime | None
    unfinished: bool = False
    news_unfinished: bool = False
    backfill: int | None = None
    backfill_since: datetime | None = None
    follows: str = "windows"
    closings: int = 0
    closes_from: datetime | None = None
    paused: bool = False


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


# Of another kind, a pull begins anew; of the same, what it has planned stays, and
# the rest is a backfill's. One that is blocked is taken up again, unless an operator has paused it: then it keeps its reason.
REGISTER = """
INSERT INTO syncd.pull AS p (instance, pull, selector, planned_until) VALUES ($1, $2, $3, $4)
ON CONFLICT (instance, pull) DO UPDATE
   SET selector = excluded.selector, configured = true,
       planned_until = CASE WHEN p.planned_at IS NULL OR $5 THEN excluded.planned_until
                            ELSE greatest(p.planned_until, excluded.planned_until) END,
       planned_at = CASE WHEN NOT $5 THEN p.planned_at END,
       state = CASE WHEN p.state = 'blocked' AND NOT $6 THEN 'running' ELSE p.state END,
       retry_at = CASE WHEN $6 THEN p.retry_at END,
       message = CASE WHEN p.state = 'blocked' AND NOT $6 THEN NULL ELSE p.message END
"""
OTHERS = "UPDATE syncd.pull SET configured = false WHERE instance = $1 AND pull <> ALL ($2::text[]) AND configured"
SELECTOR = "SELECT selector FROM syncd.pull WHERE instance = $1 AND pull = $2"
PAUSED = """
SELECT EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'in') AND s.name IN ('', $2))
"""
IS_PAUSED = "SELECT EXISTS (SELECT FROM syncd.pull WHERE instance = $1 AND pull = $2 AND state = 'paused')"
BEFORE = "SELECT selector, planned_at FROM syncd.pull WHERE instance = $1 AND pull = $2 FOR UPDATE"
ABANDON = """
UPDATE syncd.pull_window SET state = 'abandoned', keys = NULL, finished_at = $3, message = 'the pull asks for something else now'
 WHERE instance = $1 AND pull = $2 AND state = 'open'
"""
ABANDON_BACKFILLS = """
UPDATE syncd.backfill SET planned_at = coalesce(planned_at, $3), finished_at = $3
 WHERE instance = $1 AND pull = $2 AND finished_at IS NULL
"""
STATE = """
SELECT p.state, p.planned_until, p.planned_at, p.retry_at, b.id AS backfill, b.since AS backfill_since,
       p.follows, p.closings, p.closes_from,
       EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'in') AND s.name IN ('', $2)) AS paused,
       EXISTS (SELECT FROM syncd.pull_window w WHERE w.instance = $1 AND w.pull = $2 AND w.state IN ('open', 'blocked')) AS unfinished,
       EXISTS (SELECT FROM syncd.pull_window w WHERE w.instance = $1 AND w.pull = $2 AND w.state IN ('open', 'blocked')
                  AND w.backfill_id IS NULL) AS news_unfinished
  FROM syncd.pull p
  LEFT JOIN LATERAL (
       SELECT id, since FROM syncd.backfill b WHERE b.instance = $1 AND b.pull = $2 AND b.planned_at IS NULL ORDER BY id LIMIT 1
       ) b ON true
 WHERE p.instance = $1 AND p.pull = $2
"""
REWIND = """
UPDATE syncd.pull p SET planned_at = $4, planned_until = f.starts_at
  FROM (SELECT coalesce(min(w.starts_at), $3) AS starts_at FROM syncd.pull_window w
         WHERE w.instance = $1 AND w.pull = $2 AND w.backfill_id IS NULL AND w.ends_at > $3) f
 WHERE p.instance = $1 AND p.pull = $2 AND f.starts_at < p.planned_until RETURNING true
"""
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
# Not before a fill is planned, which begins where the pull stands.
FOLLOWED = """
UPDATE syncd.pull SET planned_until = greatest(planned_until, $3), planned_at = $4
 WHERE instance = $1 AND pull = $2 AND ($5 OR planned_at IS NOT NULL)
"""
BEGIN_AGAIN = "UPDATE syncd.pull SET planned_until = $3, planned_at = NULL WHERE instance = $1 AND pull = $2"
WALKED = "UPDATE syncd.pull SET planned_at = $3 WHERE instance = $1 AND pull = $2"
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
SPLIT = """
UPDATE syncd.pull_window SET state = 'split', keys = NULL, finished_at = $2, expected = coalesce($3, expected)
 WHERE id = $1 AND state = 'open' RETURNING instance, pull, source, backfill_id, by_creation, ids_only
"""
BLOCK = """
UPDATE syncd.pull SET state = 'blocked', retry_at = $3, message = $4
 WHERE instance = $1 AND pull = $2 AND state = 'running' RETURNING true
"""
# Of a pull that an operator has paused meanwhile the window stays open: nobody would come to unblock it.
BLOCK_WINDOW = """
UPDATE syncd.pull_window w SET state = 'blocked', message = $2
  FROM syncd.pull p WHERE w.id = $1 AND w.state = 'open' AND p.instance = w.instance AND p.pull = w.pull AND p.state = 'blocked'
"""
UNBLOCK = "UPDATE syncd.pull SET state = 'running', retry_at = NULL, message = NULL WHERE instance = $1 AND pull = $2 AND state = 'blocked'"
UNBLOCK_WINDOWS = "UPDATE syncd.pull_window SET state = 'open' WHERE instance = $1 AND pull = $2 AND state = 'blocked'"
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


async def selector(connection: Connection, instance: str, pull: str) -> str | None:
    """What the pull asked for when it was last registered; None when it is new."""
    return await connection.fetchval(SELECTOR, instance, pull)  # type: ignore[no-any-return]


async def register(
    connection: Connection, instance: str, pull: str, selector: str, since: datetime | None, now: datetime, other: bool
) -> bool:
    """Make the pull known, running if it was blocked and is not paused. Returns True when it asks for something else than before.

    `since` is the first update time that it selects, None where it does not select by time. `other` says that it asks for something
    else: what it has asked for before is then abandoned; where it selects by time, as it did, its news go on where they are, and a
    backfill from `since` is ordered.
    """
    before = await connection.fetchrow(BEFORE, instance, pull)
    other = before is not None and other
    other_kind = before is not None and kind_of(before["selector"]) != kind_of(selector)
    paused = await connection.fetchval(PAUSED, instance, pull)
    await connection.execute(REGISTER, instance, pull, selector, since, other_kind or (other and since is None), paused)
    await connection.execute(UNBLOCK_WINDOWS, instance, pull)
    if before is None or not other:
        return False
    await connection.execute(ABANDON, instance, pull, now)
    await connection.execute(ABANDON_BACKFILLS, instance, pull, now)
    if not other_kind and since is not None and before["planned_at"] is not None:
        await backfills.order(connection, instance, pull, since, "the pull asks for something else than before")
    return True


async def retire_others(connection: Connection, instance: str, pulls: Sequence[str]) -> None:
    """The YAML has these pulls of the instance and no others."""
    await connection.execute(OTHERS, instance, list(pulls))


def kind_of(selector: str) -> str:
    """Which kind of selector it is."""
    try:
        return str(orjson.loads(selector)["kind"])
    except orjson.JSONDecodeError:  # of a former version: the word before its first `=`, behind the source's
        return selector.partition("=")[0].rpartition(" ")[2]


async def state(pool: Pool, instance: str, pull: str) -> PullState:
    """How far the pull is planned, and whether it runs."""
    row = await pool.fetchrow(STATE, instance, pull)
    assert row is not None, "the pull was registered when the daemon took the instance"
    return PullState(**row)


async def is_paused(pool: Pool, instance: str, pull: str) -> bool:
    """Whether an operator has paused the pull."""
    return await pool.fetchval(IS_PAUSED, instance, pull)  # type: ignore[no-any-return]


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


async def followed(connection: Connection, instance: str, pull: str, until: datetime, now: datetime, filled: bool) -> None:
    """The activity log was read for the pull up to `until`. Of one that is `filled` that counts only once its fill is planned."""
    await connection.execute(FOLLOWED, instance, pull, until, now, not filled)


async def begin_again(connection: Connection, instance: str, pull: str, since: datetime) -> None:
    """Let the pull stand at `since`, as if nothing had ever been planned."""
    await connection.execute(BEGIN_AGAIN, instance, pull, since)


async def abandon(connection: Connection, instance: str, pull: str, since: datetime, now: datetime) -> None:
    """Let everything be planned anew from `since`: nothing of what was planned can be asked for so."""
    await connection.execute(UNBLOCK_WINDOWS, instance, pull)
    await connection.execute(ABANDON, instance, pull, now)
    await connection.execute(ABANDON_BACKFILLS, instance, pull, now)
    await begin_again(connection, instance, pull, since)


async def rewind(connection: Connection, instance: str, pull: str, until: datetime, planned_at: datetime) -> bool:
    """Let windows be planned once more from the first one on that ends after `until`, for the clock that planned it was ahead.

    False when there is nothing to go back to: then the clock is behind all that was ever planned.
    """
    return await connection.fetchval(REWIND, instance, pull, until, planned_at) is True


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
        await _walk_ends(connection, instance, pull, now, backfill, now)


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
    await _walk_ends(connection, row["instance"], row["pull"], begun_at, row["backfill_id"], now)
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
    await _walk_ends(connection, row["instance"], row["pull"], begun_at, row["backfill_id"], now)
    return True


async def _walk_ends(
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


async def block(connection: Connection, instance: str, pull: str, window_id: int | None, retry_at: datetime, message: str) -> bool:
    """running → blocked, and with it the window that met the fault. False when the pull did not run any more."""
    blocked: bool | None = await connection.fetchval(BLOCK, instance, pull, retry_at, message)
    if window_id is not None:
        await connection.execute(BLOCK_WINDOW, window_id, message)
    return blocked is True


async def unblock(connection: Connection, instance: str, pull: str) -> None:
    """blocked → running, windows too: try again."""
    await connection.execute(UNBLOCK, instance, pull)
    await connection.execute(UNBLOCK_WINDOWS, instance, pull)


async def forget_finished(connection: Connection, instance: str, before: datetime) -> None:
    """Delete windows that were finished before then."""
    await connection.execute(FORGET_FINISHED, before, instance)
