"""What the mirror knows of the leads of changes that a push's rules are about to judge."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from syncd.core.pending import PendingChange
from syncd.core.rules import UNKNOWN, Known, Rules
from syncd.core.settings import Push
from syncd.store.leases import Connection
from syncd.store.mirrored import LOOKUPS

# Of an instance of which nothing was ever deleted, no key need be looked for.
ANY_DELETED = "SELECT EXISTS (SELECT FROM syncd.lead WHERE instance = $1 AND deleted_at IS NOT NULL)"
# The LIMITs keep it one probe of an index for each key, whatever is known of the tables.
DELETED_BY_EMAIL = """
SELECT k.key_norm FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT true FROM syncd.lead d
        WHERE d.instance = $1 AND lower(d.email) = k.key_norm AND d.deleted_at IS NOT NULL LIMIT 1) d
 WHERE (SELECT true FROM syncd.lead l
         WHERE l.instance = $1 AND lower(l.email) = k.key_norm AND l.deleted_at IS NULL LIMIT 1) IS NULL
"""
DELETED_BY_ID = """
SELECT k.key_norm FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT true FROM syncd.lead d
        WHERE d.instance = $1 AND d.lead_id = CASE WHEN k.key_norm ~ '^[0-9]{1,18}$' THEN k.key_norm::bigint END
          AND d.deleted_at IS NOT NULL LIMIT 1) d
"""
# Of several leads with one address nobody knows which Marketo takes: a value of any of them counts.
HAVING_BY_EMAIL = """
SELECT k.key_norm, array_agg(DISTINCT f.name) AS names FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT l.email, l.attributes, l.misfits FROM syncd.lead l
        WHERE l.instance = $1 AND lower(l.email) = k.key_norm AND l.deleted_at IS NULL LIMIT 100) l
 CROSS JOIN unnest($3::text[]) AS f (name)
 WHERE l.attributes ? f.name OR l.misfits ? f.name OR (f.name = 'email' AND l.email IS NOT NULL) GROUP BY 1
"""
HAVING_BY_ID = """
SELECT k.key_norm, array_agg(DISTINCT f.name) AS names FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT l.email, l.attributes, l.misfits FROM syncd.lead l
        WHERE l.instance = $1 AND l.lead_id = CASE WHEN k.key_norm ~ '^[0-9]{1,18}$' THEN k.key_norm::bigint END
          AND l.deleted_at IS NULL LIMIT 1) l
 CROSS JOIN unnest($3::text[]) AS f (name)
 WHERE l.attributes ? f.name OR l.misfits ? f.name OR (f.name = 'email' AND l.email IS NOT NULL) GROUP BY 1
"""
# Two are enough to know that there are several.
LEAD_BY_EMAIL = """
SELECT k.key_norm, min(l.lead_id) AS lead_id, count(*) > 1 AS several FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT l.lead_id FROM syncd.lead l
        WHERE l.instance = $1 AND lower(l.email) = k.key_norm AND l.deleted_at IS NULL LIMIT 2) l GROUP BY 1
"""
LEAD_BY_ID = """
SELECT k.key_norm, l.lead_id, false AS several FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT l.lead_id FROM syncd.lead l
        WHERE l.instance = $1 AND l.lead_id = CASE WHEN k.key_norm ~ '^[0-9]{1,18}$' THEN k.key_norm::bigint END
          AND l.deleted_at IS NULL LIMIT 1) l
"""


async def deleted(connection: Connection, instance: str, lookup_field: str, keys: Sequence[str]) -> list[str]:
    """Those of the keys whose leads Marketo has deleted, all of them."""
    rows = await connection.fetch(DELETED_BY_EMAIL if lookup_field == "email" else DELETED_BY_ID, instance, keys)
    return [row["key_norm"] for row in rows]


async def known(connection: Connection, instance: str, push: Push, changes: Iterable[PendingChange]) -> dict[str, Known]:
    """What the rules of the push need to know, by key; nothing where its keys are neither addresses nor ids."""
    if push.lookup_field not in LOOKUPS:
        return {}
    rules, keys = Rules(push), list({change.key_norm for change in changes})
    by_email = push.lookup_field == "email"
    gone: Sequence[str] = ()
    if rules.skips_deleted and await connection.fetchval(ANY_DELETED, instance):
        gone = await deleted(connection, instance, push.lookup_field, keys)
    found = {key: Known(deleted=True) for key in gone}
    if rules.of_marketo:
        query = HAVING_BY_EMAIL if by_email else HAVING_BY_ID
        for row in await connection.fetch(query, instance, keys, sorted(rules.of_marketo)):
            found[row["key_norm"]] = Known(has=frozenset(row["names"]))
    if rules.only_updates:
        for row in await connection.fetch(LEAD_BY_EMAIL if by_email else LEAD_BY_ID, instance, keys):
            key = row["key_norm"]
            found[key] = replace(found.get(key, UNKNOWN), lead_id=row["lead_id"], several=row["several"])
    return found
