"""The snapshot that `syncd status` shows."""

from datetime import timedelta

from syncd.core.quota import day_began, quota_day
from syncd.core.settings import Limits
from syncd.core.values import ExportStatus, UpdatedBetween
from syncd.core.windows import Window
from syncd.store import cursors, exports, planning, pulls, status
from syncd.store.leases import Lease, Pool
from syncd.store.pull_status import PullStatus
from syncd.store.status import BytesStatus, CensusStatus
from syncd.store.usage import ApiUser, Ledger, remember_users
from tests.store.outgoing import NOW, apply, enqueue, under_way

HOUR = timedelta(hours=1)


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


async def test_exports_and_what_they_leave_of_the_day(pool: Pool, lease: Lease) -> None:
    began = day_began(NOW)
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "s", NOW - 9 * HOUR, NOW, False)
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
