"""What the mirror has of the leads that pending changes are about, and since when nothing was done to them."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

from syncd.core.merge import Mirrored
from syncd.core.pending import PendingChange
from syncd.store.leases import Connection

LOOKUPS = ("email", "id")
"""What the mirror's leads are found by on an index."""

# Only the fields that are asked about, as a lead may have hundreds. A key finds one lead or none: of several with one address, nobody
# knows which Marketo takes. Nothing but the claimed changes may be on its way for the lead, by either key: neither changes that wait
# nor, as its key is claimed, one that is carried.
# The LIMITs and the OFFSET keep it one probe of an index for each change, whatever is known of the tables.
_VALUES = """
SELECT o.key_norm, l.lead_id, l.asked_at, ARRAY(SELECT jsonb_object_keys(l.digests)) AS pulls,
       (SELECT jsonb_object_agg(n.name, CASE WHEN n.name = 'email' AND NOT l.attributes ? 'email' THEN to_jsonb(l.email)
                                             ELSE l.attributes -> n.name END)
          FROM jsonb_object_keys(o.fields) AS n (name))::text AS values,
       (SELECT count(*) FROM syncd.outbox x
         WHERE x.instance = $1 AND x.key_norm = ANY (ARRAY[o.key_norm, lower(l.email), l.lead_id::text])
           AND x.state IN ('pending', 'held', 'parked')) AS waiting,
       EXISTS (SELECT FROM syncd.key_claim k
                WHERE k.instance = $1 AND k.lookup_field IN ('email', 'id')
                  AND k.key_norm = ANY (ARRAY[o.key_norm, lower(l.email), l.lead_id::text])) AS carried
  FROM (SELECT key_norm, fields FROM syncd.outbox WHERE id = ANY ($2::bigint[]) OFFSET 0) o
 CROSS JOIN LATERAL (
       SELECT m.* FROM syncd.lead m WHERE m.instance = $1 AND m.deleted_at IS NULL AND m.lead_id = """
_OF_ONE_EMAIL = """(
              SELECT min(e.lead_id) FROM syncd.lead e
               WHERE e.instance = $1 AND lower(e.email) = o.key_norm AND e.deleted_at IS NULL HAVING count(*) = 1)"""
_OF_ONE_ID = """CASE WHEN o.key_norm ~ '^[0-9]{1,18}$' THEN o.key_norm::bigint END"""
_FITTING = """
        LIMIT 1) l
 WHERE l.misfits IS NULL OR NOT l.misfits ?| ARRAY(SELECT jsonb_object_keys(o.fields))
"""
BY_EMAIL = _VALUES + _OF_ONE_EMAIL + _FITTING
BY_ID = _VALUES + _OF_ONE_ID + _FITTING
# What was not applied has changed nothing. The days before the answer are not looked at: the history is partitioned by them.
UNTOUCHED = """
SELECT m.key_norm FROM unnest($2::text[], $3::bigint[], $4::timestamptz[]) AS m (key_norm, lead_id, asked_at)
 CROSS JOIN LATERAL (SELECT lower(l.email) AS email FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = m.lead_id LIMIT 1) l
 WHERE (SELECT true FROM syncd.change_history h
         WHERE h.instance = $1 AND h.key_norm = ANY (ARRAY[m.key_norm, l.email, m.lead_id::text])
           AND h.settled_at >= m.asked_at AND h.state IN ('applied', 'warned', 'unverified') LIMIT 1) IS NULL
"""


async def mirrored(
    connection: Connection, instance: str, lookup_field: str, changes: Sequence[PendingChange], gone: Mapping[str, int] | None = None
) -> list[Mirrored]:
    """What the mirror has of the leads of these changes, where nothing else is on its way to them.

    `gone`: how many changes of a key are to count as ended, although they wait.
    """
    rows = await connection.fetch(BY_EMAIL if lookup_field == "email" else BY_ID, instance, [change.id for change in changes])
    ours = Counter(change.key_norm for change in changes) + Counter(gone or {})
    found: dict[str, Mirrored] = {}
    for row in rows:
        key = row["key_norm"]
        if row["carried"] or row["waiting"] != ours[key]:
            continue
        values = json.loads(row["values"] or "{}", parse_int=Decimal, parse_float=Decimal)
        if key in found:
            values = {**found[key].values, **values}
        found[key] = Mirrored(key, row["lead_id"], row["asked_at"], tuple(row["pulls"]), values)
    return list(found.values())


async def untouched(connection: Connection, instance: str, leads: Sequence[Mirrored]) -> list[str]:
    """The keys of those leads to which nothing was done since Marketo was asked for them."""
    rows = await connection.fetch(
        UNTOUCHED, instance, [lead.key_norm for lead in leads], [lead.lead_id for lead in leads], [lead.asked_at for lead in leads]
    )
    return [row["key_norm"] for row in rows]
