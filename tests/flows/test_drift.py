"""Fields come, go and change their type while the daemon runs: no restart, the mirror is completed, the typed view follows."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from syncd.core.settings import Instance
from syncd.flows.dictionary import Dictionaries
from syncd.flows.loop import Idle
from syncd.ops.clock import ManualClock
from syncd.ops.metrics import Metrics
from syncd.simulator.fields import Field
from syncd.store.leases import Lease, Pool
from tests.conftest import in_database
from tests.flows.conftest import PULL, Build, House
from tests.store.conftest import lease

__all__ = ["lease"]

DAY = timedelta(days=1)
EVERYTHING = replace(PULL, fields=(), every=timedelta(hours=6), window=timedelta(days=30))
NAMED = replace(EVERYTHING, name="named", fields=("FirstName", "Region"))
REGION = Field(99, "Sales Region", "string", "region", "Region", 64)
BACKFILLS = "SELECT pull, since, reason FROM syncd.backfill ORDER BY pull"
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) AS type
  FROM pg_attribute WHERE attrelid = 'syncd.lead_acme'::regclass AND attnum > 6 ORDER BY attnum
"""


async def columns(pool: Pool) -> dict[str, str]:
    return {row["attname"]: row["type"] for row in await pool.fetch(COLUMNS)}


def told(events: Sequence[Any], name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key not in ("event", "instance")} for event in events if event["event"] == name]


async def next_day(home: House) -> None:
    """A day passes at a stroke, for stepping through it takes long; then there is time for what is due."""
    home.clock.advance(DAY.total_seconds())
    await home.run(900)


def counted(house: House) -> dict[str, float]:
    return {labels["kind"]: value for name, labels, value in house.metrics.samples() if name == "syncd_field_drift_total"}


async def test_a_new_field_is_pulled_of_all_leads_without_a_restart(house: Build) -> None:
    others = replace(PULL, name="others", fields=("LastName",), every=timedelta(hours=6), window=timedelta(days=30))
    home = await house(pulls=[EVERYTHING, NAMED, others], leads=60)
    await home.run(600)
    assert await home.pool.fetch(BACKFILLS) == [], "the first answer of describe is no drift"
    assert "region" not in await columns(home.pool)
    home.simulator.add_field(REGION)
    world = home.simulator.world
    for lead in list(world):
        world.update(lead.id, {"region": f"R{lead.id}"})
    with capture_logs() as events:
        await next_day(home)
    assert told(events, "field_appeared") == [
        {"field": "region", "type": "string", "backfilled": ["people", "named"], "log_level": "info"},
    ]
    assert [tuple(row) for row in await home.pool.fetch(BACKFILLS)] == [
        ("named", None, "new in Marketo: region"),
        ("people", None, "new in Marketo: region"),
    ]
    wanted = {lead.id: f"R{lead.id}" for lead in world}
    rows = await home.pool.fetch("SELECT lead_id, region FROM syncd.lead_acme")
    assert {row["lead_id"]: row["region"] for row in rows} == wanted
    assert list(await columns(home.pool))[-1] == "region"
    assert counted(home) == {"appeared": 1, "vanished": 0, "retyped": 0}


async def test_a_vanished_field_stays_in_the_data_and_is_told(house: Build) -> None:
    home = await house(pulls=[NAMED, replace(NAMED, name="wide", fields=())], leads=30)
    await home.run(600)
    before = await home.pool.fetch("SELECT lead_id, first_name FROM syncd.lead_acme ORDER BY 1")
    shown = await columns(home.pool)
    home.simulator.remove_field("firstName")
    home.simulator.add_field(REGION)
    with capture_logs() as events:
        await next_day(home)
    [vanished] = told(events, "field_vanished")
    assert (vanished["field"], vanished["pulls"], vanished["log_level"]) == ("firstName", ["named", "wide"], "warning")
    for lead in list(home.simulator.world):
        home.simulator.world.update(lead.id, {"region": "north"})
    with capture_logs() as events:
        await next_day(home)
    assert told(events, "field_vanished") == [], "once is enough"
    assert await home.pool.fetch("SELECT lead_id, first_name FROM syncd.lead_acme ORDER BY 1") == before
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead_acme WHERE region = 'north'") == 30
    assert list(await columns(home.pool)) == [*shown, "region"]


async def test_a_field_that_comes_back_is_new(house: Build) -> None:
    home = await house(pulls=[NAMED], leads=10)
    home.simulator.add_field(REGION)
    await home.run(600)
    home.simulator.remove_field("region")
    await next_day(home)
    home.simulator.add_field(REGION)
    await next_day(home)
    assert [row["reason"] for row in await home.pool.fetch(BACKFILLS)] == ["new in Marketo: region"]
    assert counted(home) == {"appeared": 1, "vanished": 1, "retyped": 0}


async def test_a_retyped_field_is_told_and_its_column_waits(house: Build) -> None:
    home = await house(pulls=[EVERYTHING], leads=20)
    await home.run(600)
    shown = await columns(home.pool)
    home.simulator.retype_field("leadScore", "string")
    with capture_logs() as events:
        await next_day(home)
        await next_day(home)
    [retyped] = told(events, "field_retyped")
    assert (retyped["field"], retyped["old"], retyped["new"], retyped["remedy"]) == (
        "leadScore",
        "integer",
        "string",
        "run syncd view rebuild",
    )
    [behind] = told(events, "view_behind")
    assert (behind["retyped"], behind["renamed"]) == ({"lead_score": "text"}, {})
    assert await columns(home.pool) == shown
    assert await home.pool.fetch("SELECT * FROM syncd.lead_acme") != []


async def test_the_view_follows_the_configuration_at_the_start(house: Build) -> None:
    home = await house(pulls=[replace(EVERYTHING, fields=("FirstName", "LeadScore"))], leads=5)
    await home.run(60)
    assert list(await columns(home.pool)) == ["first_name", "lead_score"]
    wanted = replace(EVERYTHING, fields=("Company", "LeadScore"), columns={"Company": "firm", "LeadScore": "score"})
    with capture_logs() as events:
        await home.restart(pulls=(wanted,))
        await home.run(60)
    assert list(await columns(home.pool)) == ["first_name", "lead_score", "firm"]
    [behind] = told(events, "view_behind")
    assert (behind["renamed"], behind["remedy"]) == ({"lead_score": "score"}, "run syncd view rebuild")


async def test_without_rest_the_view_has_what_the_pulls_name_as_text(pool: Pool, lease: Lease, manual_clock: ManualClock) -> None:
    dictionaries = Dictionaries(Instance("acme", pulls=(NAMED,)), None, lease, manual_clock, Metrics())
    for _ in range(2):
        assert isinstance(await dictionaries.step(), Idle)
    assert await columns(pool) == {"first_name": "text", "region": "text"}


async def test_a_view_that_is_being_read_is_tried_again(house: Build) -> None:
    home = await house(pulls=[NAMED], leads=5)
    await home.run(60)
    home.simulator.add_field(REGION)
    async with home.pool.acquire() as reader, reader.transaction():
        await reader.fetch("SELECT * FROM syncd.lead_acme")
        with capture_logs() as events:
            home.clock.advance(DAY.total_seconds())
            await home.run(900, until=lambda: is_true(bool(told(events, "view_busy"))))
        assert len(told(events, "view_busy")) == 1
        assert "region" not in await columns(home.pool)
    await home.run(120)
    assert "region" in await columns(home.pool)


async def is_true(what: bool) -> bool:
    return what


@pytest.fixture
async def unprivileged(database: str, pool: Pool) -> AsyncIterator[Pool]:
    """The pool of a role that may use all tables and make none."""
    await pool.execute("DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN PASSWORD 'plain'; GRANT USAGE ON SCHEMA syncd TO plain")
    await pool.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA syncd TO plain")
    connection_of = in_database(database, database.rpartition("@/")[2].partition("?")[0])
    _, _, host = connection_of.partition("@")
    async with asyncpg.create_pool(f"postgresql://plain:plain@{host}", min_size=1, max_size=2) as theirs:
        yield theirs
    await pool.execute("DROP OWNED BY plain; DROP ROLE plain")


async def test_a_role_that_may_not_make_views_goes_on_without(
    house: Build, unprivileged: Pool, lease: Lease, manual_clock: ManualClock
) -> None:
    theirs = Lease(lease.instance, lease.epoch, unprivileged, lease._session, 0)
    dictionaries = Dictionaries(Instance("acme", pulls=(NAMED,)), None, theirs, manual_clock, Metrics())
    with capture_logs() as events:
        for _ in range(3):
            assert isinstance(await dictionaries.step(), Idle)
            manual_clock.advance(DAY.total_seconds())
    [refused] = told(events, "view_not_kept")
    assert "own syncd.lead_acme" in refused["remedy"]
