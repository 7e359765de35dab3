"""What a dry run of a push reads: what waits, in pages of a claim's size. Nothing is written, and no row is locked."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import asyncpg

from syncd.store.leases import Connection, Pool
from syncd.store.mirrored import LOOKUPS
from syncd.store.outbox import PASSABLE, a_claims_worth

Priority = Literal["normal", "urgent"]

_COLUMNS = "SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks, by_file FROM syncd.outbox"
_OF_PUSH = _COLUMNS + " WHERE instance = $1 AND push = $2"
# Each by the index that has no other rows; the priority stands in those of what is pending.
PENDING = _OF_PUSH + " AND state = 'pending' AND waits_for IS NULL AND priority = 'normal' AND id > $3 ORDER BY id LIMIT $4"
URGENT = _OF_PUSH + " AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent' AND id > $3 ORDER BY id LIMIT $4"
HELD = (
    _OF_PUSH
    + " AND state = 'held' AND priority = $5 AND (plan_id IS NULL OR plan_id <> ALL ($6::bigint[])) AND id > $3 ORDER BY id LIMIT $4"
)
PLANNED = _OF_PUSH + " AND state = 'held' AND priority = $5 AND plan_id = $6 AND id > $3 ORDER BY id LIMIT $4"
PENDING_OF_KEYS = (
    _OF_PUSH
    + " AND state = 'pending' AND waits_for IS NULL AND key_norm = ANY ($3::text[]) AND id <> ALL ($4::bigint[]) ORDER BY id LIMIT 1000"
)
HELD_OF_KEYS = (
    _OF_PUSH
    + " AND state = 'held' AND ($5::bigint IS NULL OR plan_id = $5) AND (plan_id IS NULL OR plan_id <> ALL ($6::bigint[]))"
    + " AND key_norm = ANY ($3::text[]) AND id <> ALL ($4::bigint[])"
    + " ORDER BY id LIMIT 1000"
)
THESE = _COLUMNS + " WHERE id = ANY ($1::bigint[]) ORDER BY id"
RARE = _COLUMNS + " WHERE id = ANY ($1::bigint[]) OR chunk_id = ANY ($2::bigint[]) ORDER BY id"
WAITING = "SELECT id FROM syncd.outbox WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NOT NULL ORDER BY id"
MAKING = "SELECT array_agg(id) FROM syncd.plan WHERE instance = $1 AND push = $2 AND state = 'making'"
PLAN = "SELECT state FROM syncd.plan WHERE instance = $1 AND push = $2 AND id = $3"
COUNTS = """
SELECT count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'held') AS held,
       count(*) FILTER (WHERE state = 'parked') AS parked
  FROM syncd.outbox WHERE instance = $1 AND push = $2 AND state IN ('pending', 'held', 'parked')
"""
# One probe of an index for each key: only what comes again has to be remembered.
AGAIN = """
SELECT k.key_norm FROM unnest($3::text[]) AS k (key_norm)
 WHERE (SELECT true FROM syncd.outbox x
         WHERE x.instance = $1 AND x.key_norm = k.key_norm AND x.state IN ('pending', 'held') AND x.push = $2
           AND (x.id > $4 OR x.state = 'held') LIMIT 1)
"""
OPEN_OF_KEYS = """
SELECT k.key_norm FROM syncd.key_claim k JOIN syncd.chunk c ON c.id = k.chunk_id AND c.state = 'open'
 WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])
"""
BY_FILE = "SELECT DISTINCT chunk_id FROM syncd.outbox WHERE chunk_id = ANY ($1::bigint[]) AND by_file"
KNOWN_IDS = """
SELECT l.lead_id::text AS key_norm FROM syncd.lead l WHERE l.instance = $1 AND l.deleted_at IS NULL
   AND l.lead_id = ANY (ARRAY(SELECT k::bigint FROM unnest($2::text[]) AS k WHERE k ~ '^[0-9]{1,18}$'))
"""
# Of several leads with one address Marketo takes the one that was updated last; which, the mirror can't tell: the youngest is shown.
LEADS_BY_EMAIL = """
SELECT k.key_norm, l.lead_id, l.email, l.attributes::text AS attributes FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT m.lead_id, m.email, m.attributes FROM syncd.lead m
        WHERE m.instance = $1 AND lower(m.email) = k.key_norm AND m.deleted_at IS NULL ORDER BY m.changed_at DESC LIMIT 1) l
"""
LEADS_BY_ID = """
SELECT k.key_norm, l.lead_id, l.email, l.attributes::text AS attributes FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT m.lead_id, m.email, m.attributes FROM syncd.lead m
        WHERE m.instance = $1 AND m.deleted_at IS NULL
          AND m.lead_id = CASE WHEN k.key_norm ~ '^[0-9]{1,18}$' THEN k.key_norm::bigint END LIMIT 1) l
"""
QUEUE = """
SELECT (SELECT count(*) FROM syncd.chunk WHERE instance = $1 AND state = 'sealed')
     + (SELECT count(*) FROM syncd.import_job
         WHERE instance = $1 AND state IN ('submitting', 'queued', 'importing', 'unconfirmed')) AS files
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many changes of a push wait."""

    pending: int
    held: int
    parked: int


@dataclass(frozen=True, slots=True)
class Section:
    """Which changes are meant: what is pending, or what is held, of one plan or (None) of the guard and all plans."""

    state: Literal["pending", "held"]
    plan_id: int | None = None
    making: Sequence[int] = ()


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """A connection that sees one moment, and can't write."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


async def counts(connection: Connection, instance: str, push: str) -> Counts:
    """What waits, in numbers."""
    row = await connection.fetchrow(COUNTS, instance, push)
    assert row is not None
    return Counts(**row)


async def plan_state(connection: Connection, instance: str, push: str, plan_id: int) -> str | None:
    """How a plan of the push stands; None: it has no such plan."""
    return await connection.fetchval(PLAN, instance, push, plan_id)  # type: ignore[no-any-return]


async def making(connection: Connection, instance: str, push: str) -> list[int]:
    """The plans that are not complete yet."""
    return await connection.fetchval(MAKING, instance, push) or []


async def oldest(
    connection: Connection, instance: str, push: str, section: Section, priority: Priority, after: int, limit: int
) -> list[asyncpg.Record]:
    """The next changes of a section, as a claim would see them."""
    if section.state == "pending":
        cursor = await connection.cursor(PENDING if priority == "normal" else URGENT, instance, push, after, limit)
    elif section.plan_id is not None:
        cursor = await connection.cursor(PLANNED, instance, push, after, limit, priority, section.plan_id)
    else:
        cursor = await connection.cursor(HELD, instance, push, after, limit, priority, list(section.making))
    return await a_claims_worth(cursor)


async def of_keys(
    connection: Connection, instance: str, push: str, section: Section, keys: Sequence[str], but: Sequence[int]
) -> list[asyncpg.Record]:
    """What urgent changes of those keys take with them."""
    if section.state == "pending":
        return await connection.fetch(PENDING_OF_KEYS, instance, push, list(keys), list(but))
    return await connection.fetch(HELD_OF_KEYS, instance, push, list(keys), list(but), section.plan_id, list(section.making))


async def these(connection: Connection, ids: Sequence[int]) -> list[asyncpg.Record]:
    """Some changes, as many as a claim would see; fewer than asked for where they are large."""
    return await a_claims_worth(await connection.cursor(THESE, list(ids)))


async def rare(connection: Connection, ids: Sequence[int], chunk_ids: Sequence[int]) -> list[asyncpg.Record]:
    """Some changes, and what some open chunks have."""
    return await connection.fetch(RARE, list(ids), list(chunk_ids))


async def waiting(connection: Connection, instance: str, push: str) -> list[int]:
    """The changes that wait for chunks of their keys."""
    return [row["id"] for row in await connection.fetch(WAITING, instance, push)]


async def again(connection: Connection, instance: str, push: str, keys: Sequence[str], after: int) -> frozenset[str]:
    """Those of the keys of which other changes wait, with a higher id than `after`, or held."""
    return frozenset(row["key_norm"] for row in await connection.fetch(AGAIN, instance, push, list(keys), after))


async def in_open_chunks(connection: Connection, instance: str, lookup_field: str, keys: Sequence[str]) -> frozenset[str]:
    """Those of the keys that open chunks have, out of which urgent changes take them."""
    return frozenset(row["key_norm"] for row in await connection.fetch(OPEN_OF_KEYS, instance, lookup_field, list(keys)))


async def passable(connection: Connection, instance: str, keys: Sequence[str]) -> dict[str, int]:
    """Of keys that chunks have, those whose urgent changes may pass by the ids of their leads (store/outbox.py)."""
    return {row["key_norm"]: row["lead_id"] for row in await connection.fetch(PASSABLE, instance, list(keys))}


async def by_file(connection: Connection, chunk_ids: Sequence[int]) -> frozenset[int]:
    """Those of the chunks that have changes which Sync Leads would not have."""
    return frozenset(row["chunk_id"] for row in await connection.fetch(BY_FILE, list(chunk_ids)))


async def known_ids(connection: Connection, instance: str, keys: Sequence[str]) -> frozenset[str]:
    """Those of the keys that are ids of leads in the mirror."""
    return frozenset(row["key_norm"] for row in await connection.fetch(KNOWN_IDS, instance, list(keys)))


async def leads(connection: Connection, instance: str, lookup_field: str, keys: Sequence[str]) -> list[asyncpg.Record]:
    """What the mirror has of the leads of a few keys: key_norm, lead_id, email, attributes."""
    if lookup_field not in LOOKUPS or not keys:
        return []
    return await connection.fetch(LEADS_BY_EMAIL if lookup_field == "email" else LEADS_BY_ID, instance, list(keys))


async def files_ahead(connection: Connection, instance: str) -> int:
    """Files of the instance that are sealed, or with Marketo."""
    return await connection.fetchval(QUEUE, instance)  # type: ignore[no-any-return]
