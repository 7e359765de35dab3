"""Import jobs: one live job per chunk, and every change of it gets its end."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from syncd.core.values import ImportStatus
from syncd.store import imports
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, claim, enqueue, job, next_chunk, reasons, seal_all, settle, states, submit, table, under_way

MINUTE = timedelta(minutes=1)


async def sealed(pool: Pool, lease: Lease, key: str = "a@x") -> None:
    await enqueue(pool, key, f=1)
    await claim(lease)
    await seal_all(lease)


async def test_counts_add_up_and_every_change_has_its_end(pool: Pool, lease: Lease) -> None:
    ids = [await enqueue(pool, f"k{number}@x", f=1) for number in range(4)]
    carried = await enqueue(pool, "k1@x", g=1)
    chunk, running = await under_way(lease)
    by_key = {
        row["key_norm"]: row["ordinal"]
        for row in await pool.fetch("SELECT key_norm, ordinal FROM syncd.chunk_row WHERE chunk_id = $1", chunk.id)
    }
    assert set(by_key) == {"k0@x", "k2@x", "k3@x"}
    verdicts = {by_key["k0@x"]: ("warned", "odd"), by_key["k2@x"]: ("rejected", "bad")}
    counts = await settle(lease, chunk, running, verdicts)  # type: ignore[arg-type]
    assert counts == {"applied": 1, "warned": 1, "rejected": 1, "unverified": 0, "retried": 0}
    assert await states(pool) == {ids[0]: "warned", ids[1]: "in_chunk", ids[2]: "rejected", ids[3]: "applied", carried: "in_chunk"}
    why = await reasons(pool)
    assert [why[change] for change in (ids[0], ids[2], ids[3])] == ["odd", "bad", None]
    (row,) = await table(pool, "SELECT state, applied, warned, rejected, settled_at, finished_at FROM syncd.import_job")
    assert row == ("settled", 1, 1, 1, NOW, NOW)
    assert await table(pool, "SELECT DISTINCT import_job_id, settled_at FROM syncd.change_history") == [(running.id, NOW)]


async def test_all_changes_that_ride_in_a_row_share_its_end(pool: Pool, lease: Lease) -> None:
    ids = [await enqueue(pool, "a@x", f=1), await enqueue(pool, "A@x", g=2)]
    await settle(lease, *await under_way(lease), {0: ("unverified", "who knows")})
    assert await states(pool) == dict.fromkeys(ids, "unverified")


async def test_thousands_of_verdicts_cost_no_more_than_their_rows(pool: Pool, lease: Lease) -> None:
    """Statistics from before the claim say that no row is in a chunk: a join would be a nested loop."""
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'k' || n, '{\"f\": 1}') FROM generate_series(1, 20000) n")
    await pool.execute("ANALYZE syncd.outbox")
    chunk, running = await under_way(lease)
    async with asyncio.timeout(60):  # a nested loop takes minutes
        counts = await settle(lease, chunk, running, dict.fromkeys(range(10000), ("rejected", "bad")), range(10_000, 20_000))
    assert counts == {"applied": 0, "warned": 0, "rejected": 10_000, "unverified": 0, "retried": 10_000}
    live_and_ended = await table(pool, "SELECT state, count(*) FROM syncd.change GROUP BY 1 ORDER BY 1")
    assert live_and_ended == [("in_chunk", 10_000), ("rejected", 10_000)]


async def test_a_job_is_settled_once(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    chunk, running = await under_way(lease)
    assert await settle(lease, chunk, running) is not None
    assert await settle(lease, chunk, running) is None
    assert await pool.fetchval("SELECT count(*) FROM syncd.change_history") == 1


async def test_a_chunk_is_started_once_and_in_one_live_job_at_most(pool: Pool, lease: Lease) -> None:
    await sealed(pool, lease)
    chunk = await next_chunk(lease)
    assert chunk is not None
    await submit(lease, chunk)
    async with lease.transaction() as connection:
        assert await imports.start(connection, chunk, NOW) is None
    with pytest.raises(asyncpg.UniqueViolationError, match="import_job_live_chunk"):
        await pool.execute(imports.NEW_JOB, chunk.id, NOW)


async def test_an_absent_jobs_chunk_goes_again_as_its_second_attempt(pool: Pool, lease: Lease) -> None:
    await sealed(pool, lease)
    chunk = await next_chunk(lease)
    assert chunk is not None
    async with lease.transaction() as connection:
        first = await imports.start(connection, chunk, NOW)
        assert first is not None
        await imports.to_unconfirmed(connection, first, "timeout")
        assert await imports.to_absent(connection, first, "no sign of it") == chunk.id
        assert await imports.to_absent(connection, first, "no sign of it") is None
    again = await next_chunk(lease)
    assert again == chunk
    await settle(lease, chunk, await submit(lease, chunk))
    rows = await table(pool, "SELECT state, attempt, sha256, row_count FROM syncd.import_job ORDER BY id")
    assert rows == [("absent", 1, chunk.sha256, 1), ("settled", 2, chunk.sha256, 1)]
    assert list((await states(pool)).values()) == ["applied"]


async def test_a_lost_job_leaves_its_changes_unverified_and_frees_their_keys(pool: Pool, lease: Lease) -> None:
    change = await enqueue(pool, "a@x", f=1)
    chunk, running = await under_way(lease)
    async with lease.transaction() as connection:
        assert await imports.to_lost(connection, running, "seven days", NOW)
        assert not await imports.to_lost(connection, running, "seven days", NOW)
    assert await table(pool, "SELECT state, reason FROM syncd.change WHERE id = $1", change) == [("unverified", "seven days")]
    assert await table(pool, "SELECT state, unverified, batch_id FROM syncd.import_job") == [("lost", 1, 7)]
    assert await pool.fetchval("SELECT state FROM syncd.chunk WHERE id = $1", chunk.id) == "done"
    assert await pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0


async def test_jobs_of_a_daemon_that_died_are_unconfirmed_and_its_answered_ones_go_on(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    _, answered = await under_way(lease)
    await sealed(pool, lease, "b@x")
    chunk = await next_chunk(lease)
    assert chunk is not None
    async with lease.transaction() as connection:
        orphan = await imports.start(connection, chunk, NOW)
    async with lease.transaction() as connection:
        assert await imports.orphaned(connection, "acme") == [orphan]
    assert [(found.id, found.state) for found in await imports.live(pool, "acme")] == [(answered.id, "queued"), (orphan, "unconfirmed")]


async def test_a_look_notes_what_marketo_says_and_never_goes_back(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    _, running = await under_way(lease)

    async def look(status: ImportStatus, minute: int) -> int | None:
        async with lease.transaction() as connection:
            return await imports.looked(connection, running.id, status, NOW + minute * MINUTE)

    assert await look(ImportStatus(7, "importing", processed=3), 1) == running.id
    assert await look(ImportStatus(7, "queued"), 2) == running.id
    assert (await job(lease, running.id)).state == "importing"
    assert await look(ImportStatus(7, "complete", 5, 2, 1, "done"), 3) == running.id
    assert await look(ImportStatus(7, "importing"), 4) is None
    (row,) = await table(
        pool, "SELECT state, polls, processed, failed, warnings, message, started_at, finished_at, looked_at FROM syncd.import_job"
    )
    assert row == ("complete", 3, 5, 2, 1, "done", NOW + MINUTE, NOW + 3 * MINUTE, NOW + 3 * MINUTE)
    assert await imports.recent_runs(pool, "acme", 2) == [2.5 * MINUTE], "it may have run before it was seen to"
    assert await imports.longest_run(pool, "acme", NOW, running.id) == 3 * MINUTE
    assert await imports.longest_run(pool, "acme", NOW + 4 * MINUTE, running.id) == timedelta()


async def test_a_look_in_vain_changes_no_state(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    _, running = await under_way(lease)
    async with lease.transaction() as connection:
        await imports.looked_in_vain(connection, running.id, "timeout", NOW)
    assert await table(pool, "SELECT state, polls, message, looked_at FROM syncd.import_job") == [("queued", 1, "timeout", NOW)]


async def test_when_the_first_later_job_finished(pool: Pool, lease: Lease) -> None:
    jobs = []
    for key in ("a@x", "b@x", "c@x"):
        await enqueue(pool, key, f=1)
        jobs.append((await under_way(lease))[1].id)
    for job_id, minute in ((jobs[0], 1), (jobs[2], 3), (jobs[1], 5)):
        async with lease.transaction() as connection:
            await imports.looked(connection, job_id, ImportStatus(7, "complete"), NOW + minute * MINUTE)
    assert [await imports.later_finished_at(pool, "acme", job_id) for job_id in jobs] == [NOW + 3 * MINUTE, NOW + 3 * MINUTE, None]
