"""Export jobs and their queue (protocol section 3.1)."""

import json
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from syncd.simulator import ExportModel, Fault, Movement, SimulatorSettings
from tests.simulator.client import START, Client, code_of
from tests.simulator.conftest import Rehearse
from tests.simulator.exporting import EXACT, EXPORT, LATELY, SETTINGS, between, create, finished, message, order, queued, status, table

SAMPLES = Path(__file__).parent.parent / "samples"


def of(**changed: Any) -> SimulatorSettings:
    return replace(SETTINGS, exports=replace(EXACT, **changed))


def states(client: Client) -> list[str]:
    return [export.state for export in client.sim.exports()]


async def test_completed_status_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    made = await create(client)
    assert list(made) == ["requestId", "success", "result"]
    export_id = made["result"][0]["exportId"]
    assert (str(uuid.UUID(export_id)), made["result"][0]["status"]) == (export_id, "Created")
    client.clock.advance(10)
    assert (await order(client, export_id))["result"][0]["status"] == "Queued"
    client.clock.advance(100)
    reply = await client.rest(f"{EXPORT}/{export_id}/status.json")
    sample = json.loads((SAMPLES / "export-completed.json").read_text())
    assert list(reply) == list(sample)
    assert list(reply["result"][0]) == list(sample["result"][0])
    times = [reply["result"][0][name] for name in ("createdAt", "queuedAt", "startedAt", "finishedAt")]
    assert times == ["2026-05-04T06:00:00-06:00", *["2026-05-04T06:00:10-06:00"] * 2, "2026-05-04T06:01:50-06:00"]
    assert (reply["result"][0]["numberOfRecords"], reply["result"][0]["format"]) == (20, "CSV")


async def test_first_come_first_served_by_two_workers(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    waiting = (await create(client))["result"][0]["exportId"]
    exports = [await queued(client) for _ in range(5)]
    seen = []
    for _ in range(4):
        seen.append([(await status(client, export_id))["status"] for export_id in exports])
        client.clock.advance(100)
    assert [[state[0] for state in row] for row in seen] == [list("PPQQQ"), list("CCPPQ"), list("CCCCP"), list("CCCCC")]
    assert (await status(client, waiting))["status"] == "Created"
    report = client.sim.report()
    assert (report.exports_created, report.exports_enqueued, report.exports_completed) == (6, 5, 5)
    assert (report.most_exports_held, report.most_exports_held_ours, report.most_exports_running_ours) == (5, 5, 2)
    assert report.export_polls == {waiting: 1} | dict.fromkeys(exports, 4)


async def test_status_is_looked_up_once_a_minute(rehearse: Rehearse) -> None:
    client = await rehearse(of(status_age=60.0))
    export_id = await queued(client)
    seen = []
    for _ in range(5):
        seen.append(((await status(client, export_id))["status"], states(client)[0]))
        client.clock.advance(35)
    queued_, running, done = "Queued", "Processing", "Completed"
    assert seen == [(queued_, running), (queued_, running), (running, running), (running, done), (done, done)]
    assert client.sim.report().violations == {"export polled within a minute": 4}


async def test_polls_a_minute_apart_are_right_and_lost_answers_may_be_asked_for_again(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    export_id = await queued(client)
    client.sim.script("export_status", Fault.JSON_GARBAGE)
    await client.get(f"{EXPORT}/{export_id}/status.json")
    for _ in range(3):
        await status(client, export_id)
        client.clock.advance(60)
    assert client.sim.report().violations == {}


async def test_a_snapshot_is_of_the_moment_processing_begins(rehearse: Rehearse) -> None:
    client = await rehearse(of(running=1))
    first = await queued(client, wanted=between(START, START + timedelta(days=1)))
    second = await queued(client, "id", "title", wanted=between(START, START + timedelta(days=1)))
    client.clock.advance(99)
    client.sim.world.update(1001, {"title": "before"})
    client.clock.advance(50)
    client.sim.world.update(1001, {"title": "after"})
    client.sim.world.update(1002, {"title": "after"})
    client.clock.advance(100)
    assert await table(client, f"{EXPORT}/{first}/file.json") == [["id"]]
    assert await table(client, f"{EXPORT}/{second}/file.json") == [["id", "title"], ["1001", "before"]]


async def test_looking_late_changes_nothing(rehearse: Rehearse) -> None:
    moving = Movement(updates_per_second=1, creations_per_second=0.2)
    settings = replace(of(sigma=0.5, running=1), movement=moving)
    watched, blind = await rehearse(settings), await rehearse(settings)
    for client in (watched, blind):
        for _ in range(3):
            await queued(client, "id", "leadScore", wanted=between(START, START + timedelta(days=1)))
    for _ in range(1_000):
        watched.clock.advance(1)
        watched.sim.exports()
    blind.clock.advance(1_000)
    assert watched.sim.exports() == blind.sim.exports()
    files = [
        [(await client.file(f"{EXPORT}/{each.export_id}/file.json"))[1] for each in client.sim.exports()] for client in (watched, blind)
    ]
    assert files[0] == files[1]
    assert len(set(files[0])) == 3


async def test_a_full_queue_is_1029(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    for _ in range(3):
        client.sim.add_foreign_export(50)
    exports = [await queued(client) for _ in range(7)]
    one_more = (await create(client))["result"][0]["exportId"]
    code, text = message(await order(client, one_more))
    assert (code, "Too many jobs (10) in queue" in text) == ("1029", True)
    with pytest.raises(ValueError, match="all export slots"):
        client.sim.add_foreign_export(50)
    code, text = message(await order(client, exports[6]))
    assert (code, text) == ("1029", f"Export job {exports[6]} has already been queued")
    client.clock.advance(50)
    assert code_of(await order(client, one_more)) == "ok"
    report = client.sim.report()
    assert (report.exports_refused, report.exports_enqueued) == ({"1029": 2}, 8)
    assert (report.most_exports_held, report.most_exports_held_ours) == (10, 8)
    assert report.exports_by_filter == {json.dumps(LATELY, sort_keys=True): 8}
    assert {export.owner for export in client.sim.exports()} == {"ours", "foreign"}


async def test_cancelled_ones_give_their_slot_back(rehearse: Rehearse) -> None:
    client = await rehearse(of(running=1))
    running, waiting, last = [await queued(client) for _ in range(3)]
    created = (await create(client))["result"][0]["exportId"]
    spelt = set()
    for export_id in (running, waiting, created, created):
        spelt.add((await order(client, export_id, "cancel"))["result"][0]["status"])
    assert spelt <= {"Cancelled", "Canceled"}
    assert states(client) == ["Cancelled", "Cancelled", "Processing", "Cancelled"]
    assert message(await order(client, created))[0] == "1003"
    assert (await client.file(f"{EXPORT}/{running}/file.json"))[0] == 404
    client.clock.advance(100)
    assert (await status(client, last))["status"] == "Completed"
    assert message(await order(client, last, "cancel"))[0] == "1003"
    assert client.sim.report().exports_cancelled == 3


async def test_both_spellings_of_cancelled_are_met(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    exports = [(await create(client))["result"][0]["exportId"] for _ in range(20)]
    spelt = {(await order(client, export_id, "cancel"))["result"][0]["status"] for export_id in exports}
    assert spelt == {"Cancelled", "Canceled"}
    assert len((await client.rest(f"{EXPORT}.json?status=Canceled"))["result"]) == 20


async def test_own_jobs_of_seven_days_are_listed(rehearse: Rehearse) -> None:
    client = await rehearse(of(status_age=60.0))
    client.sim.add_foreign_export(50)
    done = await queued(client)
    client.clock.advance(200)
    running, waiting = await queued(client), (await create(client))["result"][0]["exportId"]
    client.clock.advance(70)
    listed = (await client.rest(f"{EXPORT}.json"))["result"]
    assert [(each["exportId"], each["status"]) for each in listed] == [(done, "Completed"), (running, "Processing"), (waiting, "Created")]
    some = await client.rest(f"{EXPORT}.json?status=Created,Processing")
    assert [each["exportId"] for each in some["result"]] == [running, waiting]
    assert "nextPageToken" not in some
    client.clock.advance(7 * 86_400 - 200)
    await client.login()
    assert [each["exportId"] for each in (await client.rest(f"{EXPORT}.json"))["result"]] == [running, waiting]
    for path in ("status", "file"):
        reply = await client.get(f"{EXPORT}/{done}/{path}.json")
        assert reply[0] == 404 if path == "file" else code_of(json.loads(reply[1])) == "1003"


async def test_long_lists_have_pages(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    made = []
    for number in range(620):
        made.append((await create(client))["result"][0]["exportId"])
        if number % 90 == 89:
            client.clock.advance(30)
    found, token = list[str](), ""
    for size in (300, 300, 20):
        reply = await client.rest(f"{EXPORT}.json?status=Created{token and f'&nextPageToken={token}'}")
        assert len(reply["result"]) == size
        found += [each["exportId"] for each in reply["result"]]
        token = reply.get("nextPageToken", "")
        client.clock.advance(20)
    assert (found, token) == (made, "")


async def test_unknown_exports_and_addresses(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    assert await client.code(f"{EXPORT}/nobody/status.json") == "1003"
    assert code_of(await order(client, "nobody")) == "1003"
    assert code_of(await order(client, "nobody", "cancel")) == "1003"
    assert (await client.get(f"{EXPORT}/x/enqueue.json"))[0] == 404
    assert (await client.post(f"{EXPORT}/x/status.json"))[0] == 404
    assert (await client.get(f"{EXPORT}/create.json"))[0] == 404
    assert client.sim.report().violations == {"unknown address": 3}


async def test_the_quota_of_the_day(rehearse: Rehearse) -> None:
    client = await rehearse(of(daily_bytes=1_000))
    client.sim.add_foreign_export(10, size=400)
    for size in (300, 400):
        client.sim.plant_export(b"x" * size, records=1)
    await queued(client)
    client.clock.advance(100)
    over = await queued(client)
    client.clock.advance(100)
    assert (await status(client, over))["status"] == "Completed"
    last = (await create(client))["result"][0]["exportId"]
    assert message(await order(client, last)) == ("1029", "Export daily quota 0MB exceeded")
    client.clock.advance(17 * 3_600)
    await client.login()
    assert code_of(await order(client, last)) == "ok"
    client.clock.advance(100)
    report = client.sim.report()
    assert report.export_bytes == {"2026-05-04": 700, "2026-05-05": sum(export.size for export in client.sim.exports()) - 700}


async def test_a_job_over_the_quota_may_fail(rehearse: Rehearse) -> None:
    client = await rehearse(of(daily_bytes=1_000_000, quota_overrun="fails"))
    client.sim.plant_export(b"x" * 1_000_001, records=1)
    export_id = await queued(client)
    client.clock.advance(100)
    told = await status(client, export_id)
    assert (told["status"], told["errorMsg"], "fileSize" in told) == ("Failed", "Export daily quota exceeded", False)
    assert client.sim.report().export_bytes == {}
    assert code_of(await order(client, (await create(client))["result"][0]["exportId"])) == "ok"


async def test_a_job_that_begins_when_the_quota_is_spent_fails(rehearse: Rehearse) -> None:
    client = await rehearse(of(daily_bytes=1_000, running=1))
    client.sim.plant_export(b"x" * 1_000, records=1)
    await queued(client)
    await queued(client)
    client.clock.advance(200)
    assert states(client) == ["Completed", "Failed"]


async def test_time_depends_on_rows(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, exports=ExportModel(overhead_seconds=10, rows_per_second=2, sigma=0, status_age=0)))
    export_id = await queued(client)
    client.clock.advance(19.9)
    assert states(client) == ["Processing"]
    client.clock.advance(0.1)
    assert (await status(client, export_id))["numberOfRecords"] == 20


async def test_a_field_may_go_while_an_export_waits(rehearse: Rehearse) -> None:
    client = await rehearse(of(running=1))
    client.sim.add_foreign_export(10)
    export_id = await queued(client, "id", "title")
    client.sim.remove_field("title")
    client.clock.advance(110)
    assert (await status(client, export_id))["errorMsg"] == "Field 'title' not found"
    assert await table(client, await finished(client)) != []
