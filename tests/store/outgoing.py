"""The steps of a change on its way out, as the flows take them."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from syncd.core.guard import Known
from syncd.core.pack import Packing, pack
from syncd.core.pending import Target
from syncd.core.results import Verdicts
from syncd.core.settings import Push
from syncd.core.values import ImportStatus
from syncd.store import chunks, claims, guards, imports, outbox, pushes
from syncd.store.chunks import Chunk
from syncd.store.imports import Job
from syncd.store.leases import Connection, Lease, Pool

NOW = datetime.now(UTC)
"""Not any moment: `created_at` is the database's."""

PUSH = Push("contacts")


async def enqueue(connection: Connection | Pool, key: str, push: str = "contacts", **fields: object) -> int:
    change: int = await connection.fetchval("SELECT syncd.enqueue('acme', $1, $2, $3)", push, key, json.dumps(fields))
    return change


async def made(pool: Pool, at: datetime, *keys: str, push: str = "contacts") -> list[int]:
    """Changes that an application made at that moment."""
    ids = [await enqueue(pool, key, push=push, f=1) for key in keys]
    await pool.execute("UPDATE syncd.outbox SET created_at = $1 WHERE id = ANY ($2::bigint[])", at, ids)
    return ids


async def claim_in(connection: Connection, push: Push = PUSH, limit: int = 20_000) -> Packing:
    """A claim, in the caller's transaction."""
    seen = await outbox.claimable(connection, "acme", push, limit)
    packing = pack(seen.changes, seen.claimed, seen.open_chunks, Target(push.lookup_field, push.format, push.max_body_bytes, 200))
    for chunk_id in await claims.claim(connection, "acme", push, packing, NOW):
        await chunks.seal(connection, chunk_id, NOW)
    return packing


async def claim(lease: Lease, push: Push = PUSH, limit: int = 20_000) -> Packing:
    async with lease.transaction() as connection:
        return await claim_in(connection, push, limit)


async def seal_all(lease: Lease, push: Push = PUSH) -> list[int]:
    async with lease.transaction() as connection:
        ids = [chunk.id for chunk in await chunks.old_open(connection, "acme", push.name, NOW)]
        for chunk_id in ids:
            await chunks.seal(connection, chunk_id, NOW)
    return ids


async def next_chunk(lease: Lease, *, smallest: bool = False, now: datetime = NOW) -> Chunk | None:
    async with lease.transaction() as connection:
        await pushes.register(connection, "acme", ["contacts", "others"])
        return await chunks.next_sealed(connection, "acme", now, smallest)


async def submit(lease: Lease, chunk: Chunk, batch_id: int = 7) -> Job:
    """Start a job and have Marketo answer."""
    async with lease.transaction() as connection:
        job_id = await imports.start(connection, chunk, NOW)
        assert job_id is not None
        await imports.to_answered(connection, job_id, batch_id, "queued", "r#1", NOW)
    return await job(lease, job_id)


async def job(lease: Lease, job_id: int) -> Job:
    (found,) = [job for job in await imports.live(lease.pool, "acme") if job.id == job_id]
    return found


async def under_way(lease: Lease, push: Push = PUSH) -> tuple[Chunk, Job]:
    """All that is pending, in a job that Marketo has queued."""
    await claim(lease, push)
    await seal_all(lease, push)
    chunk = await next_chunk(lease)
    assert chunk is not None
    return chunk, await submit(lease, chunk)


async def settle(
    lease: Lease, chunk: Chunk, job: Job, verdicts: Verdicts | None = None, again: Sequence[int] = ()
) -> dict[str, int] | None:
    async with lease.transaction() as connection:
        return await settle_in(connection, chunk, job, verdicts, again)


async def settle_in(
    connection: Connection, chunk: Chunk, job: Job, verdicts: Verdicts | None = None, again: Sequence[int] = ()
) -> dict[str, int] | None:
    await imports.looked(connection, job.id, ImportStatus(job.batch_id or 0, "failed" if again else "complete"), NOW)
    return await imports.settle(connection, job, chunk.row_count, verdicts or {}, NOW, again)


async def apply(lease: Lease, push: Push = PUSH) -> None:
    """Bring all that is pending to its end."""
    await settle(lease, *await under_way(lease, push))


async def expect_canary(lease: Lease) -> None:
    async with lease.transaction() as connection:
        await guards.expect(connection, "acme", "contacts", "d", "first")


async def guard_of(lease: Lease) -> Known:
    async with lease.transaction() as connection:
        found = await guards.known(connection, "acme", "contacts")
    assert found is not None
    return found


async def table(pool: Pool, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch(query, *arguments)]


async def states(pool: Pool) -> dict[int, str]:
    return {row["id"]: row["state"] for row in await pool.fetch("SELECT id, state FROM syncd.change ORDER BY id")}


async def reasons(pool: Pool) -> dict[int, str | None]:
    return {row["id"]: row["reason"] for row in await pool.fetch("SELECT id, reason FROM syncd.change ORDER BY id")}


async def files(pool: Pool) -> list[str]:
    """The files of all chunks that have rows."""
    ids = [row["chunk_id"] for row in await pool.fetch("SELECT DISTINCT chunk_id FROM syncd.chunk_row ORDER BY 1")]
    return [(await chunks.render(pool, chunk_id)).decode() for chunk_id in ids]


async def until_blocked(pool: Pool, task: asyncio.Task[Any], sessions: int = 1) -> None:
    """Return when that many sessions of this database wait for a lock; fail when the task ends without."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while await pool.fetchval(blocked) < sessions:
            assert not task.done(), task


def started(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.create_task(work)


def with_fields(push: Push, **changes: Any) -> Push:
    return replace(push, **changes)
