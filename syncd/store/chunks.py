"""Chunks: sealed, rendered, split, dissolved. A sealed chunk renders to the same bytes for ever; its SHA-256 is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import asyncpg

from syncd.core.csvfile import read_rows
from syncd.core.results import SentRow
from syncd.core.settings import Format
from syncd.store.leases import Connection, Pool

PIECE = 8192  # ordinals read at a time to render a file


@dataclass(frozen=True, slots=True)
class Chunk:
    """A sealed chunk, as a job needs it."""

    id: int
    push: str
    lookup_field: str
    format: Format
    list_id: int | None
    partition: str | None
    columns: tuple[str, ...]
    row_count: int
    byte_count: int
    sha256: bytes
    split_depth: int


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk that takes rows still. `by_file` says that it has some that Sync Leads would not have."""

    id: int
    columns: Sequence[str]
    row_count: int
    byte_count: int
    by_file: bool


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    """Chunks of a push that are not in a job; `oldest_open_at` is when the oldest open one took its first row."""

    sealed: int
    open: int
    oldest_open_at: datetime | None


COUNTS = """
SELECT count(*) FILTER (WHERE state = 'sealed') AS sealed, count(*) FILTER (WHERE state = 'open') AS open,
       min(opened_at) FILTER (WHERE state = 'open') AS oldest_open_at
  FROM syncd.chunk WHERE instance = $1 AND push = $2 AND state IN ('open', 'sealed')
"""
OLD_OPEN = """
SELECT c.id, c.columns, c.row_count, c.byte_count, EXISTS (SELECT FROM syncd.outbox o WHERE o.chunk_id = c.id AND o.by_file) AS by_file
  FROM syncd.chunk c WHERE c.instance = $1 AND c.push = $2 AND c.state = 'open' AND c.opened_at <= $3 ORDER BY c.id
"""
LOCK_OPEN = "SELECT id FROM syncd.chunk WHERE id = $1 AND state = 'open' FOR UPDATE"
SEAL = "UPDATE syncd.chunk SET state = 'sealed', sealed_at = $2, sha256 = $3 WHERE id = $1 AND state = 'open' RETURNING id"
# The smallest first when we only probe for a free slot: each refused POST uploads its body. Otherwise the push with the fewest in
# flight, then the oldest: no push waits behind another's backlog, and no chunk behind younger ones of its push.
NEXT_SEALED = """
WITH in_flight AS (
    SELECT push, count(*) AS jobs FROM syncd.import_job
     WHERE instance = $1 AND state IN ('submitting', 'queued', 'importing', 'unconfirmed') GROUP BY push
)
SELECT c.id, c.push, c.lookup_field, c.format, c.list_id, c.partition, c.columns, c.row_count, c.byte_count, c.sha256, c.split_depth
  FROM syncd.chunk c JOIN syncd.push p ON p.instance = c.instance AND p.push = c.push AND p.state = 'running'
  LEFT JOIN in_flight f ON f.push = c.push
 WHERE c.instance = $1 AND c.state = 'sealed' AND (c.not_before IS NULL OR c.not_before <= $2) AND c.push <> ALL ($4::text[])
   AND (c.list_id IS NULL OR NOT EXISTS (
        SELECT FROM syncd.import_job j JOIN syncd.chunk b ON b.id = j.chunk_id
         WHERE j.instance = $1 AND j.state IN ('submitting', 'queued', 'importing', 'unconfirmed') AND b.list_id = c.list_id))
 ORDER BY CASE WHEN $3 THEN c.byte_count END, coalesce(f.jobs, 0), c.id LIMIT 1 FOR UPDATE OF c SKIP LOCKED
"""
CHUNK = """
SELECT id, push, lookup_field, format, list_id, partition, columns, row_count, byte_count, sha256, split_depth
  FROM syncd.chunk WHERE id = $1
"""
HEAD = "SELECT convert_to(header, 'UTF8') AS header, next_ordinal FROM syncd.chunk WHERE id = $1"
# A piece at a time: one aggregate of ten megabytes took longer, and more memory.
RENDER = """
SELECT convert_to(string_agg(line, '' ORDER BY ordinal), 'UTF8') FROM syncd.chunk_row WHERE chunk_id = $1 AND ordinal >= $2 AND ordinal < $3
"""
ROWS = """
SELECT ordinal, key_norm, line FROM syncd.chunk_row WHERE chunk_id = $1 AND ($2::text[] IS NULL OR key_norm = ANY ($2)) ORDER BY ordinal
"""
TO_SEALED = "UPDATE syncd.chunk SET state = 'sealed', not_before = $2 WHERE id = $1 AND state = 'in_job' RETURNING id"
PUT_OFF = """
UPDATE syncd.chunk SET not_before = greatest(not_before, $3)
 WHERE instance = $1 AND state = 'sealed' AND list_id IS NOT DISTINCT FROM $2
"""
TO_DONE = "UPDATE syncd.chunk SET state = 'done', finished_at = $2 WHERE id = $1 AND state = 'in_job' RETURNING id"
TO_SPLIT = "UPDATE syncd.chunk SET state = 'split', finished_at = $2 WHERE id = $1 AND state = 'in_job' RETURNING id"
TO_DISSOLVED = """
UPDATE syncd.chunk SET state = 'dissolved', finished_at = $2 WHERE id = ANY ($1::bigint[]) AND state IN ('open', 'sealed') RETURNING id
"""
# ($1, $2]: the ordinals that a part takes over
NEW_PART = """
INSERT INTO syncd.chunk (instance, push, lookup_field, format, list_id, partition, columns, header, split_from, split_depth,
                         row_count, byte_count, next_ordinal, not_before, opened_at)
SELECT c.instance, c.push, c.lookup_field, c.format, c.list_id, c.partition, c.columns, c.header, c.id, c.split_depth + 1,
       (SELECT count(*) FROM syncd.chunk_row r WHERE r.chunk_id = c.id AND r.ordinal = ANY ($2::int[])),
       octet_length(c.header)
         + (SELECT sum(octet_length(r.line)) FROM syncd.chunk_row r WHERE r.chunk_id = c.id AND r.ordinal = ANY ($2::int[])),
       c.next_ordinal, $3, $4
  FROM syncd.chunk c WHERE c.id = $1 RETURNING id
"""
MOVE_CLAIMS = """
UPDATE syncd.key_claim k SET chunk_id = $2
 WHERE k.chunk_id = $1
   AND k.key_norm = ANY (ARRAY(SELECT r.key_norm FROM syncd.chunk_row r WHERE r.chunk_id = $1 AND r.ordinal = ANY ($3::int[])))
"""
MOVE_CHANGES = "UPDATE syncd.outbox SET chunk_id = $2 WHERE chunk_id = $1 AND ordinal = ANY ($3::int[])"
MOVE_ROWS = "UPDATE syncd.chunk_row SET chunk_id = $2 WHERE chunk_id = $1 AND ordinal = ANY ($3::int[])"
# Claims lock keys in the same order: neither side waits for the other in a circle.
LOCK_KEYS = "SELECT count(*) FROM (SELECT FROM syncd.key_claim WHERE chunk_id = ANY ($1::bigint[]) ORDER BY key_norm FOR UPDATE) AS locked"
RELEASE_KEYS = "DELETE FROM syncd.key_claim WHERE chunk_id = ANY ($1::bigint[])"
HAS_PASSED = "SELECT EXISTS (SELECT FROM syncd.outbox WHERE passed IS NOT NULL)"
LOCK_PASSING = """
SELECT count(*) FROM (
    SELECT FROM syncd.sync_batch
     WHERE state IN ('open', 'submitting', 'unconfirmed')
       AND id = ANY (ARRAY(SELECT sync_batch_id FROM syncd.outbox WHERE passed IS NOT NULL))
     ORDER BY id FOR UPDATE) AS locked
"""
# Marketo may still execute a call that has passed the chunk: what comes later of its keys is not to be overtaken by it.
TO_PASSING = """
UPDATE syncd.key_claim k SET chunk_id = p.batch_id
  FROM (SELECT o.instance, o.key_norm, max(b.id) AS batch_id FROM syncd.outbox o JOIN syncd.sync_batch b ON b.id = o.sync_batch_id
         WHERE o.passed IS NOT NULL AND b.state IN ('open', 'submitting', 'unconfirmed') GROUP BY o.instance, o.key_norm) p
 WHERE k.instance = p.instance AND k.lookup_field = 'email' AND k.key_norm = p.key_norm AND k.chunk_id = ANY ($1::bigint[])
"""
ONCE_MORE = """
UPDATE syncd.outbox o SET state = 'pending', sync_batch_id = NULL, ordinal = NULL, passed = NULL
 WHERE o.passed IS NOT NULL
   AND EXISTS (SELECT FROM syncd.key_claim k WHERE k.instance = o.instance AND k.lookup_field = 'email' AND k.key_norm = o.key_norm
                                               AND k.chunk_id = ANY ($1::bigint[]))
"""
WAKE_WAITING = "UPDATE syncd.outbox SET waits_for = NULL WHERE waits_for = ANY ($1::bigint[])"
DROP_ROWS = "DELETE FROM syncd.chunk_row WHERE chunk_id = ANY ($1::bigint[])"
CHANGES_PENDING = """
UPDATE syncd.outbox SET state = 'pending', chunk_id = NULL, ordinal = NULL, attempt = attempt + 1, reason = $2
 WHERE chunk_id = $1 AND state = 'in_chunk'
"""
LOCK_WITHDRAWN = """
SELECT count(*) FROM (
    SELECT FROM syncd.key_claim k
     WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])
       AND EXISTS (SELECT FROM syncd.chunk c WHERE c.id = k.chunk_id AND c.state = 'open')
     ORDER BY k.key_norm FOR UPDATE) AS locked
"""
# A chunk that is being sealed is not to lose a row that its hash was made of.
LOCK_WITHDRAWN_FROM = """
SELECT count(*) FROM (
    SELECT FROM syncd.chunk c
     WHERE c.state = 'open' AND c.id = ANY (ARRAY(
           SELECT k.chunk_id FROM syncd.key_claim k WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])))
     ORDER BY c.id FOR UPDATE) AS locked
"""
# The rows of some keys leave the open chunks that have them; what else of the keys waited for those chunks need not any more.
WITHDRAW = """
WITH claim AS (
    DELETE FROM syncd.key_claim k USING syncd.chunk c
     WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[]) AND c.id = k.chunk_id AND c.state = 'open'
    RETURNING k.chunk_id, k.key_norm
), line AS (
    DELETE FROM syncd.chunk_row r USING claim WHERE r.chunk_id = claim.chunk_id AND r.key_norm = claim.key_norm
    RETURNING r.chunk_id, r.ordinal, octet_length(r.line) AS bytes
), freed AS (
    UPDATE syncd.outbox o SET state = 'pending', chunk_id = NULL, ordinal = NULL
      FROM line WHERE o.chunk_id = line.chunk_id AND o.ordinal = line.ordinal
), woken AS (
    UPDATE syncd.outbox o SET waits_for = NULL FROM claim WHERE o.waits_for = claim.chunk_id AND o.key_norm = claim.key_norm
)
UPDATE syncd.chunk c SET row_count = c.row_count - l.rows, byte_count = c.byte_count - l.bytes
  FROM (SELECT chunk_id, count(*)::integer AS rows, sum(bytes) AS bytes FROM line GROUP BY 1) l
 WHERE c.id = l.chunk_id RETURNING CASE WHEN c.row_count = 0 THEN c.id END AS empty
"""
# They come back to be packed anew at once: that is no attempt.
TAKEN_OUT = """
UPDATE syncd.outbox SET state = 'pending', chunk_id = NULL, ordinal = NULL WHERE chunk_id = ANY ($1::bigint[]) AND state = 'in_chunk'
RETURNING id
"""
WITH_COLUMNS = "SELECT id FROM syncd.chunk WHERE instance = $1 AND state IN ('open', 'sealed') AND columns && $2::text[] ORDER BY id"
FOREIGN_TO_CONFIG = "SELECT id FROM syncd.chunk WHERE instance = $1 AND state IN ('open', 'sealed') AND push <> ALL ($2::text[])"


async def counts(pool: Pool, instance: str, push: str) -> ChunkCounts:
    """How many chunks of the push wait, and since when the oldest open one has."""
    row = await pool.fetchrow(COUNTS, instance, push)
    assert row is not None
    return ChunkCounts(row["sealed"], row["open"], row["oldest_open_at"])


async def old_open(connection: Connection, instance: str, push: str, opened_before: datetime) -> list[OpenChunk]:
    """Open chunks that took their first row before then, the oldest first."""
    return [OpenChunk(**row) for row in await connection.fetch(OLD_OPEN, instance, push, opened_before)]


async def withdraw(connection: Connection, instance: str, lookup_field: str, keys: Sequence[str], now: datetime) -> None:
    """in_chunk → pending, for the rows of some keys in chunks that are open still; an empty chunk is dissolved."""
    for statement in (LOCK_WITHDRAWN, LOCK_WITHDRAWN_FROM):
        await connection.execute(statement, instance, lookup_field, list(keys))
    for row in await connection.fetch(WITHDRAW, instance, lookup_field, list(keys)):
        if row["empty"] is not None:
            await connection.fetchval(TO_DISSOLVED, [row["empty"]], now)


async def take_out(connection: Connection, chunk_ids: Sequence[int], now: datetime) -> list[int]:
    """open → dissolved, for chunks that cost less as sync batches: their changes, whose ids are returned, are pending for the moment."""
    await lock(connection, *chunk_ids)
    gone = [row["id"] for row in await connection.fetch(TO_DISSOLVED, list(chunk_ids), now)]
    changes = [row["id"] for row in await connection.fetch(TAKEN_OUT, gone)]
    await let_go(connection, *gone)
    return changes


async def seal(connection: Connection, chunk_id: int, now: datetime) -> int | None:
    """open → sealed: freeze the file and keep its hash."""
    if await connection.fetchval(LOCK_OPEN, chunk_id) is None:
        return None
    digest = sha256()
    async for piece in _pieces(connection, chunk_id):
        digest.update(piece)
    return await connection.fetchval(SEAL, chunk_id, now, digest.digest())  # type: ignore[no-any-return]


async def next_sealed(connection: Connection, instance: str, now: datetime, smallest: bool, closed: Sequence[str] = ()) -> Chunk | None:
    """Lock the sealed chunk that is to go next: of the push with the fewest in flight the oldest, or the smallest of all.

    Only chunks whose time has come, whose push runs and is not `closed` at this hour, and whose list no live job imports to.
    """
    row = await connection.fetchrow(NEXT_SEALED, instance, now, smallest, list(closed))
    return _chunk(row) if row else None


async def get(pool: Pool, chunk_id: int) -> Chunk:
    """The chunk, whatever its state."""
    row = await pool.fetchrow(CHUNK, chunk_id)
    assert row is not None
    return _chunk(row)


async def render(pool: Pool, chunk_id: int) -> bytes:
    """The file of a sealed chunk."""
    async with pool.acquire() as connection:
        return b"".join([piece async for piece in _pieces(connection, chunk_id)])


async def _pieces(connection: Connection, chunk_id: int) -> AsyncIterator[bytes]:
    """The chunk's file, piece by piece."""
    head = await connection.fetchrow(HEAD, chunk_id)
    if head is not None:
        yield head["header"]
        for start in range(0, head["next_ordinal"], PIECE):
            yield await connection.fetchval(RENDER, chunk_id, start, start + PIECE) or b""


async def sent_rows(pool: Pool, chunk: Chunk, keys: Sequence[str] | None = None) -> list[SentRow]:
    """The rows of a chunk as they were sent, or those of some keys."""
    return await asyncio.to_thread(_parsed, await pool.fetch(ROWS, chunk.id, keys), chunk)


def _parsed(records: Sequence[asyncpg.Record], chunk: Chunk) -> list[SentRow]:
    rows = []
    for record in records:
        (cells,) = read_rows(record["line"], chunk.format)
        rows.append(SentRow(record["ordinal"], record["key_norm"], dict(zip(chunk.columns, cells, strict=True))))
    return rows


async def to_sealed(connection: Connection, chunk_id: int, not_before: datetime | None) -> int | None:
    """in_job → sealed: its job was refused for a passing reason, or never came to exist."""
    return await connection.fetchval(TO_SEALED, chunk_id, not_before)  # type: ignore[no-any-return]


async def put_off(connection: Connection, instance: str, list_id: int | None, until: datetime) -> None:
    """Send no chunk for that list before then: one is enough to find it busy, as each refused POST uploads its body."""
    await connection.execute(PUT_OFF, instance, list_id, until)


async def to_done(connection: Connection, chunk_id: int, now: datetime) -> int | None:
    """in_job → done: every change of it has its end. Its keys are free again, and changes that waited for them claimable."""
    moved = await connection.fetchval(TO_DONE, chunk_id, now)
    if moved is not None:
        await let_go(connection, chunk_id)
    return moved  # type: ignore[no-any-return]


async def to_split(connection: Connection, chunk_id: int, ordinals: Sequence[int], not_before: datetime | None, now: datetime) -> list[int]:
    """in_job → split: the rows `ordinals` become two sealed chunks (one row: one) that keep their claims; the others have ended."""
    if await connection.fetchval(TO_SPLIT, chunk_id, now) is None:
        return []
    await lock(connection, chunk_id)
    middle = len(ordinals) // 2
    parts = []
    for part in filter(None, (ordinals[:middle], ordinals[middle:])):
        part_id = await connection.fetchval(NEW_PART, chunk_id, list(part), not_before, now)
        await connection.execute(MOVE_CLAIMS, chunk_id, part_id, list(part))
        await connection.execute(MOVE_CHANGES, chunk_id, part_id, list(part))
        await connection.execute(MOVE_ROWS, chunk_id, part_id, list(part))
        await seal(connection, part_id, now)
        parts.append(part_id)
    await let_go(connection, chunk_id)
    return parts


async def dissolve(connection: Connection, chunk_id: int, reason: str, now: datetime) -> int | None:
    """open | sealed → dissolved: its changes are pending again."""
    await lock(connection, chunk_id)
    moved = await connection.fetchval(TO_DISSOLVED, [chunk_id], now)
    if moved is not None:
        await connection.execute(CHANGES_PENDING, chunk_id, reason)
        await let_go(connection, chunk_id)
    return moved  # type: ignore[no-any-return]


async def lock(connection: Connection, *chunk_ids: int) -> None:
    """The first locks of whatever ends chunks, or sync batches: the calls that have passed chunks, then the keys, each in their order.

    Claims lock keys, and after them the open chunks and the open batch, which therefore are not to be moved before this.
    """
    await connection.execute(LOCK_PASSING)
    await connection.execute(LOCK_KEYS, chunk_ids)


async def let_go(connection: Connection, *chunk_ids: int) -> None:
    """The keys of chunks, or of sync batches, are free again, and what waits for these can be claimed; their rows are dropped.

    What has passed them goes once more. Where a call that did has no answer yet, its batch takes the key over, until it ends.
    """
    await lock(connection, *chunk_ids)
    if await connection.fetchval(HAS_PASSED):
        await connection.execute(LOCK_PASSING)  # those that have come to pass until the keys were locked
        await connection.execute(TO_PASSING, chunk_ids)
        await connection.execute(ONCE_MORE, chunk_ids)
    # In this order: a claim that sees a key taken locks it, so what waits for the chunk is visible once the keys are deleted.
    for statement in (RELEASE_KEYS, WAKE_WAITING, DROP_ROWS):
        await connection.execute(statement, chunk_ids)


async def of_removed_pushes(connection: Connection, instance: str, pushes: Sequence[str]) -> list[int]:
    """Open and sealed chunks of pushes that the configuration no longer names."""
    return [row["id"] for row in await connection.fetch(FOREIGN_TO_CONFIG, instance, list(pushes))]


async def with_columns(connection: Connection, instance: str, names: Sequence[str]) -> list[int]:
    """Open and sealed chunks that have one of these columns."""
    return [row["id"] for row in await connection.fetch(WITH_COLUMNS, instance, list(names))]


def _chunk(row: asyncpg.Record) -> Chunk:
    return Chunk(
        row["id"],
        row["push"],
        row["lookup_field"],
        row["format"],
        row["list_id"],
        row["partition"],
        tuple(row["columns"]),
        row["row_count"],
        row["byte_count"],
        row["sha256"],
        row["split_depth"],
    )
