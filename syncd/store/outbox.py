"""The outbox: claims of pending changes into chunks, durable and cheap at any backlog (architecture.md, Packing).

A claim takes the oldest claimable rows by a partial index that holds nothing else: no scan, no big UPDATE, whatever waits behind.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import asyncpg

from syncd.core.pack import PackedBatch, PackedChunk
from syncd.core.pending import PendingChange, place_of
from syncd.core.settings import Push
from syncd.store import batches, endings, forgetting
from syncd.store.leases import Connection

CLAIM_BYTES = 16 * 1024 * 1024
"""The fields of one claim, give or take a piece: more than fills the largest body, little enough to hold several forms of."""
PIECE = 250  # rows

CLAIMABLE = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'normal'
 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
"""
# What the guard of a push lets go, normal or urgent.
AMONG = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE id = ANY ($1::bigint[]) AND state = 'pending' AND waits_for IS NULL ORDER BY id FOR UPDATE SKIP LOCKED
"""
URGENT = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND priority = 'urgent'
 ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
"""
# Urgent changes take with them what waits of their keys, so that it need not be sent apart.
SAME_KEYS = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NULL AND key_norm = ANY ($3::text[]) AND id <> ALL ($4::bigint[])
   AND (admitted OR created_at < coalesce($5, 'infinity'::timestamptz))
 ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
"""
# Of keys that a chunk has, which may be with Marketo, those of which the mirror knows the one lead: by its id the chunk may be passed,
# by what is later than all that the chunk has of the key.
PASSABLE = """
SELECT k.key_norm, k.chunk_id, k.place, l.lead_id
  FROM syncd.key_claim k
  JOIN syncd.chunk c ON c.id = k.chunk_id
 CROSS JOIN LATERAL (
       SELECT min(m.lead_id) AS lead_id FROM syncd.lead m
        WHERE m.instance = $1 AND lower(m.email) = k.key_norm AND m.deleted_at IS NULL HAVING count(*) = 1) l
 WHERE k.instance = $1 AND k.lookup_field = 'email' AND k.key_norm = ANY ($2::text[]) AND k.place IS NOT NULL
"""
WAITING_TOO = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE instance = $1 AND push = $2 AND state = 'pending' AND waits_for IS NOT NULL AND key_norm = ANY ($3::text[])
   AND (admitted OR created_at < coalesce($4, 'infinity'::timestamptz))
 ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
"""
THESE = """
SELECT id, key, key_norm, fields::text AS fields, created_at, retry_of, lacks FROM syncd.outbox
 WHERE id = ANY ($1::bigint[]) AND state = 'pending' ORDER BY id FOR UPDATE SKIP LOCKED
"""
# FOR SHARE: a settling transaction that is about to delete the claim either has done so before we look, or waits until the rows
# that we make wait for its chunk are to be seen by it. No row waits for ever.
CLAIMED_KEYS_READ = """
SELECT k.key_norm, k.chunk_id FROM syncd.key_claim k
 WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])
 ORDER BY k.key_norm
"""
CLAIMED_KEYS = CLAIMED_KEYS_READ + " FOR SHARE"
RAISE_MARK = """
INSERT INTO syncd.claim_mark AS m (instance, claimed_up_to) VALUES ($1, $2)
ON CONFLICT (instance) DO UPDATE SET claimed_up_to = greatest(m.claimed_up_to, excluded.claimed_up_to)
"""
MARK = "SELECT claimed_up_to FROM syncd.claim_mark WHERE instance = $1"
# A retry has the place of the change that it retries: what came after that one is later than the retry, although its id is lower.
# A change of yesterday's clock may settle before it was created; a day's grace keeps partition pruning and forgives that.
# The same text as a key of another lookup field is another lead. What Marketo had already counts as set: that is why it was not sent.
# The aggregate keeps it one walk of the key's index for each late row, whatever is known of the tables: as a plain join it was
# planned from the side of the whole history.
OVERWRITTEN = """
SELECT late.id, later.names
  FROM unnest($2::bigint[], $3::text[], $4::timestamptz[], $6::bigint[]) AS late (id, key_norm, created_at, place)
 CROSS JOIN LATERAL (
       SELECT array_agg(DISTINCT f.name) AS names
         FROM syncd.change_history h
         LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
         LEFT JOIN syncd.chunk c ON c.id = j.chunk_id
         LEFT JOIN syncd.sync_batch b ON b.id = h.sync_batch_id
        CROSS JOIN LATERAL unnest(coalesce(h.erased, ARRAY(SELECT jsonb_object_keys(h.fields)))) AS f (name)
        WHERE h.instance = $1 AND h.key_norm = late.key_norm AND h.id > late.place AND coalesce(h.retry_of, h.id) > late.place
          AND (h.state IN ('applied', 'warned', 'unverified')
               AND (coalesce(c.lookup_field, b.lookup_field) = $5 OR b.lookup_field = 'id' AND h.push = ANY ($7::text[]))
               OR h.state = 'noop' AND h.push = ANY ($7::text[]))
          AND h.settled_at >= late.created_at - interval '1 day') later
 WHERE later.names IS NOT NULL
"""
OPEN_CHUNKS_READ = """
SELECT id, columns, header, row_count, byte_count, next_ordinal FROM syncd.chunk
 WHERE instance = $1 AND push = $2 AND state = 'open' AND lookup_field = $3 AND format = $4
   AND list_id IS NOT DISTINCT FROM $5 AND partition IS NOT DISTINCT FROM $6
"""
OPEN_CHUNKS = OPEN_CHUNKS_READ + " FOR UPDATE"


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a claim sees; the rows stay locked until its transaction ends. `refused` more have ended: they were about forgotten people."""

    changes: Sequence[PendingChange]
    claimed: Mapping[str, int]
    open_chunks: Sequence[PackedChunk] = ()
    open_batch: PackedBatch | None = None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Passable:
    """Changes that may go at once by the ids of their leads, `ids`, ahead of the unsettled chunks that have their keys."""

    changes: Sequence[PendingChange]
    ids: Mapping[str, int]
    chunks: Mapping[str, int]


def kin_of(push: Push, pushes: Iterable[Push]) -> list[str]:
    """The pushes whose keys are of the same lookup field."""
    return [other.name for other in pushes if other.lookup_field == push.lookup_field]


async def claimable(
    connection: Connection, instance: str, push: Push, limit: int, kin: Sequence[str] = (), among: Sequence[int] | None = None
) -> Claimable:
    """Lock the oldest `limit` claimable changes of a push, and read what packing them needs to know.

    `kin` are other pushes whose keys are of the same lookup field. `among`: only these, as the push has a guard.
    """
    rows = await _lock_oldest(connection, instance, push.name, limit, among)
    if not rows:
        return Claimable((), {})
    seen = await _seen(connection, instance, push, rows, kin)
    chunks = await open_chunks(connection, instance, push)
    open_batch = await batches.open_one(connection, instance, push)
    return Claimable(seen.changes, seen.claimed, chunks, open_batch, seen.refused)


async def open_chunks(connection: Connection, instance: str, push: Push, *, lock: bool = True) -> list[PackedChunk]:
    """The push's chunks that take rows still."""
    query = OPEN_CHUNKS if lock else OPEN_CHUNKS_READ
    rows = await connection.fetch(query, instance, push.name, push.lookup_field, push.format, push.list_id, push.partition)
    return [_open_chunk(row) for row in rows]


async def urgent(
    connection: Connection,
    instance: str,
    push: Push,
    limit: int,
    now: datetime,
    kin: Sequence[str] = (),
    among: Sequence[int] | None = None,
    before: datetime | None = None,
) -> Claimable:
    """Like `claimable`, for the oldest urgent changes, and with them all that waits of their keys, in open chunks too.

    With `before` they take along only what was made before then, or the guard has let go: it holds the others.
    """
    rows = await connection.fetch(URGENT, instance, push.name, limit) if among is None else await connection.fetch(AMONG, list(among))
    if not rows:
        return Claimable((), {})
    keys = list({row["key_norm"] for row in rows})
    await endings.withdraw(connection, instance, push.lookup_field, keys, now)
    others = await connection.fetch(SAME_KEYS, instance, push.name, keys, [row["id"] for row in rows], before)
    return await _seen(connection, instance, push, [*rows, *others], kin)


async def passable(
    connection: Connection, instance: str, push: Push, seen: Claimable, kin: Sequence[str] = (), before: datetime | None = None
) -> Passable:
    """Of what `urgent` has seen, what may pass the chunk that has its key, with what waits for that chunk of the same key.

    What came before a change in the chunk (it was committed late, or goes again) would overwrite that one, if the call were executed
    after the import: it waits. `before` as of `urgent`.
    """
    if not seen.claimed or push.lookup_field != "email":
        return Passable((), {}, {})
    found = await connection.fetch(PASSABLE, instance, list(seen.claimed))
    places = {row["key_norm"]: row["place"] for row in found}

    def later(changes: Iterable[PendingChange]) -> list[PendingChange]:
        return [change for change in changes if place_of(change) > places.get(change.key_norm, math.inf)]

    ahead = later(seen.changes)
    if not ahead:
        return Passable((), {}, {})
    ids = {row["key_norm"]: row["lead_id"] for row in found}
    waiting = await connection.fetch(WAITING_TOO, instance, push.name, list({change.key_norm for change in ahead}), before)
    with_them = await _seen(connection, instance, push, waiting, kin) if waiting else Claimable((), {})
    return Passable([*ahead, *later(with_them.changes)], ids, {row["key_norm"]: row["chunk_id"] for row in found})


async def these(connection: Connection, instance: str, push: Push, ids: Sequence[int], kin: Sequence[str] = ()) -> Claimable:
    """Like `claimable`, for some changes that are pending; they go into sync batches."""
    rows = await connection.fetch(THESE, list(ids))
    if not rows:
        return Claimable((), {})
    seen = await _seen(connection, instance, push, rows, kin)
    return replace(seen, open_batch=await batches.open_one(connection, instance, push))


async def _seen(connection: Connection, instance: str, push: Push, rows: Sequence[asyncpg.Record], kin: Sequence[str]) -> Claimable:
    refused = await forgetting.refuse_changes(connection, instance, push.lookup_field, [row["id"] for row in rows])
    rows = [row for row in rows if row["id"] not in refused] if refused else rows
    claimed = await claimed_keys(connection, instance, push.lookup_field, rows)
    changes = await changes_of(connection, instance, push, rows, claimed, kin)
    await connection.execute(RAISE_MARK, instance, max((row["id"] for row in rows), default=0))
    return Claimable(changes, claimed, refused=len(refused))


async def claimed_keys(
    connection: Connection, instance: str, lookup_field: str, rows: Sequence[asyncpg.Record], *, lock: bool = True
) -> dict[str, int]:
    """The keys of rows that unsettled chunks or batches have, and which."""
    keys = list({row["key_norm"] for row in rows})
    found = await connection.fetch(CLAIMED_KEYS if lock else CLAIMED_KEYS_READ, instance, lookup_field, keys)
    return {row["key_norm"]: row["chunk_id"] for row in found}


async def changes_of(
    connection: Connection, instance: str, push: Push, rows: Sequence[asyncpg.Record], claimed: Container[str], kin: Sequence[str]
) -> list[PendingChange]:
    """The rows as `pack` needs them: with what later changes have set already, where their keys are free."""
    mark = await connection.fetchval(MARK, instance) or 0
    late = [row for row in rows if (row["id"] <= mark or row["retry_of"] is not None) and row["key_norm"] not in claimed]
    overwritten: dict[int, frozenset[str]] = {}
    if late:
        found = await connection.fetch(
            OVERWRITTEN,
            instance,
            [row["id"] for row in late],
            [row["key_norm"] for row in late],
            [row["created_at"] for row in late],
            push.lookup_field,
            [row["retry_of"] or row["id"] for row in late],
            [push.name, *kin],
        )
        overwritten = {row["id"]: frozenset(row["names"]) for row in found}
    nothing: frozenset[str] = frozenset()
    return [
        PendingChange(change_id, key, key_norm, fields, overwritten.get(change_id, nothing), retry_of or change_id, lacks)
        for change_id, key, key_norm, fields, _, retry_of, lacks, *_ in rows
    ]


async def _lock_oldest(connection: Connection, instance: str, push: str, limit: int, among: Sequence[int] | None) -> list[asyncpg.Record]:
    """Read, and so lock, the oldest, or those `among`, as many as fit into memory."""
    query = connection.cursor(CLAIMABLE, instance, push, limit) if among is None else connection.cursor(AMONG, list(among))
    return await a_claims_worth(await query)


async def a_claims_worth(cursor: asyncpg.cursor.Cursor) -> list[asyncpg.Record]:
    """Read a piece at a time: rows of many kilobytes fill memory long before there are as many as a claim may have."""
    rows: list[asyncpg.Record] = []
    size, count = 0, PIECE
    while size < CLAIM_BYTES and (piece := await cursor.fetch(count)):
        rows += piece
        size += sum(len(row["fields"]) for row in piece)
        # Where rows are small, as nearly all are, few pieces do: the half of what would still fit, if the next ones are like these.
        count = max(PIECE, (CLAIM_BYTES - size) * len(rows) // (2 * size))
    return rows


def _open_chunk(row: asyncpg.Record) -> PackedChunk:
    return PackedChunk(tuple(row["columns"]), row["header"], row["id"], row["row_count"], row["byte_count"], row["next_ordinal"])
