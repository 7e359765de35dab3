"""Changes wait for a field, and go when they are let; what was not sent because Marketo had it counts as set."""

from syncd.store import claims, history, outbox, parked
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, PUSH, claim_in, enqueue, reasons, states, table


async def test_they_wait_for_their_field_and_for_no_other(lease: Lease, pool: Pool) -> None:
    numbers = [await enqueue(pool, f"{n}@x", f=n) for n in range(5)]
    async with lease.transaction() as connection:
        await parked.park(connection, [(number, name, f"no {name}") for number, name in zip(numbers, "abbca", strict=True)])
    assert set((await states(pool)).values()) == {"parked"}
    assert (await reasons(pool))[numbers[0]] == "no a"
    assert await parked.lacking(pool, "acme", "contacts") == ["a", "b", "c"]
    assert await parked.lacking(pool, "acme", "others") == []
    async with lease.transaction() as connection:
        assert await parked.unpark(connection, "acme", "contacts", "b", 1) == 1
        assert await parked.unpark(connection, "acme", "contacts", "b", 10) == 1
        assert await parked.unpark(connection, "acme", "contacts", None, 10) == 0
        await connection.execute("UPDATE syncd.outbox SET lacks = NULL WHERE id = $1", numbers[0])
        assert await parked.unpark(connection, "acme", "contacts", None, 10) == 1
        seen = await outbox.claimable(connection, "acme", PUSH, 10)
    assert [(change.id, change.lacks) for change in seen.changes] == [(numbers[0], None), (numbers[1], "b"), (numbers[2], "b")]
    assert await parked.lacking(pool, "acme", "contacts") == ["a", "c"]


async def test_a_late_change_does_not_set_what_a_noop_found_to_be_there(lease: Lease, pool: Pool) -> None:
    first, second = await enqueue(pool, "a@x", f=1, g=1), await enqueue(pool, "a@x", f=2)
    await pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE id = $1", first)
    async with lease.transaction() as connection:
        await outbox.claimable(connection, "acme", PUSH, 10)
        await history.ensure_partition(connection, NOW.date())
        await connection.execute(claims.END, [second], '[["noop", "there"]]', NOW)
    await pool.execute("UPDATE syncd.outbox SET state = 'pending' WHERE id = $1", first)
    async with lease.transaction() as connection:
        packing = await claim_in(connection)
    (chunk,) = packing.chunks
    assert chunk.columns == ("email", "g")
    assert await table(pool, "SELECT state FROM syncd.change ORDER BY id") == [("in_chunk",), ("noop",)]
