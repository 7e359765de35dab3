"""Chunks: a sealed one renders to the same bytes for ever, and its keys are claimed until it is done."""

import asyncio
from datetime import timedelta
from hashlib import sha256

import pytest

from syncd.core.settings import Push
from syncd.store import chunks, endings
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import (
    NOW,
    PUSH,
    claim,
    enqueue,
    files,
    next_chunk,
    seal_all,
    settle,
    started,
    states,
    submit,
    table,
    under_way,
    until_blocked,
    with_fields,
)


async def claimed_keys(pool: Pool) -> dict[str, int]:
    return {row["key_norm"]: row["chunk_id"] for row in await pool.fetch("SELECT key_norm, chunk_id FROM syncd.key_claim ORDER BY 1")}


async def test_a_sealed_chunk_renders_to_the_bytes_of_its_hash_for_ever(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f='é,"\n\u2028')
    await enqueue(pool, "b@x", f="😀")
    await claim(lease)
    (chunk_id,) = await seal_all(lease)
    file = await chunks.render(pool, chunk_id)
    assert file.decode() == 'email,f\na@x,"é,""\n\u2028"\nb@x,😀\n'
    chunk = await next_chunk(lease)
    assert chunk is not None
    assert (chunk.sha256, chunk.byte_count, chunk.row_count) == (sha256(file).digest(), len(file), 2)
    await enqueue(pool, "c@x", f="later")
    await claim(lease)
    await submit(lease, chunk)
    assert await chunks.render(pool, chunk_id) == file


async def test_a_file_of_several_pieces_is_rendered_whole(pool: Pool, lease: Lease, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        await enqueue(pool, f"k{number}@x", f=number)
    await claim(lease)
    (chunk_id,) = await seal_all(lease)
    for piece in (1, 2, 3, 7, 8):
        monkeypatch.setattr(chunks, "PIECE", piece)
        file = await chunks.render(pool, chunk_id)
        assert file.decode() == "email,f\n" + "".join(f"k{number}@x,{number}\n" for number in range(7))
        assert sha256(file).digest() == await pool.fetchval("SELECT sha256 FROM syncd.chunk WHERE id = $1", chunk_id)


async def test_sent_rows_are_the_cells_that_were_sent(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, " A@x", f="x\r\ny", g="z" * 200_000)
    chunk, _ = await under_way(lease)
    (row,) = await chunks.sent_rows(pool, chunk)
    assert (row.ordinal, row.key_norm, row.cells) == (0, "a@x", {"email": "A@x", "f": "x\r\ny", "g": "z" * 200_000})


@pytest.mark.parametrize(("again", "parts"), [((1, 2, 3), [[1], [2, 3]]), ((2,), [[2]])])
async def test_a_split_keeps_claims_and_ends_the_rest(pool: Pool, lease: Lease, again: tuple[int, ...], parts: list[list[int]]) -> None:
    for number in range(4):
        await enqueue(pool, f"k{number}@x", f=number)
    chunk, job = await under_way(lease)
    waiting = await enqueue(pool, "k2@x", f="more")
    await claim(lease)
    counts = await settle(lease, chunk, job, {0: ("rejected", "bad")} if again == (1, 2, 3) else {}, again)
    assert counts is not None
    assert sum(counts.values()) == 4
    rows = [f"k{number}@x,{number}\n" for number in range(4)]
    assert await files(pool) == ["email,f\n" + "".join(rows[number] for number in part) for part in parts]
    for row in await pool.fetch(
        "SELECT id, state, split_from, split_depth, byte_count, row_count, sha256 FROM syncd.chunk WHERE id <> $1", chunk.id
    ):
        file = await chunks.render(pool, row["id"])
        assert tuple(row)[1:] == ("sealed", chunk.id, 1, len(file), file.count(b"\n") - 1, sha256(file).digest())
    assert set(await claimed_keys(pool)) == {f"k{number}@x" for number in again}
    (packing,) = [await claim(lease)]
    assert packing.waiting == [(waiting, (await claimed_keys(pool))["k2@x"])]


async def test_the_parts_of_a_split_settle_and_free_their_keys(pool: Pool, lease: Lease) -> None:
    ids = [await enqueue(pool, f"k{number}@x", f=number) for number in range(2)]
    chunk, job = await under_way(lease)
    await settle(lease, chunk, job, {}, (0, 1))
    for _ in ids:
        part = await next_chunk(lease)
        assert part is not None
        await settle(lease, part, await submit(lease, part))
    assert await states(pool) == dict.fromkeys(ids, "applied")
    assert await claimed_keys(pool) == {}
    assert await pool.fetchval("SELECT count(*) FROM syncd.chunk_row") == 0


async def test_a_dissolved_chunk_gives_its_changes_back_and_wakes_what_waits(pool: Pool, lease: Lease) -> None:
    first = await enqueue(pool, "a@x", f=1)
    await claim(lease)
    second = await enqueue(pool, "a@x", f=2)
    ((_, chunk_id),) = (await claim(lease)).waiting
    async with lease.transaction() as connection:
        assert await endings.dissolve(connection, chunk_id, "why", NOW) == chunk_id
        assert await endings.dissolve(connection, chunk_id, "why", NOW) is None
    rows = await table(pool, "SELECT id, state, attempt, reason, waits_for FROM syncd.outbox ORDER BY id")
    assert rows == [(first, "pending", 1, "why", None), (second, "pending", 0, None, None)]
    assert await claimed_keys(pool) == {}
    await claim(lease)
    assert await states(pool) == {first: "superseded", second: "in_chunk"}


async def test_the_next_chunk_is_the_oldest_or_the_smallest_to_probe_with(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="long enough")
    await claim(lease)
    await seal_all(lease)
    await enqueue(pool, "b@x", f=1)
    await claim(lease)
    await seal_all(lease)
    oldest, smallest = await next_chunk(lease), await next_chunk(lease, smallest=True)
    assert oldest is not None
    assert smallest is not None
    assert (oldest.id, smallest.id) == (1, 2)


async def test_pushes_take_turns_whatever_one_of_them_has_waiting(pool: Pool, lease: Lease) -> None:
    others = with_fields(PUSH, name="others")
    for key, push in (("a@x", PUSH), ("b@x", PUSH), ("c@x", PUSH), ("d@x", others), ("e@x", others)):
        await enqueue(pool, key, push=push.name, f=1)
        await claim(lease, push)
        await seal_all(lease, push)
    went = []
    for batch_id in range(5):
        chunk = await next_chunk(lease)
        assert chunk is not None
        await submit(lease, chunk, batch_id)
        went.append((chunk.push, chunk.id))
    assert went == [("contacts", 1), ("others", 4), ("contacts", 2), ("others", 5), ("contacts", 3)]


async def test_a_chunk_waits_for_its_time_its_push_and_its_list(pool: Pool, lease: Lease) -> None:
    push = with_fields(PUSH, list_id=5)
    for key in ("a@x", "b@x"):
        await enqueue(pool, key, f=1)
        await claim(lease, push)
        await seal_all(lease, push)
    first = await next_chunk(lease)
    assert first is not None
    job = await submit(lease, first)
    assert await next_chunk(lease) is None
    await settle(lease, first, job)
    second = await next_chunk(lease)
    assert second is not None
    await pool.execute("UPDATE syncd.chunk SET not_before = $1 WHERE id = $2", NOW + timedelta(seconds=9), second.id)
    assert await next_chunk(lease) is None
    assert await next_chunk(lease, now=NOW + timedelta(seconds=9)) == second
    await pool.execute("UPDATE syncd.push SET state = 'paused'")
    assert await next_chunk(lease, now=NOW + timedelta(seconds=9)) is None


async def test_counts_say_what_waits_and_since_when(pool: Pool, lease: Lease) -> None:
    assert await chunks.counts(pool, "acme", "contacts") == chunks.ChunkCounts(0, 0, None)
    await enqueue(pool, "a@x", f=1)
    await claim(lease)
    assert await chunks.counts(pool, "acme", "contacts") == chunks.ChunkCounts(0, 1, NOW)
    async with lease.transaction() as connection:
        assert await chunks.old_open(connection, "acme", "contacts", NOW - timedelta(seconds=1)) == []
    await seal_all(lease)
    assert await chunks.counts(pool, "acme", "contacts") == chunks.ChunkCounts(1, 0, None)


@pytest.mark.parametrize("analyzed", [False, True])
async def test_keys_are_found_by_their_index_whatever_is_known_of_the_tables(pool: Pool, lease: Lease, analyzed: bool) -> None:
    """A join was planned as a nested loop over a chunk's rows and all keys: minutes for 50,000 of them."""
    await pool.execute("INSERT INTO syncd.chunk_row SELECT 1, n, 'k' || n, '' FROM generate_series(1, 20000) n")
    await pool.execute("INSERT INTO syncd.key_claim SELECT 'acme', 'email', 'k' || n, 1 FROM generate_series(1, 20000) n")
    if analyzed:
        await pool.execute("ANALYZE syncd.chunk_row, syncd.key_claim")
    for query, arguments in (
        (endings.LOCK_KEYS, [[1]]),
        (endings.LOCK_WITHDRAWN, ["acme", "email", ["k1", "k2"]]),
        (endings.RELEASE_KEYS, [[1]]),
        (endings.MOVE_CLAIMS, [1, 2, [3]]),
    ):
        plan = "\n".join(row[0] for row in await pool.fetch("EXPLAIN " + query, *arguments))
        assert "key_claim_by_chunk" in plan or "key_claim_pkey" in plan
        assert "Seq Scan" not in plan


@pytest.mark.parametrize(("query", "index"), [(endings.WAKE_WAITING, "outbox_waiting"), (endings.ONCE_MORE, "outbox_passed")])
async def test_what_waits_for_chunks_is_found_by_its_index_for_any_number_of_them(pool: Pool, query: str, index: str) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off")
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN " + query, [1, 2]))
    assert index in plan


async def test_chunks_of_pushes_that_the_configuration_lost_are_found(pool: Pool, lease: Lease) -> None:
    for push in ("contacts", "gone"):
        await enqueue(pool, f"{push}@x", push=push, f=1)
        await claim(lease, Push(push))
    async with lease.transaction() as connection:
        (found,) = await chunks.of_removed_pushes(connection, "acme", ["contacts"])
    assert await pool.fetchval("SELECT push FROM syncd.chunk WHERE id = $1", found) == "gone"


async def test_a_chunk_that_is_being_sealed_loses_no_row_to_an_urgent_change(pool: Pool, lease: Lease) -> None:
    """What is withdrawn waits for the seal, and then finds nothing that is open."""
    await enqueue(pool, "a@x", f=1)
    await enqueue(pool, "b@x", f=1)
    await claim(lease)

    async def withdraw() -> None:
        async with lease.transaction() as connection:
            await endings.withdraw(connection, "acme", "email", ["a@x"], NOW)

    async with lease.transaction() as connection:
        await chunks.seal(connection, 1, NOW)
        withdrawing = started(withdraw())
        await until_blocked(pool, withdrawing)
    await asyncio.wait_for(withdrawing, 10)
    chunk = await chunks.get(pool, 1)
    assert sha256(await chunks.render(pool, 1)).digest() == chunk.sha256
    assert (chunk.row_count, await states(pool)) == (2, {1: "in_chunk", 2: "in_chunk"})
