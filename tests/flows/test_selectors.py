"""What a pull can select, and what it makes of it: lists and their members, keys, `where`, windows that are shared, backfills."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from syncd.core.settings import Keys, Limits, Pull, StaticList, UpdatedSince
from syncd.simulator import Fault
from syncd.store import backfills
from tests.flows.conftest import FIELDS, PULL, Build, House
from tests.flows.test_pull import mirror, soap_calls, truth, windows

LIST = replace(PULL, select=StaticList("Program.Members"), streams=2)


def keys(*values: str, kind: str = "EMAIL", file: Path | None = None) -> Pull:
    return replace(PULL, select=Keys(kind, values, file))  # type: ignore[arg-type]


async def members(home: House) -> list[tuple[int, bool]]:
    rows = await home.pool.fetch(
        "SELECT lead_id, left_at IS NULL AS is_member FROM syncd.list_membership WHERE list = 'Program.Members' ORDER BY 1"
    )
    return [(row["lead_id"], row["is_member"]) for row in rows]


async def written(home: House) -> Any:
    """Whatever changes when a row of the mirror is written, and how long the history is."""
    rows = [tuple(row) for row in await home.pool.fetch("SELECT lead_id, xmin::text, ctid::text FROM syncd.lead ORDER BY 1")]
    return rows, await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history")


async def test_a_list_is_walked_whole_each_time_and_its_members_come_and_go(house: Build) -> None:
    home = await house(pulls=[LIST], leads=400)
    world = home.simulator.world
    ids = [lead.id for lead in world]
    made = world.create_list("Program.Members", ids[:180])
    await home.run(60)
    assert await members(home) == [(lead_id, True) for lead_id in ids[:180]]
    assert set(await mirror(home)) == set(ids[:180]), "only members come into the mirror"
    assert (await home.row("SELECT planned_until, planned_at FROM syncd.pull"))["planned_until"] is not None
    world = home.simulator.world
    world.remove_members(made.id, ids[:5])
    world.add_members(made.id, ids[190:193])
    await home.run(400)
    assert await members(home) == [
        *((lead_id, lead_id not in ids[:5]) for lead_id in ids[:180]),
        *((lead_id, True) for lead_id in ids[190:193]),
    ]
    joined = await home.pool.fetchval("SELECT joined_at FROM syncd.list_membership WHERE lead_id = $1", ids[0])
    home.simulator.world.add_members(made.id, ids[:1])
    await home.run(400)
    row = await home.row("SELECT joined_at, left_at FROM syncd.list_membership WHERE lead_id = $1", ids[0])
    assert row["left_at"] is None
    assert row["joined_at"] > joined
    assert await windows(home) == {"done": 1}, "the windows of earlier walks are forgotten"


async def test_a_walk_of_a_list_that_was_interrupted_goes_on_and_nobody_leaves_by_it(house: Build) -> None:
    home = await house(pulls=[replace(LIST, streams=1)], leads=400)
    ids = [lead.id for lead in home.simulator.world]
    home.simulator.world.create_list("Program.Members", ids)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    for _ in range(4):
        await stream.step()
    assert 0 < len(await members(home)) < 400
    home.simulator.script("soap", Fault.SOAP_20122)
    await home.restart()
    await home.run(100)
    assert await members(home) == [(lead_id, True) for lead_id in ids]


async def test_a_list_that_is_not_there_blocks_its_pull_and_no_other(house: Build) -> None:
    home = await house(pulls=[replace(LIST, name="list"), PULL], leads=60)
    await home.run(100)
    assert await home.pool.fetchval("SELECT message FROM syncd.pull WHERE pull = 'list' AND state = 'blocked'") is not None
    assert await mirror(home) == truth(home)
    home.simulator.world.create_list("Program.Members", [])
    await home.run(700)
    assert await home.pool.fetchval("SELECT state FROM syncd.pull WHERE pull = 'list'") == "running"


async def test_keys_go_a_hundred_a_call_each_once(house: Build) -> None:
    home = await house(leads=250)
    emails = [lead.email for lead in home.simulator.world if lead.email]
    wanted = list(dict.fromkeys(email.lower() for email in emails))[:205]
    asked = [*wanted, *(email.upper() for email in wanted[:7]), "nobody@nowhere.example"]
    await home.restart(pulls=(replace(keys(*asked), batch_size=200),))
    await home.run(60)
    assert {(email or "").lower() for email, _ in (await mirror(home)).values()} == set(wanted)
    report = home.simulator.report()
    assert not report.violations
    assert soap_calls(home) == 3
    assert await home.pool.fetchval("SELECT count(keys) FROM syncd.pull_window") == 0, "addresses are not kept longer than needed"


async def test_keys_that_nobody_has_are_an_empty_result(house: Build) -> None:
    home = await house(pulls=[keys("nobody@nowhere.example")], leads=20)
    await home.run(30)
    assert await windows(home) == {"done": 1}
    assert await mirror(home) == {}


async def test_a_file_of_keys_is_read_again_at_each_walk(house: Build, tmp_path: Path) -> None:
    home = await house(leads=20)
    ids = [lead.id for lead in home.simulator.world]
    file = tmp_path / "keys.txt"
    file.write_text(f"\ufeff{ids[0]}\n\n  {ids[1]} \r\n{ids[0]}\n\x01\n", "utf-8")
    await home.restart(pulls=(keys(kind="IDNUM", file=file),))
    await home.run(30)
    assert set(await mirror(home)) == set(ids[:2])
    file.unlink()
    await home.run(330)
    row = await home.row("SELECT state, message FROM syncd.pull")
    assert row["state"] == "blocked"
    assert "keys.txt" in row["message"]
    file.write_text("\n".join(map(str, ids)))
    await home.run(900)
    assert set(await mirror(home)) == set(ids)


async def test_one_bad_key_does_not_spoil_the_rest(house: Build) -> None:
    home = await house(leads=20)
    ids = [str(lead.id) for lead in home.simulator.world]
    await home.restart(pulls=(keys(*ids[:2], kind="IDNUM"),))
    home.simulator.script("soap", Fault.SOAP_20102, 2)  # for both, and for the first of them
    await home.run(30)
    assert list(await mirror(home)) == [int(ids[1])]
    assert await windows(home) == {"split": 1, "done": 2}
    assert "passed over" in await home.pool.fetchval("SELECT message FROM syncd.pull_window WHERE leads = 0 AND state = 'done'")


async def test_where_keeps_what_matches_and_counts_what_it_drops(house: Build) -> None:
    home = await house(leads=200)
    world = home.simulator.world
    for number, lead in enumerate(list(world)):
        world.update(lead.id, {"country": ("DE", "AT", "FR")[number % 3]})
    home.clock.advance(90)
    chosen = replace(PULL, fields=("FirstName", "Country"), where={"Country": ("DE", "AT")})
    await home.restart(pulls=(chosen,))
    await home.run(100)
    kept = {lead.id for lead in home.simulator.world if lead.values["country"] != "FR"}
    assert set(await mirror(home)) == kept
    dropped = len(home.simulator.world) - len(kept)
    assert await home.pool.fetchval("SELECT sum(dropped)::int FROM syncd.pull_window") == dropped
    assert home.metrics.registry.get_sample_value("syncd_leads_dropped_total", {"instance": "acme", "pull": "people"}) == dropped
    gone = min(kept)
    home.simulator.world.update(gone, {"country": "FR"})
    await home.run(400)
    assert (await mirror(home))[gone][1]["country"] == "FR", "what is kept stays true"


async def test_one_busy_window_is_shared_so_that_all_streams_have_work(house: Build) -> None:
    busy = replace(PULL, streams=4, window=timedelta(days=10))
    home = await house(leads=20, limits=Limits(calls_per_20s=100, concurrency=5))
    world = home.simulator.world
    for number in range(2_000):
        if number % 20 == 0:
            home.clock.advance(60)
            world = home.simulator.world
        world.create({"email": f"{number}@example.com", "firstName": "B"})
    home.clock.advance(120)
    await home.restart(pulls=(busy,))
    await home.run(100)
    assert await mirror(home) == truth(home)
    assert (await windows(home))["split"] >= 1
    biggest = await home.pool.fetchval("SELECT max(leads) FROM syncd.pull_window WHERE state = 'done'")
    assert biggest <= 2_020 / 3, "the streams shared it"


async def test_a_burst_within_one_second_is_walked_by_one_stream(house: Build) -> None:
    home = await house(pulls=[replace(PULL, streams=4)], leads=200, burst_leads=1_500, limits=Limits(calls_per_20s=100, concurrency=5))
    await home.run(100)
    assert await mirror(home) == truth(home)
    # 34 pages of 50 at least; the search for the second must not cost as much again
    assert soap_calls(home) <= 34 + 20


async def test_the_batch_grows_while_replies_are_quick(house: Build) -> None:
    home = await house(pulls=[replace(PULL, window=timedelta(days=30), batch_size=20)], leads=1_000)
    await home.run(100)
    assert await mirror(home) == truth(home)
    assert soap_calls(home) < 1_000 / 20 * 0.75


async def test_other_fields_backfill_while_news_go_on(house: Build) -> None:
    home = await house(pulls=[replace(PULL, fields=("FirstName",))], leads=200)
    await home.run(100)
    await home.restart(pulls=(PULL,))
    home.clock.advance(120)  # so that there are news
    new = home.simulator.world.create({"email": "new@example.com", "lastName": "First"})
    home.clock.advance(400)
    stream = next(flow for flow in home.flows if flow.name.startswith("pull"))
    while await home.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE backfill_id IS NOT NULL AND leads > 0") == 0:
        await stream.step()
    assert new.id in await mirror(home), "news come before the backfill"
    await home.run(100)
    assert await mirror(home) == truth(home)
    assert await home.pool.fetchval("SELECT finished_at IS NOT NULL FROM syncd.backfill")
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history") == 0, "what was not asked for before has not changed"


async def test_a_backfill_by_hand_begins_within_seconds_and_finds_what_was_lost(house: Build) -> None:
    home = await house(pulls=[PULL], leads=100)
    await home.run(60)
    lost = [lead.id for lead in home.simulator.world][:3]
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id = ANY ($1)", lost)
    async with home.pool.acquire() as connection:
        backfill = await backfills.order(connection, "acme", "people", None, "by hand")
    with capture_logs() as events:
        await home.run(20)
    assert [event["backfill"] for event in events if event["event"] == "backfill_finished"] == [backfill]
    assert await mirror(home) == truth(home)
    progress = await backfills.progress(home.pool, backfill)
    assert progress is not None
    assert progress.finished_at is not None
    assert progress.leads >= 100


@pytest.mark.parametrize("streams", [1, 3])
async def test_two_pulls_of_other_fields_write_nothing_in_an_unmoved_world(house: Build, streams: int) -> None:
    """Issue: after both have run twice, no row was written and no history line added."""
    one = replace(PULL, name="one", fields=("FirstName", "LeadScore"), streams=streams)
    two = replace(PULL, name="two", fields=("LastName", "Company", "LeadScore", "Notes"), streams=streams)
    home = await house(pulls=[one, two, replace(PULL, name="all", fields=())], leads=200)
    await home.run(60)
    before = await written(home)
    assert before[1] == 0
    for pull in ("one", "two", "all"):
        async with home.pool.acquire() as connection:
            await backfills.order(connection, "acme", pull, None, "the second time")
    await home.run(60)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.backfill WHERE finished_at IS NOT NULL") == 3
    assert await written(home) == before


async def test_every_change_between_two_looks_becomes_history_once(house: Build) -> None:
    one = replace(PULL, name="one", fields=("FirstName", "LeadScore"))
    two = replace(PULL, name="two", fields=("LastName", "LeadScore"))
    home = await house(pulls=[one, two], leads=60)
    await home.run(60)
    lead = next(iter(home.simulator.world))
    before = dict(lead.values)
    home.clock.advance(30)
    home.simulator.world.update(lead.id, {"leadScore": "77", "firstName": "New"})
    await home.run(400)
    rows = await home.pool.fetch("SELECT lead_id, field, old, new FROM syncd.lead_history ORDER BY field")

    def text(value: Any) -> str | None:
        return None if value is None else str(orjson.loads(value))

    assert [(row["lead_id"], row["field"], text(row["old"]), text(row["new"])) for row in rows] == [
        (lead.id, "firstName", before.get("firstName"), "New"),
        (lead.id, "leadScore", before.get("leadScore"), "77"),
    ]


async def test_a_clock_that_was_ahead_costs_no_update(house: Build) -> None:
    home = await house(pulls=[replace(PULL, every=timedelta(minutes=1))], leads=50, clock_skew=-200.0)
    ahead = timedelta(seconds=200)
    await home.run(60)
    until = await home.pool.fetchval("SELECT planned_until FROM syncd.pull")
    home.clock.advance(90)
    await home.run(60)
    assert await home.pool.fetchval("SELECT planned_until FROM syncd.pull") <= home.clock.now() - ahead + timedelta(seconds=3)
    assert until is not None


async def test_windows_that_a_clock_ahead_has_planned_are_planned_once_more(house: Build) -> None:
    home = await house(pulls=[replace(PULL, every=timedelta(minutes=1))], leads=50)
    await home.run(30)
    await home.pool.execute(
        """INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, state, planned_at, finished_at)
           VALUES ('acme', 'people', 'soap', $1, $2, 'done', $2, $2)""",
        home.clock.now() - timedelta(minutes=2),
        home.clock.now() + timedelta(days=2),
    )
    await home.pool.execute("UPDATE syncd.pull SET planned_until = $1, planned_at = $1", home.clock.now() + timedelta(days=2))
    home.simulator.world.create({"email": "after@example.com", "lastName": "Step"})
    await home.run(300)
    assert await mirror(home) == truth(home)


def test_the_fields_of_this_file_are_known() -> None:
    assert set(FIELDS) >= {"FirstName", "LeadScore"}
    assert UpdatedSince(datetime(2026, 2, 1, tzinfo=UTC)) == PULL.select
