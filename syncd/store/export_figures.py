"""What exports have come to: the bytes of a day, how large windows came out, how long they ran, and how many were in vain."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.extract import Seen
from syncd.core.values import ExportFilter
from syncd.store.exports import kind_of
from syncd.store.leases import Pool

TRIES = """
SELECT count(*) AS in_vain, max(ended_at) AS last_at FROM syncd.export
 WHERE window_id = $1 AND state IN ('failed', 'cancelled', 'expired')
"""
SPENT = "SELECT coalesce(sum(bytes), 0)::bigint FROM syncd.export WHERE instance = $1 AND finished_at >= $2 AND state <> 'failed'"
PROMISED = """
SELECT coalesce(sum(coalesce(estimate, 0)), 0)::bigint FROM syncd.export
 WHERE instance = $1 AND state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing')
"""
SEEN = """
SELECT max(e.records) AS leads, sum(e.bytes)::bigint AS bytes, max(e.span) AS span
  FROM (SELECT * FROM syncd.export
         WHERE instance = $1 AND pull = $2 AND wanted ->> 'kind' = $3 AND (cardinality(fields) = 1) = $4 AND finished_at IS NOT NULL
           AND records IS NOT NULL AND bytes IS NOT NULL
         ORDER BY finished_at DESC LIMIT $5) e
 GROUP BY e.window_id ORDER BY max(e.finished_at) DESC, max(e.id) DESC
"""
RUNS = """
SELECT finished_at - coalesce(nullif(started_at, finished_at), enqueued_at) AS run FROM syncd.export
 WHERE instance = $1 AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Tries:
    """How many exports of a window came to nothing, failed, cancelled or with a file that could not be had, and when the last did."""

    in_vain: int
    last_at: datetime | None


async def tries(pool: Pool, window_id: int) -> Tries:
    """What exports of the window came to nothing."""
    row = await pool.fetchrow(TRIES, window_id)
    assert row is not None
    return Tries(row["in_vain"], row["last_at"])


async def spent(pool: Pool, instance: str, since: datetime) -> int:
    """Bytes of the exports that were first seen completed since then."""
    return await pool.fetchval(SPENT, instance, since)  # type: ignore[no-any-return]


async def promised(pool: Pool, instance: str) -> int:
    """Bytes that the exports under way are thought to have."""
    return await pool.fetchval(PROMISED, instance)  # type: ignore[no-any-return]


async def seen(pool: Pool, instance: str, pull: str, wanted: ExportFilter, ids_only: bool, count: int = 30) -> list[Seen]:
    """How large the latest windows of the pull came out that were asked for in the same way, the latest first."""
    rows = await pool.fetch(SEEN, instance, pull, kind_of(wanted), ids_only, count)
    return [Seen(row["leads"], row["bytes"], row["span"]) for row in rows]


async def recent_runs(pool: Pool, instance: str, count: int = 25) -> list[timedelta]:
    """How long the latest exports of ours ran; where none of it was seen, how long they were in the queue."""
    return [row["run"] for row in await pool.fetch(RUNS, instance, count)]
