"""A census whose ids come by real extracts, beside a pull that goes by extracts too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from syncd.core.settings import UpdatedSince
from syncd.core.windows import Window
from syncd.flows.census import CensusTaker
from syncd.flows.loop import Flow
from syncd.simulator import Fault
from syncd.store.leases import Connection
from tests.flows.conftest import Build, House
from tests.flows.exporting import LIMITS, PULL, QUICK, Hooks, mirror, truth, with_exports
from tests.flows.following import flow, flows_of

DAY, HOUR = 86_400.0, 3_600.0
EVERY = timedelta(minutes=30)


@dataclass
class Counting(Hooks):
    """What the census' extracts bring goes where the daemon takes it."""

    census: bool = True
    house: House | None = None

    async def on_census(self, connection: Connection, window: Window, ids: Sequence[int], asked_at: datetime, now: datetime) -> None:
        assert self.house is not None
        taker = flow(self.house, "census")
        assert isinstance(taker, CensusTaker)
        await taker.found(connection, window, ids, asked_at, now)


async def counting(house: Build) -> House:
    """A house with the flows that the daemon has for a pull by extracts."""
    hooks = Counting()
    one = hooks.house = await house(limits=LIMITS, exports=QUICK, leads=60)

    async def also(home: House) -> list[Flow]:
        return [*await flows_of(home), *await with_exports(hooks)(home)]

    one.also = also
    since = UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC))
    await one.restart(pulls=(replace(PULL, select=since, window=timedelta(days=31), every=EVERY),))
    return one


async def test_it_finds_what_both_sides_have_lost_and_no_news_wait_for_it(house: Build) -> None:
    one = await counting(house)
    await one.run(2 * HOUR)
    assert await mirror(one) == truth(one)
    assert await one.pool.fetchval("SELECT count(*) FROM syncd.census") == 0
    began = datetime(2024, 6, 1, tzinfo=UTC)
    await one.pool.execute("INSERT INTO syncd.census (instance, started_at, finished_at, first_at) VALUES ('acme', $1, $1, $1)", began)
    one.clock.advance(DAY)
    lost, gone, *_ = one.simulator.world
    await one.pool.execute("DELETE FROM syncd.lead WHERE lead_id = $1", lost.id)
    one.simulator.world._remove(gone.id)  # and of that the log tells nothing
    one.simulator.script("export_enqueue", Fault.EXPORT_FAILED, 5)

    async def counted() -> bool:
        return await one.pool.fetchval("SELECT count(*) = 2 AND count(*) = count(finished_at) FROM syncd.census") is True

    slowest = 0.0
    while not await counted():
        new = one.simulator.world.create({"lastName": "News"}).id
        began = one.clock.now()

        async def came(new: int = new) -> bool:
            return await one.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.lead WHERE lead_id = $1)", new) is True

        await one.run(6 * HOUR, came)
        slowest = max(slowest, (one.clock.now() - began).total_seconds())
        await one.run(600)
    row = await one.pool.fetchrow("SELECT missing, surplus, message FROM syncd.census ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert tuple(row) == (1, 1, None)
    assert slowest < EVERY.total_seconds() + 600
    await one.run(600)
    marked = await one.pool.fetchval("SELECT array_agg(lead_id) FROM syncd.lead WHERE deleted_at IS NOT NULL")
    assert marked == [gone.id]
    assert {lead_id: lead for lead_id, lead in (await mirror(one)).items() if lead_id != gone.id} == truth(one)
    assert one.simulator.report().violations == {}
