"""Pulls: what each asks for, how far it is planned, and whether it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from syncd.store import backfills
from syncd.store.leases import Connection, Pool


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
# Not before a fill is planned, which begins where the pull stands.
FOLLOWED = """
UPDATE syncd.pull SET planned_until = greatest(planned_until, $3), planned_at = $4
 WHERE instance = $1 AND pull = $2 AND ($5 OR planned_at IS NOT NULL)
"""
BEGIN_AGAIN = "UPDATE syncd.pull SET planned_until = $3, planned_at = NULL WHERE instance = $1 AND pull = $2"
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
