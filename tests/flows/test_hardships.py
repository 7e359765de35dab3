"""What once lost data, stood still, or spent the day: clocks that step, ends that are none, fields that come and go."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncd.core.settings import StaticList
from syncd.flows.loop import Idle
from syncd.flows.sweep import Sweep
from syncd.simulator import Fault
from tests.flows.conftest import PULL, Build, House
from tests.flows.gateway import Gateway, Given
from tests.flows.test_drift import NAMED, REGION, next_day
from tests.flows.test_odd_replies import page, record
from tests.flows.test_pull import mirror, soap_calls, truth
from tests.flows.test_selectors import keys

LIST = replace(PULL, select=StaticList("Program.Members"))
LEFT = "SELECT count(*) FROM syncd.list_membership WHERE left_at IS NOT NULL"


def sweep_of(home: House) -> Sweep:
    return next(flow for flow in home.flows if isinstance(flow, Sweep))


async def test_a_clock_behind_all_that_was_planned_waits_instead_of_spinning(house: Build) -> None:
    home = await house(pulls=[PULL], leads=20)
    await home.run(100)
    home.clock.advance(-90 * 86_400)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    outcomes = [await stream.step() for _ in range(3)]
    assert all(isinstance(outcome, Idle) for outcome in outcomes[1:])


async def test_nobody_leaves_a_list_because_the_clock_stepped_back(house: Build) -> None:
    home = await house(pulls=[LIST], leads=300)
    home.simulator.world.create_list("Program.Members", [lead.id for lead in home.simulator.world])
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    for _ in range(4):
        await stream.step()
    home.clock.advance(-60)
    while await home.pool.fetchval("SELECT planned_until IS NULL FROM syncd.pull"):
        await stream.step()
        home.clock.advance(0.3)
    assert await home.pool.fetchval(LEFT) == 0


async def test_members_that_a_clock_ahead_has_seen_leave_like_others(house: Build) -> None:
    home = await house(pulls=[LIST], leads=20)
    ids = [lead.id for lead in home.simulator.world]
    made = home.simulator.world.create_list("Program.Members", ids[:5])
    home.clock.advance(30 * 86_400)
    await home.run(30)
    home.clock.advance(-30 * 86_400)
    home.simulator.world.remove_members(made.id, ids[:2])
    home.simulator.world.add_members(made.id, ids[5:])
    await home.run(900)
    assert await home.pool.fetchval(LEFT) == 2
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.list_membership WHERE left_at IS NULL") == 18


async def test_a_list_that_ends_with_members_to_come_loses_none(house: Build) -> None:
    """A list ends by remainingCount == 0 (protocol 1.4), and by nothing else."""
    home = await house(pulls=[replace(LIST, name="odd", fields=("FirstName", "Notes"))], leads=20)
    soap = home.instance.soap
    assert soap is not None
    async with Gateway(soap.endpoint, "Notes") as gateway:
        await home.restart(soap=replace(soap, endpoint=gateway.endpoint))
        gateway.answer = lambda _: Given(page(record("7") + record("8"), count="2", remaining="0", position=""))
        await home.run(30)
        gateway.answer = lambda _: Given(page(record("7"), count="1", remaining="1", position=""))
        await home.run(400)
        assert await home.pool.fetchval("SELECT count(*) FROM syncd.list_membership") == 2
        assert await home.pool.fetchval(LEFT) == 0
        await home.stop()


async def test_rows_that_a_clock_ahead_has_written_do_not_hold_up_the_pull(house: Build) -> None:
    home = await house(pulls=[PULL], leads=100)
    await home.run(100)
    await home.pool.execute("UPDATE syncd.lead SET asked_at = asked_at + interval '1 day'")
    for lead in list(home.simulator.world)[:5]:
        home.simulator.world.update(lead.id, {"company": "Moved"})
    before = soap_calls(home)
    await home.run(900)
    assert await mirror(home) == truth(home)
    assert soap_calls(home) - before < 20


async def test_a_pull_that_a_clock_ahead_has_blocked_is_tried_again_after_ten_minutes(house: Build) -> None:
    home = await house(pulls=[LIST], leads=20)
    home.clock.advance(10 * 86_400)
    await home.run(30)
    home.clock.advance(-10 * 86_400)
    home.simulator.world.create_list("Program.Members", [])
    await home.run(700)
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_a_field_that_comes_back_without_a_value_is_emptied(house: Build) -> None:
    home = await house(pulls=[NAMED], leads=20)
    home.simulator.add_field(REGION)
    for lead in list(home.simulator.world):
        home.simulator.world.update(lead.id, {"region": "R"})
    await next_day(home)
    with_region = "SELECT count(*) FROM syncd.lead WHERE attributes ? 'region'"
    assert await home.pool.fetchval(with_region) == 20
    home.simulator.remove_field("region")
    await next_day(home)
    for lead in list(home.simulator.world):
        home.simulator.world.update(lead.id, {"firstName": "New"})
    await next_day(home)
    assert await home.pool.fetchval(with_region) == 20, "what has vanished stays"
    home.simulator.add_field(REGION)
    for lead in list(home.simulator.world):
        home.simulator.world.update(lead.id, {"region": ""})
    await next_day(home)
    await next_day(home)
    assert await home.pool.fetchval(with_region) == 0


@pytest.mark.parametrize("field", ["memberLevel", "Cuntry"])  # the first one only REST has
async def test_a_where_by_a_field_that_marketo_does_not_have_blocks_its_pull_alone(house: Build, field: str) -> None:
    odd = replace(PULL, name="odd", fields=("FirstName", field), where={field: ("Keep",)})
    home = await house(pulls=[odd, PULL], leads=20)
    with capture_logs() as events:
        await home.run(100)
    assert [field in event["fault"] for event in events if event["event"] == "pull_blocked"] == [True]
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE pull = 'odd' AND state = 'done'") == 0
    assert await mirror(home) == truth(home)


async def test_who_reads_the_history_holds_up_neither_sweep_nor_pull(house: Build, database: str) -> None:
    home = await house(pulls=[PULL], leads=20)
    await home.run(60)
    await home.pool.execute("SELECT syncd.ensure_lead_history('acme', '2025-01-01')")
    reader = await asyncpg.connect(database)
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM syncd.lead_history")
        home.clock.advance(2 * 3_600)
        with capture_logs() as events:
            assert isinstance(await asyncio.wait_for(sweep_of(home).step(), 15), Idle)
        assert [event["event"] for event in events if event["event"].startswith("history")] == ["history_busy"]
    await reader.close()
    home.clock.advance(2 * 3_600)
    await sweep_of(home).step()
    old = "SELECT count(*) FROM pg_class WHERE relname = 'lead_history_d20250101_acme'"
    assert await home.pool.fetchval(old) == 0


async def test_a_clock_ahead_drops_no_history(house: Build) -> None:
    home = await house(pulls=[PULL], leads=20)
    today = await home.pool.fetchval("SELECT current_date")
    await home.pool.execute("SELECT syncd.ensure_lead_history('acme', $1)", today)
    home.clock.advance(10 * 365 * 86_400)
    await sweep_of(home).step()
    assert await home.pool.fetchval("SELECT to_regclass('syncd.lead_history_d' || to_char($1::date, 'YYYYMMDD') || '_acme')", today)


async def test_a_key_that_is_refused_is_left_out_for_a_day(house: Build) -> None:
    home = await house(leads=20)
    ids = [str(lead.id) for lead in home.simulator.world]
    await home.restart(pulls=(keys(ids[0], kind="IDNUM"),))
    home.simulator.script("soap", Fault.SOAP_20102)
    await home.run(3_600)
    assert soap_calls(home) == 1
    await home.run(86_400)
    assert list(await mirror(home)) == [int(ids[0])]
