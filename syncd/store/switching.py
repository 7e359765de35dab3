"""A pull that comes from another source than before goes on where the former one was."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from syncd.core.settings import Source
from syncd.store.leases import Connection
from syncd.store.planning import CLOSINGS

BEFORE = "SELECT source FROM syncd.pull WHERE instance = $1 AND pull = $2"
NOTE = """
UPDATE syncd.pull SET source = $3, routed_at = CASE WHEN source IS DISTINCT FROM $3 THEN NULL ELSE routed_at END
 WHERE instance = $1 AND pull = $2 AND (source IS DISTINCT FROM $3)
"""
# What such a walk had brought is in the mirror; the other source knows nothing of its place.
ADOPT = """
UPDATE syncd.pull_window
   SET source = $3, position = NULL, leads = 0, expected = NULL, dropped = 0, ids_only = false, message = 'the pull has another source now'
 WHERE instance = $1 AND pull = $2 AND state IN ('open', 'blocked') AND source <> $3 AND NOT by_creation
"""
# Times of creation mean nothing to pages of updates, nor windows to the activity log: what they were to bring is planned anew.
REWIND = """
UPDATE syncd.pull p
   SET planned_until = CASE WHEN w.by_creation THEN $4 ELSE least(p.planned_until, w.starts_at) END,
       planned_at = CASE WHEN w.by_creation THEN NULL ELSE p.planned_at END
  FROM (SELECT bool_or(by_creation) AS by_creation, min(starts_at) AS starts_at FROM syncd.pull_window
         WHERE instance = $1 AND pull = $2 AND state IN ('open', 'blocked') AND backfill_id IS NULL AND (by_creation OR $3)) w
 WHERE p.instance = $1 AND p.pull = $2 AND w.starts_at IS NOT NULL
"""
ABANDON = """
UPDATE syncd.pull_window SET state = 'abandoned', keys = NULL, finished_at = $4, message = 'the pull has another source now'
 WHERE instance = $1 AND pull = $2 AND state = 'open' AND (by_creation OR $3)
"""
# Leads that moved out of its windows are met by the windows to come; where the log tells the news, by closing ones.
REWIND_TO_CLOSE = """
UPDATE syncd.pull SET planned_until = least(planned_until, closes_from), closings = 0, closes_from = NULL
 WHERE instance = $1 AND pull = $2 AND closings > 0 AND planned_until IS NOT NULL
"""
TO_BE_CLOSED = """
UPDATE syncd.pull SET closings = $3, closes_from = planned_until
 WHERE instance = $1 AND pull = $2 AND closings = 0 AND planned_at IS NOT NULL AND planned_until IS NOT NULL
"""
REOPEN = "UPDATE syncd.pull_window SET state = 'open' WHERE instance = $1 AND pull = $2 AND state = 'blocked'"
DROP_DUE = "DELETE FROM syncd.lead_due WHERE instance = $1 AND pull = $2 AND window_id IS NOT NULL"
FORGET_TOKENS = "DELETE FROM syncd.activity_token WHERE instance = $1 AND stream = $2"
# An export's own edges: what Marketo has queued, it will do; nobody waits for it any more.
LEAVE_UNASKED = """
UPDATE syncd.export SET state = 'absent', ended_at = $3, message = 'the pull has another source now'
 WHERE instance = $1 AND pull = $2 AND state = 'unconfirmed'
"""
LEAVE_CREATING = "UPDATE syncd.export SET state = 'unconfirmed' WHERE instance = $1 AND pull = $2 AND state = 'creating'"
LEAVE_QUEUED = """
UPDATE syncd.export SET state = 'cancelled', ended_at = $3, message = 'the pull has another source now'
 WHERE instance = $1 AND pull = $2 AND state IN ('created', 'queued', 'processing')
"""
LEAVE_COMPLETED = """
UPDATE syncd.export SET state = 'expired', ended_at = $3, message = 'the pull has another source now'
 WHERE instance = $1 AND pull = $2 AND state = 'completed'
"""


async def register(connection: Connection, instance: str, pull: str, source: Source, since: datetime | None, now: datetime) -> bool:
    """Note where the leads of a registered pull come from. Returns True when that is another source than before.

    What was planned and not finished is handed on: windows of update time to the source that walks such, all else is planned anew.
    `since` is where the pull begins when its windows were of another kind of time.
    """
    before: str | None = await connection.fetchval(BEFORE, instance, pull)
    await connection.execute(NOTE, instance, pull, source)
    if before is None or before == source:
        return False
    stays_in_extracts = before != "soap" and source not in ("soap", "activities")
    if not stays_in_extracts:
        await connection.execute(LEAVE_CREATING, instance, pull)
        for leave in (LEAVE_UNASKED, LEAVE_QUEUED, LEAVE_COMPLETED):
            await connection.execute(leave, instance, pull, now)
        has_windows = source != "activities"
        await connection.execute(REOPEN, instance, pull)
        await connection.execute(REWIND, instance, pull, not has_windows, since)
        await connection.execute(ABANDON, instance, pull, not has_windows, now)
        await connection.execute(DROP_DUE, instance, pull)
        if has_windows:
            await connection.execute(ADOPT, instance, pull, "soap" if source == "soap" else "bulk_extract")
    if source == "auto":
        await connection.execute(TO_BE_CLOSED, instance, pull, CLOSINGS)
    else:
        await connection.execute(REWIND_TO_CLOSE, instance, pull)
    if source == "soap" or before == "soap":
        for stream in (f"pull {pull}", f"pull {pull} scores"):
            await connection.execute(FORGET_TOKENS, instance, stream)
    return True


PAGE = 5_000
# Where a lead has a field by both names, the one that stays was written later. What was known by digests is compared in full once.
RENAME = """
WITH page AS MATERIALIZED (
    SELECT lead_id FROM syncd.lead WHERE instance = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $5
), renamed AS (
    UPDATE syncd.lead l
       SET attributes = (SELECT coalesce(jsonb_object_agg(coalesce(m.new, a.key), a.value ORDER BY m.new IS NULL), '{}')
                           FROM jsonb_each(l.attributes) a LEFT JOIN unnest($3::text[], $4::text[]) AS m (old, new) ON m.old = a.key),
           misfits = (SELECT jsonb_object_agg(coalesce(m.new, a.key), a.value ORDER BY m.new IS NULL)
                        FROM jsonb_each(l.misfits) a LEFT JOIN unnest($3::text[], $4::text[]) AS m (old, new) ON m.old = a.key),
           digests = (SELECT coalesce(jsonb_object_agg(d.key, left(d.value, 7)), '{}') FROM jsonb_each_text(l.digests) d)
      FROM page p
     WHERE l.instance = $1 AND l.lead_id = p.lead_id AND (l.attributes ?| $3::text[] OR l.misfits ?| $3::text[])
    RETURNING 1
)
SELECT (SELECT max(lead_id) FROM page) AS last, (SELECT count(*) FROM renamed) AS leads
"""
RENAME_HISTORY = """
UPDATE syncd.lead_history h SET field = m.new FROM unnest($2::text[], $3::text[]) AS m (old, new) WHERE h.instance = $1 AND h.field = m.old
"""
FORGET_FIELDS = "DELETE FROM syncd.field WHERE instance = $1 AND field = ANY ($2::text[])"


async def rename_fields(connection: Connection, instance: str, names: Mapping[str, str]) -> int:
    """Give fields of the mirror and of its history their other names, old → new; returns of how many leads.

    In pages: done half, it goes on when it is done again.
    """
    old, new = list(names), list(names.values())
    leads: int = 0
    last: int = -1
    while True:
        row = await connection.fetchrow(RENAME, instance, last, old, new, PAGE)
        assert row is not None
        leads += int(row["leads"])
        if row["last"] is None:
            break
        last = row["last"]
    await connection.execute(RENAME_HISTORY, instance, old, new)
    return leads


async def forget_fields(connection: Connection, instance: str, names: Sequence[str]) -> None:
    """Forget fields that have another name now."""
    await connection.execute(FORGET_FIELDS, instance, list(names))
