"""The beat: what the database says, as /metrics shows it."""

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from syncd.core.gauges import Gauges, Strangers, strangers
from syncd.core.settings import Hours, Limits
from syncd.flows.gauges import BEAT, Beat
from syncd.flows.loop import Idle
from syncd.simulator import ForeignLoad, ImportModel
from syncd.store import gauges, pauses, slots
from syncd.store.pauses import Choice
from tests.flows.conftest import PULL, PUSH, Build, House


async def beat(home: House) -> None:
    assert home.lease is not None
    outcome = await Beat(home.instance, home.lease, home.clock, home.metrics).step()
    assert outcome == Idle(home.clock.now() + BEAT)


def shown(home: House, name: str) -> dict[tuple[str, ...], float]:
    """The samples of a gauge, by the labels beside the instance."""
    return {
        tuple(value for label, value in sorted(labels.items()) if label != "instance"): value
        for sample, labels, value in home.metrics.samples()
        if sample == name
    }


async def test_both_directions_are_shown(house: Build) -> None:
    home = await house([PULL], [PUSH], imports=ImportModel(overhead_seconds=60, sigma=0))
    await home.run(120)
    await home.enqueue(*((f"a{number}@example.com", '{"firstName": "A", "company": "B"}') for number in range(20)))
    await home.run(60, home.a_job_exists)
    late = await home.enqueue(("late@example.com", '{"firstName": "L"}'))
    await home.pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE id = $1", late[0])
    await home.enqueue(("waits@example.com", '{"firstName": "W"}'))
    await beat(home)
    row = await home.row("SELECT * FROM syncd.pull")
    open_windows = await home.pool.fetchval("SELECT min(starts_at) FROM syncd.pull_window WHERE state = 'open'")
    assert shown(home, "syncd_pull_watermark_timestamp_seconds") == {("people",): (open_windows or row["planned_until"]).timestamp()}
    assert shown(home, "syncd_pull_state") == {("people", "running"): 1, ("people", "paused"): 0, ("people", "blocked"): 0}
    assert {state: count for (_, state), count in shown(home, "syncd_outbox_changes").items() if count} == {
        "in_chunk": 20,
        "held": 1,
        "pending": 1,
    }
    waits = await home.pool.fetchval("SELECT created_at FROM syncd.outbox WHERE key = 'waits@example.com'")
    assert shown(home, "syncd_oldest_pending_timestamp_seconds") == {("contacts",): waits.timestamp()}
    held = {key: value for key, value in shown(home, "syncd_import_slots").items() if value}
    assert held in ({("nobody", "free"): 9, ("ours", "queued"): 1}, {("nobody", "free"): 9, ("ours", "importing"): 1})
    calls = {row["api"]: row["calls"] for row in await home.pool.fetch("SELECT api, calls FROM syncd.api_usage")}
    assert shown(home, "syncd_api_calls_today") == {(api,): calls.get(api, 0) for api in ("rest", "soap")}
    assert shown(home, "syncd_api_calls_left") == {(): Limits().daily_calls - sum(calls.values())}


async def test_what_is_over_is_no_longer_shown(house: Build) -> None:
    home = await house(pushes=[PUSH])
    await home.enqueue(("a@example.com", '{"firstName": "A"}'))
    await beat(home)
    assert ("contacts",) in shown(home, "syncd_oldest_pending_timestamp_seconds")
    await home.pool.execute("DELETE FROM syncd.outbox")
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await pauses.pause(connection, "acme", Choice("out", "contacts"), None, home.clock.now())
    await beat(home)
    assert shown(home, "syncd_oldest_pending_timestamp_seconds") == {}
    assert shown(home, "syncd_push_state")["contacts", "paused"] == 1
    assert shown(home, "syncd_brake") == {("pace",): 1, ("concurrency",): 1}
    home.metrics.lease("acme", held=False)
    assert shown(home, "syncd_push_state") == shown(home, "syncd_brake") == {}, "whoever works for it now tells"


async def test_a_push_outside_its_hours_is_told(house: Build) -> None:
    home = await house(pushes=[PUSH, replace(PUSH, name="nightly")])
    begins = (home.clock.now() + timedelta(hours=1)).time()
    hours = Hours(begins, (home.clock.now() + timedelta(hours=3)).time(), ZoneInfo("UTC"))
    home.instance = replace(home.instance, pushes=(PUSH, replace(PUSH, name="nightly", hours=hours)))
    await beat(home)
    assert shown(home, "syncd_push_closed") == {("contacts",): 0, ("nightly",): 1}
    home.clock.advance(timedelta(hours=2).total_seconds())
    await beat(home)
    assert shown(home, "syncd_push_closed") == {("contacts",): 0, ("nightly",): 0}


async def test_counting_that_takes_long_is_done_rarely(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[PUSH])
    assert home.lease is not None
    read = gauges.read

    async def slowly(pool: asyncpg.Pool, instance: str, now: datetime) -> Gauges:
        home.clock.advance(3)
        return await read(pool, instance, now)

    monkeypatch.setattr(gauges, "read", slowly)
    outcome = await Beat(home.instance, home.lease, home.clock, home.metrics).step()
    assert outcome == Idle(home.clock.now() + timedelta(seconds=60))


async def test_an_import_tells_its_phases_its_looks_and_its_fill(house: Build) -> None:
    home = await house(pushes=[PUSH], imports=ImportModel(overhead_seconds=60, sigma=0))
    await home.enqueue(("a@example.com", '{"company": "A"}'))
    await home.run(600, home.all_ended)
    job = await home.row("SELECT * FROM syncd.import_job")
    counts = {phase: home.metrics.value("syncd_import_job_seconds_count", instance="acme", phase=phase) for phase in PHASES}
    assert counts == dict.fromkeys(PHASES, 1)
    spent = sum(home.metrics.value("syncd_import_job_seconds_sum", instance="acme", phase=phase) or 0 for phase in PHASES)
    assert spent == pytest.approx((job["settled_at"] - job["submitted_at"]).total_seconds(), abs=0.1)
    assert home.metrics.value("syncd_polls_total", instance="acme", queue="import") == job["polls"]
    fill = home.metrics.value("syncd_chunk_fill_ratio_sum", instance="acme", push="contacts")
    assert fill == pytest.approx(job["byte_count"] / PUSH.max_body_bytes)
    assert (home.metrics.value("syncd_limiter_wait_seconds_count", instance="acme", api="rest") or 0) >= job["polls"]


PHASES = ("queued", "importing", "settling")


def test_a_place_that_we_got_says_that_fewer_are_strangers() -> None:
    noon = PULL.since
    assert noon is not None
    later = noon + timedelta(minutes=1)
    assert strangers(3, noon, None, None) == Strangers(7, noon)
    assert strangers(3, noon, 6, later) == Strangers(4, later)
    assert strangers(3, noon, 2, later) == Strangers(7, later), "our own have left: nothing is learnt of theirs"


async def test_a_full_queue_tells_of_strangers(house: Build) -> None:
    home = await house(pushes=[PUSH], imports=ImportModel(overhead_seconds=600, sigma=0), foreign=ForeignLoad(jobs_per_hour=3600))
    assert await slots.others(home.pool, "acme", home.clock.now()) is None
    await home.run(300)
    await home.enqueue(("a@example.com", '{"company": "A"}'))

    async def refused() -> bool:
        return await home.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.import_job WHERE state = 'refused')") is True

    await home.run(300, refused)
    full_at = await home.pool.fetchval("SELECT submitted_at FROM syncd.import_job")
    assert await slots.others(home.pool, "acme", home.clock.now()) == Strangers(10, full_at)
    await beat(home)
    assert {key: value for key, value in shown(home, "syncd_import_slots").items() if value} == {("others", "taken"): 10}
    assert await slots.others(home.pool, "acme", full_at + slots.REMEMBERED + timedelta(seconds=1)) is None, "long ago"
