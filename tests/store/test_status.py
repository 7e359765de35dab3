"""The snapshot that `syncd status` shows."""

from datetime import timedelta

from syncd.core.quota import quota_day
from syncd.core.windows import Window
from syncd.store import cursors, status
from syncd.store.leases import Lease, Pool
from syncd.store.status import PullStatus
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
        await cursors.register(connection, "acme", "people", "s", NOW - 3 * HOUR, NOW, False)
        windows = [Window(NOW - 3 * HOUR, NOW - 2 * HOUR), Window(NOW - 2 * HOUR, NOW)]
        await cursors.plan(connection, "acme", "people", "soap", windows, NOW, NOW)
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
