"""Trouble at the endpoints of REST: every code everywhere, and what only exports, files and activities can meet."""

import hashlib
import json
from dataclasses import replace

import aiohttp
import pytest

from syncd.simulator import Fault, FaultRates, SimulatorSettings
from syncd.simulator.faults import ENDPOINTS, FaultPlan
from syncd.simulator.report import Recorder
from tests.simulator.client import Client, code_of
from tests.simulator.conftest import Rehearse
from tests.simulator.exporting import EXACT, EXPORT, SETTINGS, create, finished, message, order, queued, status

REST = [endpoint for endpoint in ENDPOINTS if endpoint not in ("soap", "identity")]
TABLE = (
    "502 503 504 604 608 611 614 713 719 601 602 603 605 609 610 612 613 616 701 703 704 705 706 707 708 709 710 711 702 606 607 615 "
    "1003 1016 1019 1035 9999 1029_queue 1029_quota 1029_already"
)
TEXTS = {"queue": "Too many jobs", "quota": "daily quota", "already": "already been queued"}


@pytest.mark.parametrize("code", TABLE.split())
async def test_every_code_at_every_endpoint(rehearse: Rehearse, code: str) -> None:
    client = await rehearse(SETTINGS)
    export_id = await queued(client)
    paths = {
        "describe": "/rest/v1/leads/describe.json",
        "usage": "/rest/v1/stats/usage.json",
        "status": "/bulk/v1/leads/batch/1.json",
        "failures": "/bulk/v1/leads/batch/1/failures.json",
        "warnings": "/bulk/v1/leads/batch/1/warnings.json",
        "leads": "/rest/v1/leads.json?filterType=id&filterValues=1001",
        "paging_token": "/rest/v1/activities/pagingtoken.json?sinceDatetime=2026-05-04T12:00:00Z",
        "lead_changes": "/rest/v1/activities/leadchanges.json",
        "deleted_leads": "/rest/v1/activities/deletedleads.json",
        "activities": "/rest/v1/activities.json",
        "export_list": f"{EXPORT}.json",
        "export_status": f"{EXPORT}/{export_id}/status.json",
        "export_file": f"{EXPORT}/{export_id}/file.json",
    }
    for endpoint in REST:
        client.sim.script(endpoint, Fault(f"rest_{code}"))
        if endpoint in paths:
            reply = await client.rest(paths[endpoint])
        elif endpoint == "import":
            reply = await client.submit("email\na@example.com\n")
        elif endpoint == "sync_leads":
            reply = json.loads((await client.post("/rest/v1/leads.json", {}))[1])
        elif endpoint == "delete_leads":
            reply = json.loads((await client.post("/rest/v1/leads/delete.json", {}))[1])
        else:
            what = endpoint.removeprefix("export_")
            reply = await (create(client) if what == "create" else order(client, export_id, what))
        number, _, meaning = code.partition("_")
        answered, text = message(reply) if number not in ("504", "604") or not reply["success"] else ("none", "")
        assert answered == number or (number in ("504", "604") and answered in ("1003", "1029")), endpoint
        assert TEXTS.get(meaning, "") in text


@pytest.mark.parametrize(("code", "processed"), [("608", False), ("1029_queue", False), ("9999", False), ("604", True), ("504", True)])
async def test_refused_is_not_processed(rehearse: Rehearse, code: str, processed: bool) -> None:
    client = await rehearse(SETTINGS)
    export_id = (await create(client))["result"][0]["exportId"]
    for endpoint in ("export_create", "export_enqueue", "import"):
        client.sim.script(endpoint, Fault(f"rest_{code}"))
    await create(client)
    await order(client, export_id)
    await client.submit("email\na@example.com\n")
    report = client.sim.report()
    assert (report.exports_created, report.exports_enqueued, report.imports_accepted) == ((2, 1, 1) if processed else (1, 0, 0))
    assert report.exports_refused == ({} if processed else {code.partition("_")[0]: 1})


def test_codes_of_rest_are_not_for_others() -> None:
    plan = FaultPlan(SimulatorSettings(), Recorder())
    for endpoint in ("soap", "identity"):
        with pytest.raises(ValueError, match=f"rest_1003 cannot happen at '{endpoint}'"):
            plan.script(endpoint, Fault.REST_1003, 1)
    with pytest.raises(ValueError, match="file_404 cannot happen at 'export_status'"):
        plan.script("export_status", Fault.FILE_404, 1)


async def test_transport_trouble_at_the_file(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=3_000))
    path = await finished(client, "id", "firstName", "notes")
    _, whole, _ = await client.file(path)
    for fault in (Fault.TRUNCATED, Fault.FILE_BROKEN_OFF, Fault.WRONG_LENGTH, Fault.RESET_AFTER, Fault.RESET_BEFORE):
        # aiohttp asks again by itself after a reset of a connection that was in use before.
        client.sim.script("export_file", fault, times=2 if fault.value.startswith("reset") else 1)
        with pytest.raises(aiohttp.ClientError):
            await client.file(path)
    client.sim.script("export_file", Fault.WRONG_LENGTH_CUT)
    assert (await client.file(path))[1] == whole[: len(whole) // 2]
    for fault, answered in ((Fault.HTML_200, 200), (Fault.HTML_503, 503), (Fault.GATEWAY_504, 504), (Fault.FILE_404, 404)):
        client.sim.script("export_file", fault)
        assert (await client.get(path))[0] == answered
    client.sim.script("export_file", Fault.FILE_JSON_200)
    answered, data, headers = await client.file(path)
    assert (answered, code_of(json.loads(data)), headers["Content-Type"]) == (200, "713", "application/json;charset=UTF-8")
    assert (await client.file(path))[1] == whole


async def test_a_broken_off_file_can_be_gone_on_with(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=3_000))
    path = await finished(client, "id", "firstName", "notes")
    _, whole, _ = await client.file(path)
    client.sim.script("export_file", Fault.FILE_BROKEN_OFF, times=3)
    got = bytearray()
    while len(got) < len(whole):
        headers = {"Authorization": f"Bearer {client.token}", "Range": f"bytes={len(got)}-"}
        try:
            async with client.session.get(client.sim.rest_endpoint + path, headers=headers) as response:
                async for piece in response.content.iter_any():
                    got += piece
        except aiohttp.ClientError:
            pass
    assert got == whole


async def test_a_status_may_tell_another_checksum(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    path = await finished(client)
    checksum = f"sha256:{hashlib.sha256((await client.file(path))[1]).hexdigest()}"
    export_id = path.split("/")[-2]
    client.sim.script("export_status", Fault.WRONG_CHECKSUM)
    assert [(await status(client, export_id))["fileChecksum"] == checksum for _ in range(2)] == [False, True]


@pytest.mark.parametrize("endpoint", ["export_create", "export_enqueue"])
async def test_an_export_may_fail(rehearse: Rehearse, endpoint: str) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script(endpoint, Fault.EXPORT_FAILED)
    export_id = await queued(client)
    client.clock.advance(99)
    assert (await status(client, export_id))["status"] == "Processing"
    client.clock.advance(1)
    told = await status(client, export_id)
    assert (told["status"], told["errorMsg"], "fileSize" in told) == ("Failed", "Export failed: internal error", False)
    assert (await client.get(f"{EXPORT}/{export_id}/file.json"))[0] == 404
    report = client.sim.report()
    assert (report.exports_failed, report.exports_completed, report.export_bytes) == (1, 0, {})


def drawn(endpoints: tuple[str, ...]) -> list[tuple[str, str]]:
    plan = FaultPlan(SimulatorSettings(seed=7, faults=FaultRates.rough()), Recorder())
    return [(endpoint, fault.value) for _ in range(500) for endpoint in endpoints for fault in sorted(plan.draw(endpoint))]


def test_new_endpoints_leave_the_chance_of_the_old_ones_alone() -> None:
    old = ENDPOINTS[:8]
    assert [each for each in drawn(ENDPOINTS) if each[0] in old] == drawn(old)
    met = {each for _, each in drawn(ENDPOINTS[8:])}
    assert {"file_404", "file_json_200", "file_broken_off", "range_off_by_one", "export_failed", "rest_1029_queue"} <= met
    assert {"short_activity_page", "reset_before", "json_garbage", "rest_604"} <= met


async def test_a_rough_day_of_exports(rehearse: Rehearse) -> None:
    """Everything can be had in the end."""
    client = await rehearse(replace(SETTINGS, exports=EXACT, faults=FaultRates.rough()))
    done = 0
    for _ in range(200):
        done += await _tried(client)
        client.clock.advance(30)
        await _login(client)
    report = client.sim.report()
    assert done > 100
    assert sum(report.faults_injected.values()) > 20


async def _tried(client: Client) -> bool:
    try:
        path = await finished(client)
        return (await client.file(path))[0] == 200
    except (aiohttp.ClientError, KeyError, ValueError, AssertionError):
        return False


async def _login(client: Client) -> None:
    try:
        await client.login()
    except (aiohttp.ClientError, KeyError, ValueError):
        return
