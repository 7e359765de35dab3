"""Sync batches: what is gathered in them may be given back before it is sent, and their ends stand in nobody's way."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from syncd.core.pack import pack
from syncd.core.pending import Target
from syncd.store import batches, claims, endings, outbox
from syncd.store.batches import Batch
from syncd.store.leases import Connection, Lease, Pool
from tests.store.outgoing import NOW, PUSH, claim, enqueue, settle, started, states, table, under_way, until_blocked

NOTHING = {"applied": 0, "warned": 0, "rejected": 0, "unverified": 0, "retried": 0}


async def gather(lease: Lease) -> int:
    """All that is pending, in an open batch."""
    async with lease.transaction() as connection:
        seen = await outbox.claimable(connection, "acme", PUSH, 300)
        packing = pack(seen.changes, seen.claimed, (), Target(PUSH.lookup_field, PUSH.format, 1000, 0, by_sync=True))
        await claims.claim(connection, "acme", PUSH, packing, NOW)
    batch_id: int = await lease.pool.fetchval("SELECT max(id) FROM syncd.sync_batch")
    return batch_id


async def test_an_open_batch_is_found_by_the_fields_of_its_records_and_given_up(pool: Pool, lease: Lease) -> None:
    first, second = await enqueue(pool, "a@x", f=1), await enqueue(pool, "b@x", g=None)
    batch_id = await gather(lease)
    async with lease.transaction() as connection:
        assert await batches.with_fields(connection, "acme", ["x", "g"]) == [batch_id]
        assert await batches.with_fields(connection, "acme", ["email"]) == [batch_id], "the key's field, too"
        assert await batches.with_fields(connection, "acme", ["x"]) == []
        assert await batches.with_fields(connection, "other", ["g"]) == []
        assert await batches.undo(connection, batch_id, "why") == batch_id
    assert await states(pool) == {first: "pending", second: "pending"}
    assert await table(pool, "SELECT attempt, reason FROM syncd.outbox") == [(0, "why")] * 2
    assert await pool.fetchval("SELECT count(*) FROM syncd.key_claim") == 0
    batch_id = await gather(lease)
    async with lease.transaction() as connection:
        assert await batches.to_submitting(connection, batch_id, NOW) == 2
        assert await batches.with_fields(connection, "acme", ["g"]) == [], "Marketo may have it"


async def test_open_batches_are_found_by_an_index_and_their_records_too(pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO syncd.sync_batch (id, instance, push, urgent, lookup_field, row_count, byte_count, next_ordinal, opened_at, state,
                                         submitted_at, ended_at)
           SELECT n, 'acme', 'contacts', false, 'email', 0, 1, 1, now(), 'settled', now(), now() FROM generate_series(1, 20000) n;
           INSERT INTO syncd.sync_record SELECT n, 1, 'k', '{}' FROM generate_series(1, 20000) n;
           ANALYZE syncd.sync_batch, syncd.sync_record"""
    )
    plan = "\n".join(row[0] for row in await pool.fetch("EXPLAIN " + batches.WITH_FIELDS, "acme", ["f"]))
    assert "sync_batch_live" in plan
    assert "sync_record_pkey" in plan
    assert "Seq Scan" not in plan


async def pass_chunk(lease: Lease, chunk_id: int, key: str) -> int:
    """An urgent change passes the chunk that has its key, in a call that is under way."""
    await lease.pool.execute("SELECT syncd.enqueue('acme', 'contacts', $1, '{\"f\": 2}', priority => 'urgent')", key)
    async with lease.transaction() as connection:
        seen = await outbox.urgent(connection, "acme", PUSH, 300, NOW)
        target = Target(PUSH.lookup_field, PUSH.format, 1000, 0, by_sync=True, ids={key: 7})
        packing = pack(seen.changes, {}, (), target)
        await claims.claim(connection, "acme", PUSH, packing, NOW, urgent=True, passed={key: chunk_id})
        batch_id: int = await connection.fetchval("SELECT max(id) FROM syncd.sync_batch")
        await batches.to_submitting(connection, batch_id, NOW)
    return batch_id


ENDS: dict[str, Callable[[Connection, Batch], Awaitable[Any]]] = {
    "settled": lambda c, batch: batches.settle(c, batch, {}, "r#1", NOW),
    "refused": lambda c, batch: batches.to_refused(c, batch.id, "why", NOW),
    "absent": lambda c, batch: batches.to_absent(c, batch.id, "why", NOW),
    "given up": lambda c, batch: batches.undo(c, batch.id, "why"),
}
BEFORE = {"settled": "submitting", "refused": "submitting", "absent": "unconfirmed", "given up": "open"}


@pytest.mark.parametrize("end", ENDS)
async def test_a_batch_and_a_chunk_that_calls_have_passed_may_end_at_once(pool: Pool, lease: Lease, end: str) -> None:
    """The chunk's end locks both calls that have passed it, the older first; so does the end of the younger one."""
    for key in ("a@x", "b@x"):
        await enqueue(pool, key, f=1)
    chunk, job = await under_way(lease)
    older, younger = [await pass_chunk(lease, chunk.id, key) for key in ("a@x", "b@x")]
    await pool.execute("UPDATE syncd.sync_batch SET state = 'unconfirmed' WHERE id = $1", older)
    submitted = None if end == "given up" else NOW
    await pool.execute("UPDATE syncd.sync_batch SET state = $2, submitted_at = $3 WHERE id = $1", younger, BEFORE[end], submitted)
    batch = Batch(younger, "contacts", BEFORE[end], True, "id", None, 1, 9, NOW, NOW)

    async def ending() -> bool:
        async with lease.transaction() as connection:
            return await ENDS[end](connection, batch) is not None

    async with lease.transaction() as stranger:
        await stranger.execute("SELECT FROM syncd.sync_batch WHERE id = $1 FOR UPDATE", older)
        settling = started(settle(lease, chunk, job))
        await until_blocked(pool, settling)
        ends = started(ending())
        await until_blocked(pool, ends, sessions=2)
    assert await asyncio.wait_for(settling, 10) == {**NOTHING, "applied": 2}
    assert await asyncio.wait_for(ends, 10)
    assert await table(pool, "SELECT key_norm, chunk_id FROM syncd.key_claim") == [("a@x", older)], "nobody knows of that call"
    assert await states(pool) == {1: "applied", 2: "applied", 3: "in_batch", 4: "pending"}


async def dissolve(lease: Lease, chunk_id: int) -> None:
    async with lease.transaction() as connection:
        await endings.dissolve(connection, chunk_id, "why", NOW)


async def undo(lease: Lease, batch_id: int) -> None:
    async with lease.transaction() as connection:
        await batches.undo(connection, batch_id, "why")


@pytest.mark.parametrize("carrier", ["chunk", "batch"])
async def test_a_claim_and_what_gives_up_the_open_chunk_or_batch_of_its_keys(pool: Pool, lease: Lease, carrier: str) -> None:
    """A claim locks keys that are taken, and then what takes rows still."""
    await enqueue(pool, "a@x", f=1)
    if carrier == "chunk":
        await claim(lease)
        give_up = dissolve(lease, await pool.fetchval("SELECT id FROM syncd.chunk"))
    else:
        give_up = undo(lease, await gather(lease))
    waiting = await enqueue(pool, "a@x", f=2)
    async with lease.transaction() as stranger:
        await stranger.execute("SELECT FROM syncd.claim_mark FOR UPDATE")
        claiming = started(claim(lease))
        await until_blocked(pool, claiming)
        giving_up = started(give_up)
        await until_blocked(pool, giving_up, sessions=2)
    await asyncio.wait_for(asyncio.gather(claiming, giving_up), 10)
    assert await table(pool, "SELECT state, waits_for FROM syncd.outbox ORDER BY id") == [("pending", None)] * 2, waiting


@pytest.mark.parametrize("keys", ["abcdefghij", "jihgfedcba"])
@pytest.mark.parametrize("held", [("outbox", "chunk_id IS NOT NULL"), ("key_claim", "key_norm IN ('c', 'e', 'h')")], ids=["rows", "keys"])
async def test_urgent_changes_and_a_chunk_that_is_taken_out_do_not_deadlock(
    pool: Pool, lease: Lease, keys: str, held: tuple[str, str]
) -> None:
    for key in keys:
        await enqueue(pool, key, f=1)
    await claim(lease)
    chunk_id = await pool.fetchval("SELECT id FROM syncd.chunk")
    for key in keys:
        await pool.execute("SELECT syncd.enqueue('acme', 'contacts', $1, '{\"f\": 2}', priority => 'urgent')", key)

    async def take_out() -> list[int]:
        async with lease.transaction() as connection:
            return await endings.take_out(connection, [chunk_id], NOW)

    async def urgent() -> int:
        async with lease.transaction() as connection:
            await connection.execute("SET LOCAL enable_indexscan = off")  # as PostgreSQL plans it for hundreds of keys: in any order
            return len((await outbox.urgent(connection, "acme", PUSH, 300, NOW)).changes)

    async with lease.transaction() as stranger:
        await stranger.execute("SELECT FROM syncd.{} WHERE {} FOR UPDATE".format(*held))
        taking = started(take_out())
        await until_blocked(pool, taking)
        going = started(urgent())
        await until_blocked(pool, going, sessions=2)
    assert len(await asyncio.wait_for(taking, 10)) == len(keys)
    assert await asyncio.wait_for(going, 10) == 2 * len(keys), "they take along what was taken out before them"
