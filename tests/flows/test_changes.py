"""Following the activity log: nothing missed, nothing read twice, whatever pages and tokens do."""

import json
from datetime import datetime, timedelta

import pytest

from syncd.core.settings import UpdatedSince
from syncd.simulator import ActivityModel, Fault, Movement
from syncd.store import due
from tests.flows.conftest import Build, House
from tests.flows.following import FOLLOW, START, calls, changed, flow, follow, gateway, mirror, refusal, truth


async def watermark(home: House) -> datetime:
    return await home.pool.fetchval("SELECT planned_until FROM syncd.pull")  # type: ignore[no-any-return]


async def test_new_and_changed_leads_come_into_the_mirror_and_others_do_not(house: Build) -> None:
    home = await follow(house)
    world = home.simulator.world
    await home.run(60)
    moved = [lead.id for lead in world][:3]
    for lead_id in moved:
        world.update(lead_id, {"company": "Moved & Sons"})
    new = world.create({"email": "late@example.com", "lastName": "Comer"})
    world.update(moved[-1] + 1, {"phone": "1"})  # nobody asks for it
    await home.run(400)
    assert await mirror(home) == truth(home, *moved, new.id)
    world.update(new.id, {"lastName": ""})
    await home.run(400)
    assert await mirror(home) == truth(home, *moved, new.id)
    assert home.simulator.report().leads_read == 5, "the overlap is read again, its leads are not"
    assert calls(home, "paging_token") == 4, "one for each stream: changes, scores, deletions, merges"
    assert calls(home, "lead_changes") == 3, "one each five minutes"


async def test_a_score_is_followed_where_it_is_asked_for(house: Build) -> None:
    home = await follow(house, [FOLLOW, changed(name="names", fields=("FirstName",))])
    lead = next(iter(home.simulator.world))
    await home.run(60)
    home.simulator.world.update(lead.id, {"leadScore": "7777"})
    await home.run(400)
    assert await mirror(home) == truth(home, lead.id)
    assert await home.pool.fetchval("SELECT digests FROM syncd.lead") != "{}"
    assert await home.pool.fetchval("SELECT digests ? 'names' FROM syncd.lead") is False


async def test_the_address_is_followed_by_whoever_asks_for_anything(house: Build) -> None:
    home = await follow(house, [changed(fields=("Company",))])
    lead = next(iter(home.simulator.world))
    await home.run(60)
    home.simulator.world.update(lead.id, {"email": "new@example.com"})
    await home.run(400)
    assert await home.pool.fetchval("SELECT email FROM syncd.lead") == "new@example.com"


async def test_a_pull_of_everything(house: Build) -> None:
    home = await follow(house, [changed(fields=())])
    lead = next(iter(home.simulator.world))
    await home.run(60)
    home.simulator.world.update(lead.id, {"phone": "1", "leadScore": "12345678901234567890123"})
    await home.run(400)
    attributes = await home.pool.fetchval("SELECT attributes FROM syncd.lead")
    assert '"phone": "1"' in attributes
    assert '"leadScore": 12345678901234567890123' in attributes
    assert json.loads(attributes).keys() == set(next(iter(home.simulator.world.rest_truth()))[2])


async def test_pages_that_are_short_or_empty_are_not_the_end(house: Build) -> None:
    home = await follow(house, activities=ActivityModel(short_pages=0.5), leads=900)
    await home.run(30)
    for lead in home.simulator.world:
        home.simulator.world.update(lead.id, {"company": "All moved"})
    home.simulator.script("lead_changes", Fault.SHORT_ACTIVITY_PAGE, 2)
    await home.run(600)
    assert await mirror(home) == truth(home)
    assert home.simulator.report().leads_read == 900
    assert calls(home, "leads") <= 7, "a page's leads are not asked for one by one"


@pytest.mark.parametrize("every", [300, 1200])
async def test_what_is_committed_late_is_not_missed(house: Build, every: int) -> None:
    """Nearly as late as the overlap of fifteen minutes, however far apart the looks are: no lead that moved before then is behind."""
    late = ActivityModel(late_share=0.5, late_seconds=840, short_pages=0.2)
    pull, movement = changed(every=timedelta(seconds=every)), Movement(updates_per_second=0.5, creations_per_second=0.1)
    home = await follow(house, pulls=[pull], activities=late, movement=movement, leads=300)
    await home.run(3000 + every)
    start, calm = START.timestamp(), home.clock.now().timestamp() - 840 - every - 60
    told = {lead.id for lead in home.simulator.world if lead.created > start and lead.updated < calm}
    assert len(told) > 30
    held, expected = await mirror(home), truth(home)
    assert told <= set(held)
    settled = {lead.id for lead in home.simulator.world if lead.id in held and lead.updated < calm}
    assert {lead_id: held[lead_id] for lead_id in settled} == {lead_id: expected[lead_id] for lead_id in settled}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.activity_token") < 20


async def test_a_token_longer_than_an_address_may_be(house: Build) -> None:
    home = await follow(house, activities=ActivityModel(short_pages=0.3, token_chars=9000))
    await home.run(30)
    for lead in home.simulator.world:
        home.simulator.world.update(lead.id, {"company": "All moved"})
    await home.run(400)
    assert await mirror(home) == truth(home)
    assert await home.pool.fetchval("SELECT min(length(token)) FROM syncd.activity_token") >= 9000


async def test_a_restart_amid_a_look_loses_and_repeats_nothing(house: Build) -> None:
    home = await follow(house, leads=900)
    await home.run(30)
    for lead in home.simulator.world:
        home.simulator.world.update(lead.id, {"company": "All moved"})
    home.clock.advance(300)
    before = calls(home, "lead_changes")
    await flow(home, "changes").step()
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_due") == 300
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.activity_token WHERE under_way") == 1
    await home.restart()
    await flow(home, "changes").step()
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_due") == 600
    await flow(home, "fetch").step()
    await home.restart()
    await home.run(60)
    assert calls(home, "lead_changes") - before == 3
    assert await mirror(home) == truth(home)
    # 300 were written before the second restart, 300 asked ahead and not written
    assert home.simulator.report().leads_read <= 1200


async def test_the_watermark_is_the_start_of_the_last_look_less_the_margin(house: Build) -> None:
    home = await follow(house)
    assert await watermark(home) == START
    began = home.clock.now()
    await home.run(200)
    assert began - FOLLOW.margin <= await watermark(home) <= began - FOLLOW.margin + timedelta(seconds=5) or await watermark(home) == START
    await home.run(400)
    assert await watermark(home) > began
    await home.run(400)
    assert home.clock.now() - await watermark(home) < timedelta(minutes=7)


async def test_what_a_former_source_has_left_is_where_the_log_begins(house: Build) -> None:
    home = await follow(house, [changed(select=UpdatedSince(START - timedelta(days=300)))])
    await home.pool.execute("UPDATE syncd.pull SET planned_until = $1, planned_at = $1", START - timedelta(minutes=1))
    await flow(home, "changes").step()
    looked = await home.pool.fetchval("SELECT min(looked_at) FROM syncd.activity_token WHERE stream = 'pull people'")
    assert looked == START - timedelta(minutes=1) - FOLLOW.overlap


async def test_beside_a_fill_the_log_begins_before_it_and_moves_no_watermark_until_it_is_planned(house: Build) -> None:
    since = START - timedelta(days=300)
    home = await follow(house, [changed(source="auto", select=UpdatedSince(since))])
    await home.run(400)
    looked = await home.pool.fetchval("SELECT min(looked_at) FROM syncd.activity_token WHERE stream = 'pull people'")
    assert timedelta() <= looked - (START - FOLLOW.overlap) < timedelta(seconds=10)
    assert await watermark(home) == since
    await home.pool.execute("UPDATE syncd.pull SET planned_until = $1, planned_at = $1", START)
    await home.run(400)
    assert await watermark(home) > START + timedelta(minutes=5)


async def test_a_refused_token_is_replaced_by_one_from_before_the_last_look(house: Build) -> None:
    home = await follow(house)
    await home.run(60)
    lead = next(iter(home.simulator.world))
    home.simulator.world.update(lead.id, {"company": "Moved"})
    await home.pool.execute("UPDATE syncd.activity_token SET token = 'expired' WHERE stream LIKE 'pull%'")
    await home.run(400)
    assert await mirror(home) == truth(home, lead.id)
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"
    assert calls(home, "paging_token") == 6


async def test_a_question_that_is_refused_by_any_token_blocks_the_pull_and_calls_little(house: Build) -> None:
    home = await follow(house)
    await home.run(60)
    refused = True
    async with gateway(home, lambda path: refusal("1003") if refused and path.endswith("leadchanges.json") else None):
        before = calls(home, "paging_token")
        await home.run(30)
        assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "blocked"
        assert calls(home, "paging_token") == before + 1
        await home.run(1300)
        assert calls(home, "paging_token") <= before + 3, "one more with each slow retry"
        refused = False
        await home.run(700)
        assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"


async def test_without_the_right_the_pull_is_blocked_and_says_what_to_ask_for(house: Build) -> None:
    home = await follow(house, activities_allowed=False)
    await home.run(60)
    row = await home.row("SELECT state, message FROM syncd.pull")
    assert row["state"] == "blocked"
    assert "603" in row["message"]
    assert '"Read-Only Activity"' in row["message"]
    before = calls(home, "paging_token")
    await home.run(300)
    assert calls(home, "paging_token") == before + 1, "that of the deletions, which stepped anew"


async def test_a_backfill_reads_what_the_mirror_has_and_the_log_from_its_beginning(house: Build) -> None:
    home = await follow(house)
    await home.run(30)
    first, second, *_ = home.simulator.world
    home.simulator.world.update(first.id, {"company": "Moved"})
    home.simulator.world.update(second.id, {"phone": "1"})
    await home.run(400)
    assert set(await mirror(home)) == {first.id}
    await home.restart(pulls=(changed(fields=(*FOLLOW.fields, "Phone")),))
    await home.run(400)
    assert set(await mirror(home)) == {first.id, second.id}, "the log from `since` on tells of the other one"
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.backfill WHERE finished_at IS NULL") == 0


async def test_a_pull_that_follows_windows_rests(house: Build) -> None:
    home = await follow(house)
    await home.pool.execute("UPDATE syncd.pull SET follows = 'windows'")
    await home.run(60)
    assert calls(home, "lead_changes") == 0


async def test_a_paused_pull_reads_nothing(house: Build) -> None:
    home = await follow(house)
    await home.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    async with home.pool.acquire() as connection:
        await due.note(connection, "acme", "people", [next(iter(home.simulator.world)).id], "changed", home.clock.now())
    await home.run(60)
    assert calls(home, "lead_changes") == calls(home, "leads") == 0
