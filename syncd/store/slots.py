"""Marketo's ten import slots as far as we can know: ours by our jobs, others' by what Marketo answered when it had none left."""

from datetime import datetime, timedelta

from syncd.core.gauges import Strangers, strangers
from syncd.store.leases import Pool

REMEMBERED = timedelta(hours=1)
"""How long a full queue says something of strangers: nothing else tells of them."""

OURS = """
SELECT state, count(*) AS jobs FROM syncd.import_job
 WHERE instance = $1 AND state IN ('submitting', 'queued', 'importing', 'unconfirmed') GROUP BY state
"""
FULL_AT = """
SELECT max(submitted_at) FROM syncd.import_job
 WHERE instance = $1 AND state = 'refused' AND submitted_at >= $2 AND message LIKE 'import: 1016 %'
"""
TAKEN_AT = """
SELECT max(submitted_at) FROM syncd.import_job
 WHERE instance = $1 AND batch_id IS NOT NULL AND submitted_at > $2
   AND (state IN ('queued', 'importing', 'complete', 'failed') OR state IN ('settled', 'lost'))
"""
# Jobs that Marketo had accepted by then and not finished. What was submitted a day before has finished, or is live.
IN_QUEUE_AT = """
SELECT (SELECT count(*) FROM syncd.import_job
         WHERE instance = $1 AND submitted_at <= $2 AND batch_id IS NOT NULL AND (finished_at IS NULL OR finished_at > $2)
           AND state IN ('queued', 'importing', 'complete', 'failed'))
     + (SELECT count(*) FROM syncd.import_job
         WHERE instance = $1 AND submitted_at BETWEEN $2 - interval '1 day' AND $2 AND finished_at > $2 AND state IN ('settled', 'lost'))
"""


async def ours(pool: Pool, instance: str) -> dict[str, int]:
    """Slots that our jobs hold, by the job's state."""
    return {row["state"]: row["jobs"] for row in await pool.fetch(OURS, instance)}


async def others(pool: Pool, instance: str, now: datetime) -> Strangers | None:
    """Slots that other integrations hold; None when nothing has told of them lately."""
    full_at = await pool.fetchval(FULL_AT, instance, now - REMEMBERED)
    if full_at is None:
        return None
    taken_at = await pool.fetchval(TAKEN_AT, instance, full_at)
    taken = None if taken_at is None else await pool.fetchval(IN_QUEUE_AT, instance, taken_at)
    return strangers(await pool.fetchval(IN_QUEUE_AT, instance, full_at), full_at, taken, taken_at)
