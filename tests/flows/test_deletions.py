"""Deletions and merges: what is gone is marked, whatever was in flight; winners are read again; and their faults hold up nothing."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.values import LeadRecord
from syncd.simulator import ActivityModel
from syncd.store import activities, due, leads, story
from syncd.store.leads import Asker
from tests.flows.conftest import PULL, Build, House
from tests.flows.following import FOLLOW, calls, changed, flows_of, follow, gateway, mirror, refusal, truth

SOAP = replace(PULL, window=timedelta(days=30), every=timedelta(minutes=5))


async def marks(home: House) -> dict[int, tuple[Any, int | None]]:
    rows = await home.pool.fetch("SELECT lead_id, deleted_at, merged_into FROM syncd.lead WHERE deleted_at IS NOT NULL")
    return {row["lead_id"]: (row["deleted_at"], row["merged_into"]) for row in rows}


async def filled(house: Build, **simulated: object) -> House:
    """A house whose mirror has all leads over SOAP."""
    home = await follow(house, [SOAP], None, **simulated)
    await home.run(100)
    assert await mirror(home) == truth(home)
    return home


async def test_a_deletion_is_marked_and_told(house: Build) -> None:
    home = await filled(house)
    lead_id = next(iter(home.simulator.world)).id
    at = home.clock.now().replace(microsecond=0)
    home.simulator.world.delete(lead_id)
    await home.run(400)
    assert set(await marks(home)) == {lead_id}
    deleted_at, merged_into = (await marks(home))[lead_id]
    assert merged_into is None
    assert at < deleted_at <= at + timedelta(seconds=2)
    assert await mirror(home) == truth(home)
    (told,) = await story.stories(home.pool, "acme", str(lead_id), {}, 10)
    assert [type(event).__name__ for event in told.events] == ["Seen", "Deleted"]
    assert home.metrics.registry.get_sample_value("syncd_leads_gone_total", {"instance": "acme"}) == 1
    await home.run(900)
    assert home.metrics.registry.get_sample_value("syncd_leads_gone_total", {"instance": "acme"}) == 1, "the overlap is read again"


@pytest.mark.parametrize("deletions_too", [False, True])
async def test_a_merge_marks_the_losers_and_has_the_winner_read_again(house: Build, deletions_too: bool) -> None:
    """Over leads.json, as the winner's update would come over SOAP only much later."""
    home = await filled(house, merges_are_deletions=deletions_too)
    await home.restart(pulls=(replace(SOAP, every=timedelta(days=1)),))
    winner, one, two, *_ = home.simulator.world
    home.simulator.world.write(winner, {"company": ""})
    home.simulator.world.write(one, {"company": "The loser's"})
    home.simulator.world.merge(winner.id, [one.id, two.id])
    await home.run(400)
    assert {lead_id: into for lead_id, (_, into) in (await marks(home)).items()} == {one.id: winner.id, two.id: winner.id}
    assert (await mirror(home))[winner.id] == truth(home)[winner.id]
    assert (await mirror(home))[winner.id][1]["company"] == "The loser's"
    assert home.simulator.report().leads_read == 1
    assert await due.count(home.pool, "acme", "people") == 0


async def test_a_page_from_before_a_deletion_that_is_written_after_it(house: Build) -> None:
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    asked_at = home.clock.now()
    home.clock.advance(5)
    home.simulator.world.delete(lead.id)
    new_id = 77_777
    home.clock.advance(200)
    await home.run(200)
    assert set(await marks(home)) == {lead.id}
    rows = [mirror_row(LeadRecord(each, "a@x", []), Dictionary({})) for each in (lead.id, new_id)]
    async with home.pool.acquire() as connection:
        upserted = await leads.upsert(connection, "acme", Asker("people", "000000", None), rows, asked_at, home.clock.now())
    assert upserted.refused == 1
    assert set(await marks(home)) == {lead.id}


async def test_one_that_the_mirror_did_not_have_is_marked_when_an_older_page_brings_it(house: Build) -> None:
    home = await filled(house)
    lead = home.simulator.world.create({"lastName": "Brief"})
    home.clock.advance(2)
    asked_at = home.clock.now()
    home.clock.advance(2)
    home.simulator.world.delete(lead.id)
    await home.run(350)
    async with home.pool.acquire() as connection:
        row = mirror_row(LeadRecord(lead.id, None, []), Dictionary({}))
        await leads.upsert(connection, "acme", Asker("people", "000000", None), [row], asked_at, home.clock.now())
    assert lead.id in await mirror(home)
    await home.run(400)
    assert lead.id in await marks(home)


async def test_a_slow_database_does_not_date_a_deletion_before_it(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await filled(house)
    lead_id = next(iter(home.simulator.world)).id
    home.clock.advance(400)
    real = activities.unseen

    async def slow(*given: Any) -> Any:
        home.clock.advance(5)
        return await real(*given)

    monkeypatch.setattr(activities, "unseen", slow)
    at = home.clock.now()
    home.simulator.world.delete(lead_id)
    await home.run(20)
    assert at <= (await marks(home))[lead_id][0] <= at + timedelta(seconds=2)


async def test_a_late_look_marks_what_an_older_page_brought(house: Build) -> None:
    """Looks may be far apart: while the log can't be read, say."""
    home = await filled(house)
    lead = home.simulator.world.create({"lastName": "Brief"})
    home.clock.advance(2)
    asked_at = home.clock.now()
    home.clock.advance(2)
    home.simulator.world.delete(lead.id)
    await home.run(350)
    async with home.pool.acquire() as connection:
        row = mirror_row(LeadRecord(lead.id, None, []), Dictionary({}))
        await leads.upsert(connection, "acme", Asker("people", "000000", None), [row], asked_at, home.clock.now())
    home.clock.advance(3600)
    await home.run(10)
    assert lead.id in await marks(home)


@pytest.mark.parametrize("restarted", [False, True])
async def test_what_an_unfinished_export_was_asked_for_is_looked_at_again(house: Build, restarted: bool) -> None:
    """Loaded between two looks, it is not unfinished any more at either end of them."""
    home = await filled(house)
    unfinished = True
    lead = home.simulator.world.create({"lastName": "Brief"})
    home.clock.advance(2)
    asked_at = home.clock.now()
    home.clock.advance(2)
    home.simulator.world.delete(lead.id)

    async def oldest_export() -> Any:
        return asked_at if unfinished else None

    deletions = next(flow for flow in home.flows if flow.name == "deletions")
    deletions._oldest_export = oldest_export  # type: ignore[attr-defined]
    await home.run(3600)
    async with home.pool.acquire() as connection:
        row = mirror_row(LeadRecord(lead.id, None, []), Dictionary({}))
        await leads.upsert(connection, "acme", Asker("people", "000000", None), [row], asked_at, home.clock.now())
    unfinished = False
    if restarted:
        await home.restart()
    await home.run(400)
    assert lead.id in await marks(home)


async def test_a_lead_that_comes_back_lives(house: Build) -> None:
    """Ids are not used again, yet what Marketo says last is what counts."""
    home = await filled(house)
    lead = next(iter(home.simulator.world))
    home.simulator.world.delete(lead.id)
    await home.run(400)
    assert set(await marks(home)) == {lead.id}
    home.simulator.world._leads[lead.id] = lead
    home.simulator.world.touch([lead], home.clock.now().timestamp(), [])
    await home.run(900)
    assert await marks(home) == {}
    assert (await mirror(home))[lead.id] == truth(home)[lead.id]
    (told,) = await story.stories(home.pool, "acme", str(lead.id), {}, 10)
    assert [type(event).__name__ for event in told.events] == ["Seen", "Deleted", "Changed"]


async def test_many_at_once_committed_late_on_short_pages(house: Build) -> None:
    late = ActivityModel(late_share=0.5, late_seconds=600, short_pages=0.3)
    home = await filled(house, activities=late, leads=900)
    world = home.simulator.world
    odd = [lead.id for lead in world if lead.id % 2]
    for lead_id in odd:
        if lead_id % 5:
            world.delete(lead_id)
        else:
            world.merge(lead_id + 1, [lead_id])
    await home.run(1300)
    marked = await marks(home)
    assert set(marked) == set(odd)
    assert {lead_id: into for lead_id, (_, into) in marked.items() if into} == {each: each + 1 for each in odd if not each % 5}
    assert await mirror(home) == truth(home)


async def test_the_log_is_read_as_far_back_as_it_goes_where_leads_may_have_gone(house: Build) -> None:
    home = await house(pulls=[SOAP], leads=20, activities=ActivityModel(short_pages=0.0))
    await home.run(100)
    lead = next(iter(home.simulator.world))
    home.simulator.world.delete(lead.id)
    home.clock.advance(6 * 86400)
    home.also = flows_of
    await home.restart()
    await home.run(100)
    assert lead.id in await marks(home)


async def test_without_the_right_nothing_else_stops_and_it_is_told_once(house: Build) -> None:
    home = await follow(house, [SOAP], activities_allowed=False)
    with capture_logs() as logs:
        await home.run(2000)
    assert await mirror(home) == truth(home)
    told = [line for line in logs if line["event"] == "deletions_unknown"]
    assert len(told) == 1
    assert '"Read-Only Activity"' in told[0]["remedy"]
    assert calls(home, "paging_token") <= 5
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_it_goes_on_where_it_was_after_a_refusal(house: Build) -> None:
    home = await filled(house)
    lead_id = next(iter(home.simulator.world)).id
    refusing = True
    async with gateway(home, lambda path: refusal("603") if refusing and path.endswith("deletedleads.json") else None):
        home.simulator.world.delete(lead_id)
        await home.run(700)
        assert await marks(home) == {}
        refusing = False
        await home.run(700)
        assert set(await marks(home)) == {lead_id}


async def test_history_can_be_off(house: Build) -> None:
    home = await filled(house)
    await home.restart(history=None)
    home.simulator.world.delete(next(iter(home.simulator.world)).id)
    await home.run(400)
    assert len(await marks(home)) == 1
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history WHERE pull = '#deletions'") == 0


async def test_the_winner_is_read_for_each_pull_that_has_one_of_the_merged(house: Build) -> None:
    home = await follow(house, [SOAP, changed(FOLLOW, name="news", fields=("Phone",))])
    await home.run(100)
    winner, loser, other, *_ = home.simulator.world
    home.simulator.world.update(loser.id, {"phone": "49"})
    await home.run(400)
    home.simulator.world.write(winner, {"phone": ""})
    home.simulator.world.merge(winner.id, [loser.id])
    home.simulator.world.merge(next(lead.id for lead in home.simulator.world if lead.id > other.id), [other.id])
    await home.run(400)
    digests = json.loads(await home.pool.fetchval("SELECT digests FROM syncd.lead WHERE lead_id = $1", winner.id))
    assert digests.keys() == {"people", "news"}
