"""What guards know, and what they look at before anything is packed."""

from datetime import timedelta

from syncd.core.guard import Arrival, Known, Surge, Waiting
from syncd.store import guards
from syncd.store.guards import Fate
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, apply, enqueue, expect_canary, guard_of, made

HOUR = timedelta(hours=1)


async def test_what_a_guard_knows(lease: Lease) -> None:
    await expect_canary(lease)
    assert await guard_of(lease) == Known("d", "none", "first", [])
    async with lease.transaction() as connection:
        await guards.begin_canary(connection, "acme", "contacts", "surge", [3, 4], NOW)
        await guards.begin_canary(connection, "acme", "contacts", "first", [5], NOW)
    assert await guard_of(lease) == Known("d", "under_way", "surge", [3, 4], NOW), "one at a time"
    async with lease.transaction() as connection:
        await guards.end_canary(connection, "acme", "contacts", "bad", 7, NOW)
        await guards.end_canary(connection, "acme", "contacts", "good", 0, NOW)
    assert (await guard_of(lease)).canary == "bad", "its verdict stands"
    async with lease.transaction() as connection:
        assert await guards.trust(connection, "acme", "contacts", NOW)
        assert not await guards.trust(connection, "acme", "contacts", NOW)
        assert not await guards.try_again(connection, "acme", "contacts")
    assert (await guard_of(lease)).canary == "good"
    async with lease.transaction() as connection:
        await guards.expect(connection, "acme", "contacts", "other", "mapping")
    assert await guard_of(lease) == Known("other", "none", "mapping", [])


async def test_what_waits_and_when_it_was_made(lease: Lease, pool: Pool) -> None:
    (old,) = await made(pool, NOW - HOUR, "a@x")
    surge_ids = await made(pool, NOW, "b@x", "c@x", "d@x")
    (admitted,) = await made(pool, NOW, "e@x")
    await pool.execute("UPDATE syncd.outbox SET admitted = true WHERE id = $1", admitted)
    (urgent,) = await made(pool, NOW + HOUR, "f@x")
    await pool.execute("UPDATE syncd.outbox SET priority = 'urgent' WHERE id = $1", urgent)
    await made(pool, NOW, "z@x", push="others")
    async with lease.transaction() as connection:
        assert await guards.oldest(connection, "acme", "contacts", 2) == [Waiting(old, NOW - HOUR), Waiting(surge_ids[0], NOW)]
        assert await guards.oldest_urgent(connection, "acme", "contacts", 9) == [Waiting(urgent, NOW + HOUR)]
        assert await guards.waiting_of(connection, [admitted, 99]) == [Waiting(admitted, NOW, True)]
        found = await guards.arrivals(connection, "acme", "contacts", 100, None)
        assert found == [Arrival(NOW - HOUR, 1, old), Arrival(NOW, 3, surge_ids[0]), Arrival(NOW + HOUR, 1, urgent)]
        beside = await guards.arrivals(connection, "acme", "contacts", 100, Surge(NOW, 0, surge_ids[1]))
        assert beside == [Arrival(NOW - HOUR, 1, old), Arrival(NOW, 1, surge_ids[2]), Arrival(NOW + HOUR, 1, urgent)]
        assert await guards.arrivals(connection, "acme", "contacts", 2, None) == [
            Arrival(NOW - HOUR, 1, old),
            Arrival(NOW, 1, surge_ids[0]),
            Arrival(NOW + HOUR, 1, urgent),
        ]


async def test_what_was_let_go_is_counted_by_the_minute(lease: Lease) -> None:
    minute = NOW.replace(second=0, microsecond=0)
    async with lease.transaction() as connection:
        await guards.count(connection, "acme", "contacts", guards.minutes_of([NOW, NOW, NOW - HOUR]), {minute: 3})
        await guards.count(connection, "acme", "contacts", {minute: 5}, {minute: 1})
        await guards.count(connection, "acme", "others", {minute: 9}, {})
        assert await guards.counted(connection, "acme", "contacts", minute - HOUR, minute) == [(minute, 7)]
        assert len(await guards.counted(connection, "acme", "contacts", minute - 2 * HOUR, minute)) == 2
        assert await guards.created(connection, "acme", "contacts", minute - HOUR) == 4
        assert await guards.created(connection, "acme", "contacts", minute + HOUR) == 0
        await guards.forget_counts(connection, "acme", minute)
        assert await guards.counted(connection, "acme", "contacts", minute - 2 * HOUR, minute) == [(minute, 7)]


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
        assert await guards.unknown(connection, "acme", ids, NOW - HOUR) == [(deleted, "bob@x"), (new, "new@x"), (again, "new@x")]
        assert sent in [change for change, _ in await guards.unknown(connection, "acme", ids, NOW + HOUR)]


async def test_fates(lease: Lease, pool: Pool) -> None:
    first, second = await made(pool, NOW, "a@x", "b@x")
    await apply(lease)
    (third,) = await made(pool, NOW, "c@x")
    async with lease.transaction() as connection:
        found = await guards.fates(connection, [first, second, third, 99], NOW - HOUR)
    assert sorted(found, key=lambda each: each.state) == [Fate("applied", "", 2), Fate("pending", "", 1)]
