"""Marketo's import queue as we know it: jobs of ours that are in it, and those that have left it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.store.leases import Pool

LIVE = """
SELECT id, push, batch_id, state, row_count, byte_count, attempt, submitted_at, started_at, finished_at, message,
       chunk_id, polls, looked_at, settled_at, processed, failed, warnings, applied, warned, rejected, unverified, retried
  FROM syncd.import_job
 WHERE instance = $1 AND state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'unconfirmed') ORDER BY id
"""
ENDED = """
SELECT id, push, batch_id, state, row_count, byte_count, attempt, submitted_at, started_at, finished_at, message,
       chunk_id, polls, looked_at, settled_at, processed, failed, warnings, applied, warned, rejected, unverified, retried
  FROM syncd.import_job
 WHERE instance = $1 AND state IN ('settled', 'lost', 'absent', 'refused') AND submitted_at >= $2 AND (state <> 'refused' OR $3)
 ORDER BY submitted_at DESC, id DESC LIMIT $4
"""
WAITING = "SELECT count(*) FROM syncd.chunk WHERE instance = $1 AND state = 'sealed'"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """`processed`, `failed` and `warnings` are rows as Marketo last said, `applied` to `retried` what became of them here."""

    id: int
    push: str
    batch_id: int | None
    state: str
    row_count: int
    byte_count: int
    attempt: int
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    message: str | None
    chunk_id: int
    polls: int
    looked_at: datetime | None
    settled_at: datetime | None
    processed: int
    failed: int
    warnings: int
    applied: int
    warned: int
    rejected: int
    unverified: int
    retried: int


async def live(pool: Pool, instance: str) -> list[JobStatus]:
    """Those of which something is still to come, in order of submission."""
    return [JobStatus(**row) for row in await pool.fetch(LIVE, instance)]


async def ended(pool: Pool, instance: str, since: datetime, refused: bool, limit: int | None) -> Sequence[JobStatus]:
    """The latest `limit` of those that were submitted after `since` and ended, in order of submission; refused ones if asked for."""
    return [JobStatus(**row) for row in await pool.fetch(ENDED, instance, since, refused, limit)][::-1]


async def chunks_waiting(pool: Pool, instance: str) -> int:
    """How many sealed chunks wait for a slot."""
    return await pool.fetchval(WAITING, instance)  # type: ignore[no-any-return]
