"""What an operator pauses stops within seconds, what Marketo has is settled, and nothing is lost or done twice for it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from syncd.core.settings import Push
from syncd.flows.loop import Flow, Idle
from syncd.flows.resting import Resting
from syncd.simulator import Fault, ImportModel
from syncd.store import due, pauses
from syncd.store.pauses import Choice
from tests.flows.conftest import PULL, PUSH, Build, House
from tests.flows.exporting import PULL as EXTRACTED
from tests.flows.exporting import built
from tests.flows.following import calls, follow
from tests.flows.test_pull import soap_calls

SMALL = replace(PUSH, max_body_bytes=2_000, flush_after=timedelta())
SLOW = ImportModel(overhead_seconds=60, sigma=0)


async def pause(home: House, choice: Choice | None = None, seconds: float | None = None) -> None:
    now = home.clock.now()
    async with home.pool.acquire() as connection, connection.transaction():
        await pauses.pause(connection, "acme", choice or Choice(), None if seconds is None else now + timedelta(seconds=seconds), now)


async def resume(home: House, choice: Choice | None = None) -> None:
    async with home.pool.acquire() as connection, connection.transaction():
        await pauses.resume(connection, "acme", choice or Choice())


def changes(count: int) -> Sequence[tuple[str, str]]:
    return [(f"person{n}@example.com", f'{{"firstName": "P{n}", "company": "{"x" * 100}"}}') for n in range(count)]


async def test_a_paused_push_submits_and_packs_nothing_more_and_what_marketo_has_is_settled(house: Build) -> None:
    home = await house(pushes=[SMALL], imports=SLOW)
    await home.enqueue(*changes(100))
    await home.run(10, home.a_job_exists)
    await pause(home, Choice("out", "contacts"))
    await home.enqueue(("new@example.com", '{"firstName": "New"}'))
    await home.run(1)
    jobs = len(await home.job_states())
    await home.run(600)
    assert await home.job_states() == ["settled"] * jobs, "none but those that Marketo had"
    found = await home.states()
    assert found["applied"] > 0
    assert found["pending"] >= 1
    assert sum(found.values()) == 101
    await resume(home, Choice("out", "contacts"))
    await home.run(1800, home.all_ended)
    assert await home.states() == {"applied": 101}
    assert home.simulator.report().violations == {}


async def test_another_push_goes_on(house: Build) -> None:
    home = await house(pushes=[SMALL, Push("others", flush_after=timedelta())])
    await pause(home, Choice("out", "contacts"))
    await home.enqueue(*changes(3))
    await home.pool.execute("UPDATE syncd.outbox SET push = 'others' WHERE id = 1")
    await home.run(120)
    assert await home.states() == {"applied": 1, "pending": 2}


async def test_a_pause_ends_in_time_also_after_a_restart(house: Build) -> None:
    home = await house(pushes=[SMALL])
    await home.enqueue(*changes(1))
    await pause(home, Choice("out"), seconds=300)
    await home.run(290)
    assert await home.states() == {"pending": 1}
    await home.run(60, home.all_ended)
    assert await home.states() == {"applied": 1}
    await home.enqueue(("second@example.com", '{"firstName": "S"}'))
    await pause(home, Choice("out"), seconds=300)
    await home.restart()
    await home.run(200)
    assert (await home.states())["pending"] == 1
    await home.stop()
    home.clock.advance(3600)
    await home.start()
    assert await home.pool.fetchval("SELECT state FROM syncd.push") == "running", "at once"
    await home.run(60, home.all_ended)
    assert await home.states() == {"applied": 2}


async def test_a_push_that_comes_into_the_configuration_under_a_pause_does_not_run(house: Build) -> None:
    home = await house(pushes=[SMALL])
    await pause(home, Choice("out"))
    await home.restart(pushes=(SMALL, replace(SMALL, name="fresh")))
    await home.enqueue(*changes(2))
    await home.pool.execute("UPDATE syncd.outbox SET push = 'fresh' WHERE id = 1")
    await home.run(60)
    assert await home.states() == {"pending": 2}
    await resume(home, Choice("out"))
    await home.run(120, home.all_ended)
    assert await home.states() == {"applied": 2}


async def test_a_blocked_push_is_not_tried_while_it_is_paused(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, list_id=99)])  # there is no such list
    await home.enqueue(*changes(1))
    await home.run(60)
    assert await home.job_states() == ["refused"]
    await pause(home)
    await home.run(3600)
    assert await home.job_states() == ["refused"]
    push = await home.row("SELECT state, message FROM syncd.push")
    assert push["state"] == "blocked"
    assert "1003" in push["message"]
    await resume(home)
    await home.run(60)
    assert await home.job_states() == ["refused"] * 2, "its time had come long ago"


async def test_a_chunk_that_comes_back_from_marketo_waits_for_the_end_of_the_pause(house: Build) -> None:
    home = await house(pushes=[SMALL])
    home.simulator.script("import", Fault.JOB_FAILED, 1)
    await home.enqueue(*changes(4))
    await home.run(10, home.a_job_exists)
    await pause(home)
    await home.run(300)
    assert await home.job_states() == ["settled"]
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.chunk WHERE state = 'sealed'") == 2
    await resume(home)
    await home.run(300, home.all_ended)
    assert await home.states() == {"applied": 4}


async def pages(home: House) -> int:
    return await home.pool.fetchval("SELECT coalesce(sum(leads), 0) FROM syncd.pull_window")  # type: ignore[no-any-return]


async def test_a_paused_pull_stops_amid_a_window_and_goes_on_where_it_was(house: Build) -> None:
    home = await house(pulls=[replace(PULL, batch_size=10, window=timedelta(days=30))], leads=200)

    async def begun() -> bool:
        return await pages(home) >= 20

    await home.run(600, begun)
    await pause(home, Choice("in", "people"))
    await home.run(2)
    came, asked = await pages(home), soap_calls(home)
    assert 0 < came < 200
    await home.run(600)
    assert (await pages(home), soap_calls(home)) == (came, asked)
    await resume(home, Choice("in", "people"))
    await home.run(600)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") == 200
    assert await home.pool.fetchval("SELECT bool_and(restarts = 0 AND walks = 1) FROM syncd.pull_window") is True


async def test_a_blocked_pull_is_not_tried_while_it_is_paused(house: Build) -> None:
    home = await house(pulls=[PULL])
    await home.pool.execute("UPDATE syncd.pull SET state = 'blocked', message = '20014', retry_at = $1", home.clock.now())
    await pause(home, Choice("in"))
    await home.run(3600)
    assert soap_calls(home) == 0
    assert await home.pool.fetchval("SELECT state || ' ' || message FROM syncd.pull") == "blocked 20014"
    await resume(home, Choice("in"))
    await home.run(60)
    assert soap_calls(home) > 0
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_an_extract_under_way_is_loaded_and_no_other_is_asked_for(house: Build) -> None:
    home = await built(house, replace(EXTRACTED, every=timedelta(minutes=1)))

    async def queued() -> bool:
        return await home.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.export WHERE state = 'queued')") is True

    await home.run(600, queued)
    await pause(home)
    exports = await home.pool.fetchval("SELECT count(*) FROM syncd.export")
    await home.run(3600)
    assert await home.pool.fetchval("SELECT array_agg(DISTINCT state) FROM syncd.export") == ["loaded"]
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.export") == exports
    await resume(home)
    await home.run(3600)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.export") > exports


async def test_a_paused_direction_asks_the_log_and_reads_leads_no_more(house: Build) -> None:
    home = await follow(house)
    lease = home.lease
    assert lease is not None
    home.flows = [Resting(each, "in", lease, home.clock) if each.name == "deletions" else each for each in home.flows]
    await pause(home, Choice("in"))
    before = {kind: calls(home, kind) for kind in ("deleted_leads", "lead_changes", "leads")}
    async with home.pool.acquire() as connection:
        await due.note(connection, "acme", "people", [next(iter(home.simulator.world)).id], "changed", home.clock.now())
    await home.run(900)
    assert {kind: calls(home, kind) for kind in before} == before
    await resume(home, Choice("in"))
    await home.run(60)
    assert all(calls(home, kind) > before[kind] for kind in before)


class Counting(Flow):
    """A flow that counts its steps."""

    name, instance = "counting", "acme"

    def __init__(self) -> None:
        self.steps, self.closed = 0, False

    async def step(self) -> Idle:
        self.steps += 1
        return Idle(datetime.max.replace(tzinfo=UTC))

    async def close(self) -> None:
        self.closed = True


async def test_a_flow_of_the_instance_rests_with_the_whole_of_it_only(house: Build) -> None:
    home = await house()
    assert home.lease is not None
    flow = Counting()
    resting = Resting(flow, "both", home.lease, home.clock)
    assert (resting.name, resting.instance) == ("counting", "acme")
    await pause(home, Choice("in"))
    await pause(home, Choice("out"))
    await resting.step()
    assert flow.steps == 1
    await pause(home)
    assert await resting.step() == Idle(home.clock.now() + timedelta(seconds=1))
    assert flow.steps == 1
    await resting.close()
    assert flow.closed
