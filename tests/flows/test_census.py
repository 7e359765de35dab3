"""The census: what the mirror lacks is read, what Marketo has no longer is marked, and it competes with nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.core.extract import BEGINNING
from syncd.core.settings import UpdatedSince
from syncd.core.windows import Window
from syncd.flows.census import CensusTaker
from syncd.simulator import Fault
from syncd.store import cursors, due, status
from tests.flows.conftest import PULL, Build, House
from tests.flows.following import START, calls, flow, follow, mirror, truth

SOAP = replace(PULL, select=UpdatedSince(BEGINNING), window=timedelta(days=30), every=timedelta(minutes=5))
DAY = 86400.0
WEEK = 7 * DAY
OPEN = "SELECT id, starts_at, ends_at FROM syncd.pull_window WHERE pull = '#census' AND state = 'open' ORDER BY id"


async def filled(house: Build, since: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> House:
    """A house whose mirror has all leads; they were created and updated since February."""
    home = await follow(house, [replace(SOAP, select=UpdatedSince(since))])
    await home.run(300)
    home.clock.advance(DAY)
    await home.run(90)
    return home


def counter(home: House) -> CensusTaker:
    found = flow(home, "census")
    assert isinstance(found, CensusTaker)
    return found


async def extract(home: House, most: int = 1000) -> int:
    """Run the census' extracts, as whoever runs extracts does: each window's ids and its end in one transaction."""
    rows = await home.pool.fetch(OPEN)
    assert home.lease is not None
    for row in rows[:most]:
        window, now = Window(row["starts_at"], row["ends_at"]), home.clock.now()
        created = [lead.id for lead in home.simulator.world if window.starts_at.timestamp() <= lead.created <= window.ends_at.timestamp()]
        async with home.lease.transaction() as connection:
            for first in range(0, len(created), 20):
                await counter(home).found(connection, window, created[first : first + 20], now, now)
            await cursors.finish(connection, row["id"], len(created), len(created), now)
    return len(rows)


async def latest(home: House) -> Any:
    return await home.row("SELECT * FROM syncd.census ORDER BY id DESC LIMIT 1")


async def count_all(home: House) -> Any:
    """From the planning of a census to its end."""
    await home.run(10)
    assert await extract(home) > 0
    await home.run(300)
    return await latest(home)


async def test_nothing_has_drifted(house: Build) -> None:
    home = await filled(house)
    with capture_logs() as logs:
        row = await count_all(home)
    assert (row["leads"], row["missing"], row["surplus"], row["message"]) == (50, 0, 0, None)
    assert row["finished_at"] is not None
    assert [line["log_level"] for line in logs if line["event"] == "census"] == ["info"]
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.census_id") == 0
    assert home.simulator.report().leads_read == 0
    assert [pull.name for pull in (await status.read(home.pool, home.clock.now()))[0].pulls] == ["people"]


async def test_what_the_mirror_lacks_is_read(house: Build) -> None:
    home = await filled(house)
    first, second, *_ = home.simulator.world
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id = $1", first.id)
    await home.pool.execute("UPDATE syncd.lead SET deleted_at = $1 WHERE lead_id = $2", START, second.id)
    row = await count_all(home)
    assert (row["missing"], row["surplus"]) == (2, 0)
    assert await mirror(home) == truth(home)
    assert home.metrics.registry.get_sample_value("syncd_drift", {"instance": "acme", "kind": "missing"}) == 2


async def test_what_marketo_has_no_longer_is_marked(house: Build) -> None:
    """Its deletion was pruned from the log before it was read."""
    home = await filled(house)
    first, second, *_ = home.simulator.world
    for lead in (first, second):
        home.simulator.world._remove(lead.id)
    with capture_logs() as logs:
        row = await count_all(home)
    assert (row["leads"], row["missing"], row["surplus"]) == (48, 0, 2)
    assert [line["log_level"] for line in logs if line["event"] == "census"] == ["warning"]
    marked = await home.pool.fetch("SELECT lead_id FROM syncd.lead WHERE deleted_at IS NOT NULL ORDER BY 1")
    assert [row["lead_id"] for row in marked] == [first.id, second.id]
    assert await mirror(home) == truth(home)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_history WHERE field = 'deleted_at'") == 2
    assert home.metrics.registry.get_sample_value("syncd_drift", {"instance": "acme", "kind": "surplus"}) == 2


async def test_what_no_extract_brings_is_asked_for_before_it_is_marked(house: Build) -> None:
    home = await filled(house)
    await home.run(10)
    lead = next(iter(home.simulator.world))
    lead.created = int(datetime(1999, 1, 1, tzinfo=UTC).timestamp())  # older than Marketo: in no window
    await extract(home)
    await home.run(300)
    row = await latest(home)
    assert (row["leads"], row["surplus"]) == (49, 0)
    assert home.simulator.report().leads_read == 1
    assert await mirror(home) == truth(home)


async def test_leads_that_come_while_it_runs_are_neither(house: Build) -> None:
    home = await filled(house)
    await home.run(10)
    await extract(home, 100)
    new = home.simulator.world.create({"lastName": "Late"})
    await home.run(700)
    await extract(home)
    await home.run(300)
    row = await latest(home)
    assert (row["missing"], row["surplus"]) == (0, 0)
    assert new.id in await mirror(home)


async def test_it_comes_again_after_its_time_and_from_where_leads_begin(house: Build) -> None:
    home = await filled(house)
    row = await count_all(home)
    assert row["first_at"] > datetime(2026, 1, 1, tzinfo=UTC)
    windows = await home.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE pull = '#census'")
    assert windows > 240
    first = await home.row("SELECT * FROM syncd.pull_window WHERE pull = '#census' ORDER BY id LIMIT 1")
    assert first["starts_at"] == BEGINNING
    assert (first["source"], first["by_creation"], first["ids_only"]) == ("bulk_extract", True, True)
    await home.run(1000)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.census") == 1
    home.clock.advance(WEEK)
    await home.run(600)
    await counter(home).step()
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.census") == 2
    again = await home.pool.fetch(OPEN)
    assert again[0]["starts_at"] == row["first_at"]
    assert len(again) < 4


async def test_it_waits_for_a_fill_and_for_a_day_more(house: Build) -> None:
    home = await follow(house, [replace(SOAP, select=UpdatedSince(START - timedelta(days=90)))])

    async def begins() -> bool:
        await counter(home).step()
        return await home.pool.fetchval("SELECT count(*) = 1 FROM syncd.census") is True

    assert not await begins(), "the mirror is empty"
    await home.run(300)
    assert not await begins(), "nothing can have been pruned yet"
    home.clock.advance(DAY)
    await home.pool.execute("UPDATE syncd.pull_window SET state = 'open', finished_at = NULL WHERE id = 1")
    assert not await begins(), "windows of long ago are open"
    await home.pool.execute("UPDATE syncd.pull SET closings = 1")
    await home.run(60)
    assert not await begins(), "what moved while the extracts ran is still to come"
    await home.pool.execute("UPDATE syncd.pull SET closings = 0")
    assert await begins()


async def test_a_restart_goes_on(house: Build) -> None:
    home = await filled(house)
    gone = next(iter(home.simulator.world))
    home.simulator.world._remove(gone.id)
    await home.run(10)
    await extract(home, 200)
    await home.restart()
    await extract(home)
    await counter(home).step()
    await home.restart()
    await home.run(200)
    row = await latest(home)
    assert (row["leads"], row["missing"], row["surplus"]) == (49, 0, 1)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.census") == 1


@pytest.mark.parametrize("collected", [False, True])
async def test_a_crash_of_the_database_that_empties_the_ids_marks_nobody(house: Build, collected: bool) -> None:
    home = await filled(house)
    await home.run(10)
    await extract(home, 1000 if collected else 100)
    if collected:
        await counter(home).step()
    await home.pool.execute("TRUNCATE syncd.census_id")
    await home.run(200)
    row = await latest(home)
    assert row["finished_at"] is not None
    assert "crash" in row["message"]
    assert await home.pool.fetch(OPEN) == []
    assert await mirror(home) == truth(home)
    home.clock.advance(86400)
    await home.run(400)
    assert (await count_all(home))["message"] is None


async def test_of_a_pull_that_lets_in_some_absence_tells_nothing(house: Build) -> None:
    """Else each census would read all that the pull drops."""
    home = await filled(house)
    (pull,) = home.instance.pulls
    await home.restart(pulls=(replace(pull, where={"Company": ("Nobody's",)}),))
    await home.run(60)
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id <> $1", next(iter(home.simulator.world)).id)
    row = await count_all(home)
    assert (row["leads"], row["missing"]) == (50, 0)
    assert home.simulator.report().leads_read == 0


async def test_of_leads_from_before_a_pulls_time_absence_tells_nothing(house: Build) -> None:
    since = START - timedelta(days=3)
    home = await filled(house, since)
    held = set(await mirror(home))
    assert 0 < len(held) < 50
    row = await count_all(home)
    assert row["missing"] == 0
    assert set(await mirror(home)) == held


async def test_of_a_pull_that_has_not_come_so_far_absence_tells_nothing(house: Build) -> None:
    home = await filled(house)
    await home.run(10)
    await home.pool.execute("UPDATE syncd.pull SET planned_until = $1 WHERE pull = 'people'", START - timedelta(days=60))
    lead = next(iter(home.simulator.world))
    await home.pool.execute("DELETE FROM syncd.lead WHERE lead_id = $1", lead.id)
    await extract(home)
    assert await due.count(home.pool, "acme", "people") == 0


async def test_a_fault_amid_the_comparison_costs_time_and_nothing_else(house: Build) -> None:
    home = await filled(house)
    gone = next(iter(home.simulator.world))
    home.simulator.world._remove(gone.id)
    home.simulator.script("leads", Fault.REST_611, 2)
    row = await count_all(home)
    assert row["surplus"] == 1
    assert calls(home, "leads") == 3


async def test_without_a_census_there_is_none(house: Build) -> None:
    home = await follow(house, [SOAP])
    await home.restart(census=None)
    await home.run(300)
    home.clock.advance(DAY)
    await home.run(100)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.census") == 0
