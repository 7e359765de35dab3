"""Chunks: sealed, rendered, sent, waiting again. A sealed chunk renders to the same bytes for ever; its SHA-256 is kept."""

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
