"""What guards know and hold: by index, in pieces, beside whoever packs or discards at that moment."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from syncd.core.guard import Arrival, Known, Surge, Waiting
from syncd.store import holding
from syncd.store.holding import Fate, Hold
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, apply, claim, enqueue, states, table, under_way

HOUR = timedelta(hours=1)
AT = "SELECT created_at FROM syncd.outbox WHERE id = $1"


async def made(pool: Pool, at: datetime, *keys: str, push: str = "contacts") -> list[int]:
    ids = [await enqueue(pool, key, push=push, f=1) for key in keys]
    await pool.execute("UPDATE syncd.outbox SET created_at = $1 WHERE id = ANY ($2::bigint[])", at, ids)
    return ids


async def expect(lease: Lease) -> None:
    async with lease.transaction() as connection:
        await holding.expect(connection, "acme", "contacts", "d", "first")


async def known(lease: Lease) -> Known:
    async with lease.transaction() as connection:
        found = await holding.known(connection, "acme", "contacts")
    assert found is not None
    return found


async def hold_all(lease: Lease, surge: Surge, but: Sequence[int] = ()) -> list[int]:
    pieces = []
    last = False
    while not last:
        async with lease.transaction() as connection:
            now = await holding.known(connection, "acme", "contacts")
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


async def test_what_a_guard_knows(lease: Lease) -> None:
    await expect(lease)
    assert await known(lease) == Known("d", "none", "first", [])
    async with lease.transaction() as connection:
        await holding.begin_canary(connection, "acme", "contacts", "surge", [3, 4], NOW)
        await holding.begin_canary(connection, "acme", "contacts", "first", [5], NOW)
    assert await known(lease) == Known("d", "under_way", "surge", [3, 4], NOW), "one at a time"
    async with lease.transaction() as connection:
        await holding.end_canary(connection, "acme", "contacts", "bad", 7, NOW)
        await holding.end_canary(connection, "acme", "contacts", "good", 0, NOW)
    assert (await known(lease)).canary == "bad", "its verdict stands"
    async with lease.transaction() as connection:
        assert await holding.trust(connection, "acme", "contacts", NOW)
        assert not await holding.trust(connection, "acme", "contacts", NOW)
        assert not await holding.try_again(connection, "acme", "contacts")
    assert (await known(lease)).canary == "good"
    async with lease.transaction() as connection:
        await holding.expect(connection, "acme", "contacts", "other", "mapping")
    assert await known(lease) == Known("other", "none", "mapping", [])


async def test_what_waits_and_when_it_was_made(lease: Lease, pool: Pool) -> None:
    (old,) = await made(pool, NOW - HOUR, "a@x")
    surge_ids = await made(pool, NOW, "b@x", "c@x", "d@x")
    (admitted,) = await made(pool, NOW, "e@x")
    await pool.execute("UPDATE syncd.outbox SET admitted = true WHERE id = $1", admitted)
    (urgent,) = await made(pool, NOW + HOUR, "f@x")
    await pool.execute("UPDATE syncd.outbox SET priority = 'urgent' WHERE id = $1", urgent)
    await made(pool, NOW, "z@x", push="others")
    async with lease.transaction() as connection:
        assert await holding.oldest(connection, "acme", "contacts", 2) == [Waiting(old, NOW - HOUR), Waiting(surge_ids[0], NOW)]
        assert await holding.oldest_urgent(connection, "acme", "contacts", 9) == [Waiting(urgent, NOW + HOUR)]
        assert await holding.waiting_of(connection, [admitted, 99]) == [Waiting(admitted, NOW, True)]
        found = await holding.arrivals(connection, "acme", "contacts", 100, None)
        assert found == [Arrival(NOW - HOUR, 1, old), Arrival(NOW, 3, surge_ids[0]), Arrival(NOW + HOUR, 1, urgent)]
        beside = await holding.arrivals(connection, "acme", "contacts", 100, Surge(NOW, 0, surge_ids[1]))
        assert beside == [Arrival(NOW - HOUR, 1, old), Arrival(NOW, 1, surge_ids[2]), Arrival(NOW + HOUR, 1, urgent)]
        assert await holding.arrivals(connection, "acme", "contacts", 2, None) == [
            Arrival(NOW - HOUR, 1, old),
            Arrival(NOW, 1, surge_ids[0]),
            Arrival(NOW + HOUR, 1, urgent),
        ]


async def test_a_surge_is_held_piece_by_piece_and_what_is_older_is_not(lease: Lease, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PIECE", 3)
    await expect(lease)
    (old,) = await made(pool, NOW - HOUR, "a@x")
    ids = await made(pool, NOW, *(f"s{n}@x" for n in range(8)))
    found = await surge(lease, NOW, ids[0])
    assert found == Surge(NOW, ids[0] - 1, ids[-1])
    (later,) = await made(pool, NOW + HOUR, "z@x")
    assert await hold_all(lease, found, but=[ids[1]]) == [3, 3, 1]
    assert await states(pool) == {old: "pending", **dict.fromkeys(ids, "held"), ids[1]: "pending", later: "pending"}
    assert (await known(lease)).surge is None
    (hold,) = await holding.holds(pool, "acme")
    assert hold == Hold("contacts", None, 7, [ids[0], *ids[2:6]], ids[-1], NOW, "why")


async def test_what_waits_for_a_chunk_is_held_and_not_woken(lease: Lease, pool: Pool) -> None:
    await expect(lease)
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
    await expect(lease)
    ids = await made(pool, NOW, "a@x", "b@x", "c@x")
    await hold_all(lease, await surge(lease, NOW, ids[0]))
    async with pool.acquire() as connection:
        await holding.settle_holds(connection, "acme", "contacts")
    assert (await known(lease)).held_at == NOW, "something is held still"
    assert await release(pool) == 3
    async with pool.acquire() as connection:
        await holding.settle_holds(connection, "acme", "contacts")
    assert (await known(lease)).held_at is None
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
    await expect(lease)
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


async def test_what_was_let_go_is_counted_by_the_minute(lease: Lease) -> None:
    minute = NOW.replace(second=0, microsecond=0)
    async with lease.transaction() as connection:
        await holding.count(connection, "acme", "contacts", holding.minutes_of([NOW, NOW, NOW - HOUR]), {minute: 3})
        await holding.count(connection, "acme", "contacts", {minute: 5}, {minute: 1})
        await holding.count(connection, "acme", "others", {minute: 9}, {})
        assert await holding.counted(connection, "acme", "contacts", minute - HOUR, minute) == [(minute, 7)]
        assert len(await holding.counted(connection, "acme", "contacts", minute - 2 * HOUR, minute)) == 2
        assert await holding.created(connection, "acme", "contacts", minute - HOUR) == 4
        assert await holding.created(connection, "acme", "contacts", minute + HOUR) == 0
        await holding.forget_counts(connection, "acme", minute)
        assert await holding.counted(connection, "acme", "contacts", minute - 2 * HOUR, minute) == [(minute, 7)]


async def test_whom_nobody_knows(lease: Lease, pool: Pool) -> None:
    mirrored, deleted, sent, new, again = await made(pool, NOW, "Ada@x", "bob@x", "eve@x", "new@x", "NEW@x")
    await pool.execute(
        """INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at, deleted_at)
           VALUES ('acme', 1, 'ada@X', '{}', '{}', now(), now(), now(), NULL),
                  ('acme', 2, 'bob@x', '{}', '{}', now(), now(), now(), now())"""
    )
    await enqueue(pool, "eve@x", push="others", f=1)
    async with lease.transaction() as connection:
        await connection.execute("SELECT syncd.ensure_history_partition($1)", NOW.date())
        await connection.execute(
            """INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at)
               VALUES (99, 'acme', 'contacts', 'eve@x', 'eve@x', '{}', 'applied', 0, $1, $1)""",
            NOW,
        )
        ids = [mirrored, deleted, sent, new, again]
        assert await holding.unknown(connection, "acme", ids, NOW - HOUR) == [(deleted, "bob@x"), (new, "new@x"), (again, "new@x")]
        assert sent in [change for change, _ in await holding.unknown(connection, "acme", ids, NOW + HOUR)]


async def test_fates(lease: Lease, pool: Pool) -> None:
    first, second = await made(pool, NOW, "a@x", "b@x")
    await apply(lease)
    (third,) = await made(pool, NOW, "c@x")
    async with lease.transaction() as connection:
        found = await holding.fates(connection, [first, second, third, 99], NOW - HOUR)
    assert sorted(found, key=lambda each: each.state) == [Fate("applied", "", 2), Fate("pending", "", 1)]
