"""Pulling: nothing missed, nothing repeated, whatever happens between two pages."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from syncd.core.settings import Limits
from syncd.simulator import Fault
from tests.flows.conftest import FIELDS, PULL, Build, House

WINDOWS = "SELECT state, count(*) AS n FROM syncd.pull_window GROUP BY 1"


Side = dict[int, tuple[str | None, dict[str, str]]]


async def mirror(house: House) -> Side:
    rows = await house.pool.fetch("SELECT lead_id, email, attributes FROM syncd.lead WHERE deleted_at IS NULL")
    return {row["lead_id"]: (row["email"], {name: str(value) for name, value in orjson.loads(row["attributes"]).items()}) for row in rows}


def truth(house: House) -> Side:
    """What the simulator holds of the fields that the pull asks for."""
    return {lead_id: (email, fields) for lead_id, email, fields in house.simulator.world.truth(FIELDS)}


async def windows(house: House) -> dict[str, int]:
    return {row["state"]: row["n"] for row in await house.pool.fetch(WINDOWS)}


def soap_calls(house: House) -> int:
    return sum(call.count for call in house.simulator.report().calls if call.api == "soap")


async def test_the_mirror_becomes_the_truth_and_follows_it(house: Build) -> None:
    home = await house(pulls=[PULL])
    await home.run(200)
    assert await windows(home) == {"done": 3}
    assert await mirror(home) == truth(home)
    changed = [lead.id for lead in home.simulator.world][:7]
    for lead_id in changed:
        home.simulator.world.update(lead_id, {"company": "Moved & Sons"})
    home.simulator.world.create({"email": "late@example.com", "lastName": "Comer"})
    before = await home.pool.fetchval("SELECT max(changed_at) FROM syncd.lead")
    await home.run(400)
    assert await mirror(home) == truth(home)
    moved = await home.pool.fetch("SELECT lead_id FROM syncd.lead WHERE changed_at > $1 ORDER BY 1", before)
    assert [row["lead_id"] for row in moved][:-1] == changed  # and only they, and the new one, were written


async def test_a_restart_goes_on_at_the_page_it_had_come_to(house: Build) -> None:
    home = await house(pulls=[replace(PULL, window=timedelta(days=30))], leads=1000)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    for _ in range(6):
        await stream.step()
    pages = await home.row("SELECT position, leads FROM syncd.pull_window")
    assert pages["leads"] == 250
    await home.restart()
    await home.run(100)
    assert await mirror(home) == truth(home)
    # 20 pages in all; what had been asked ahead and not written is asked for again, and nothing else
    assert soap_calls(home) <= 20 + 3


async def test_leads_that_another_pull_has_brought_meanwhile_are_no_surprise_to_a_fill(house: Build) -> None:
    """A fill takes leads for new until it meets one that is not, anywhere in a page."""
    other = replace(PULL, name="other", fields=("Title",))
    home = await house(pulls=[replace(PULL, window=timedelta(days=30)), replace(other, window=timedelta(days=30))], leads=400)
    first = next(flow for flow in home.flows if flow.name.startswith("pull people"))
    second = next(flow for flow in home.flows if flow.name.startswith("pull other"))
    for _ in range(4):
        await first.step()
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") == 150
    lead_id = await home.pool.fetchval("SELECT max(lead_id) FROM syncd.lead")
    known = [lead.id for lead in home.simulator.world if lead.id > lead_id][:1]
    await home.pool.execute(
        "INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at) "
        "SELECT 'acme', l, '{\"title\": \"CEO\"}', '{}', $2, $2, $2 FROM unnest($1::bigint[]) l",
        known,
        home.clock.now() - timedelta(hours=1),
    )
    await first.step()
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead") > 151
    for _ in range(3):
        await second.step()
    await home.run(200)
    assert {
        lead_id: (email, {name: value for name, value in values.items() if name != "title"})
        for lead_id, (email, values) in (await mirror(home)).items()
    } == truth(home)
    assert (
        await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE cardinality(ARRAY(SELECT jsonb_object_keys(digests))) = 2") == 400
    )


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RESET_BEFORE,
        Fault.RESET_AFTER,
        Fault.TRUNCATED,
        Fault.HTML_200,
        Fault.HTML_503,
        Fault.GATEWAY_502,
        Fault.SOAP_10001,
        Fault.SOAP_20011,
        Fault.SOAP_20016,
        Fault.SOAP_20023,
    ],
)
async def test_a_passing_fault_costs_time_and_nothing_else(house: Build, fault: Fault) -> None:
    home = await house(pulls=[PULL], leads=120)
    home.simulator.script("soap", fault, 2)
    await home.run(200)
    assert await mirror(home) == truth(home)
    assert sum(home.simulator.report().faults_injected.values()) == 2
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_a_refused_position_begins_the_window_anew_and_splits_it_at_the_third_time(house: Build) -> None:
    home = await house(pulls=[replace(PULL, window=timedelta(days=30))], leads=400)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    for restarts in (1, 2, 3):
        await stream.step()
        home.simulator.script("soap", Fault.SOAP_20122)
        while await home.pool.fetchval("SELECT max(restarts) FROM syncd.pull_window") < restarts:
            await stream.step()
            home.clock.advance(1)
    await home.run(60)
    assert await mirror(home) == truth(home)
    assert await windows(home) == {"split": 1, "done": 2}
    assert await home.pool.fetchval("SELECT restarts FROM syncd.pull_window WHERE state = 'split'") == 3


async def test_wrong_credentials_block_the_pull_which_tries_again_slowly(house: Build) -> None:
    home = await house(pulls=[PULL], leads=50)
    soap = home.instance.soap
    assert soap is not None
    await home.restart(soap=replace(soap, user_id="somebody else"))
    await home.run(60)
    row = await home.row("SELECT state, message, retry_at FROM syncd.pull")
    assert row["state"] == "blocked"
    assert "20014" in row["message"]
    calls = soap_calls(home)
    await home.run(300)
    assert soap_calls(home) == calls, "a blocked pull must not hammer"
    await home.restart(soap=soap)
    await home.run(60)
    assert await mirror(home) == truth(home)


async def test_asking_for_other_fields_pulls_everything_anew(house: Build) -> None:
    home = await house(pulls=[replace(PULL, fields=("FirstName",))], leads=80)
    await home.run(60)
    assert all(set(values) <= {"firstName"} for _, values in (await mirror(home)).values())
    await home.restart(pulls=(PULL,))
    await home.run(60)
    assert await mirror(home) == truth(home)


async def test_a_window_that_brought_fewer_leads_than_promised_is_walked_once_more(house: Build) -> None:
    home = await house(pulls=[replace(PULL, window=timedelta(days=30))], leads=400)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    await stream.step()
    await stream.step()
    home.simulator.world.delete(max(lead.id for lead in home.simulator.world))
    moved = sorted(home.simulator.world, key=lambda lead: lead.updated_at)[-3:]
    home.clock.advance(120)
    for lead in moved:
        home.simulator.world.update(lead.id, {"company": "Elsewhere"})
    await home.run(700)
    walked = await home.pool.fetch("SELECT walks, leads, expected, message FROM syncd.pull_window ORDER BY starts_at")
    assert walked[0]["walks"] == 2
    assert "promised" in walked[0]["message"]
    assert walked[0]["leads"] == walked[0]["expected"] == 396


async def test_the_days_quota_stops_the_pull_until_midnight_central(house: Build) -> None:
    home = await house(pulls=[replace(PULL, every=timedelta(days=1))], leads=900, limits=Limits(calls_per_20s=100, daily_calls=10))
    await home.run(60)
    assert soap_calls(home) + 1 == 10  # describe is the other one
    assert 0 < len(await mirror(home)) < 900
    midnight = datetime(2026, 3, 3, 6, tzinfo=UTC)
    home.clock.advance((midnight - home.clock.now()).total_seconds() - 5)
    await home.run(4)
    assert soap_calls(home) + 1 == 10
    for _ in range(2):
        await home.run(60)
        home.clock.advance(86400)
    assert await mirror(home) == truth(home)


async def test_an_answer_that_another_pulls_later_one_overtook_is_asked_for_again(house: Build) -> None:
    names = replace(PULL, name="names", fields=("FirstName", "LastName"))
    work = replace(PULL, name="work", fields=("Company", "LeadScore"))
    home = await house(pulls=[names, work], leads=40)
    first, second = (flow for flow in home.flows if flow.name.startswith("pull"))
    await first.step()  # plans
    home.simulator.script("soap", Fault.SHORT_PAGE)
    await first.step()  # writes a page, and has asked for the one after it
    home.clock.advance(60)
    for _ in range(6):
        await second.step()  # writes all leads, as of a minute later
    await home.run(60)
    rows = await home.pool.fetch("SELECT attributes FROM syncd.lead")
    held = {name for row in rows for name in orjson.loads(row["attributes"])}
    assert held == {"firstName", "lastName", "company", "leadScore"}
    wanted = sum(len(fields) for _, _, fields in home.simulator.world.truth(("FirstName", "LastName", "Company", "LeadScore")))
    assert sum(len(orjson.loads(row["attributes"])) for row in rows) == wanted


async def test_a_window_stands_as_decided_before_another_stream_may_take_it_up(house: Build) -> None:
    home = await house(pulls=[replace(PULL, window=timedelta(days=30), streams=2)], leads=150)
    first, second = (flow for flow in home.flows if flow.name.startswith("pull"))
    while not await home.pool.fetchval("SELECT max(position) FROM syncd.pull_window"):
        await first.step()
    await first.close()  # pages that are under way might be well
    home.simulator.script("soap", Fault.SOAP_20122)

    async def restart() -> None:
        while await home.pool.fetchval("SELECT max(restarts) FROM syncd.pull_window") == 0:
            await first.step()

    async def waiting(count: int) -> bool:
        return await home.pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") >= count  # type: ignore[no-any-return]

    async with home.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT FROM syncd.pull_window FOR UPDATE")
        restarting = asyncio.ensure_future(restart())
        while not await waiting(1):
            await asyncio.sleep(0)
        walking = asyncio.ensure_future(second.step())
        while not (walking.done() or await waiting(2)):
            await asyncio.sleep(0)
        await transaction.rollback()
    await restarting
    await walking
    await home.run(60)
    assert await mirror(home) == truth(home)
