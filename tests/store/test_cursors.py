"""Pulls and windows: what is planned is walked once, from where it stopped."""

from datetime import UTC, datetime, timedelta

from syncd.core.windows import Window, halves, plan
from syncd.store import cursors
from syncd.store.cursors import OpenWindow, PullState
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import table

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WINDOWS = list(plan(SINCE, SINCE + timedelta(days=3), timedelta(days=1)))
UNTIL = WINDOWS[-1].ends_at


async def register(lease: Lease, selector: str = "one", since: datetime = SINCE) -> bool:
    async with lease.transaction() as connection:
        return await cursors.register(connection, "acme", "people", selector, since, NOW)


async def planned(lease: Lease) -> list[OpenWindow]:
    """A pull with three windows, oldest first."""
    await register(lease)
    async with lease.transaction() as connection:
        await cursors.plan(connection, "acme", "people", "soap", WINDOWS[::-1], UNTIL, NOW)
    return await open_windows(lease.pool)


async def open_windows(pool: Pool) -> list[OpenWindow]:
    found: list[OpenWindow] = []
    while (window := await cursors.next_window(pool, "acme", "people", [window.id for window in found])) is not None:
        found.append(window)
    return found


async def state(pool: Pool) -> PullState:
    return await cursors.state(pool, "acme", "people")


async def test_a_pull_that_is_new_is_planned_from_its_beginning(lease: Lease) -> None:
    assert not await register(lease)
    assert await state(lease.pool) == PullState("running", SINCE, None, None)


async def test_windows_are_taken_oldest_first_and_by_one_stream_each(lease: Lease) -> None:
    windows = await planned(lease)
    assert [window.window for window in windows] == WINDOWS
    assert await state(lease.pool) == PullState("running", UNTIL, NOW, None)


async def test_the_same_pull_goes_on_after_a_restart(lease: Lease) -> None:
    before = await planned(lease)
    assert not await register(lease, since=SINCE - timedelta(days=9))
    assert await open_windows(lease.pool) == before
    assert (await state(lease.pool)).planned_until == UNTIL


async def test_a_pull_that_asks_for_something_else_begins_again(lease: Lease) -> None:
    first, second, _ = await planned(lease)
    async with lease.transaction() as connection:
        await cursors.finish(connection, first.id, 1, 1, NOW)
        await cursors.block(connection, "acme", "people", second.id, NOW, "why")
    assert await register(lease, "two", SINCE + timedelta(days=1))
    assert await state(lease.pool) == PullState("running", SINCE + timedelta(days=1), None, None)
    rows = await table(lease.pool, "SELECT state, finished_at FROM syncd.pull_window ORDER BY starts_at")
    assert rows == [("done", NOW), ("abandoned", NOW), ("abandoned", NOW)]


async def test_a_position_moves_once_and_the_loser_is_told(lease: Lease) -> None:
    window = (await planned(lease))[0]
    async with lease.transaction() as connection:
        assert await cursors.advance(connection, window.id, None, "p1", 300, 500) == window.id
        assert await cursors.advance(connection, window.id, None, "p1", 300, 500) is None
        assert await cursors.advance(connection, window.id, "p1", "p2", 400, 500) == window.id
    assert (await open_windows(lease.pool))[0] == OpenWindow(window.id, WINDOWS[0], "p2", 400, 500, 1)


async def test_a_window_is_walked_again_from_its_beginning(lease: Lease) -> None:
    window = (await planned(lease))[0]
    async with lease.transaction() as connection:
        await cursors.advance(connection, window.id, None, "p1", 300, 500)
        assert await cursors.walk_again(connection, window.id, "fewer came") == window.id
    assert (await open_windows(lease.pool))[0] == OpenWindow(window.id, WINDOWS[0], None, 0, None, 2)


async def test_a_refused_position_restarts_the_window_and_is_counted(lease: Lease) -> None:
    window = (await planned(lease))[0]
    async with lease.transaction() as connection:
        await cursors.advance(connection, window.id, None, "p1", 300, 500)
        assert [await cursors.restart(connection, window.id, "20122") for _ in range(2)] == [1, 2]
        await connection.execute("UPDATE syncd.pull_window SET restarts = 40000")
        assert await cursors.restart(connection, window.id, "20122") == 40001
    assert (await open_windows(lease.pool))[0] == window


async def test_a_split_window_goes_on_in_its_parts(lease: Lease) -> None:
    window = (await planned(lease))[0]
    parts = halves(window.window)
    assert parts is not None
    async with lease.transaction() as connection:
        assert await cursors.split(connection, window.id, parts, NOW) == window.id
        assert await cursors.split(connection, window.id, parts, NOW) is None
    assert [window.window for window in await open_windows(lease.pool)] == [*parts, *WINDOWS[1:]]


async def test_a_blocked_pull_offers_no_blocked_window_until_it_is_tried_again(lease: Lease) -> None:
    one, two, three = await planned(lease)
    async with lease.transaction() as connection:
        await cursors.block(connection, "acme", "people", one.id, NOW, "20014")
        await cursors.block(connection, "acme", "people", two.id, NOW + timedelta(hours=1), "20014")
    assert await state(lease.pool) == PullState("blocked", UNTIL, NOW, NOW)
    assert await open_windows(lease.pool) == [three]
    async with lease.transaction() as connection:
        await cursors.unblock(connection, "acme", "people")
    assert await state(lease.pool) == PullState("running", UNTIL, NOW, None)
    assert await open_windows(lease.pool) == [one, two, three]


async def test_a_restart_takes_a_blocked_pull_up_again(lease: Lease) -> None:
    windows = await planned(lease)
    async with lease.transaction() as connection:
        await cursors.block(connection, "acme", "people", windows[0].id, NOW, "20014")
    await register(lease)
    assert (await state(lease.pool)).state == "running"
    assert await open_windows(lease.pool) == windows


async def test_finished_windows_are_forgotten_and_open_ones_are_not(lease: Lease) -> None:
    one, two, three = await planned(lease)
    async with lease.transaction() as connection:
        await cursors.finish(connection, one.id, 1, 1, NOW - timedelta(days=2))
        await cursors.finish(connection, two.id, 1, 1, NOW)
        await cursors.forget_finished(connection, "acme", NOW - timedelta(days=1))
    assert await table(lease.pool, "SELECT id FROM syncd.pull_window ORDER BY id DESC") == [(two.id,), (three.id,)]


async def test_other_pulls_and_instances_are_left_alone(lease: Lease) -> None:
    await planned(lease)
    async with lease.transaction() as connection:
        for instance, pull in (("acme", "others"), ("other", "people")):
            await cursors.register(connection, instance, pull, "one", SINCE, NOW)
            await cursors.plan(connection, instance, pull, "soap", [Window(SINCE, NOW)], NOW, NOW)
    await register(lease, "two")
    assert await lease.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE state = 'open'") == 2


async def test_a_window_that_meets_a_fault_after_an_operator_paused_its_pull_is_walked_when_it_runs_again(lease: Lease) -> None:
    first, *_ = await planned(lease)
    await lease.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    async with lease.transaction() as connection:
        await cursors.block(connection, "acme", "people", first.id, NOW, "no rights")
    await lease.pool.execute("UPDATE syncd.pull SET state = 'running'")
    assert first.id in [window.id for window in await open_windows(lease.pool)]
