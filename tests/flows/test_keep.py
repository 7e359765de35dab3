"""The keeper's steps: the values go first, the outcomes later, and what carried them last."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from syncd.core.settings import Instance, Keep
from syncd.flows import keep
from syncd.flows.keep import EVERY, Keeper
from syncd.flows.loop import Idle
from syncd.ops.clock import ManualClock
from syncd.store import keeping, leases
from syncd.store.leases import Lease

DAY = date(2026, 3, 2)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEEP = Keep(outcomes=timedelta(days=20), payloads=timedelta(days=10))
INSERT = """
INSERT INTO syncd.change_history
       (id, instance, push, key, key_norm, fields, state, attempt, import_job_id, created_at, settled_at, retried_at)
SELECT n, $1, 'contacts', 'k' || n, 'k' || n, '{"f": "x"}', $4, 0, 1, $5, $5, $6 FROM generate_series($2::bigint, $3) n
"""
CARRIERS = """
WITH made AS (
    INSERT INTO syncd.chunk (instance, push, state, lookup_field, format, columns, header, row_count, byte_count, next_ordinal, sha256,
                             opened_at, finished_at)
    VALUES ('acme', 'contacts', 'done', 'email', 'csv', '{email,f}', 'h', 1, 1, 1, '', $1, $1) RETURNING id
)
INSERT INTO syncd.import_job (instance, push, chunk_id, state, row_count, byte_count, sha256, attempt, submitted_at, batch_id, applied)
SELECT 'acme', 'contacts', id, 'settled', 1, 1, '', 1, $1, 7, 1 FROM made
"""
COUNTS = """
SELECT (SELECT count(*) FROM syncd.change_history), (SELECT count(*) FROM syncd.change_history WHERE erased IS NOT NULL),
       (SELECT count(*) FROM syncd.chunk), (SELECT count(*) FROM syncd.import_job)
"""


@pytest.fixture
async def lease(pool: asyncpg.Pool) -> AsyncIterator[Lease]:
    async with pool.acquire() as connection:
        lease = await leases.acquire(connection, pool, "acme", uuid4(), 15.0)
        assert lease is not None
        yield lease
        await leases.release(connection, "acme")


async def ended(
    pool: asyncpg.Pool,
    first: int,
    last: int,
    at: datetime = NOON,
    state: str = "applied",
    retried_at: datetime | None = None,
    instance: str = "acme",
) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition($1)", at.date())
    await pool.execute(INSERT, instance, first, last, state, at, retried_at)


async def run(keeper: Keeper, clock: ManualClock) -> int:
    """Until there is nothing to do; how many steps did something."""
    steps = 0
    while True:
        outcome = await keeper.step()
        assert isinstance(outcome, Idle)
        if outcome.until - clock.now() == EVERY:
            return steps
        steps += 1
        assert steps < 100
        clock.advance((outcome.until - clock.now()).total_seconds())


async def counts(pool: asyncpg.Pool) -> tuple[int, ...]:
    row = await pool.fetchrow(COUNTS)
    assert row is not None
    return tuple(row)


async def test_each_thing_goes_in_its_time(pool: asyncpg.Pool, lease: Lease, manual_clock: ManualClock) -> None:
    await ended(pool, 1, 3, NOON.replace(hour=0))
    await ended(pool, 4, 4, NOON + timedelta(days=1))
    await pool.execute(CARRIERS, NOON)
    keeper = Keeper(Instance("acme", keep=KEEP), lease, manual_clock)
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    seen = {}
    for days, early in ((10, True), (10, False), (11, False), (20, True), (20, False), (21, False)):
        moment = midnight + timedelta(days=days) - timedelta(seconds=1 if early else 0)
        manual_clock.advance((moment - manual_clock.now()).total_seconds())
        await run(keeper, manual_clock)
        seen[days, early] = await counts(pool)
    # changes, of them erased; chunks, jobs
    assert seen == {
        (10, True): (4, 0, 1, 1),
        (10, False): (4, 3, 1, 1),
        (11, False): (4, 4, 1, 1),
        (20, True): (4, 4, 1, 1),
        (20, False): (1, 1, 0, 0),
        (21, False): (0, 0, 0, 0),
    }
    assert [row["relname"] for row in await pool.fetch("SELECT relname FROM pg_class WHERE relname ~ '^change_history_2' ")] == []


async def test_a_step_is_one_piece(pool: asyncpg.Pool, lease: Lease, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep, "PIECE", 2)
    await ended(pool, 1, 5)
    await ended(pool, 6, 6, instance="other")
    keeper = Keeper(Instance("acme", keep=KEEP), lease, manual_clock)
    manual_clock.advance((NOON + timedelta(days=12) - manual_clock.now()).total_seconds())
    erased = []
    for _ in range(4):
        await keeper.step()
        erased.append((await counts(pool))[1])
    assert erased == [2, 4, 5, 5]
    manual_clock.advance(timedelta(days=10).total_seconds())
    left = []
    for _ in range(4):
        await keeper.step()
        left.append((await counts(pool))[0])
    assert left == [4, 2, 1, 1]
    assert await pool.fetchval("SELECT instance FROM syncd.change_history") == "other"


async def test_a_retry_frees_the_values_of_a_day_long_done(pool: asyncpg.Pool, lease: Lease, manual_clock: ManualClock) -> None:
    await ended(pool, 1, 2, state="rejected")
    keeper = Keeper(Instance("acme", keep=KEEP), lease, manual_clock)
    manual_clock.advance((NOON + timedelta(days=12) - manual_clock.now()).total_seconds())
    await run(keeper, manual_clock)
    assert (await counts(pool))[:2] == (2, 0)
    await pool.execute("UPDATE syncd.change_history SET retried_at = now() WHERE id = 2")
    await run(keeper, manual_clock)
    assert [row["id"] for row in await pool.fetch("SELECT id FROM syncd.change_history WHERE erased = '{f}'")] == [2]


async def test_a_reader_only_delays_it(
    pool: asyncpg.Pool, lease: Lease, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "WAIT_NO_LONGER", "SET LOCAL lock_timeout = '20ms'")
    await ended(pool, 1, 2)
    await pool.execute(CARRIERS, NOON)
    keeper = Keeper(Instance("acme", keep=KEEP), lease, manual_clock)
    manual_clock.advance((NOON + timedelta(days=22) - manual_clock.now()).total_seconds())
    async with pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT FROM syncd.change LIMIT 1")
        await run(keeper, manual_clock)
        assert await counts(pool) == (2, 2, 1, 1)  # the chunk, too: it tells of what the changes' keys are values
    await run(keeper, manual_clock)
    assert await counts(pool) == (0, 0, 0, 0)


async def test_a_step_that_fails_loses_no_piece(
    pool: asyncpg.Pool, lease: Lease, manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keep, "PIECE", 2)
    await ended(pool, 1, 4)
    keeper = Keeper(Instance("acme", keep=KEEP), lease, manual_clock)
    manual_clock.advance((NOON + timedelta(days=12) - manual_clock.now()).total_seconds())
    await keeper.step()
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM syncd.change_history WHERE id = 3 FOR UPDATE")
        with monkeypatch.context() as patched:
            patched.setattr(keeping, "IN_ORDER", "SET LOCAL lock_timeout = '20ms'")
            outcome = await keeper.step()
        assert isinstance(outcome, Idle)
        assert outcome.until - manual_clock.now() == EVERY
    await run(keeper, manual_clock)
    assert (await counts(pool))[:2] == (4, 4)
