"""Claims: every pending change is taken once, in order, and none waits for ever."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import orjson
import pytest

from syncd.core.settings import Push
from syncd.store import batches, claims, history, outbox, parked
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import (
    NOW,
    PUSH,
    apply,
    claim,
    claim_in,
    enqueue,
    files,
    reasons,
    seal_all,
    settle,
    settle_in,
    started,
    states,
    table,
    under_way,
    until_blocked,
    with_fields,
)

MANY = """
INSERT INTO syncd.outbox (instance, push, key, fields, state)
SELECT 'acme', 'contacts', 'k' || n || '@x', '{"f": 1}', $2 FROM generate_series(1, $1) n
"""


async def test_a_claim_takes_the_oldest_twenty_thousand(pool: Pool, lease: Lease) -> None:
    await pool.execute(MANY, 20_003, "pending")
    await claim(lease)
    assert await table(pool, "SELECT id, state FROM syncd.outbox WHERE state <> 'in_chunk' ORDER BY id") == [
        (change, "pending") for change in (20_001, 20_002, 20_003)
    ]
    (placed,) = await table(pool, "SELECT count(*), count(DISTINCT chunk_id), count(DISTINCT ordinal) FROM syncd.outbox")
    assert placed == (20_003, 1, 20_000)
    (counts,) = await table(pool, "SELECT row_count, next_ordinal, byte_count FROM syncd.chunk")
    (file,) = await files(pool)
    assert counts == (20_000, 20_000, len(file))
    assert file.startswith("email,f\nk1@x,1\nk2@x,1\n")


async def test_a_claim_of_large_rows_takes_fewer_and_locks_no_others(pool: Pool, lease: Lease) -> None:
    large = "x" * 100_000
    await pool.execute(
        "SELECT syncd.enqueue('acme', 'contacts', n || '@x', jsonb_build_object('notes', $1::text)) FROM generate_series(1, 1000) n",
        large,
    )
    async with lease.transaction() as connection:
        seen = await outbox.claimable(connection, "acme", PUSH, 20_000)
        assert outbox.CLAIM_BYTES <= sum(len(change.fields) for change in seen.changes) <= outbox.CLAIM_BYTES + outbox.PIECE * 100_020
        left = await pool.fetchval("SELECT count(*) FROM (SELECT FROM syncd.outbox FOR UPDATE SKIP LOCKED) AS free")
        assert left == 1000 - len(seen.changes) > 0


async def test_an_open_chunk_goes_on_in_the_next_claim(pool: Pool, lease: Lease) -> None:
    for key in ("a@x", "b@x", "c@x"):
        await enqueue(pool, key, f=1)
    await claim(lease, limit=2)
    await claim(lease, limit=2)
    assert await files(pool) == ["email,f\na@x,1\nb@x,1\nc@x,1\n"]
    assert await table(pool, "SELECT key_norm, count(*) FROM syncd.key_claim GROUP BY 1 ORDER BY 1") == [("a@x", 1), ("b@x", 1), ("c@x", 1)]


@pytest.mark.parametrize(
    "settings",
    [{"format": "tsv"}, {"list_id": 5}, {"partition": "EU"}, {"lookup_field": "externalId"}],
    ids=lambda settings: next(iter(settings)),
)
async def test_an_open_chunk_of_other_settings_is_not_continued(pool: Pool, lease: Lease, settings: dict[str, object]) -> None:
    await enqueue(pool, "a@x", f=1)
    await claim(lease)
    await enqueue(pool, "b@x", f=1)
    await claim(lease, with_fields(PUSH, **settings))
    assert await pool.fetchval("SELECT array_agg(row_count) FROM syncd.chunk WHERE state = 'open'") == [1, 1]
    assert len(await seal_all(lease)) == 2


async def test_a_full_chunk_is_sealed_in_the_claim(pool: Pool, lease: Lease) -> None:
    for key in ("a@x", "b@x", "c@x"):
        await enqueue(pool, key, f="v" * 50)
    await claim(lease, with_fields(PUSH, max_body_bytes=340))
    assert await table(pool, "SELECT state, row_count FROM syncd.chunk ORDER BY id") == [("sealed", 2), ("open", 1)]


async def test_superseded_and_rejected_changes_end_in_the_history_and_clearings_are_parked(pool: Pool, lease: Lease) -> None:
    first, second = await enqueue(pool, "a@x", f=1), await enqueue(pool, "A@x", f=2)
    wrong, clearing = await enqueue(pool, "b@x", f=[1]), await enqueue(pool, "c@x", company=None)
    await claim(lease)
    assert await states(pool) == {first: "superseded", second: "in_chunk", wrong: "rejected", clearing: "parked"}
    why = await reasons(pool)
    assert (why[first], why[second]) == (f"change {second} set its fields again", None)
    assert "no text, number or boolean" in str(why[wrong])
    assert "clears company" in str(why[clearing])
    assert await pool.fetchval("SELECT count(*) FROM syncd.change_history WHERE settled_at = $1", NOW) == 2


async def test_numbers_stay_exact_on_their_way_into_a_file(pool: Pool, lease: Lease) -> None:
    await pool.execute(
        """SELECT syncd.enqueue('acme', 'contacts', 'a@x', '{"a": 12345678901234567890123, "b": 1.10, "c": 1e3, "d": 0, "e": false}')"""
    )
    await claim(lease)
    assert await files(pool) == ["email,a,b,c,d,e\na@x,12345678901234567890123,1.10,1000,0,false\n"]


async def test_a_change_of_a_claimed_key_waits_and_is_claimed_when_its_chunk_is_done(pool: Pool, lease: Lease) -> None:
    first = await enqueue(pool, "a@x", f=1)
    chunk, job = await under_way(lease)
    second = await enqueue(pool, "A@X ", f=2)
    assert (await claim(lease)).waiting == [(second, chunk.id)]
    assert await pool.fetchval("SELECT waits_for FROM syncd.outbox WHERE id = $1", second) == chunk.id
    assert not (await claim(lease)).waiting
    await settle(lease, chunk, job)
    assert await states(pool) == {first: "applied", second: "pending"}
    assert [row.change_ids for chunk in (await claim(lease)).chunks for row in chunk.rows] == [[second]]


async def test_a_claim_that_saw_a_key_taken_is_woken_by_the_settling_that_waits_for_it(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    chunk, job = await under_way(lease)
    second = await enqueue(pool, "a@x", f=2)
    async with lease.transaction() as claiming:
        assert (await claim_in(claiming)).waiting == [(second, chunk.id)]
        settling = started(settle(lease, chunk, job))
        await until_blocked(pool, settling)
    await asyncio.wait_for(settling, 10)
    assert await table(pool, "SELECT id, waits_for FROM syncd.outbox") == [(second, None)]


async def test_a_claim_that_meets_a_settling_waits_for_it_and_goes_on(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    chunk, job = await under_way(lease)
    second = await enqueue(pool, "a@x", f=2)
    async with lease.transaction() as settling:
        await settle_in(settling, chunk, job)
        claiming = started(claim(lease))
        await until_blocked(pool, claiming)
    packing = await asyncio.wait_for(claiming, 10)
    assert packing.waiting == []
    assert [row.change_ids for chunk in packing.chunks for row in chunk.rows] == [[second]]


@pytest.mark.parametrize("keys", ["abcdefghij", "jihgfedcba"])
@pytest.mark.parametrize("again", [(), (0, 1, 2, 3, 4, 5, 6, 7)], ids=["settled", "split"])
async def test_a_claim_and_a_settling_of_the_same_keys_do_not_deadlock(pool: Pool, lease: Lease, keys: str, again: tuple[int, ...]) -> None:
    for key in keys:
        await enqueue(pool, key, f=1)
    chunk, job = await under_way(lease)
    for key in reversed(keys):
        await enqueue(pool, key, f=2)
    async with lease.transaction() as stranger:
        await stranger.execute("SELECT FROM syncd.key_claim WHERE key_norm IN ('c', 'e', 'h') FOR UPDATE")
        claiming = started(claim(lease))
        await until_blocked(pool, claiming)
        settling = started(settle(lease, chunk, job, again=again))
        await until_blocked(pool, settling, sessions=2)
    await asyncio.wait_for(asyncio.gather(claiming, settling), 10)
    assert await pool.fetchval("SELECT count(*) FROM syncd.outbox WHERE state = 'pending' AND waits_for = $1", chunk.id) == 0


async def test_a_late_row_sets_no_field_that_a_later_change_has_set(database: str, pool: Pool, lease: Lease) -> None:
    slow = await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    late, hollow = await enqueue(slow, "a@x", f="old", g="old"), await enqueue(slow, "a@x", f="older")
    later = await enqueue(pool, "A@x", f="new")
    await apply(lease)
    await transaction.commit()
    await slow.close()
    await claim(lease)
    assert await files(pool) == ["email,g\na@x,old\n"]
    assert await states(pool) == {late: "in_chunk", hollow: "superseded", later: "applied"}


async def test_a_late_row_is_not_held_back_by_the_same_text_as_a_key_of_another_lookup_field(
    database: str, pool: Pool, lease: Lease
) -> None:
    slow = await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    await enqueue(slow, "42", f="mine")
    await enqueue(pool, "42", push="others", f="another lead's")
    await apply(lease, Push("others", lookup_field="externalId"))
    await transaction.commit()
    await slow.close()
    await claim(lease, Push("contacts", lookup_field="id"))
    assert await files(pool) == ["id,f\n42,mine\n"]


async def test_a_retried_row_sets_what_a_rejected_later_change_did_not(database: str, pool: Pool, lease: Lease) -> None:
    slow = await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    await enqueue(slow, "a@x", f="old")
    await enqueue(pool, "a@x", f="bad")
    await settle(lease, *await under_way(lease), {0: ("rejected", "bad")})
    await transaction.commit()
    await slow.close()
    await claim(lease)
    assert await files(pool) == ["email,f\na@x,old\n"]


async def test_rows_that_another_transaction_holds_are_passed_over(pool: Pool, lease: Lease) -> None:
    held, free = await enqueue(pool, "a@x", f=1), await enqueue(pool, "b@x", f=1)
    async with pool.acquire() as other, other.transaction():
        await other.execute("SELECT FROM syncd.outbox WHERE id = $1 FOR UPDATE", held)
        packing = await asyncio.wait_for(claim(lease), 10)
    assert [row.change_ids for chunk in packing.chunks for row in chunk.rows] == [[free]]


async def test_a_claim_reads_by_its_partial_index_whatever_else_there_is(pool: Pool) -> None:
    await pool.execute(MANY, 30_000, "held")
    await pool.execute(MANY, 500, "pending")
    await pool.execute("ANALYZE syncd.outbox")
    plan = "\n".join(row[0] for row in await pool.fetch("EXPLAIN " + outbox.CLAIMABLE, "acme", "contacts", 20_000))
    assert "outbox_claimable" in plan
    assert "Seq Scan" not in plan


async def test_a_claim_is_written_by_the_primary_key_though_the_statistics_know_of_nothing_pending(pool: Pool) -> None:
    await pool.execute(MANY, 30_000, "held")
    await pool.execute("ANALYZE syncd.outbox")
    await pool.execute(MANY, 20_000, "pending")
    ids = [row["id"] for row in await pool.fetch("SELECT id FROM syncd.outbox WHERE state = 'pending' ORDER BY id")]
    verdicts = orjson.dumps([["superseded", "reason"]] * len(ids)).decode()
    for statement, arguments in (
        (claims.INTO_CHUNKS, (ids, [1] * len(ids), ids)),
        (claims.WAIT, (ids, [1] * len(ids))),
        (claims.PARK, (ids, verdicts)),
        (claims.END, (ids, verdicts, NOW)),
        (parked.PARK, (ids, verdicts, verdicts)),
        (batches.INTO_BATCHES, (ids, [1] * len(ids), ids, None)),
    ):
        plan = "\n".join(row[0] for row in await pool.fetch("EXPLAIN " + statement, *arguments))
        assert "Join" not in plan, statement
        assert "Nested Loop" not in plan, statement
        assert "outbox_pkey" in plan or "Seq Scan on outbox" in plan, statement


async def test_two_sessions_that_need_the_same_new_partition_both_go_on(pool: Pool) -> None:
    async with pool.acquire() as one, pool.acquire() as two:
        async with one.transaction():
            await history.ensure_partition(one, NOW.date())
            waiting = started(history.ensure_partition(two, NOW.date()))
            await until_blocked(pool, waiting)
        await asyncio.wait_for(waiting, 10)


async def test_late_rows_are_looked_up_by_their_keys_before_anything_is_known_of_the_tables(pool: Pool) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition('2026-03-02')")
    await pool.execute(
        """INSERT INTO syncd.change_history SELECT n, 'acme', 'contacts', 'k' || n, 'k' || n, '{}', 'applied', NULL, 0, 1, NULL,
                  '2026-03-02', '2026-03-02' FROM generate_series(1, 20000) n"""
    )
    moment = datetime(2026, 3, 2, tzinfo=UTC)
    rows = await pool.fetch("EXPLAIN " + outbox.OVERWRITTEN, "acme", [1, 2], ["k1", "k2"], [moment, moment], "email", [1, 2], ["contacts"])
    plan = "\n".join(row[0] for row in rows)
    assert "instance_key_norm_id_idx" in plan
    assert "Seq Scan" not in plan
