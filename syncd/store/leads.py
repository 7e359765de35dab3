"""The mirror: one statement per page, sorted by key, that writes no byte for an unchanged lead (decisions.md, lead upsert)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.mirror import MirrorRow
from syncd.store.leases import Connection

# Sorted, because unsorted batches on two connections deadlock. The casts to jsonb come after the anti-join: an unchanged lead costs
# one probe of the primary key. The LIMIT keeps it one: a plain join was planned as a walk over the whole mirror for each page, as
# long as a new mirror was not analyzed. When the row really changes, the other pulls' digests are dropped with it, since their
# next answer must be compared in full; when it doesn't, ours is only noted.
UPSERT = """
WITH fresh AS (
    SELECT p.* FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) AS p (lead_id, email, attributes, misfits, digest)
      LEFT JOIN LATERAL (
           SELECT l.digests ->> $7 AS digest, l.deleted_at FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1
           ) l ON true
     WHERE l.digest IS DISTINCT FROM p.digest OR l.deleted_at < $9
     ORDER BY p.lead_id
), written AS (
    INSERT INTO syncd.lead AS l (instance, lead_id, email, attributes, misfits, digests, first_seen_at, changed_at, asked_at)
    SELECT $1, lead_id, email, attributes::jsonb, nullif(misfits::jsonb, '{}'), jsonb_build_object($7::text, digest), $10, $10, $9
      FROM fresh
    ON CONFLICT (instance, lead_id) DO UPDATE
       SET (email, attributes, misfits, digests, changed_at, asked_at, deleted_at) = (
           SELECT excluded.email, m.attributes, m.misfits,
                  CASE WHEN m.same THEN l.digests || excluded.digests ELSE excluded.digests END,
                  CASE WHEN m.same THEN l.changed_at ELSE excluded.changed_at END,
                  excluded.asked_at, NULL::timestamptz
             FROM (SELECT n.*, n.attributes = l.attributes AND n.misfits IS NOT DISTINCT FROM l.misfits
                               AND excluded.email IS NOT DISTINCT FROM l.email AND l.deleted_at IS NULL AS same
                     FROM (SELECT coalesce(l.attributes - $8::text[], '{}') || excluded.attributes AS attributes,
                                  nullif(coalesce(l.misfits - $8::text[], '{}') || coalesce(excluded.misfits, '{}'), '{}') AS misfits
                          ) n
                  ) m)
     WHERE l.asked_at <= excluded.asked_at AND (l.deleted_at IS NULL OR l.deleted_at < excluded.asked_at)
    RETURNING (xmax = 0) AS created, changed_at = $10 AS changed
)
SELECT count(*) FILTER (WHERE created) AS created, count(*) FILTER (WHERE changed AND NOT created) AS changed,
       (SELECT count(*) FROM fresh) - count(*) AS refused FROM written
"""


@dataclass(frozen=True, slots=True)
class Upserted:
    """What a page did to the mirror, in leads. `refused` are those of which a later request has told already."""

    created: int
    changed: int
    refused: int = 0


async def upsert(
    connection: Connection,
    instance: str,
    pull: str,
    rows: Sequence[MirrorRow],
    owned: Sequence[str] | None,
    asked_at: datetime,
    now: datetime,
) -> Upserted:
    """Write a page of leads. `owned` are the fields that the pull asks for, and may empty; None is all."""
    latest = {row.lead_id: row for row in rows}.values()
    record = await connection.fetchrow(
        UPSERT,
        instance,
        [row.lead_id for row in latest],
        [row.email for row in latest],
        [row.attributes for row in latest],
        [row.misfits for row in latest],
        [row.digest for row in latest],
        pull,
        owned,
        asked_at,
        now,
    )
    assert record is not None
    return Upserted(record["created"], record["changed"], record["refused"])
