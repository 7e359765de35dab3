"""What guards and plans hold: by index, in pieces, beside whoever packs or discards at that moment."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from syncd.core.guard import Surge
from syncd.store import guards, holding
from syncd.store.holding import Hold
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, apply, claim, enqueue, expect_canary, guard_of, made, states, table, under_way

HOUR = timedelta(hours=1)


async def hold_all(lease: Lease, surge: Surge, but: Sequence[int] = ()) -> list[int]:
    pieces = []
    last = False
    while not last:
        async with lease.transaction() as connection:
            now = await guards.known(connection, "acme", "contacts")
            assert now is not None
            assert now.surge is not None
            count, last = await holding.hold_surge(connection, "acme", "contacts", now.surge, but, "why")
        pieces.append(count)
    return pieces


async def surge(lease: Lease, since: datetime, first_id: int) -> Surge:
    async with lease.transaction() as connection:
        return await holding.begin_surge(connection, "acme", "contacts", since, first_id, "why", NOW)


async def release(pool: Pool, plan_id: int | None = None) -> int:
    async with pool.acquire() as connection:
        return await holding.release(connection, "acme", "contacts", plan_id, 1_000_000)


async def test_a_surge_is_held_piece_by_piece_and_what_is_older_is_not(lease: Lease, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PIECE", 3)
    await expect_canary(lease)
    (old,) = await made(pool, NOW - HOUR, "a@x")
    ids = await made(pool, NOW, *(f"s{n}@x" for n in range(8)))
    found = await surge(lease, NOW, ids[0])
    assert found == Surge(NOW, ids[0] - 1, ids[-1])
    (later,) = await made(pool, NOW + HOUR, "z@x")
    assert await hold_all(lease, found, but=[ids[1]]) == [3, 3, 1]
    assert await states(pool) == {old: "pending", **dict.fromkeys(ids, "held"), ids[1]: "pending", later: "pending"}
    assert (await guard_of(lease)).surge is None
    (hold,) = await holding.holds(pool, "acme")
    assert hold == Hold("contacts", None, 7, [ids[0], *ids[2:6]], ids[-1], NOW, "why")


async def test_what_waits_for_a_chunk_is_held_and_not_woken(lease: Lease, pool: Pool) -> None:
    await expect_canary(lease)
    await enqueue(pool, "a@x", f=1)
    chunk, _ = await under_way(lease)
    (waiting,) = await made(pool, NOW, "a@x")
    await claim(lease)
    assert await table(pool, "SELECT waits_for FROM syncd.outbox WHERE id = $1", waiting) == [(chunk.id,)]
    async with lease.transaction() as connection:
        await holding.hold_these(connection, "acme", "contacts", [waiting], "why", NOW)
    assert await table(pool, "SELECT state, waits_for, reason FROM syncd.outbox WHERE id = $1", waiting) == [("held", None, "why")]


async def test_what_is_released_goes_and_is_not_held_again(lease: Lease, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PIECE", 2)
    await expect_canary(lease)
    ids = await made(pool, NOW, "a@x", "b@x", "c@x")
    await hold_all(lease, await surge(lease, NOW, ids[0]))
    async with pool.acquire() as connection:
        await holding.settle_holds(connection, "acme", "contacts")
    assert (await guard_of(lease)).held_at == NOW, "something is held still"
    assert await release(pool) == 3
    async with pool.acquire() as connection:
        await holding.settle_holds(connection, "acme", "contacts")
    assert (await guard_of(lease)).held_at is None
    assert await states(pool) == dict.fromkeys(ids, "pending")
    assert await hold_all(lease, await surge(lease, NOW, ids[0])) == [0]
    async with lease.transaction() as connection:
        assert await holding.hold_these(connection, "acme", "contacts", ids, "why", NOW) == 0
    await apply(lease)
    assert await states(pool) == dict.fromkeys(ids, "applied")


async def test_what_comes_back_from_a_chunk_has_passed_the_guard(lease: Lease, pool: Pool) -> None:
    await made(pool, NOW, "a@x")
    await claim(lease)
    assert await table(pool, "SELECT admitted FROM syncd.outbox") == [(True,)]


async def plan(pool: Pool, *ids: int, state: str = "waiting") -> int:
    number: int = await pool.fetchval(
        """INSERT INTO syncd.plan (instance, push, kind, state, reason, made_at)
           VALUES ('acme', 'contacts', 'backfill', $1, 'first', $2) RETURNING id""",
        state,
        NOW,
    )
    await pool.execute("UPDATE syncd.outbox SET state = 'held', plan_id = $1 WHERE id = ANY ($2::bigint[])", number, list(ids))
    return number


async def test_a_plan_is_released_apart_from_what_the_guard_holds(lease: Lease, pool: Pool) -> None:
    await expect_canary(lease)
    first, second, guarded, making = await made(pool, NOW, "a@x", "b@x", "c@x", "d@x")
    number = await plan(pool, first, second)
    unfinished = await plan(pool, making, state="making")
    await hold_all(lease, await surge(lease, NOW, first))
    assert [(hold.plan_id, hold.changes, hold.why) for hold in await holding.holds(pool, "acme")] == [
        (None, 1, "why"),
        (number, 2, "first"),
    ]
    async with pool.acquire() as connection:
        await holding.plan_released(connection, "acme", "contacts", number, NOW)
        await holding.plans_discarded(connection, "acme", "contacts", NOW)
    plans = "SELECT id, state, decided_at FROM syncd.plan ORDER BY id"
    assert await table(pool, plans) == [(number, "waiting", None), (unfinished, "making", None)]
    assert await release(pool, number) == 2
    assert await states(pool) == {first: "pending", second: "pending", guarded: "held", making: "held"}
    async with pool.acquire() as connection:
        await holding.plan_released(connection, "acme", "contacts", number, NOW)
        await holding.plans_discarded(connection, "acme", "contacts", NOW)
    assert await table(pool, plans) == [(number, "released", NOW), (unfinished, "making", None)]


async def test_a_plan_of_which_nothing_is_left_is_discarded(pool: Pool) -> None:
    (only,) = await made(pool, NOW, "a@x")
    number = await plan(pool, only)
    await pool.execute("DELETE FROM syncd.outbox")
    async with pool.acquire() as connection:
        await holding.plans_discarded(connection, "acme", "others", NOW)
        assert await table(pool, "SELECT state FROM syncd.plan") == [("waiting",)]
        await holding.plans_discarded(connection, "acme", "contacts", NOW)
    assert await table(pool, "SELECT id, state, decided_at FROM syncd.plan") == [(number, "discarded", NOW)]
