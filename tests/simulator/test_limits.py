"""Rate, concurrency and daily quota, and SOAP's twins of them (protocol sections 1.6 and 2)."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import ClientSession

from syncd.simulator import Fault, ForeignLoad, Limits, Simulator, SimulatorSettings
from tests.simulator.client import Client, ManualClock, keyed
from tests.simulator.conftest import Rehearse

DESCRIBE = "/rest/v1/leads/describe.json"
LEAD = keyed("IDNUM", 1001)


class GatedClock(ManualClock):
    """Sleepers wait until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asleep = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.asleep.release()
        await self.gate.wait()


async def test_rate_in_any_20_seconds(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, limits=Limits(calls_per_20s=4)))
    for _ in range(2):
        assert await client.code(DESCRIBE) == "ok"
        assert (await client.soap(LEAD)).code is None
        client.clock.advance(5)
    assert await client.code(DESCRIBE) == "606"
    assert (await client.soap(LEAD)).code == "20023"
    client.clock.advance(10)
    assert await client.code(DESCRIBE) == "606"
    client.clock.advance(20)
    assert await client.code(DESCRIBE) == "ok"
    report = client.sim.report()
    assert (report.busiest_20s, report.calls_counted, report.calls_last_20s) == (6, 8, 1)


async def test_strangers_share_the_rate(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, limits=Limits(calls_per_20s=4), foreign=ForeignLoad(calls_per_20s=3)))
    assert [await client.code(DESCRIBE) for _ in range(2)] == ["ok", "606"]


async def test_token_trouble_and_identity_do_not_count(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, limits=Limits(calls_per_20s=2, rest_calls_per_day=2)))
    for _ in range(3):
        client.sim.expire_token()
        assert await client.code(DESCRIBE) == "602"
        client.sim.script("describe", Fault.REST_608)
        assert await client.code(DESCRIBE) == "608"
        await client.login()
    assert [await client.code(DESCRIBE) for _ in range(2)] == ["ok", "ok"]
    assert client.sim.report().calls_counted == 2


async def test_daily_quota_turns_at_midnight_us_central(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, limits=Limits(soap_calls_per_day=1, rest_calls_per_day=2)))
    assert [(await client.soap(LEAD)).code for _ in range(2)] == [None, "20015"]
    assert [await client.code(DESCRIBE) for _ in range(3)] == ["ok", "ok", "607"]
    midnight = datetime(2026, 5, 5, 5, 0, tzinfo=UTC)
    client.clock.advance((midnight - client.clock.now() - timedelta(seconds=1)).total_seconds())
    assert (await client.soap(LEAD)).code == "20015"
    client.clock.advance(1)
    await client.login()
    assert (await client.soap(LEAD)).code is None
    assert await client.code(DESCRIBE) == "ok"


@pytest.mark.parametrize(("last", "code"), [("rest", "615"), ("soap", "20024")])
async def test_concurrent_calls(last: str, code: str) -> None:
    clock = GatedClock()
    settings = SimulatorSettings(leads=1, latency=0.5, limits=Limits(concurrent_calls=3))
    async with Simulator(settings, clock) as sim, ClientSession() as session:
        client = Client(sim, clock, session)
        clock.gate.set()
        await client.login()
        clock.gate.clear()
        await clock.asleep.acquire()
        calls = [asyncio.create_task(client.code(DESCRIBE)) for _ in range(3)]
        for _ in calls:
            await clock.asleep.acquire()
        one_more = asyncio.create_task(client.code(DESCRIBE) if last == "rest" else _soap_code(client))
        await clock.asleep.acquire()
        clock.gate.set()
        assert (await asyncio.gather(*calls), await one_more) == (["ok"] * 3, code)
        assert await client.code(DESCRIBE) == "ok"


async def _soap_code(client: Client) -> str:
    return str((await client.soap(LEAD)).code)


async def test_latency_passes_on_the_clock(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, latency=0.5))
    before = client.clock.now()
    assert await client.code(DESCRIBE) == "ok"
    assert (client.clock.now() - before).total_seconds() == 0.5
