"""Whether each push runs."""

from datetime import timedelta

from syncd.store import pushes
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, table

MINUTE = timedelta(minutes=1)


async def registered(lease: Lease, *names: str) -> set[str]:
    async with lease.transaction() as connection:
        await pushes.register(connection, "acme", names)
    return await pushes.running(lease.pool, "acme")


async def test_a_push_runs_when_it_is_made_known(lease: Lease) -> None:
    assert await registered(lease, "one", "two") == {"one", "two"}


async def test_a_blocked_push_is_tried_again_when_its_time_has_come(lease: Lease) -> None:
    await registered(lease, "one", "two")
    async with lease.transaction() as connection:
        assert await pushes.block(connection, "acme", "one", NOW, "1003") == "one"
        assert await pushes.block(connection, "acme", "one", NOW + MINUTE, "again") is None
        assert await pushes.unblock_due(connection, "acme", NOW - MINUTE) == []
    assert await pushes.running(lease.pool, "acme") == {"two"}
    async with lease.transaction() as connection:
        assert await pushes.unblock_due(connection, "acme", NOW) == ["one"]
    assert await table(lease.pool, "SELECT state, retry_at, message FROM syncd.push") == [("running", None, None)] * 2


async def test_a_restart_takes_a_blocked_push_up_again_and_leaves_a_paused_one(lease: Lease, pool: Pool) -> None:
    await registered(lease, "one", "two")
    await pool.execute("UPDATE syncd.push SET state = CASE push WHEN 'one' THEN 'blocked' ELSE 'paused' END")
    assert await registered(lease, "one", "two", "three") == {"one", "three"}


async def test_a_push_that_left_the_configuration_runs_no_more(lease: Lease, pool: Pool) -> None:
    await registered(lease, "one", "two")
    assert await registered(lease, "two") == {"two"}
    assert await table(pool, "SELECT push FROM syncd.push") == [("two",)]
