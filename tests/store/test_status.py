"""The snapshot that `syncd status` shows."""

from datetime import datetime, timedelta

import pytest

from syncd.core.quota import day_began, quota_day
from syncd.core.route import Follows, Route
from syncd.core.settings import Limits, Source
from syncd.core.values import ExportStatus, UpdatedBetween
from syncd.core.windows import Window
from syncd.store import cursors, due, exports, planning, pulls, routes, status, switching
from syncd.store.leases import Lease, Pool
from syncd.store.status import BytesStatus, CensusStatus, PullStatus
from syncd.store.usage import ApiUser, Ledger, remember_users
from tests.store.outgoing import NOW, apply, enqueue, under_way

HOUR = timedelta(hours=1)
SINCE = '{"kind": "updated_since"}'


async def pull_through(
    lease: Lease, source: Source, follows: Follows = "windows", selector: str = SINCE, by_creation: bool = False, ids_only: bool = False
) -> None:
    """A pull `people` that has come up to an hour ago, its way chosen, through REST at least."""
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", selector, NOW - 9 * HOUR, NOW, False)
        await switching.register(connection, "acme", "people", source, NOW - 9 * HOUR, NOW)
        if source != "soap":
            await routes.choose(connection, "acme", "people", Route(by_creation, ids_only, follows, "why"), NOW)
        await planning.plan(connection, "acme", "people", "bulk_extract", [], NOW - HOUR, NOW)


async def read_pull(pool: Pool) -> PullStatus:
    found = await status.pull(pool, "acme", "people")
    assert found is not None
    return found


async def test_an_empty_database_has_no_instances(pool: Pool) -> None:
    assert await status.read(pool, NOW) == []


async def test_the_snapshot_shows_both_directions(pool: Pool, lease: Lease) -> None:
    await Ledger("acme", pool).reserve("rest", quota_day(NOW), 5, 10)
    async with lease.transaction() as connection:
        await remember_users(connection, "acme", quota_day(NOW), {"crm@example.com": 70}, NOW)
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "s", NOW - 3 * HOUR, NOW, False)
        windows = [Window(NOW - 3 * HOUR, NOW - 2 * HOUR), Window(NOW - 2 * HOUR, NOW)]
        await planning.plan(connection, "acme", "people", "soap", windows, NOW, NOW)
        first, second = [row["id"] for row in await connection.fetch("SELECT id FROM syncd.pull_window ORDER BY id")]
        await cursors.finish(connection, first, 10, 10, NOW)
        await cursors.advance(connection, second, None, "p", 30, 100)
    await enqueue(pool, "a@x", f=1)
    await apply(lease)
    await enqueue(pool, "b@x", f=1)
    _, job = await under_way(lease)
    waiting = await enqueue(pool, "c@x", f=1)

    (acme,) = await status.read(pool, NOW)
    assert (acme.name, acme.leads) == ("acme", 0)
    assert acme.calls_today["rest"] == 5
    assert acme.api_users == [ApiUser("crm@example.com", 70, NOW)]
    assert "crm@example.com" not in str(status.as_json([acme]))
    assert acme.pulls == [PullStatus("people", "running", None, NOW - 2 * HOUR, 1, 1, 40, 70)]
    assert (acme.exports, acme.census, acme.extract_bytes) == ([], None, BytesStatus(0, 0, None, None))
    (contacts, others) = acme.pushes
    assert (contacts.name, contacts.state, others.name) == ("contacts", "running", "others")
    assert (contacts.live, contacts.settled) == ({"pending": 1, "in_chunk": 1}, {"applied": 1})
    assert contacts.oldest_pending_at == await pool.fetchval("SELECT created_at FROM syncd.outbox WHERE id = $1", waiting)
    assert [(live.id, live.state, live.batch_id) for live in acme.live_jobs] == [(job.id, "queued", 7)]
    assert status.as_json([acme])["instances"][0]["pushes"][0]["name"] == "contacts"


async def test_changes_for_a_push_that_is_not_configured_are_shown(pool: Pool) -> None:
    await enqueue(pool, "a@x", push="misspelt", f=1)
    (acme,) = await status.read(pool, NOW)
    assert acme.holder is None
    assert [(push.name, push.state) for push in acme.pushes] == [("misspelt", "not in the configuration")]


@pytest.mark.parametrize(
    ("way", "shown"),
    [
        ({"source": "soap"}, ("pages of getMultipleLeads", None)),
        ({"source": "activities", "follows": "activities"}, ("the activity log", "why")),
        ({"source": "bulk_extract"}, ("extracts by updatedAt", "why")),
        ({"source": "auto", "follows": "activities"}, ("extracts by updatedAt, then the activity log", "why")),
        (
            {"source": "auto", "follows": "activities", "by_creation": True, "ids_only": True},
            ("extracts by createdAt of ids, whose leads are read by them, then the activity log", "why"),
        ),
        ({"source": "auto", "selector": '{"kind": "static_list"}'}, ("an extract of the list at each walk", "why")),
    ],
)
async def test_the_way_of_a_pull_is_told(pool: Pool, lease: Lease, way: dict[str, object], shown: tuple[str, str | None]) -> None:
    await pull_through(lease, **way)  # type: ignore[arg-type]
    found = await read_pull(pool)
    assert (found.source, found.route, found.reason) == (way["source"], *shown)


async def test_a_way_that_is_to_be_chosen_anew_is_not_told(pool: Pool, lease: Lease) -> None:
    await pull_through(lease, "auto", "activities")
    async with lease.transaction() as connection:
        await routes.forget(connection, "acme", "people")
    found = await read_pull(pool)
    assert (found.source, found.route, found.reason) == ("auto", None, None)


async def note(lease: Lease, lead: int, at: datetime, pull: str = "people") -> None:
    async with lease.transaction() as connection:
        await due.note(connection, "acme", pull, [lead], "changed", at)


async def test_who_follows_the_log_has_come_as_far_as_its_leads_are_read(pool: Pool, lease: Lease) -> None:
    await pull_through(lease, "auto", "activities")
    assert (await read_pull(pool)).watermark == NOW - HOUR, "as far as the log was read"
    await note(lease, 1, NOW)
    assert (await read_pull(pool)).watermark == NOW - HOUR, "a lead that became due later holds nothing up"
    await note(lease, 2, NOW - 3 * HOUR)
    await note(lease, 3, NOW - 2 * HOUR)
    await note(lease, 9, NOW - 5 * HOUR, "another")
    found = await read_pull(pool)
    assert (found.watermark, found.leads_due, found.due_since) == (NOW - 3 * HOUR, 3, NOW - 3 * HOUR)


@pytest.mark.parametrize("source", ["bulk_extract", "soap"])
async def test_due_leads_do_not_hold_up_who_walks_windows(pool: Pool, lease: Lease, source: Source) -> None:
    await pull_through(lease, "auto", "activities")
    await pull_through(lease, source)
    await note(lease, 1, NOW - 3 * HOUR)
    found = await read_pull(pool)
    assert (found.watermark, found.leads_due) == (NOW - HOUR, 1)


async def test_exports_and_what_they_leave_of_the_day(pool: Pool, lease: Lease) -> None:
    await pull_through(lease, "bulk_extract")
    began = day_began(NOW)
    async with lease.transaction() as connection:
        for number, (bytes_, at) in enumerate([(100, began), (7, began - timedelta(seconds=1)), (None, None)]):
            wanted = UpdatedBetween(NOW - 2 * HOUR, NOW)
            export, _ = await exports.begin(connection, "acme", "people", number, (0, 1), ["id", "email"], wanted, 30, began)
            await exports.to_created(connection, export, f"x{number}", NOW)
            await exports.looked(connection, export, ExportStatus(f"x{number}", "queued"), NOW)
            if at is not None:
                await exports.looked(connection, export, ExportStatus(f"x{number}", "completed", 5, bytes_), at)
        await exports.to_loaded(connection, export - 1, NOW)
    (acme,) = await status.read(pool, NOW, {"acme": Limits(export_daily_bytes=1_000)})
    assert acme.extract_bytes == BytesStatus(100, 30, 1_000, 870), "yesterday's are not of this day"
    told = [(each.export_id, each.pull, each.state, each.records, each.bytes, each.begun_at) for each in acme.exports]
    assert told == [("x0", "people", "completed", 5, 100, began), ("x2", "people", "queued", None, None, began)]
    (acme,) = await status.read(pool, NOW, {"acme": Limits(export_daily_bytes=110)})
    assert acme.extract_bytes.left == 0, "never less than nothing"
    (acme,) = await status.read(pool, NOW, {"other": Limits()})
    assert acme.extract_bytes == BytesStatus(100, 30, None, None)


async def test_the_last_census_that_ended_is_shown_and_is_no_pull(pool: Pool, lease: Lease) -> None:
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "#census", '{"kind": "census"}', NOW, NOW, False)
    begin = (
        "INSERT INTO syncd.census (instance, started_at, finished_at, leads, missing, surplus, message) VALUES ($1, $2, $3, $4, 2, 1, $5)"
    )
    await pool.execute(begin, "acme", NOW - 9 * HOUR, None, 5, None)
    (acme,) = await status.read(pool, NOW)
    assert acme.pulls == []
    assert acme.census == CensusStatus(NOW - 9 * HOUR, None, 5, 2, 1, None)
    await pool.execute("UPDATE syncd.census SET finished_at = $1, message = 'spoilt'", NOW - 8 * HOUR)
    await pool.execute(begin, "acme", NOW - 3 * HOUR, NOW - 2 * HOUR, 100, None)
    await pool.execute(begin, "acme", NOW - HOUR, None, 7, None)
    await pool.execute(begin, "other", NOW - HOUR, NOW, 9, None)
    (acme,) = await status.read(pool, NOW)
    assert acme.census == CensusStatus(NOW - 3 * HOUR, NOW - 2 * HOUR, 100, 2, 1, None)
