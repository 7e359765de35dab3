"""Starting, stopping, the report and the side door."""

import asyncio
import socket

import aiohttp
import pytest

from syncd.simulator import CallCount, SimulatorSettings
from tests.simulator.client import keyed
from tests.simulator.conftest import Rehearse

DESCRIBE = "/rest/v1/leads/describe.json"


async def test_report_counts_calls_by_code(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    await client.code(DESCRIBE)
    await client.code(DESCRIBE)
    await client.soap(keyed("IDNUM", 1001))
    await client.soap(keyed("IDNUM", 7))
    assert client.sim.report().calls == (
        CallCount("identity", "identity", "ok", 1),
        CallCount("rest", "describe", "ok", 2),
        CallCount("soap", "soap", "20103", 1),
        CallCount("soap", "soap", "ok", 1),
    )


async def test_side_door(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    batch = await client.import_("email\na@example.com\n")
    async with client.session.get(client.sim.rest_endpoint + "/_simulator/report") as response:
        report = await response.json()
    assert (report["imports_accepted"], report["calls_counted"]) == (1, 1)
    async with client.session.get(client.sim.rest_endpoint + "/_simulator/slots") as response:
        slots = await response.json()
    assert len(slots) == 10
    assert (slots[0]["state"], slots[0]["owner"], slots[0]["batch_id"], slots[0]["rows"]) == ("running", "ours", batch, 1)
    async with client.session.get(client.sim.rest_endpoint + "/_simulator/") as response:
        assert response.status == 404


async def test_events_are_bounded_and_name_nobody(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    await client.import_("email,Title\nsomebody@example.com,x\n")
    for _ in range(250):
        client.clock.advance(1)
        await client.soap(keyed("EMAIL", "somebody@example.org"))
    report = client.sim.report()
    assert len(report.events) == 200
    assert not any("somebody" in event for event in report.events)


async def test_state_survives_a_stop(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    await client.import_("email\na@example.com\n")
    port = int(client.sim.rest_endpoint.rpartition(":")[2])
    await client.sim.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.code(DESCRIBE)
    await client.sim.start(port=port)
    client.clock.advance(60)
    assert await client.code(DESCRIBE) == "ok"
    assert client.sim.report().jobs_complete == 1


async def test_half_sent_import_is_not_processed(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    _, writer = await asyncio.open_connection("127.0.0.1", int(client.sim.rest_endpoint.rpartition(":")[2]))
    writer.write(b"POST /bulk/v1/leads.json?format=csv HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n--frontier")
    writer.close()
    gone = CallCount("rest", "import", "disconnected", 1)
    async with asyncio.timeout(5):
        while gone not in client.sim.report().calls:
            assert await client.code(DESCRIBE) == "ok"
            client.clock.advance(1)
    assert client.sim.report().imports_accepted == 0


async def test_listens_on_loopback_only(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    assert client.sim.rest_endpoint.startswith("http://127.0.0.1:")
    assert client.sim.soap_endpoint == client.sim.rest_endpoint + "/soap/mktows/3_1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        await client.sim.stop()
        with pytest.raises(OSError, match="address already in use"):
            await client.sim.start(port=taken.getsockname()[1])
