"""Whether each push runs."""

from collections.abc import Sequence
from datetime import datetime

from syncd.store.leases import Connection, Pool

# A restart takes a blocked push up again: whatever was wrong may have been mended in the configuration. One that an operator has
# paused stays blocked, so that nobody loses why, and is tried when it is resumed.
REGISTER = """
INSERT INTO syncd.push AS p (instance, push) SELECT $1, unnest($2::text[])
ON CONFLICT (instance, push) DO UPDATE SET state = 'running', retry_at = NULL, message = NULL
 WHERE p.state = 'blocked'
   AND NOT EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'out') AND s.name IN ('', p.push))
"""
FORGET = "DELETE FROM syncd.push WHERE instance = $1 AND push <> ALL ($2::text[])"
RUNNING = "SELECT push FROM syncd.push WHERE instance = $1 AND state = 'running'"
BLOCK = """
UPDATE syncd.push SET state = 'blocked', retry_at = $3, message = $4
 WHERE instance = $1 AND push = $2 AND state = 'running' RETURNING push
"""
HOLD = "UPDATE syncd.push SET state = 'held', message = $3 WHERE instance = $1 AND push = $2 AND state = 'running' RETURNING push"
LET_GO = """
UPDATE syncd.push SET state = 'running', message = NULL WHERE instance = $1 AND push = $2 AND state = 'held' RETURNING push
"""
UNBLOCK_DUE = """
UPDATE syncd.push p SET state = 'running', retry_at = NULL, message = NULL
 WHERE p.instance = $1 AND p.state = 'blocked' AND p.retry_at <= $2
   AND NOT EXISTS (SELECT FROM syncd.pause s WHERE s.instance = $1 AND s.direction IN ('both', 'out') AND s.name IN ('', p.push))
RETURNING p.push
"""


async def register(connection: Connection, instance: str, pushes: Sequence[str]) -> None:
    """Make the pushes known, running if they were blocked and not paused, and forget those that the configuration no longer has."""
    await connection.execute(FORGET, instance, list(pushes))
    await connection.execute(REGISTER, instance, list(pushes))


async def running(pool: Pool, instance: str) -> set[str]:
    """The pushes that run."""
    return {row["push"] for row in await pool.fetch(RUNNING, instance)}


async def block(connection: Connection, instance: str, push: str, retry_at: datetime, message: str) -> str | None:
    """running → blocked."""
    return await connection.fetchval(BLOCK, instance, push, retry_at, message)  # type: ignore[no-any-return]


async def hold(connection: Connection, instance: str, push: str, message: str) -> str | None:
    """running → held: its guard stops it, until an operator says how to go on."""
    return await connection.fetchval(HOLD, instance, push, message)  # type: ignore[no-any-return]


async def let_go(connection: Connection, instance: str, push: str) -> str | None:
    """held → running."""
    return await connection.fetchval(LET_GO, instance, push)  # type: ignore[no-any-return]


async def unblock_due(connection: Connection, instance: str, now: datetime) -> list[str]:
    """blocked → running, for those whose `retry_at` has come and that no operator has paused: try again."""
    return [row["push"] for row in await connection.fetch(UNBLOCK_DUE, instance, now)]
