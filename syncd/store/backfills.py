"""Backfills: spans that are pulled once more, ordered by a command or by a change of the configuration, planned by the daemon."""

from dataclasses import dataclass
from datetime import datetime

from syncd.store.leases import Connection, Pool

# One that is not planned yet and asks for as much already does.
ORDER = """
WITH there AS (
    SELECT id FROM syncd.backfill WHERE instance = $1 AND pull = $2 AND planned_at IS NULL AND (since IS NULL OR since <= $3) LIMIT 1
), made AS (
    INSERT INTO syncd.backfill (instance, pull, since, reason) SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM there) RETURNING id
)
SELECT id FROM there UNION ALL SELECT id FROM made
"""
PLANNED = "UPDATE syncd.backfill SET planned_at = $2 WHERE id = $1 AND planned_at IS NULL"
NOTHING_TO_DO = "UPDATE syncd.backfill SET planned_at = $2, finished_at = $2 WHERE id = $1 AND planned_at IS NULL"
FORGET_FINISHED = "DELETE FROM syncd.backfill WHERE instance = $1 AND finished_at < $2"
PROGRESS = """
SELECT b.planned_at, b.finished_at, coalesce(w.windows, 0) AS windows, coalesce(w.done, 0) AS done,
       coalesce(w.leads, 0)::bigint AS leads, coalesce(w.left_over, 0)::bigint AS left_over, p.state, p.message
  FROM syncd.backfill b
  LEFT JOIN syncd.pull p ON p.instance = b.instance AND p.pull = b.pull
  LEFT JOIN LATERAL (
       SELECT count(*) FILTER (WHERE state <> 'split') AS windows, count(*) FILTER (WHERE state IN ('done', 'abandoned')) AS done,
              sum(leads) AS leads, sum(greatest(expected - leads, 0)) FILTER (WHERE state = 'open') AS left_over
         FROM syncd.pull_window w WHERE w.backfill_id = b.id) w ON true
 WHERE b.id = $1
"""
ABANDONED = "SELECT EXISTS (SELECT FROM syncd.pull_window WHERE backfill_id = $1 AND state = 'abandoned')"
LEADS = "SELECT count(*) FROM syncd.lead WHERE instance = $1 AND deleted_at IS NULL AND digests ? $2"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backfill is. `left` leads are promised by windows that are being walked; others nobody has asked about yet."""

    planned_at: datetime | None
    finished_at: datetime | None
    windows: int
    done: int
    leads: int
    left: int
    pull_state: str | None
    pull_message: str | None


async def order(connection: Connection, instance: str, pull: str, since: datetime | None, reason: str) -> int:
    """Ask the daemon to pull leads updated since then once more (None: all that the pull selects). Returns the backfill's id."""
    return await connection.fetchval(ORDER, instance, pull, since, reason)  # type: ignore[no-any-return]


async def planned(connection: Connection, backfill: int, now: datetime) -> None:
    """Its windows are there."""
    await connection.execute(PLANNED, backfill, now)


async def nothing_to_do(connection: Connection, backfill: int, now: datetime) -> None:
    """There is no window to be walked for it."""
    await connection.execute(NOTHING_TO_DO, backfill, now)


async def forget_finished(connection: Connection, instance: str, before: datetime) -> None:
    """Delete backfills that were finished before then."""
    await connection.execute(FORGET_FINISHED, instance, before)


async def progress(pool: Pool, backfill: int) -> Progress | None:
    """How far it is; None when there is no such backfill."""
    row = await pool.fetchrow(PROGRESS, backfill)
    return Progress(*row.values()) if row else None


async def was_abandoned(pool: Pool, backfill: int) -> bool:
    """Whether windows of a backfill were left unwalked, as the pull had come to ask for something else."""
    return await pool.fetchval(ABANDONED, backfill)  # type: ignore[no-any-return]


async def known_leads(pool: Pool, instance: str, pull: str) -> int:
    """How many leads of the mirror the pull has brought or seen: about as many as it will bring again."""
    return await pool.fetchval(LEADS, instance, pull)  # type: ignore[no-any-return]
