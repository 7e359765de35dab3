"""Leads that were deleted or merged away: noted, marked in the mirror, and marked again where an older answer was written later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from syncd.store import forgetting
from syncd.store.leases import Connection, Pool

PULL = "#deletions"
"""Who tells the history of a deletion."""

STREAMS = ("deletions", "merges")
"""Of the activity log, that tell of them."""

# Ids are not used again: of a lead that was merged, the log may tell that it was deleted, too.
NOTE = """
INSERT INTO syncd.lead_gone AS g (instance, lead_id, gone_at, merged_into, noted_at)
SELECT DISTINCT ON (p.lead_id) $1, p.lead_id, p.gone_at, p.merged_into, $5::timestamptz
  FROM unnest($2::bigint[], $3::timestamptz[], $4::bigint[]) AS p (lead_id, gone_at, merged_into)
 ORDER BY p.lead_id, p.merged_into IS NULL, p.gone_at DESC
ON CONFLICT (instance, lead_id) DO UPDATE
   SET gone_at = greatest(g.gone_at, excluded.gone_at), merged_into = coalesce(excluded.merged_into, g.merged_into)
 WHERE g.gone_at < excluded.gone_at OR g.merged_into IS DISTINCT FROM coalesce(excluded.merged_into, g.merged_into)
"""
# What was asked for after a lead had gone has brought it back. Locked in the order of keys, as pages lock theirs.
MARK = """
WITH gone AS MATERIALIZED (
    SELECT g.lead_id, g.gone_at, g.merged_into, l.deleted_at
      FROM unnest($2::bigint[]) AS p (lead_id)
     CROSS JOIN LATERAL (SELECT * FROM syncd.lead_gone g WHERE g.instance = $1 AND g.lead_id = p.lead_id LIMIT 1) g
     CROSS JOIN LATERAL (SELECT * FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1 FOR NO KEY UPDATE) l
     WHERE (l.asked_at < g.gone_at OR l.asked_at > $3)
       AND (l.deleted_at IS NULL OR l.merged_into IS DISTINCT FROM coalesce(g.merged_into, l.merged_into))
     ORDER BY g.lead_id
), marked AS (
    UPDATE syncd.lead l
       SET deleted_at = coalesce(l.deleted_at, g.gone_at), merged_into = g.merged_into,
           changed_at = CASE WHEN l.deleted_at IS NULL THEN $3 ELSE l.changed_at END
      FROM gone g WHERE l.instance = $1 AND l.lead_id = g.lead_id
), told AS (
    INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
    SELECT $1, lead_id, $5, $3, 'deleted_at', NULL, to_jsonb(gone_at) FROM gone WHERE $4 AND deleted_at IS NULL
)
SELECT count(*) FROM gone WHERE deleted_at IS NULL
"""
SINCE = "SELECT lead_id FROM syncd.lead_gone WHERE instance = $1 AND gone_at >= $2 ORDER BY lead_id"
HAS_LEADS = "SELECT EXISTS (SELECT FROM syncd.lead WHERE instance = $1)"
FORGET = "DELETE FROM syncd.lead_gone WHERE instance = $1 AND gone_at < $2"


@dataclass(frozen=True, slots=True)
class Gone:
    """A lead that went at `gone_at`, by our clock, into another one where it was merged."""

    lead_id: int
    gone_at: datetime
    merged_into: int | None = None


async def note(connection: Connection, instance: str, gone: Sequence[Gone], now: datetime, history: bool) -> int:
    """These leads are gone: mark them in the mirror. Returns how many of its leads that is news of.

    `history` says whether it is told in `lead_history`, whose partition for the day must then be there.
    """
    forgotten = await forgetting.known_ids(connection, instance, (lead for each in gone for lead in (each.lead_id, each.merged_into or 0)))
    gone = [replace(each, merged_into=None) if each.merged_into in forgotten else each for each in gone if each.lead_id not in forgotten]
    ids = [each.lead_id for each in gone]
    await connection.execute(NOTE, instance, ids, [each.gone_at for each in gone], [each.merged_into for each in gone], now)
    return await _mark(connection, instance, sorted(set(ids)), now, history)


async def reapply(connection: Connection, instance: str, since: datetime, now: datetime, history: bool) -> int:
    """Mark once more what has gone since then: what was asked for before may have been written after. Returns of how many leads."""
    ids = [row["lead_id"] for row in await connection.fetch(SINCE, instance, since)]
    return await _mark(connection, instance, ids, now, history) if ids else 0


async def has_leads(pool: Pool, instance: str) -> bool:
    """Whether there is anything that could be gone."""
    return await pool.fetchval(HAS_LEADS, instance)  # type: ignore[no-any-return]


async def forget(connection: Connection, instance: str, before: datetime) -> None:
    """Forget those that went before then."""
    await connection.execute(FORGET, instance, before)


async def _mark(connection: Connection, instance: str, ids: Sequence[int], now: datetime, history: bool) -> int:
    return await connection.fetchval(MARK, instance, ids, now, history, PULL)  # type: ignore[no-any-return]
