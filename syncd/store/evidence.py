"""What the database has of leads that are held against Marketo's: the mirror's rows, what was applied, what is on its way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.merge import ECHO
from syncd.core.verify import Held, Settled, values_of
from syncd.store.leases import Pool

# The LIMITs keep it one probe of an index for each id or key, whatever is known of the tables.
HELD = """
SELECT l.lead_id, l.email, l.attributes::text AS attributes, l.misfits::text AS misfits, l.changed_at, l.deleted_at,
       ARRAY(SELECT jsonb_object_keys(l.digests)) AS pulls,
       (SELECT count(*) FROM (
               SELECT FROM syncd.lead e
                WHERE e.instance = $1 AND lower(e.email) = lower(l.email) AND e.deleted_at IS NULL LIMIT 2) e) > 1 AS namesakes
  FROM unnest($2::bigint[]) AS p (lead_id)
 CROSS JOIN LATERAL (SELECT * FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1) l
"""
# The days before $5 are not looked at: the values of their changes are erased, and the history is partitioned by days.
SETTLED = """
SELECT k.lead_id, h.id, coalesce(h.retry_of, h.id) AS place, h.push, h.key, h.fields::text AS fields, h.state, h.erased,
       coalesce(j.submitted_at, b.submitted_at, h.settled_at) AS sent_at, h.settled_at
  FROM unnest($2::bigint[], $3::text[], $4::text[]) AS k (lead_id, push, key_norm)
 CROSS JOIN LATERAL (
       SELECT * FROM syncd.change_history h
        WHERE h.instance = $1 AND h.key_norm = k.key_norm AND h.push = k.push AND h.settled_at >= $5
          AND (h.state IN ('applied', 'warned', 'unverified') OR h.state = 'noop' AND h.reason = $6)
        ORDER BY h.id DESC LIMIT 50) h
  LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
  LEFT JOIN syncd.sync_batch b ON b.id = h.sync_batch_id
"""
# By a walk over the outbox, of which only what waits has an index of keys, for all keys of a page at once: 0.3 s for a million changes.
WALK = "SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = force_custom_plan"
ON_THE_WAY = """
SELECT DISTINCT o.push, o.key_norm, f.name
  FROM syncd.outbox o CROSS JOIN LATERAL jsonb_object_keys(o.fields) AS f (name)
 WHERE o.instance = $1 AND o.key_norm = ANY ($2::text[]) AND o.state IN ('pending', 'in_chunk', 'in_batch')
"""
TOLD = """
SELECT p.lead_id, h.field, max(h.seen_at) AS seen_at
  FROM unnest($2::bigint[]) AS p (lead_id)
  JOIN syncd.lead_history h ON h.instance = $1 AND h.lead_id = p.lead_id
 WHERE h.field = ANY ($3::text[]) GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Key:
    """By which changes of a push are about a lead."""

    lead_id: int
    push: str
    key_norm: str


async def held(pool: Pool, instance: str, ids: Sequence[int]) -> dict[int, Held]:
    """What the mirror has of these leads."""
    rows = await pool.fetch(HELD, instance, ids)
    return {
        row["lead_id"]: Held(
            values_of(row["email"], row["attributes"], row["misfits"]),
            row["changed_at"],
            frozenset(row["pulls"]),
            row["deleted_at"] is not None,
            row["namesakes"],
        )
        for row in rows
    }


async def settled(pool: Pool, instance: str, keys: Sequence[Key], since: datetime) -> dict[int, list[Settled]]:
    """The changes by these keys that may have written to their leads since then: of each key the last 50."""
    found: dict[int, list[Settled]] = {}
    for row in await pool.fetch(SETTLED, instance, *_columns(keys), since, ECHO):
        lead_id, *change = row.values()
        found.setdefault(lead_id, []).append(Settled(*change))
    return found


async def on_the_way(pool: Pool, instance: str, keys: Sequence[Key]) -> dict[int, list[str]]:
    """The fields that changes set which are still to be sent, or not settled."""
    leads: dict[tuple[str, str], list[int]] = {}
    for key in keys:
        leads.setdefault((key.push, key.key_norm), []).append(key.lead_id)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(WALK)
        rows = await connection.fetch(ON_THE_WAY, instance, [key.key_norm for key in keys])
    found: dict[int, list[str]] = {}
    for push, key_norm, name in rows:
        for lead_id in leads.get((push, key_norm), ()):
            found.setdefault(lead_id, []).append(name)
    return found


async def told(pool: Pool, instance: str, ids: Sequence[int], fields: Iterable[str]) -> dict[int, dict[str, datetime]]:
    """When the mirror's history last told of each of the fields."""
    found: dict[int, dict[str, datetime]] = {}
    for row in await pool.fetch(TOLD, instance, ids, list(fields)):
        found.setdefault(row["lead_id"], {})[row["field"]] = row["seen_at"]
    return found


def _columns(keys: Sequence[Key]) -> tuple[list[int], list[str], list[str]]:
    return [key.lead_id for key in keys], [key.push for key in keys], [key.key_norm for key in keys]
