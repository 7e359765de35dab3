"""Verifications in the database: whom the sample has, what is owned, what is counted, what is kept."""

import random
from datetime import timedelta

from syncd.core.verify import Cause
from syncd.flows.drawing import draw
from syncd.store import evidence, verifying
from syncd.store.evidence import Key
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, apply, enqueue

LEADS = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT $1, n, 'lead' || n || '@example.com', '{"firstName": "A"}', '{"people": "d"}', now(), now(), now() FROM unnest($2::bigint[]) n
"""


async def drawn(lease: Lease, wanted: int, seed: int = 1, *, others_too: bool = False) -> list[int]:
    async with lease.transaction() as connection:
        return await draw(connection, "acme", wanted, random.Random(seed), others_too=others_too)


async def test_a_sample_is_of_leads_of_the_instance(pool: Pool, lease: Lease) -> None:
    dense = set(range(1, 5_000, 2))
    await pool.execute(LEADS, "acme", sorted(dense))
    await pool.execute(LEADS, "other", list(range(2, 5_000, 2)))
    first = await drawn(lease, 300)
    assert len(set(first)) == 300
    assert set(first) <= dense
    assert await drawn(lease, 300, seed=2) != first
    both = await drawn(lease, 300, others_too=True)
    assert 300 < len(both) <= 600
    assert len(dense & set(both)) == 300
    assert set(await drawn(lease, 10_000)) == dense, "there are no more"


async def test_leads_behind_wide_gaps_are_found_too(pool: Pool, lease: Lease) -> None:
    sparse = [number * 10_000_000 for number in range(1, 1_001)]
    await pool.execute(LEADS, "acme", sparse)
    ids = await drawn(lease, 200)
    assert len(set(ids)) == 200
    assert set(ids) <= set(sparse)


async def test_of_an_empty_mirror_nobody_is_drawn(lease: Lease) -> None:
    assert await drawn(lease, 10) == []


async def test_what_changes_have_written_to_a_lead(pool: Pool, lease: Lease) -> None:
    applied = await enqueue(pool, "Lead1@example.com", firstName="Ada")
    await enqueue(pool, "lead2@example.com", firstName="Bea")
    await apply(lease)
    await pool.execute("UPDATE syncd.change_history SET state = 'rejected' WHERE key = 'lead2@example.com'")
    waiting = await enqueue(pool, "lead1@example.com", company="C")
    await pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE id = $1", await enqueue(pool, "lead2@example.com", company="D"))
    keys = [Key(number, "contacts", f"lead{number}@example.com") for number in (1, 2, 3)]
    found = await evidence.settled(pool, "acme", keys, NOW - timedelta(days=1))
    (change,) = found.pop(1)
    assert (change.id, change.place, change.state, change.erased) == (applied, applied, "applied", None)
    assert change.fields == '{"firstName": "Ada"}'
    assert change.sent_at <= change.settled_at
    assert found == {}
    assert await evidence.on_the_way(pool, "acme", keys) == {1: ["company"]}
    assert waiting > applied
    assert await evidence.settled(pool, "acme", keys, NOW + timedelta(days=1)) == {}, "values of older ones are erased"


async def test_what_the_mirror_has_of_a_lead(pool: Pool) -> None:
    await pool.execute(LEADS, "acme", [1, 2, 3])
    await pool.execute("UPDATE syncd.lead SET email = 'LEAD1@example.com' WHERE lead_id = 2")
    await pool.execute("""UPDATE syncd.lead SET deleted_at = now(), misfits = '{"leadScore": "many"}' WHERE lead_id = 3""")
    found = await evidence.held(pool, "acme", [1, 2, 3, 4])
    assert sorted(found) == [1, 2, 3]
    assert found[1].values == {"firstName": "A", "email": "lead1@example.com"}
    assert [found[number].namesakes for number in (1, 2, 3)] == [True, True, False]
    assert found[3].deleted
    assert found[3].values["leadScore"] == "many"
    assert found[1].pulls == {"people"}


async def test_drift_is_counted_by_cause_and_field(pool: Pool, lease: Lease) -> None:
    async with lease.transaction() as connection:
        ordered = await verifying.order(connection, "acme", None)
        assert ordered is not None
        for first in (1, 5):
            drifted: list[tuple[Cause, str, int]] = [("mirror_wrong", "firstName", number) for number in range(first, first + 4)]
            drifted.append(("push_not_arrived", "firstName", first))
            await verifying.looked(connection, ordered, 1, NOW, {100 + first: b"d"}, [], drifted, new=10, read_to=first)
    wrong, arrived = await verifying.drift(pool, ordered)
    assert (wrong.cause, wrong.field, wrong.leads, list(wrong.examples)) == ("mirror_wrong", "firstName", 8, [1, 2, 3, 4, 5])
    assert (arrived.cause, arrived.leads, list(arrived.examples)) == ("push_not_arrived", 2, [1, 5])
    row = await verifying.under_way(pool, "acme")
    assert row is not None
    assert (row.leads, row.drifted, row.calls, row.read_to) == (20, 8, 2, 5)
    assert [(each.lead_id, each.looks) for each in await verifying.to_look_at(pool, ordered, 300)] == [(101, 1), (105, 1)]
    assert await verifying.to_look_at_again(pool, ordered) == 2


async def test_the_last_twenty_results_are_kept(pool: Pool, lease: Lease) -> None:
    for number in range(verifying.KEPT + 2):
        async with lease.transaction() as connection:
            ordered = await verifying.order(connection, "acme", 10)
            assert ordered is not None
            await verifying.add(connection, ordered, [1, 2])
            await verifying.looked(connection, ordered, 1, NOW, {}, [1], [("mirror_wrong", "firstName", 1)], new=1, read_to=0)
            await verifying.finish(connection, "acme", ordered, NOW, None if number else "of no use")
    assert await pool.fetchval("SELECT count(*) FROM syncd.verification") == verifying.KEPT
    assert await pool.fetchval("SELECT count(*) FROM syncd.verification_drift") == verifying.KEPT
    assert await pool.fetchval("SELECT count(*) FROM syncd.verification_lead") == 0
    last = await verifying.last(pool, "acme")
    assert last is not None
    assert last.finished_at == NOW
