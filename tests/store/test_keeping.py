"""What is forgotten of settled changes: piece by piece, of one instance, and nothing that somebody still needs."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from syncd.store import deadletters, history, keeping
from syncd.store.deadletters import Selection
from syncd.store.keeping import Place
from syncd.store.leases import Connection, Lease, Pool
from tests.store.outgoing import NOW, apply, claim, enqueue, files, settle, table, under_way

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
INSERT = """
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at, retried_at)
SELECT n, $1, 'contacts', 'k' || n, 'k' || n, '{"f": "x", "g": null}', $4, 0, $5, $5, $6 FROM generate_series($2::bigint, $3) n
"""
KEPT = "SELECT id, fields::text, erased FROM syncd.change WHERE instance = $1 ORDER BY id"
WHOLE = '{"f": "x", "g": null}'
PARTITIONS = "SELECT relname FROM pg_class WHERE relname LIKE 'change_history\\_2%' AND relkind = 'r' ORDER BY 1"


async def ended(
    pool: Pool,
    first: int,
    last: int,
    state: str = "applied",
    at: datetime = NOON,
    retried_at: datetime | None = None,
    instance: str = "acme",
) -> None:
    """Changes with these ids that have ended then."""
    await pool.execute("SELECT syncd.ensure_history_partition($1)", at.date())
    await pool.execute(INSERT, instance, first, last, state, at, retried_at)


Piece = Callable[[Connection, str, Place, int], Awaitable[Place | None]]


async def work_off(pool: Pool, work: Piece, limit: int, day: date = DAY) -> list[int]:
    """A day, piece by piece; where each of them ended."""
    place, ends = Place(day), list[int]()
    async with pool.acquire() as connection:
        while True:
            async with connection.transaction():
                done = await work(connection, "acme", place, limit)
            if done is None:
                return ends
            place = done
            ends.append(place.after)


async def test_values_are_erased_and_their_fields_remembered(pool: Pool) -> None:
    await ended(pool, 1, 3)
    await ended(pool, 4, 5, at=NOON + timedelta(days=1))
    assert await work_off(pool, keeping.erase, 2) == [2, 3]
    erased = [(number, "{}", ["f", "g"]) for number in (1, 2, 3)]
    assert await table(pool, KEPT, "acme") == [*erased, (4, WHOLE, None), (5, WHOLE, None)]
    keys = await table(pool, "SELECT DISTINCT key FROM syncd.change WHERE erased IS NOT NULL ORDER BY 1")
    assert keys == [("k1",), ("k2",), ("k3",)]


async def test_others_changes_of_the_day_are_left_alone(pool: Pool) -> None:
    await ended(pool, 1, 2)
    await ended(pool, 3, 6, instance="other")
    await ended(pool, 7, 7)
    assert await work_off(pool, keeping.erase, 3) == [3, 6, 7]
    assert await table(pool, KEPT, "other") == [(number, WHOLE, None) for number in (3, 4, 5, 6)]
    assert await work_off(pool, keeping.delete, 3) == [3, 6, 7]
    assert await table(pool, KEPT, "acme") == []
    assert len(await table(pool, KEPT, "other")) == 4


async def test_a_failure_keeps_its_values_until_it_is_retried(pool: Pool) -> None:
    await ended(pool, 1, 1, "rejected")
    await ended(pool, 2, 2, "unverified")
    await ended(pool, 3, 4, "rejected", retried_at=NOON)
    await ended(pool, 7, 7, "rejected", retried_at=NOON, at=NOON - timedelta(days=1))
    await ended(pool, 5, 5, "rejected", retried_at=NOON, at=NOON + timedelta(days=1))
    await ended(pool, 6, 6, "rejected", retried_at=NOON, instance="other")
    await work_off(pool, keeping.erase, 10)
    assert {row[2] for row in await table(pool, KEPT, "acme")} == {None}
    async with pool.acquire() as connection:
        assert [await keeping.erase_retried(connection, "acme", DAY + timedelta(days=1), 5) for _ in range(3)] == [1, 2, 0]
    gone = ("{}", ["f", "g"])
    assert await table(pool, KEPT, "acme") == [(1, WHOLE, None), (2, WHOLE, None), (3, *gone), (4, *gone), (5, WHOLE, None), (7, *gone)]
    assert await table(pool, KEPT, "other") == [(6, WHOLE, None)]
    with pytest.raises(asyncpg.CheckViolationError):
        await pool.execute("UPDATE syncd.change_history SET fields = '{}', erased = '{f}' WHERE id = 1")


async def test_a_late_change_still_knows_what_later_ones_have_set(pool: Pool, lease: Lease) -> None:
    first = await enqueue(pool, "a@x", f="old", g="old")
    await pool.execute("UPDATE syncd.outbox SET state = 'held'")
    await enqueue(pool, "A@x", f="new")
    await apply(lease)
    await work_off(pool, keeping.erase, 10, NOW.date())
    assert await table(pool, "SELECT fields::text, erased FROM syncd.change WHERE state = 'applied'") == [("{}", ["f"])]
    await pool.execute("UPDATE syncd.outbox SET state = 'pending' WHERE id = $1", first)
    await claim(lease)
    assert await files(pool) == ["email,g\na@x,old\n"]


async def test_a_retry_still_knows_what_later_changes_have_set(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, "a@x", f="old", g="old")
    await settle(lease, *await under_way(lease), {0: ("rejected", "no")})
    await enqueue(pool, "a@x", f="new")
    await apply(lease)
    await work_off(pool, keeping.erase, 10, NOW.date())
    async with pool.acquire() as connection:
        done = await deadletters.retry(connection, "acme", {"contacts": "email"}, Selection(pushes=("contacts",)), None)
    assert (done.made, done.curtailed) == (1, 1)
    assert await table(pool, "SELECT fields::text FROM syncd.outbox") == [('{"g": "old"}',)]


async def test_a_day_is_dropped_whole_where_it_is_all_ours(pool: Pool) -> None:
    await ended(pool, 1, 2)
    await ended(pool, 3, 3, at=NOON + timedelta(days=1))
    await ended(pool, 4, 4, at=NOON + timedelta(days=1), instance="other")
    async with pool.acquire() as connection:
        assert await keeping.days(connection, DAY + timedelta(days=2)) == [DAY, DAY + timedelta(days=1)]
        async with connection.transaction():
            dropped = [await keeping.drop(connection, "acme", DAY + timedelta(days=day)) for day in (0, 0, 1)]
        assert dropped == [True, False, False]
        assert [await keeping.has_changes(connection, name, DAY + timedelta(days=1)) for name in ("acme", "never")] == [True, False]
        assert await keeping.days(connection, DAY + timedelta(days=1)) == []
    assert await table(pool, PARTITIONS) == [("change_history_20260303",)]
    assert [row[0] for row in await table(pool, KEPT, "acme")] == [3]


async def test_nobody_waits_long_behind_a_reader(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "WAIT_NO_LONGER", "SET LOCAL lock_timeout = '20ms'")
    await ended(pool, 1, 2)
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT FROM syncd.change LIMIT 1")
        async with pool.acquire() as connection:
            with pytest.raises(asyncpg.LockNotAvailableError):
                async with connection.transaction():
                    await keeping.drop(connection, "acme", DAY)


async def test_chunks_go_with_their_jobs_once_all_they_carried_is_gone(pool: Pool, lease: Lease) -> None:
    for key in ("a@x", "b@x"):
        await enqueue(pool, key, f=1)
        await apply(lease)
    await enqueue(pool, "c@x", f=1)
    await under_way(lease)
    await pool.execute("UPDATE syncd.chunk SET finished_at = $1 WHERE id = 1", NOON)
    async with pool.acquire() as connection:
        days = DAY, DAY + timedelta(days=1), DAY + timedelta(days=1)
        assert [await keeping.forget_chunks(connection, "acme", day, 10) for day in days] == [0, 1, 0]
        assert await keeping.forget_chunks(connection, "acme", NOW.date() + timedelta(days=1), 10) == 1
    assert await table(pool, "SELECT chunk_id FROM syncd.import_job") == await table(pool, "SELECT id FROM syncd.chunk") == [(3,)]


async def test_days_that_are_done_are_not_walked_again(pool: Pool) -> None:
    for number in range(3):
        await ended(pool, number, number, at=NOON + timedelta(days=number))
    days = [DAY + timedelta(days=number) for number in range(3)]
    async with pool.acquire() as connection:
        assert await keeping.to_erase(connection, "acme", days[2]) == days[:2]
        for day in (days[1], days[0]):
            await keeping.erased_before(connection, "acme", day)
        assert await keeping.to_erase(connection, "acme", days[2]) == days[1:2]
        assert await keeping.to_erase(connection, "other", days[2]) == days[:2]


async def test_a_piece_is_found_by_an_index_before_anything_is_known_of_the_day(pool: Pool) -> None:
    await ended(pool, 1, 20_000)
    day = datetime(2026, 3, 2, tzinfo=UTC)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(keeping.IN_ORDER)
        for work in (keeping.ERASE, keeping.DELETE):
            rows = await connection.fetch("EXPLAIN " + work, "acme", day, day + timedelta(days=1), 5_000, 2_000)
            plan = "\n".join(row[0] for row in rows)
            assert "Index Scan using change_history_20260302_id_idx" in plan
            assert "Tid Scan on change_history_20260302" in plan
            assert "Seq Scan" not in plan
            assert "Sort" not in plan


async def test_the_earlier_of_two_clocks_counts(pool: Pool) -> None:
    assert await keeping.earlier(pool, NOON) == NOON
    assert await keeping.earlier(pool, datetime(2200, 1, 1, tzinfo=UTC)) < datetime(2199, 1, 1, tzinfo=UTC)


async def test_new_partitions_have_what_erasing_needs(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await history.ensure_partition(connection, DAY)
    (options,) = await table(pool, "SELECT reloptions FROM pg_class WHERE relname = 'change_history_20260302'")
    assert "autovacuum_vacuum_scale_factor=0.02" in options[0]
