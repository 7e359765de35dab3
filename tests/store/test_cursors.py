"""Pulls and windows: what is planned is walked once, from where it stopped."""

import asyncio
from datetime import UTC, datetime, timedelta

from syncd.core.windows import Around, Window, halves, plan
from syncd.store import backfills, cursors, planning, pull_status, pulls
from syncd.store.cursors import OpenWindow
from syncd.store.leases import Lease, Pool
from syncd.store.pulls import PullState
from tests.store.outgoing import table

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
WINDOWS = list(plan(SINCE, SINCE + timedelta(days=3), timedelta(days=1)))
UNTIL = WINDOWS[-1].ends_at


async def register(lease: Lease, selector: str = "one", since: datetime = SINCE) -> bool:
    async with lease.transaction() as connection:
        other = await pulls.selector(connection, "acme", "people") not in (None, selector)
        return await pulls.register(connection, "acme", "people", selector, since, NOW, other)


async def planned(lease: Lease) -> list[OpenWindow]:
    """A pull with three windows, oldest first."""
    await register(lease)
    async with lease.transaction() as connection:
        await planning.plan(connection, "acme", "people", "soap", WINDOWS[::-1], UNTIL, NOW)
    return await open_windows(lease.pool)


async def open_windows(pool: Pool) -> list[OpenWindow]:
    found: list[OpenWindow] = []
    while (window := await cursors.next_window(pool, "acme", "people", [window.id for window in found])) is not None:
        found.append(window)
    return found


async def state(pool: Pool) -> PullState:
    return await pulls.state(pool, "acme", "people")


async def test_a_pull_that_is_new_is_planned_from_its_beginning(lease: Lease) -> None:
    assert not await register(lease)
    assert await state(lease.pool) == PullState("running", SINCE, None, None)


async def test_windows_are_taken_oldest_first_and_by_one_stream_each(lease: Lease) -> None:
    windows = await planned(lease)
    assert [window.window for window in windows] == WINDOWS
    assert await state(lease.pool) == PullState("running", UNTIL, NOW, None, unfinished=True, news_unfinished=True)


async def test_the_same_pull_goes_on_after_a_restart(lease: Lease) -> None:
    before = await planned(lease)
    assert not await register(lease, since=SINCE - timedelta(days=9))
    assert await open_windows(lease.pool) == before
    assert (await state(lease.pool)).planned_until == UNTIL


async def test_a_pull_of_another_kind_begins_again(lease: Lease) -> None:
    first, second, _ = await planned(lease)
    async with lease.transaction() as connection:
        await cursors.finish(connection, first.id, 1, 1, NOW)
        await pulls.block(connection, "acme", "people", second.id, NOW, "why")
    assert await register(lease, "soap updated_since=", SINCE + timedelta(days=1))
    assert await state(lease.pool) == PullState("running", SINCE + timedelta(days=1), None, None)
    rows = await table(lease.pool, "SELECT state, finished_at FROM syncd.pull_window ORDER BY starts_at")
    assert rows == [("done", NOW), ("abandoned", NOW), ("abandoned", NOW)]


async def test_a_position_moves_once_and_the_loser_is_told(lease: Lease) -> None:
    window = (await planned(lease))[0]
    async with lease.transaction() as connection:
        assert await cursors.advance(connection, window.id, None, "p1", 300, 500) == window.id
        assert await cursors.advance(connection, window.id, None, "p1", 300, 500) is None
        assert await cursors.advance(connection, window.id, "p1", "p2", 400, 500) == window.id
    assert (await open_windows(lease.pool))[0] == OpenWindow(window.id, WINDOWS[0], "p2", 400, 500, 1, NOW)


async def test_a_window_is_walked_again_from_its_beginning(lease: Lease) -> None:
    window = (await planned(lease))[0]
    async with lease.transaction() as connection:
        await cursors.advance(connection, window.id, None, "p1", 300, 500)
        assert await cursors.walk_again(connection, window.id, "fewer came") == window.id
    assert (await open_windows(lease.pool))[0] == OpenWindow(window.id, WINDOWS[0], None, 0, None, 2, NOW)


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
    parts = halves(WINDOWS[0])
    assert parts is not None
    async with lease.transaction() as connection:
        assert await planning.split(connection, window.id, parts, NOW, 5000) == window.id
        assert await planning.split(connection, window.id, parts, NOW) is None
        around = await cursors.around(connection, "acme", "people", window.id + 1)
    assert around == Around(others=3, typical=None, parent=5000, depth=1)
    assert [window.window for window in await open_windows(lease.pool)] == [*parts, *WINDOWS[1:]]


async def test_a_blocked_pull_offers_no_blocked_window_until_it_is_tried_again(lease: Lease) -> None:
    one, two, three = await planned(lease)
    async with lease.transaction() as connection:
        await pulls.block(connection, "acme", "people", one.id, NOW, "20014")
        await pulls.block(connection, "acme", "people", two.id, NOW + timedelta(hours=1), "20014")
    assert await state(lease.pool) == PullState("blocked", UNTIL, NOW, NOW, unfinished=True, news_unfinished=True)
    assert await open_windows(lease.pool) == [three]
    async with lease.transaction() as connection:
        await pulls.unblock(connection, "acme", "people")
    assert await state(lease.pool) == PullState("running", UNTIL, NOW, None, unfinished=True, news_unfinished=True)
    assert await open_windows(lease.pool) == [one, two, three]


async def test_a_restart_takes_a_blocked_pull_up_again(lease: Lease) -> None:
    windows = await planned(lease)
    async with lease.transaction() as connection:
        await pulls.block(connection, "acme", "people", windows[0].id, NOW, "20014")
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
            await pulls.register(connection, instance, pull, "one", SINCE, NOW, False)
            await planning.plan(connection, instance, pull, "soap", [Window(SINCE, NOW)], NOW, NOW)
    await register(lease, "two")
    assert await lease.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE state = 'open'") == 2


async def test_a_window_that_meets_a_fault_after_an_operator_paused_its_pull_is_walked_when_it_runs_again(lease: Lease) -> None:
    first, *_ = await planned(lease)
    await lease.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    async with lease.transaction() as connection:
        await pulls.block(connection, "acme", "people", first.id, NOW, "no rights")
    await lease.pool.execute("UPDATE syncd.pull SET state = 'running'")
    assert first.id in [window.id for window in await open_windows(lease.pool)]


async def test_a_pull_that_asks_for_other_fields_goes_on_with_the_news_and_backfills(lease: Lease) -> None:
    await register(lease, "soap updated_since=a fields=b")
    async with lease.transaction() as connection:
        await planning.plan(connection, "acme", "people", "soap", WINDOWS, UNTIL, NOW)
    assert await register(lease, "soap updated_since=a fields=c", SINCE - timedelta(days=1))
    assert await register(lease, "soap updated_since=a fields=d", SINCE - timedelta(days=2))
    found = await state(lease.pool)
    assert (found.planned_until, found.planned_at, found.unfinished) == (UNTIL, NOW, False)
    assert found.backfill_since == SINCE - timedelta(days=2)
    backfills = await table(lease.pool, "SELECT since, planned_at, finished_at FROM syncd.backfill ORDER BY id")
    assert backfills == [(SINCE - timedelta(days=1), NOW, NOW), (SINCE - timedelta(days=2), None, None)]


async def test_a_backfill_comes_after_the_news_and_is_done_with_its_last_window(lease: Lease) -> None:
    await planned(lease)
    async with lease.transaction() as connection:
        backfill = await backfills.order(connection, "acme", "people", None, "by hand")
        assert await backfills.order(connection, "acme", "people", SINCE, "by hand") == backfill, "one order is enough"
        early = [Window(SINCE - timedelta(days=2), SINCE - timedelta(days=1)), Window(SINCE - timedelta(days=1), SINCE)]
        await planning.plan_backfill(connection, "acme", "people", "soap", early, backfill, NOW)
    assert [window.window for window in await open_windows(lease.pool)] == [*WINDOWS, *early]
    for left, window in enumerate(reversed((await open_windows(lease.pool))[3:])):
        progress = await backfills.progress(lease.pool, backfill)
        assert progress is not None
        assert (progress.windows, progress.done, progress.leads, progress.finished_at) == (2, left, left, None)
        async with lease.transaction() as connection:
            await cursors.finish(connection, window.id, 1, 1, NOW)
    progress = await backfills.progress(lease.pool, backfill)
    assert progress is not None
    assert progress.finished_at == NOW


async def test_the_last_two_windows_of_a_backfill_finished_at_once_finish_it(lease: Lease) -> None:
    await register(lease)
    async with lease.transaction() as connection:
        backfill = await backfills.order(connection, "acme", "people", None, "by hand")
        await planning.plan_backfill(connection, "acme", "people", "soap", WINDOWS[:2], backfill, NOW)
    one, two = await open_windows(lease.pool)
    async with lease.transaction() as connection:
        await cursors.finish(connection, one.id, 1, 1, NOW)

        async def finish_the_other() -> None:
            async with lease.transaction() as other:
                await cursors.finish(other, two.id, 1, 1, NOW)

        other = asyncio.ensure_future(finish_the_other())
        while not await lease.pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            await asyncio.sleep(0)
    await other
    assert await lease.pool.fetchval("SELECT finished_at FROM syncd.backfill") == NOW


async def test_keys_are_walked_group_by_group_and_forgotten_when_done(lease: Lease) -> None:
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "soap keys=EMAIL", None, NOW, True)
        await planning.plan_keys(connection, "acme", "people", "soap", [["a@x", "b,{}"], ["c"]], NOW, None)
    one, two = await open_windows(lease.pool)
    assert (one.window, one.keys, two.keys) == (None, ["a@x", "b,{}"], ["c"])
    async with lease.transaction() as connection:
        assert await planning.split_keys(connection, one, (["a@x"], ["b,{}"])) == one.id
    assert [window.keys for window in await open_windows(lease.pool)] == [["c"], ["a@x"], ["b,{}"]]
    assert (await state(lease.pool)).planned_until is None
    for window in await open_windows(lease.pool):
        async with lease.transaction() as connection:
            await cursors.finish(connection, window.id, 1, 1, NOW + timedelta(hours=1))
    assert await state(lease.pool) == PullState("running", NOW, NOW, None)
    assert await lease.pool.fetchval("SELECT count(keys) FROM syncd.pull_window") == 0
    async with lease.transaction() as connection:
        backfill = await backfills.order(connection, "acme", "people", None, "by hand")
        await planning.plan_keys(connection, "acme", "people", "soap", [], NOW + timedelta(hours=1), backfill)
    assert await state(lease.pool) == PullState("running", NOW + timedelta(hours=1), NOW + timedelta(hours=1), None)
    assert await lease.pool.fetchval("SELECT finished_at FROM syncd.backfill") is not None
    async with lease.transaction() as connection:
        await planning.plan_list(connection, "acme", "people", "soap", NOW + timedelta(hours=2), None)
    assert await lease.pool.fetchval("SELECT count(*) FROM syncd.pull_window") == 1


async def test_a_pull_that_left_the_configuration_is_shown_as_such_and_goes_on_when_it_comes_back(lease: Lease) -> None:
    await planned(lease)
    for configured, shown in (([], "not in the configuration"), (["people"], "running")):
        async with lease.transaction() as connection:
            await pulls.retire_others(connection, "acme", configured)
            if configured:
                await pulls.register(connection, "acme", "people", "one", SINCE, NOW, False)
        found = await pull_status.one(lease.pool, "acme", "people")
        assert found is not None
        assert found.state == shown
    assert [window.window for window in await open_windows(lease.pool)] == WINDOWS
