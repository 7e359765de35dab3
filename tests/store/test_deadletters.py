"""Failures and their retries: once each, and never over what a later change has set."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg

from syncd.core.pack import Packing
from syncd.core.settings import Push
from syncd.store import claims, deadletters
from syncd.store.deadletters import Retried, Selection
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, PUSH, apply, claim, enqueue, files, reasons, settle, states, table, under_way, until_blocked

ALL = Selection(pushes=("contacts",))
OUTBOX = "SELECT id, key, fields::text, retry_of FROM syncd.outbox ORDER BY id"


async def fail(lease: Lease, *reasons: str, push: Push = PUSH, state: str = "rejected") -> None:
    """End all that is pending, row by row for these reasons."""
    await settle(lease, *await under_way(lease, push), {at: (state, why) for at, why in enumerate(reasons)})  # type: ignore[misc]


async def retry(pool: Pool, selection: Selection = ALL, limit: int | None = None, lookup_field: str = "email") -> Retried:
    async with pool.acquire() as connection:
        lookups = dict.fromkeys(selection.pushes or (), lookup_field)
        return await deadletters.retry(connection, "acme", lookups, selection, limit)


async def ids(pool: Pool, selection: Selection) -> Sequence[int]:
    async with pool.acquire() as connection:
        return [each.id for each in await deadletters.latest(connection, "acme", selection, 100)]


async def test_a_failure_is_sent_again_once(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=12345678901234567890123, g="bad")
    await fail(lease, "no")
    assert await retry(pool) == Retried(1, 2, 2, 0, 0, ())
    assert await retry(pool) == Retried(0, None, None, 0, 0, ())
    assert await table(pool, OUTBOX) == [(2, "a@x", '{"f": 12345678901234567890123, "g": "bad"}', 1)]
    assert await table(pool, "SELECT id, retried_as FROM syncd.change WHERE retried_at IS NOT NULL") == [(1, 2)]
    assert await ids(pool, ALL) == []
    assert await ids(pool, replace(ALL, retried_too=True)) == [1]


async def test_two_who_retry_at_once_make_one_change(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f=1)
    await fail(lease, "no")
    async with pool.acquire() as other:
        transaction = other.transaction()
        await transaction.start()
        await deadletters.retry(other, "acme", {"contacts": "email"}, ALL, None)
        second = asyncio.create_task(retry(pool))
        await until_blocked(pool, second)
        await transaction.commit()
    assert (await asyncio.wait_for(second, 10)).made == 0
    assert len(await table(pool, OUTBOX)) == 1


async def test_what_later_changes_have_set_is_left_out(pool: Pool, lease: Lease) -> None:
    first = {"a@x": {"f": "old", "g": "old", "email": "a@x"}, "b@x": {"f": "old", "email": "b@x"}, "c@x": {"f": "old"}}
    for key, fields in first.items():
        await enqueue(pool, key, **fields)
        await fail(lease, "no")
    for key in ("A@x", "b@x"):
        await enqueue(pool, key, f="new")
    await apply(lease)
    assert await retry(pool) == Retried(2, 6, 7, 1, 1, [2])
    assert await table(pool, OUTBOX) == [(6, "a@x", '{"g": "old", "email": "a@x"}', 1), (7, "c@x", '{"f": "old"}', 3)]
    assert await table(pool, "SELECT id, retried_as FROM syncd.change WHERE retried_at IS NOT NULL ORDER BY 1") == [
        (1, 6),
        (2, None),
        (3, 7),
    ]


async def test_what_marketo_had_already_when_a_later_change_came_is_left_out_as_well(pool: Pool, lease: Lease) -> None:
    for key, fields in {"a@x": {"f": "old", "g": "old"}, "b@x": {"f": "old"}, "c@x": {"f": "old"}}.items():
        await enqueue(pool, key, **fields)
        await fail(lease, "no")
    later = [await enqueue(pool, key, f="new") for key in ("a@x", "b@x")]
    later.append(await enqueue(pool, "c@x", push="others", f="new"))
    async with lease.transaction() as connection:
        await claims.claim(connection, "acme", PUSH, Packing(ended=[(change, "noop", "Marketo has it") for change in later]), NOW)
    assert await retry(pool) == Retried(2, 7, 8, 1, 1, [2])
    assert await table(pool, OUTBOX) == [(7, "a@x", '{"g": "old"}', 1), (8, "c@x", '{"f": "old"}', 3)], "others look up by another field"
    assert await ids(pool, replace(ALL, retried_too=True)) == [3, 2, 1], "what ended noop is no failure"


async def test_a_later_change_that_failed_too_has_set_nothing(pool: Pool, lease: Lease) -> None:
    for value in ("old", "new"):
        await enqueue(pool, "a@x", f=value)
        await fail(lease, "no")
    await retry(pool)
    await claim(lease)
    assert await files(pool) == ["email,f\na@x,new\n"]
    assert await states(pool) == {1: "rejected", 2: "rejected", 3: "superseded", 4: "in_chunk"}


async def test_retried_one_after_the_other_the_newer_value_stays(pool: Pool, lease: Lease) -> None:
    for value in ("old", "new"):
        await enqueue(pool, "a@x", f=value)
        await fail(lease, "no")
    await retry(pool, replace(ALL, ids=(1,)))
    await apply(lease)
    assert (await retry(pool, replace(ALL, ids=(2,)))).made == 1, "a retry of what came before is no later change"
    await claim(lease)
    assert await files(pool) == ["email,f\na@x,new\n"]


async def test_of_the_newer_one_retried_first_the_older_one_sets_nothing_again(pool: Pool, lease: Lease) -> None:
    for value in ("old", "new"):
        await enqueue(pool, "a@x", f=value)
        await fail(lease, "no")
    await retry(pool, replace(ALL, ids=(2,)))
    await apply(lease)
    assert await retry(pool) == Retried(0, None, None, 0, 1, [1])


async def test_a_retry_keeps_its_place_however_often_it_fails(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="old", g="old")
    for _ in range(2):
        await fail(lease, "no")
        await retry(pool)
    assert await table(pool, OUTBOX) == [(3, "a@x", '{"f": "old", "g": "old"}', 1)]


async def test_a_change_that_commits_after_the_retry_is_newer_although_its_id_is_lower(database: str, pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="old")
    await fail(lease, "no")
    slow = await asyncpg.connect(database)
    transaction = slow.transaction()
    await transaction.start()
    await enqueue(slow, "a@x", f="new")
    await retry(pool)
    await apply(lease)
    await transaction.commit()
    await slow.close()
    await claim(lease)
    assert await files(pool) == ["email,f\na@x,new\n"]


async def test_a_retry_that_waited_for_a_later_change_sets_nothing_again(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="old")
    await fail(lease, "no")
    await enqueue(pool, "a@x", f="new")
    flying = await under_way(lease)
    await retry(pool)
    await claim(lease)
    await settle(lease, *flying)
    await claim(lease)
    assert await states(pool) == {1: "rejected", 2: "applied", 3: "superseded"}
    assert (await reasons(pool))[3] == "later changes set its fields again"


async def test_a_retry_that_no_claim_has_seen_before_sets_nothing_again_either(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="old")
    await fail(lease, "no")
    await enqueue(pool, "a@x", f="new")
    flying = await under_way(lease)
    await retry(pool)
    await settle(lease, *flying)
    await claim(lease)
    assert await states(pool) == {1: "rejected", 2: "applied", 3: "superseded"}


async def test_the_same_text_as_a_key_of_another_field_is_another_lead(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "42", f="mine")
    await fail(lease, "no", push=Push("contacts", lookup_field="id"))
    await enqueue(pool, "42", push="others", f="another's")
    await apply(lease, Push("others", lookup_field="externalId"))
    assert (await retry(pool, lookup_field="id")).made == 1


async def test_the_selection(pool: Pool, lease: Lease) -> None:
    for key in ("a@x", "b@x", "c@x"):
        await enqueue(pool, key, f=1)
    await fail(lease, "1003 Bad Thing", "100% bad", "good")
    await enqueue(pool, "d@x", push="others", f=1)
    await fail(lease, "who knows", push=Push("others"), state="unverified")
    for selection, expected in (
        (Selection(), [4, 3, 2, 1]),
        (Selection(reason="BAD"), [2, 1]),
        (Selection(reason="0% b"), [2]),
        (Selection(reason="1003"), [1]),
        (Selection(reason="_"), []),
        (Selection(state="unverified"), [4]),
        (Selection(pushes=("others",)), [4]),
        (Selection(ids=(3, 9)), [3]),
        (Selection(since=NOW), [4, 3, 2, 1]),
        (Selection(until=NOW), []),
        (Selection(since=NOW + timedelta(seconds=1)), []),
    ):
        assert await ids(pool, selection) == expected, selection
    async with pool.acquire() as connection:
        assert await deadletters.pushes_of(connection, "acme", Selection()) == ["contacts", "others"]
        counted = await deadletters.summary(connection, "acme", Selection())
        assert (counted.changes, counted.unverified, counted.reasons) == (4, 1, 4)
        assert (await deadletters.summary(connection, "beta", Selection())).changes == 0
    assert (await retry(pool, limit=2)).made == 2
    assert await ids(pool, Selection()) == [4, 1], "the newest first"


async def test_failures_are_found_by_an_index_that_holds_nothing_else(pool: Pool) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition('2026-03-02')")
    await pool.execute(
        """INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at)
           SELECT n, 'acme', 'contacts', 'k' || n, 'k' || n, '{}', CASE WHEN n % 1000 = 0 THEN 'rejected' ELSE 'applied' END, 0,
                  '2026-03-02', '2026-03-02' FROM generate_series(1, 30000) n"""
    )
    await pool.execute("ANALYZE syncd.change_history")
    for query, last in ((deadletters.FOUND, 20), (deadletters.COUNTED, 20)):
        rows = await pool.fetch("EXPLAIN " + query, "acme", None, None, None, None, None, None, False, last)
        plan = "\n".join(row[0] for row in rows)
        assert "instance_settled_at_id_idx" in plan
        assert "Seq Scan" not in plan
