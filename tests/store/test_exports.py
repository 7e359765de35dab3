"""What is kept of exports: one that may still come for each part of a window, the bytes of a day, what they teach."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from syncd.core.extract import Seen
from syncd.core.faults import Fault, Nature
from syncd.core.route import Route
from syncd.core.values import CreatedBetween, ExportStatus, InStaticList, UpdatedBetween
from syncd.core.windows import Window
from syncd.store import cursors, export_figures, exports, planning, pulls
from syncd.store.leases import Connection, Pool
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(60)]
FIELDS = ("id", "email", "company", "firstName", "lastName")
DAY = timedelta(days=1)
WANTED = UpdatedBetween(T[0] - DAY, T[0])
FAULT = Fault(Nature.TRANSIENT, "reset", "connection reset", "export_create", "r#1")


async def begun(connection: Connection, window: int = 1, part: tuple[int, int] = (0, 1), at: int = 0, wanted: object = WANTED) -> int:
    made, _ = await exports.begin(connection, "acme", "people", window, part, FIELDS, wanted, 1000, T[at])  # type: ignore[arg-type]
    return made


async def completed(connection: Connection, window: int, size: int, leads: int, at: int, part: tuple[int, int] = (0, 1)) -> int:
    made = await begun(connection, window, part, at)
    await exports.to_created(connection, made, f"e-{made}", T[at])
    await exports.asked(connection, made, T[at])
    await exports.to_queued(connection, made, T[at])
    await exports.looked(connection, made, ExportStatus(f"e-{made}", "processing"), T[at + 1])
    await exports.looked(connection, made, ExportStatus(f"e-{made}", "completed", leads, size, "ab" * 32), T[at + 3])
    return made


async def test_a_part_has_one_export_that_may_still_come(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await begun(connection)
        await begun(connection, part=(1, 2))
        with pytest.raises(asyncpg.UniqueViolationError):
            await begun(connection)
        await exports.to_refused(connection, first, FAULT, T[1])
        await begun(connection)
    assert await table(pool, "SELECT message, request_id FROM syncd.export WHERE state = 'absent'") == [(str(FAULT), "r#1")]


async def test_each_export_asks_in_an_order_of_its_own(pool: Pool) -> None:
    async with pool.acquire() as connection:
        for window in range(10):
            await begun(connection, window)
    orders = [tuple(export.fields) for export in await exports.unfinished(pool, "acme")]
    assert len(set(orders)) > 5
    assert {tuple(sorted(order)) for order in orders} == {tuple(sorted(FIELDS))}


async def test_an_export_tells_its_story(pool: Pool) -> None:
    async with pool.acquire() as connection:
        made = await completed(connection, 1, 5000, 40, 2)
        assert await exports.looked(connection, made, ExportStatus("e", "queued"), T[9]) is None
        assert await exports.spoilt(connection, made, "why") == 1
        assert await exports.told_anew(connection, made, ExportStatus("e", "completed", sha256="cd" * 32), T[9]) == made
        (export,) = await exports.unfinished(pool, "acme")
        assert (export.asked_at, export.enqueued_at, export.finished_at, export.attempts) == (T[2], T[2], T[5], 1)
        assert (export.records, export.size, export.sha256) == (40, 5000, bytes.fromhex("cd" * 32))
        await exports.to_loaded(connection, made, T[9])
    assert await exports.unfinished(pool, "acme") == []
    assert await export_figures.recent_runs(pool, "acme") == [timedelta(minutes=2)]


async def test_what_marketo_said_last_is_not_taken_back(pool: Pool) -> None:
    async with pool.acquire() as connection:
        made = await begun(connection)
        await exports.to_created(connection, made, "e", T[0])
        assert await exports.looked(connection, made, ExportStatus("e", "created"), T[1]) == "created"
        assert await exports.looked(connection, made, ExportStatus("e", "processing"), T[2]) == "processing"
        assert await exports.looked(connection, made, ExportStatus("e", "queued"), T[3]) == "processing"
        (export,) = await exports.unfinished(pool, "acme")
    assert export.asked_at == T[0], "whoever queued it did so after it was created"


async def test_the_bytes_of_a_day_are_those_completed_in_it_and_those_under_way(pool: Pool) -> None:
    async with pool.acquire() as connection:
        first = await completed(connection, 1, 5000, 40, 0)
        await completed(connection, 2, 700, 4, 10)
        await exports.to_expired(connection, first, "why", T[20])
        failed = await begun(connection, 3)
        await exports.to_created(connection, failed, "e", T[0])
        await exports.looked(connection, failed, ExportStatus("e", "failed"), T[11])
        await begun(connection, 4)
    assert await export_figures.spent(pool, "acme", T[0]) == 5700
    assert await export_figures.spent(pool, "acme", T[4]) == 700
    assert await export_figures.promised(pool, "acme") == 1000
    assert await export_figures.spent(pool, "emca", T[0]) == await export_figures.promised(pool, "emca") == 0
    assert await exports.counts(pool, "acme") == {"completed": 1, "creating": 1}


async def test_windows_teach_by_their_kind_the_latest_first(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await completed(connection, 1, 5000, 40, 0)
        await completed(connection, 2, 300, 5, 10, (0, 2))
        await completed(connection, 2, 400, 4, 11, (1, 2))
    assert await export_figures.seen(pool, "acme", "people", WANTED, False) == [Seen(5, 700, DAY), Seen(40, 5000, DAY)]
    for other in (CreatedBetween(T[0] - DAY, T[0]), InStaticList("people")):
        assert await export_figures.seen(pool, "acme", "people", other, False) == []
    assert await export_figures.seen(pool, "acme", "people", WANTED, True) == []
    assert await export_figures.seen(pool, "acme", "others", WANTED, False) == []


async def test_a_window_is_to_be_asked_for_until_each_part_is_under_way(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await pulls.register(connection, "acme", "people", '{"kind": "updated_since"}', T[0] - DAY, T[0], False)
        windows = [Window(T[0] - DAY, T[0]), Window(T[0], T[1])]
        await planning.plan(connection, "acme", "people", "bulk_extract", windows, T[1], T[1], Route(True, False, "windows", "why"))
        await planning.plan(connection, "acme", "people", "soap", windows, T[1], T[1])
        first, second = await cursors.to_ask_for(pool, "acme", "people")
        assert (first.window, first.by_creation, first.ids_only, first.backfill) == (windows[0], True, False, None)
        one = await begun(connection, first.id, (0, 2))
        assert [window.id for window in await cursors.to_ask_for(pool, "acme", "people")] == [first.id, second.id]
        await begun(connection, first.id, (1, 2))
        assert [window.id for window in await cursors.to_ask_for(pool, "acme", "people")] == [second.id]
        await exports.to_refused(connection, one, FAULT, T[2])
        assert [window.id for window in await cursors.to_ask_for(pool, "acme", "people")] == [first.id, second.id]
        await planning.split(connection, second.id, [Window(T[0], T[0] + DAY), Window(T[0] + DAY, T[1] + DAY)], T[2])
        parts = (await cursors.to_ask_for(pool, "acme", "people"))[1:]
    assert [(part.by_creation, part.depth) for part in parts] == [(True, 1), (True, 1)]


async def test_what_nobody_waits_for_is_unwanted(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await pulls.register(connection, "acme", "people", '{"kind": "updated_since"}', T[0] - DAY, T[0], False)
        await planning.plan(connection, "acme", "people", "bulk_extract", [Window(T[0] - DAY, T[0]), Window(T[0], T[1])], T[1], T[1])
        first, second = await cursors.to_ask_for(pool, "acme", "people")
        made = [await completed(connection, window, 1, 1, 0) for window in (first.id, second.id, 12345)]
        assert await exports.unwanted(pool, "acme") == {made[2]}
        await cursors.finish(connection, first.id, 1, 1, T[9])
        assert await exports.unwanted(pool, "acme") == {made[0], made[2]}


async def test_only_what_came_to_its_end_long_ago_is_forgotten(pool: Pool) -> None:
    async with pool.acquire() as connection:
        old, young = await completed(connection, 1, 1, 1, 0), await completed(connection, 2, 1, 1, 0)
        await completed(connection, 3, 1, 1, 0)
        await exports.to_loaded(connection, old, T[5])
        await exports.to_loaded(connection, young, T[9])
        await exports.forget_ended(connection, "acme", T[7])
    assert await table(pool, "SELECT window_id FROM syncd.export ORDER BY 1") == [(2,), (3,)]
    tries = await export_figures.tries(pool, 2)
    assert (tries.in_vain, tries.last_at) == (0, None)
