"""Sync batches: what is gathered in them may be given back before it is sent, and their ends stand in nobody's way."""

from syncd.core.pack import Target, pack
from syncd.store import batches, outbox
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, PUSH, enqueue, states, table


async def gather(lease: Lease) -> int:
    """All that is pending, in an open batch."""
    async with lease.transaction() as connection:
        seen = await outbox.claimable(connection, "acme", PUSH, 300)
        packing = pack(seen.changes, seen.claimed, (), Target(PUSH.lookup_field, PUSH.format, 1000, 0, by_sync=True))
        await outbox.claim(connection, "acme", PUSH, packing, NOW)
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
