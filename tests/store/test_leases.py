"""One daemon per instance: a second one stands by, and one that lost its lease writes nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import asyncpg
import pytest

from syncd.store import leases
from syncd.store.leases import Lease, LeaseLost, Pool
from syncd.store.pool import create_pool
from tests.store.outgoing import started, until_blocked

ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a session that the server has ended raises; the third until the closing of its socket has been seen."""

PATIENT, IMPATIENT = 15.0, 0.0  # seconds of silence


@asynccontextmanager
async def session(database: str, holder: UUID | None = None) -> AsyncIterator[asyncpg.Connection]:
    settings = {"application_name": leases.application_name(holder)} if holder else {}
    connection = await asyncpg.connect(database, server_settings=settings)
    try:
        yield connection
    finally:
        with contextlib.suppress(*ENDED):
            await connection.close()


async def take(connection: asyncpg.Connection, pool: Pool, silence: float = PATIENT, holder: UUID | None = None) -> Lease | None:
    return await leases.acquire(connection, pool, "acme", holder or uuid4(), silence)


async def taken_over(connection: asyncpg.Connection, pool: Pool, silence: float) -> Lease:
    """As a standby does: try until it succeeds."""
    async with asyncio.timeout(10):
        while (lease := await take(connection, pool, silence)) is None:
            pass
    return lease


async def test_a_second_daemon_stands_by_and_sees_who_works(database: str, pool: Pool) -> None:
    async with session(database) as one, session(database) as two:
        assert await leases.current_holder(two, "acme") is None
        lease = await take(one, pool)
        assert lease is not None
        assert await take(two, pool) is None
        holder = await leases.current_holder(two, "acme")
        assert holder is not None
        assert 0 <= holder.silent_for < PATIENT
        async with lease.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_instances_have_leases_of_their_own(database: str, pool: Pool) -> None:
    async with session(database) as one, session(database) as two:
        assert await leases.acquire(one, pool, "acme", uuid4(), PATIENT) is not None
        assert await leases.acquire(two, pool, "other", uuid4(), PATIENT) is not None


@pytest.mark.parametrize("released", [True, False])
async def test_a_standby_takes_over_at_once_when_the_holder_is_gone(database: str, pool: Pool, released: bool) -> None:
    async with session(database) as one, session(database) as two:
        first = await take(one, pool)
        if released:
            await leases.release(one, "acme")
        else:
            one.terminate()
        second = await taken_over(two, pool, PATIENT)
        assert first is not None
        assert second.epoch == first.epoch + 1


async def test_a_holder_that_hangs_is_ended_and_its_transactions_fail(database: str, pool: Pool) -> None:
    hung = uuid4()
    own = await create_pool(database, application_name=leases.application_name(hung), min_size=1, max_size=2)
    async with session(database, hung) as one, session(database) as two:
        lease = await take(one, own, holder=hung)
        assert lease is not None
        write = lease.transaction()
        connection = await write.__aenter__()
        await taken_over(two, pool, IMPATIENT)
        with pytest.raises(ENDED):
            await connection.execute("SELECT 1")
        with pytest.raises(ENDED):
            await lease.heartbeat(one)
        with contextlib.suppress(*ENDED):
            await write.__aexit__(None, None, None)
    await asyncio.wait_for(own.close(), 10)


async def test_a_holder_whose_heart_beats_is_left_alone(database: str, pool: Pool) -> None:
    busy = uuid4()
    async with session(database, busy) as one, session(database) as two:
        lease = await take(one, pool, holder=busy)
        assert lease is not None
        await pool.execute("UPDATE syncd.lease SET heartbeat_at = heartbeat_at - interval '1 hour'")
        await lease.heartbeat(one)
        assert await take(two, pool) is None
        assert await one.fetchval("SELECT 1") == 1


async def test_who_lost_the_lease_writes_nothing_more(database: str, pool: Pool) -> None:
    async with session(database) as one, session(database) as two:
        old = await take(one, pool)
        assert old is not None
        await leases.release(one, "acme")
        await taken_over(two, pool, PATIENT)
        with pytest.raises(LeaseLost):
            await old.heartbeat(one)
        with pytest.raises(LeaseLost):
            async with old.transaction():
                raise AssertionError("behind the fence")


async def test_a_takeover_waits_for_the_write_that_is_under_way(database: str, pool: Pool) -> None:
    async with session(database) as one, session(database) as two:
        old = await take(one, pool)
        assert old is not None
        async with old.transaction() as connection:
            await leases.release(one, "acme")
            taking = started(take(two, pool))
            await until_blocked(pool, taking)
            await connection.execute("INSERT INTO syncd.push (instance, push) VALUES ('acme', 'written')")
        new = await asyncio.wait_for(taking, 10)
        assert new.epoch == old.epoch + 1
    assert await pool.fetchval("SELECT push FROM syncd.push") == "written"


async def test_a_long_write_does_not_block_the_heartbeat(database: str, pool: Pool) -> None:
    async with session(database) as one:
        lease = await take(one, pool)
        assert lease is not None
        async with lease.transaction(), lease.transaction():
            await asyncio.wait_for(lease.heartbeat(one), 5)


async def test_a_lease_is_sure_for_a_while_after_each_heartbeat(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(leases, "_real_seconds", lambda: now)
    async with pool.acquire() as connection:
        lease = await leases.acquire(connection, pool, "acme", uuid4(), 15)
        assert lease is not None
        for _ in range(2):
            assert lease.is_sure()
            now += leases.SURE_FOR
            assert not lease.is_sure()
            await lease.heartbeat(connection)
        await leases.release(connection, "acme")
