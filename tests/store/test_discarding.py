"""Cancelling changes: only what is on no way yet, beside whoever packs at that moment."""

import asyncio
from datetime import timedelta

import pytest

from syncd.store import discarding, endings
from syncd.store.discarding import Chosen, Found
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import (
    NOW,
    PUSH,
    apply,
    claim,
    claim_in,
    enqueue,
    reasons,
    settle,
    started,
    states,
    table,
    under_way,
    until_blocked,
)

LATER = NOW + timedelta(days=1)
ALL = Chosen("acme", "contacts", LATER)


async def cancel(pool: Pool, chosen: Chosen = ALL, upto: int = 1_000_000) -> int:
    async with pool.acquire() as connection:
        return await discarding.cancel(connection, chosen, upto, NOW)


async def find(pool: Pool, chosen: Chosen = ALL) -> Found:
    async with pool.acquire() as connection:
        return await discarding.find(connection, chosen)


async def test_what_waits_is_cancelled_and_what_a_chunk_carries_is_not(lease: Lease, pool: Pool) -> None:
    carried, parked, held, pending = (
        await enqueue(pool, "a@x", f=1),
        await enqueue(pool, "b@x", company=None),
        await enqueue(pool, "c@x", f=1),
        await enqueue(pool, "d@x", f=1),
    )
    await pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE id = $1", held)
    await pool.execute("UPDATE syncd.outbox SET created_at = now() WHERE id = $1", pending)
    async with lease.transaction() as connection:
        await claim_in(connection, PUSH, 2)
    assert await find(pool) == Found({"held": 1, "parked": 1, "pending": 1}, 1, pending)
    assert await cancel(pool) == 3
    assert await states(pool) == {carried: "in_chunk", parked: "cancelled", held: "cancelled", pending: "cancelled"}
    assert await find(pool) == Found({}, 1, 0)
    assert set((await reasons(pool)).values()) == {None, "discarded by an operator"}
    kept = await table(
        pool, "SELECT key, fields::text, attempt, import_job_id, settled_at FROM syncd.change_history WHERE id = $1", pending
    )
    assert kept == [("d@x", '{"f": 1}', 0, None, NOW)]


async def test_the_choice_is_kept_to(lease: Lease, pool: Pool) -> None:
    old, other_key, other_push, new = (
        await enqueue(pool, "Ada@X.example", f=1),
        await enqueue(pool, "bob@y_example", f=1),
        await enqueue(pool, "ada@x.example", push="others", f=1),
        await enqueue(pool, "eve@x.example", f=1),
    )
    await pool.execute("UPDATE syncd.outbox SET created_at = $1", NOW - timedelta(hours=2))
    await pool.execute("UPDATE syncd.outbox SET created_at = $1 WHERE id = $2", NOW, new)
    chosen = Chosen("acme", "contacts", NOW, "%@x.example")
    assert await find(pool, chosen) == Found({"pending": 1}, 0, old)
    assert await cancel(pool, chosen) == 1
    assert await states(pool) == {old: "cancelled", other_key: "pending", other_push: "pending", new: "pending"}


async def test_what_was_enqueued_after_the_count_stays(pool: Pool) -> None:
    counted = await enqueue(pool, "a@x", f=1)
    later = await enqueue(pool, "b@x", f=1)
    assert await cancel(pool, upto=counted) == 1
    assert await states(pool) == {counted: "cancelled", later: "pending"}


async def test_many_go_batch_by_batch(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discarding, "BATCH", 3)
    for number in range(8):
        await enqueue(pool, f"p{number}@x", f=1)
    assert await cancel(pool) == 8
    assert set((await states(pool)).values()) == {"cancelled"}


async def test_rows_that_a_claim_holds_are_its_own(lease: Lease, pool: Pool) -> None:
    """Neither waits for the other, and no change is both packed and cancelled."""
    first, second = await enqueue(pool, "a@x", f=1), await enqueue(pool, "b@x", f=1)
    async with lease.transaction() as connection:
        await claim_in(connection, PUSH, 1)
        assert await asyncio.wait_for(cancel(pool), 10) == 1
        assert (await find(pool)).states == {"pending": 1}, "as far as others can see"
    assert await states(pool) == {first: "in_chunk", second: "cancelled"}
    assert await find(pool) == Found({}, 1, 0)


async def test_a_claim_passes_over_what_is_being_cancelled(lease: Lease, pool: Pool) -> None:
    first = await enqueue(pool, "a@x", f=1)
    async with pool.acquire() as connection, connection.transaction():
        await discarding.cancel(connection, ALL, first, NOW)
        packing = await asyncio.wait_for(claim(lease), 10)
        assert not packing.chunks
    assert await states(pool) == {first: "cancelled"}
    assert await table(pool, "SELECT count(*) FROM syncd.key_claim") == [(0,)]


async def test_a_change_that_waits_for_a_chunk_may_be_cancelled_and_one_behind_it_goes(lease: Lease, pool: Pool) -> None:
    carried = await enqueue(pool, "a@x", f=1)
    chunk, job = await under_way(lease)
    waiting, behind = await enqueue(pool, "a@x", f=2), await enqueue(pool, "a@x", f=3)
    await claim(lease)
    assert await table(pool, "SELECT waits_for FROM syncd.outbox WHERE state = 'pending'") == [(chunk.id,)] * 2
    assert await cancel(pool, upto=waiting) == 1
    await settle(lease, chunk, job)
    await apply(lease)
    assert await states(pool) == {carried: "applied", waiting: "cancelled", behind: "applied"}


async def test_settling_waits_for_a_batch_and_wakes_what_is_left(lease: Lease, pool: Pool) -> None:
    await enqueue(pool, "a@x", f=1)
    chunk, job = await under_way(lease)
    waiting, behind = await enqueue(pool, "a@x", f=2), await enqueue(pool, "a@x", f=3)
    await claim(lease)
    async with pool.acquire() as connection, connection.transaction():
        await discarding.cancel(connection, ALL, waiting, NOW)
        settling = started(settle(lease, chunk, job))
        await until_blocked(pool, settling)
    await asyncio.wait_for(settling, 10)
    assert await table(pool, "SELECT id, waits_for FROM syncd.outbox") == [(behind, None)]


async def test_what_a_cancelled_carrier_had_superseded_stays_so(lease: Lease, pool: Pool) -> None:
    """The carrier's chunk is dissolved, and it pending again: cancelling it means that its value is not to be sent, nor an older one."""
    older, carrier = await enqueue(pool, "a@x", f=1), await enqueue(pool, "a@x", f=2)
    await claim(lease)
    ((chunk_id,),) = await table(pool, "SELECT id FROM syncd.chunk")
    async with lease.transaction() as connection:
        await endings.dissolve(connection, chunk_id, "why", NOW)
    assert await cancel(pool) == 1
    assert await states(pool) == {older: "superseded", carrier: "cancelled"}
    assert (await reasons(pool))[older] == f"change {carrier} set its fields again"


async def test_a_cancelled_change_overwrites_nothing(lease: Lease, pool: Pool) -> None:
    """A late row, committed behind a newer one that was cancelled, is sent: nothing of it has been set since."""
    async with pool.acquire() as connection, connection.transaction():
        late = await enqueue(connection, "a@x", f=1)
        newer = await enqueue(pool, "a@x", f=2)
        await cancel(pool)
        await enqueue(pool, "b@x", f=1)
        await apply(lease)
    await apply(lease)
    found = await states(pool)
    assert (found[late], found[newer]) == ("applied", "cancelled")
