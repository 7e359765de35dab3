"""Leads that are due: read by their ids, 300 at a time, and due until an answer that was asked for later is written."""

from datetime import timedelta

import orjson
import pytest

from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.values import LeadRecord
from syncd.flows.loop import Idle
from syncd.simulator import Fault
from syncd.store import due, gone, leads
from syncd.store.due import Reason
from syncd.store.gone import Gone
from syncd.store.leads import Asker
from tests.flows.conftest import FIELDS, PULL, Build, House
from tests.flows.following import FOLLOW, calls, changed, flow, follow, mirror, truth


async def note(home: House, *ids: int, pull: str = "people", reason: Reason = "census") -> None:
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await due.note(connection, "acme", pull, ids, reason, home.clock.now())


async def count(home: House) -> int:
    return await due.count(home.pool, "acme", "people")


async def test_three_hundred_a_call_and_the_next_ones_asked_for_meanwhile(house: Build) -> None:
    home = await follow(house, leads=700)
    await note(home, *(lead.id for lead in home.simulator.world))
    home.clock.advance(1)
    fetcher = flow(home, "fetch")
    await fetcher.step()
    assert await count(home) == 400
    await fetcher.step()
    await fetcher.step()
    assert isinstance(await fetcher.step(), Idle)
    assert await mirror(home) == truth(home)
    assert calls(home, "leads") == 3
    assert "syncd_due_seconds" in {name for name, _, _ in home.metrics.samples()}


async def test_news_do_not_wait_behind_a_fill(house: Build) -> None:
    home = await follow(house, leads=1500)
    ids = [lead.id for lead in home.simulator.world]
    await note(home, *ids[:1400], reason="listed")
    home.clock.advance(1)
    fetcher = flow(home, "fetch")
    await fetcher.step()
    await note(home, ids[1399], ids[1400], reason="changed")
    home.clock.advance(1)
    for _ in range(2):  # the batch that was asked for already, and the next
        await fetcher.step()
    assert {ids[1399], ids[1400]} <= set(await mirror(home))
    assert await count(home) > 500


async def test_an_id_without_a_lead_is_no_error(house: Build) -> None:
    home = await follow(house)
    lead = next(iter(home.simulator.world))
    await note(home, lead.id, 999_999, 2**62)
    await home.run(10)
    assert await count(home) == 0
    assert await mirror(home) == truth(home, lead.id)


async def test_what_is_noted_while_its_answer_is_under_way_stays_due(house: Build) -> None:
    home = await follow(house)
    first, second, *_ = home.simulator.world
    await note(home, first.id, second.id)
    home.clock.advance(1)
    fetcher = flow(home, "fetch")
    await fetcher._ask()  # type: ignore[attr-defined]
    await fetcher._in_flight[0].answer  # type: ignore[attr-defined]
    home.clock.advance(1)
    await note(home, second.id, reason="changed")
    await fetcher.step()
    assert await count(home) == 1
    home.clock.advance(1)
    await fetcher.step()
    assert await count(home) == 0


async def test_an_answer_that_another_pulls_overtook_is_asked_for_again(house: Build) -> None:
    home = await follow(house)
    first, second, *_ = home.simulator.world
    await note(home, first.id, second.id)
    home.clock.advance(1)
    fetcher = flow(home, "fetch")
    await fetcher._ask()  # type: ignore[attr-defined]
    await fetcher._in_flight[0].answer  # type: ignore[attr-defined]
    home.clock.advance(5)
    others = Asker("others", "abcdef", ["phone"], {"people": ["company"]})
    row = mirror_row(LeadRecord(second.id, second.email, [("phone", "string", "1")]), Dictionary({}))
    async with home.pool.acquire() as connection:
        await leads.upsert(connection, "acme", others, [row], home.clock.now(), home.clock.now())
    home.clock.advance(1)
    await fetcher.step()
    assert await count(home) == 1
    assert set(await mirror(home)) == {first.id, second.id}
    await fetcher.step()
    assert await count(home) == 0
    held = await home.pool.fetchval("SELECT attributes FROM syncd.lead WHERE lead_id = $1", second.id)
    assert orjson.loads(held).keys() == {*truth(home, second.id)[second.id][1], "phone"}


async def test_an_answer_from_before_a_deletion_does_not_bring_the_lead_back(house: Build) -> None:
    home = await follow(house)
    lead = next(iter(home.simulator.world))
    await note(home, lead.id)
    home.clock.advance(1)
    await home.run(5)
    await note(home, lead.id)
    home.clock.advance(1)
    fetcher = flow(home, "fetch")
    await fetcher._ask()  # type: ignore[attr-defined]
    await fetcher._in_flight[0].answer  # type: ignore[attr-defined]
    home.clock.advance(2)
    home.simulator.world.delete(lead.id)
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await gone.note(connection, "acme", [Gone(lead.id, home.clock.now())], home.clock.now(), True)
    home.clock.advance(1)
    await home.run(10)
    assert await mirror(home) == {}
    assert await count(home) == 0


async def test_a_pull_over_soap_reads_winners_and_finds_by_rest_what_rest_can_name(house: Build) -> None:
    """It neither empties what only SOAP can tell, nor asks for it; the answers of both sources don't undo each other."""
    home = await follow(house, [changed(PULL, fields=(), window=timedelta(days=30))], leads=20)
    await home.run(120)
    before = await mirror(home)
    assert {field.soap for field in home.simulator.world.catalogue if field.rest is None}, "the simulator has fields of SOAP alone"
    wanted = {lead_id: (email, fields) for lead_id, email, fields in home.simulator.world.truth()}
    assert {lead_id: fields.keys() for lead_id, (_, fields) in before.items()} == {i: fields.keys() for i, (_, fields) in wanted.items()}
    lead = next(iter(home.simulator.world))
    home.simulator.world.write(lead, {"company": "Moved, and nobody told"})
    await note(home, lead.id, reason="winner")
    await home.run(20)
    after = await mirror(home)
    assert after[lead.id][1].pop("company") == "Moved, and nobody told"
    before[lead.id][1].pop("company", None)
    assert after == before


async def test_where_lets_in_what_it_lets_in_of_any_source(house: Build) -> None:
    home = await follow(house, [changed(where={"Company": ("In",), "Email": ("in@example.com",)})])
    inside, outside, *_ = home.simulator.world
    home.simulator.world.update(inside.id, {"company": "In", "email": "in@example.com"})
    home.simulator.world.update(outside.id, {"company": "In"})
    await note(home, inside.id, outside.id)
    await home.run(20)
    assert set(await mirror(home)) == {inside.id}
    assert await count(home) == 0


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.TRUNCATED, Fault.JSON_GARBAGE, Fault.REST_602, Fault.REST_606, Fault.REST_611])
async def test_a_passing_fault_costs_time_and_nothing_else(house: Build, fault: Fault) -> None:
    home = await follow(house)
    home.simulator.script("leads", fault, 2)
    await note(home, *(lead.id for lead in home.simulator.world))
    await home.run(120)
    assert await mirror(home) == truth(home)
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_fewer_at_a_time_where_they_are_too_much_for_marketo(house: Build) -> None:
    home = await follow(house, leads=300)
    fetcher = flow(home, "fetch")
    fetcher._batch = fetcher._batch.failed(300)  # type: ignore[attr-defined]
    await note(home, *(lead.id for lead in home.simulator.world))
    await home.run(60)
    assert await mirror(home) == truth(home)
    assert calls(home, "leads") == 2


async def test_fields_that_vanish_are_not_asked_for(house: Build) -> None:
    home = await follow(house, [changed(FOLLOW, fields=(*FIELDS, "Phone"))])
    await home.run(20)
    home.simulator.world.catalogue.remove("phone")
    home.clock.advance(3600)
    lead = next(iter(home.simulator.world))
    home.simulator.world.update(lead.id, {"company": "Moved"})
    await home.run(400)
    assert (await mirror(home))[lead.id][1]["company"] == "Moved"
