"""Claims: what `pack` decided is written, in the transaction that holds the rows (architecture.md, Packing)."""

from collections.abc import Mapping
from datetime import datetime

import orjson

from syncd.core.pack import PackedChunk, Packing
from syncd.core.settings import Push
from syncd.store import batches, parked
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection

NEW_CHUNKS = """
INSERT INTO syncd.chunk (instance, push, lookup_field, format, list_id, partition, columns, header,
                         row_count, byte_count, next_ordinal, opened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7::text[], $8, $9, $10, $11, $12) RETURNING id
"""
# One statement for all of them: where column sets are many, a claim adds a few rows to each of thousands of chunks.
GROW_CHUNKS = """
UPDATE syncd.chunk c SET row_count = g.row_count, byte_count = g.byte_count, next_ordinal = g.next_ordinal
  FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[]) AS g (id, row_count, byte_count, next_ordinal)
 WHERE c.id = g.id AND c.state = 'open'
"""
# What is to be written for each change is found by its place among the ids, which are sorted. A join with them is planned by what is
# known of the table, and where that is old (nothing pending an hour ago) as 20,000 times 20,000 rows. That the key is set makes `key_norm`
# be made anew: where it need not be, PostgreSQL reads its expression again for each row, only to find that out, which takes longer.
INTO_CHUNKS = """
UPDATE syncd.outbox SET state = 'in_chunk', reason = NULL, admitted = true, key = key,
       chunk_id = ($2::bigint[])[width_bucket(id, $1::bigint[])], ordinal = ($3::int[])[width_bucket(id, $1::bigint[])]
 WHERE id = ANY ($1::bigint[]) AND state = 'pending'
"""
WAIT = """
UPDATE syncd.outbox SET waits_for = ($2::bigint[])[width_bucket(id, $1::bigint[])] WHERE id = ANY ($1::bigint[]) AND state = 'pending'
"""
NOT_URGENT = "UPDATE syncd.outbox SET priority = 'normal' WHERE id = ANY ($1::bigint[]) AND state = 'pending' AND priority = 'urgent'"
PARK = """
UPDATE syncd.outbox SET state = 'parked', waits_for = NULL, reason = $2::jsonb ->> width_bucket(id, $1::bigint[]) - 1
 WHERE id = ANY ($1::bigint[]) AND state = 'pending'
"""
END = """
WITH ended AS (
    DELETE FROM syncd.outbox WHERE id = ANY ($1::bigint[]) AND state = 'pending'
    RETURNING *, $2::jsonb -> width_bucket(id, $1::bigint[]) - 1 AS verdict
)
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of)
SELECT id, instance, push, key, key_norm, fields, verdict ->> 0, verdict ->> 1, attempt, created_at, $3, retry_of FROM ended
"""


async def claim(
    connection: Connection,
    instance: str,
    push: Push,
    packing: Packing,
    now: datetime,
    urgent: bool = False,
    passed: Mapping[str, int] | None = None,
) -> list[int]:
    """Write what `pack` decided, in the transaction that holds the rows. Returns the ids of the chunks that are full."""
    full = []
    carried: list[tuple[int, int, int]] = []
    rows: list[tuple[int, int, str, str]] = []
    claims: list[tuple[str, str, str, int, int]] = []
    for chunk in packing.chunks:
        chunk_id = await _new_chunk(connection, instance, push, chunk, now) if chunk.id is None else chunk.id
        if chunk.full:
            full.append(chunk_id)
        rows += [(chunk_id, row.ordinal, row.key_norm, row.line) for row in chunk.rows]
        claims += [(instance, push.lookup_field, row.key_norm, chunk_id, row.place) for row in chunk.rows]
        carried += [(change_id, chunk_id, row.ordinal) for row in chunk.rows for change_id in row.change_ids]
    grown = [(chunk.id, chunk.row_count, chunk.byte_count, chunk.next_ordinal) for chunk in packing.chunks if chunk.id is not None]
    if grown:
        await connection.execute(GROW_CHUNKS, *(list(column) for column in zip(*grown, strict=True)))
    if rows:
        await connection.copy_records_to_table("chunk_row", schema_name="syncd", records=rows)
        await connection.copy_records_to_table("key_claim", schema_name="syncd", records=claims)
        await connection.execute(INTO_CHUNKS, *zip(*sorted(carried), strict=True))
    await batches.fill(connection, instance, push, packing.batches, now, urgent, passed)
    if packing.waiting:
        await connection.execute(WAIT, *zip(*sorted(packing.waiting), strict=True))
    if packing.by_file:
        await connection.execute(NOT_URGENT, packing.by_file)
    if packing.parked:
        ids, reasons = zip(*sorted(packing.parked), strict=True)
        await connection.execute(PARK, ids, orjson.dumps(reasons).decode())
    if packing.lacking:
        await parked.park(connection, packing.lacking)
    if packing.ended:
        await ensure_partition(connection, now.date())
        ended = sorted(packing.ended)
        verdicts = [(state, reason) for _, state, reason in ended]
        await connection.execute(END, [change for change, _, _ in ended], orjson.dumps(verdicts).decode(), now)
    return full


async def _new_chunk(connection: Connection, instance: str, push: Push, chunk: PackedChunk, now: datetime) -> int:
    chunk_id: int = await connection.fetchval(
        NEW_CHUNKS,
        instance,
        push.name,
        push.lookup_field,
        push.format,
        push.list_id,
        push.partition,
        list(chunk.columns),
        chunk.header,
        chunk.row_count,
        chunk.byte_count,
        chunk.next_ordinal,
        now,
    )
    return chunk_id
