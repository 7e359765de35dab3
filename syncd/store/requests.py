"""What commands ask of the daemon that works for an instance (architecture.md: they don't call Marketo beside it).

All times are the database's: a rehearsal's clock is not that of the person who waits.
"""

from collections.abc import Sequence
from dataclasses import asdict

import orjson

from syncd.core.findings import Finding
from syncd.store import leases
from syncd.store.leases import Connection, Pool

ASK_CHECK = "INSERT INTO syncd.request (instance, kind) VALUES ($1, 'check') RETURNING id"
NEXT_CHECK = """
SELECT id FROM syncd.request
 WHERE instance = $1 AND kind = 'check' AND answered_at IS NULL AND asked_at > now() - interval '5 minutes' ORDER BY id LIMIT 1
"""
ANSWER = "UPDATE syncd.request SET answered_at = now(), answer = $2::jsonb WHERE id = $1 AND answered_at IS NULL"
ANSWER_OF = "SELECT answer FROM syncd.request WHERE id = $1"
WITHDRAW = "DELETE FROM syncd.request WHERE id = $1"
FORGET_OLD = "DELETE FROM syncd.request WHERE instance = $1 AND asked_at < now() - interval '5 minutes'"


async def keep_daemons_away(connection: Connection, instance: str) -> bool:
    """Take the place of the instance's daemon until `connection` closes or is given back to its pool; False when there is one."""
    taken: bool = await connection.fetchval(leases.TRY_LOCK, leases.LOCK_SPACE, instance)
    return taken


async def ask_check(connection: Connection, instance: str) -> int:
    """Ask the instance's daemon for a check; returns the request's id."""
    request_id: int = await connection.fetchval(ASK_CHECK, instance)
    return request_id


async def next_check(pool: Pool, instance: str) -> int | None:
    """The oldest check that somebody still waits for."""
    request_id: int | None = await pool.fetchval(NEXT_CHECK, instance)
    return request_id


async def answer(connection: Connection, instance: str, request_id: int, findings: Sequence[Finding]) -> None:
    """Answer a request, unless it was withdrawn; forget those that nobody can be waiting for any more."""
    await connection.execute(ANSWER, request_id, orjson.dumps([asdict(finding) for finding in findings]).decode())
    await connection.execute(FORGET_OLD, instance)


async def answer_of(connection: Connection, request_id: int) -> list[Finding] | None:
    """What the daemon answered; None as long as it has not."""
    found = await connection.fetchval(ANSWER_OF, request_id)
    return None if found is None else [Finding(**finding) for finding in orjson.loads(found)]


async def withdraw(connection: Connection, request_id: int) -> None:
    """Nobody waits for the answer any more."""
    await connection.execute(WITHDRAW, request_id)
