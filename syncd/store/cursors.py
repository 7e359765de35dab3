"""Pulls and their windows: what is planned, and how far each stream of pages has come."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.windows import Window
from syncd.store.leases import Connection, Pool


@dataclass(frozen=True, slots=True)
class PullState:
    state: str
    planned_until: datetime
    planned_at: datetime | None
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenWindow:
    id: int
    window: Window
    position: str | None
    leads: int
    expected: int | None
    walks: int


# A pull that asks for something else than it did begins again: its unfinished windows are abandoned, and all is planned anew.
REGISTER = """
INSERT INTO syncd.pull AS p (instance, pull, selector, planned_until) VALUES ($1, $2, $3, $4)
ON CONFLICT (instance, pull) DO UPDATE
   SET selector = excluded.selector,
       planned_until = CASE WHEN p.selector = excluded.selector THEN p.planned_until ELSE excluded.planned_until END,
       planned_at = CASE WHEN p.selector = excluded.selector THEN p.planned_at END,
       state = CASE WHEN p.state = 'blocked' THEN 'running' ELSE p.state END,
       retry_at = NULL,
       message = CASE WHEN p.state = 'blocked' THEN NULL ELSE p.message END
"""
SELECTOR = "SELECT selector FROM syncd.pull WHERE instance = $1 AND pull = $2 FOR UPDATE"
ABANDON = """
UPDATE syncd.pull_window SET state = 'abandoned', finished_at = $3, message = 'the pull asks for something else now'
 WHERE instance = $1 AND pull = $2 AND state = 'open'
"""
STATE = "SELECT state, planned_until, planned_at, retry_at FROM syncd.pull WHERE instance = $1 AND pull = $2"
PLAN_WINDOWS = """
INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at)
SELECT $1, $2, $3, w.starts_at, w.ends_at, $6 FROM unnest($4::timestamptz[], $5::timestamptz[]) AS w (starts_at, ends_at)
"""
PLANNED = "UPDATE syncd.pull SET planned_until = $3, planned_at = $4 WHERE instance = $1 AND pull = $2"
NEXT_WINDOW = """
SELECT id, starts_at, ends_at, position, leads, expected, walks FROM syncd.pull_window
 WHERE instance = $1 AND pull = $2 AND state = 'open' AND id <> ALL ($3::bigint[])
 ORDER BY starts_at, id LIMIT 1
"""
ADVANCE = """
UPDATE syncd.pull_window SET position = $3, leads = $4, expected = $5
 WHERE id = $1 AND state = 'open' AND position IS NOT DISTINCT FROM $2 RETURNING id
"""
FINISH = """
UPDATE syncd.pull_window SET state = 'done', leads = $2, expected = $3, finished_at = $4 WHERE id = $1 AND state = 'open' RETURNING id
"""
WALK_AGAIN = """
UPDATE syncd.pull_window SET position = NULL, leads = 0, expected = NULL, walks = walks + 1, message = $2
 WHERE id = $1 AND state = 'open' RETURNING id
"""
RESTART = """
UPDATE syncd.pull_window SET position = NULL, leads = 0, expected = NULL, restarts = restarts + 1, message = $2
 WHERE id = $1 AND state = 'open' RETURNING restarts
"""
SPLIT = "UPDATE syncd.pull_window SET state = 'split', finished_at = $2 WHERE id = $1 AND state = 'open' RETURNING instance, pull, source"
BLOCK = "UPDATE syncd.pull SET state = 'blocked', retry_at = $3, message = $4 WHERE instance = $1 AND pull = $2 AND state = 'running'"
# Of a pull that an operator has paused meanwhile the window stays open: nobody would come to unblock it.
BLOCK_WINDOW = """
UPDATE syncd.pull_window w SET state = 'blocked', message = $2
  FROM syncd.pull p WHERE w.id = $1 AND w.state = 'open' AND p.instance = w.instance AND p.pull = w.pull AND p.state = 'blocked'
"""
UNBLOCK = "UPDATE syncd.pull SET state = 'running', retry_at = NULL, message = NULL WHERE instance = $1 AND pull = $2 AND state = 'blocked'"
UNBLOCK_WINDOWS = "UPDATE syncd.pull_window SET state = 'open' WHERE instance = $1 AND pull = $2 AND state = 'blocked'"
FORGET_FINISHED = """
DELETE FROM syncd.pull_window WHERE state IN ('done', 'split', 'abandoned') AND finished_at < $1 AND instance = $2
"""


async def register(connection: Connection, instance: str, pull: str, selector: str, since: datetime, now: datetime) -> bool:
    """Make the pull known, running if it was blocked. Returns True when it asks for something else than before."""
    before = await connection.fetchval(SELECTOR, instance, pull)
    await connection.execute(REGISTER, instance, pull, selector, since)
    await connection.execute(UNBLOCK_WINDOWS, instance, pull)
    if before is None or before == selector:
        return False
    await connection.execute(ABANDON, instance, pull, now)
    return True


async def state(pool: Pool, instance: str, pull: str) -> PullState:
    """How far the pull is planned, and whether it runs."""
    row = await pool.fetchrow(STATE, instance, pull)
    assert row is not None, "the pull was registered when the daemon took the instance"
    return PullState(row["state"], row["planned_until"], row["planned_at"], row["retry_at"])


async def plan(
    connection: Connection, instance: str, pull: str, source: str, windows: Sequence[Window], until: datetime, now: datetime
) -> None:
    """Insert windows and note that all update times before `until` are planned."""
    starts = [window.starts_at for window in windows]
    ends = [window.ends_at for window in windows]
    await connection.execute(PLAN_WINDOWS, instance, pull, source, starts, ends, now)
    await connection.execute(PLANNED, instance, pull, until, now)


async def next_window(pool: Pool, instance: str, pull: str, taken: Sequence[int]) -> OpenWindow | None:
    """The oldest open window that no other stream of this daemon walks."""
    row = await pool.fetchrow(NEXT_WINDOW, instance, pull, list(taken))
    if row is None:
        return None
    window = Window(row["starts_at"], row["ends_at"])
    return OpenWindow(row["id"], window, row["position"], row["leads"], row["expected"], row["walks"])


async def advance(connection: Connection, window_id: int, before: str | None, position: str, leads: int, expected: int) -> int | None:
    """open → open: move the position with the rows, in their transaction. None when the window has moved otherwise meanwhile."""
    return await connection.fetchval(ADVANCE, window_id, before, position, leads, expected)  # type: ignore[no-any-return]


async def finish(connection: Connection, window_id: int, leads: int, expected: int, now: datetime) -> int | None:
    """open → done."""
    return await connection.fetchval(FINISH, window_id, leads, expected, now)  # type: ignore[no-any-return]


async def walk_again(connection: Connection, window_id: int, message: str) -> int | None:
    """open → open, from the beginning: fewer leads came than were promised."""
    return await connection.fetchval(WALK_AGAIN, window_id, message)  # type: ignore[no-any-return]


async def restart(connection: Connection, window_id: int, message: str) -> int | None:
    """open → open, position cleared (fault 20122). Returns how often that has happened."""
    return await connection.fetchval(RESTART, window_id, message)  # type: ignore[no-any-return]


async def split(connection: Connection, window_id: int, parts: Sequence[Window], now: datetime) -> int | None:
    """open → split, into `parts`, which are open."""
    row = await connection.fetchrow(SPLIT, window_id, now)
    if row is None:
        return None
    starts, ends = [part.starts_at for part in parts], [part.ends_at for part in parts]
    await connection.execute(PLAN_WINDOWS, row["instance"], row["pull"], row["source"], starts, ends, now)
    return window_id


async def block(connection: Connection, instance: str, pull: str, window_id: int | None, retry_at: datetime, message: str) -> None:
    """running → blocked, and with it the window that met the fault."""
    await connection.execute(BLOCK, instance, pull, retry_at, message)
    if window_id is not None:
        await connection.execute(BLOCK_WINDOW, window_id, message)


async def unblock(connection: Connection, instance: str, pull: str) -> None:
    """blocked → running, windows too: try again."""
    await connection.execute(UNBLOCK, instance, pull)
    await connection.execute(UNBLOCK_WINDOWS, instance, pull)


async def forget_finished(connection: Connection, instance: str, before: datetime) -> None:
    """Delete windows that were finished before then."""
    await connection.execute(FORGET_FINISHED, before, instance)
