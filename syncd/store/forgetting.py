"""People who are forgotten: kept as keyed hashes, by which they are refused wherever rows of theirs would come in again.

Where nobody is forgotten that costs a look into an empty table, else a hash and a probe of an index for each key.
"""

from collections.abc import Iterable, Sequence

from syncd.core.forget import EMAIL, ID, Key, Person, kind_of, person_hash
from syncd.core.mirror import MirrorRow
from syncd.store.leases import Connection

REFUSED = "it is about a person who is forgotten"

KEY = "SELECT key FROM syncd.forget_key"
KEY_IF_NEEDED = "SELECT key FROM syncd.forget_key WHERE EXISTS (SELECT FROM syncd.forgotten WHERE instance = $1)"
KNOWN = "SELECT hash FROM syncd.forgotten WHERE instance = $1 AND hash = ANY ($2::bytea[])"
KEEP = """
INSERT INTO syncd.forgotten (instance, hash) SELECT $1, h.hash FROM (SELECT DISTINCT unnest($2::bytea[]) AS hash ORDER BY 1) h
ON CONFLICT (instance, hash) DO NOTHING
"""
# The hashes of a change are made once, and looked up each by itself: as a join it was planned to hash every change for every person.
CHANGES = """
SELECT c.id
  FROM (SELECT c.id, ARRAY[syncd.person_hash(k.inner_pad, k.outer_pad, $1, $3, c.key),
                           syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'email', c.email)] AS hashes
          FROM syncd.forget_key k
         CROSS JOIN (SELECT id, key, (SELECT e.value FROM jsonb_each_text(fields) e
                                       WHERE lower(e.key) = 'email' LIMIT 1) AS email
                       FROM syncd.outbox WHERE id = ANY ($2::bigint[]) OFFSET 0) c
        OFFSET 0) c
 WHERE (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = ANY (c.hashes) LIMIT 1)
"""
# What was pending is a failure of nobody's, as nothing is left to be sent again: it has been seen to.
REFUSE_CHANGES = """
WITH refused AS (
    DELETE FROM syncd.outbox o WHERE o.id = ANY ($1::bigint[]) AND o.state = 'pending' RETURNING o.*
), told AS (
    INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of,
                                      retried_at, erased)
    SELECT id, instance, push, '', '', '{}', 'rejected', $2, attempt, created_at, now(), retry_of, now(),
           ARRAY(SELECT jsonb_object_keys(fields)) FROM refused
)
SELECT id FROM refused
"""
ENSURE_PARTITION = "SELECT syncd.ensure_history_partition((now() AT TIME ZONE 'UTC')::date)"
REFUSE_STAGED = "SELECT syncd.refuse_staged($1, $2, $3, $4)"


async def keep(connection: Connection, instance: str, person: Person) -> list[bytes]:
    """Refuse the person from now on. Returns the hashes that are kept of them."""
    secret = await connection.fetchval(KEY)
    hashes = sorted(person_hash(secret, instance, *key) for key in person.keys)
    await keep_hashes(connection, instance, hashes)
    return hashes


async def keep_hashes(connection: Connection, instance: str, hashes: Sequence[bytes]) -> None:
    """Refuse whom these hashes are of."""
    await connection.execute(KEEP, instance, hashes)


async def known(connection: Connection, instance: str, keys: Iterable[Key]) -> set[Key]:
    """Those of the keys that are forgotten people's."""
    secret = await connection.fetchval(KEY_IF_NEEDED, instance)
    if secret is None:
        return set()
    hashed = [(person_hash(secret, instance, *key), key) for key in keys]
    found = {row["hash"] for row in await connection.fetch(KNOWN, instance, [each for each, _ in hashed])}
    return {key for each, key in hashed if each in found}


async def known_ids(connection: Connection, instance: str, ids: Iterable[int]) -> set[int]:
    """Those of the leads that are forgotten people's."""
    return {int(value) for _, value in await known(connection, instance, ((ID, str(lead_id)) for lead_id in ids))}


async def known_leads(connection: Connection, instance: str, rows: Sequence[MirrorRow]) -> set[int]:
    """The ids of those rows that are forgotten people's, by id or by address."""
    keys = ((kind, value) for row in rows for kind, value in ((ID, str(row.lead_id)), (EMAIL, row.email)) if value)
    found = await known(connection, instance, keys)
    return {row.lead_id for row in rows if (ID, str(row.lead_id)) in found or (EMAIL, row.email) in found} if found else set()


async def refuse_changes(connection: Connection, instance: str, lookup_field: str, ids: Sequence[int]) -> set[int]:
    """pending → rejected, key and values erased, for those of the changes that are about forgotten people. Returns which."""
    found = await changes(connection, instance, lookup_field, ids)
    if not found:
        return set()
    await connection.execute(ENSURE_PARTITION)
    return {row["id"] for row in await connection.fetch(REFUSE_CHANGES, list(found), REFUSED)}


async def changes(connection: Connection, instance: str, lookup_field: str, ids: Sequence[int]) -> set[int]:
    """Those of the changes that are about forgotten people, whatever their state. Writes nothing."""
    if await connection.fetchval(KEY_IF_NEEDED, instance) is None:
        return set()
    return {row["id"] for row in await connection.fetch(CHANGES, instance, list(ids), kind_of(lookup_field))}


async def refuse_staged(connection: Connection, instance: str, export: int, fields: Sequence[str]) -> int:
    """Take forgotten people out of an export's staging table, whose columns are `fields`. Returns how many."""
    email = fields.index("email") + 1 if "email" in fields else None
    refused: int = await connection.fetchval(REFUSE_STAGED, instance, export, fields.index("id") + 1, email)
    return refused
