"""The activity log over REST (protocol section 3.2)."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from syncd.simulator import ActivityModel, Fault, ImportModel, Movement, SimulatorSettings
from tests.simulator.client import START, Client, code_of
from tests.simulator.conftest import Rehearse

SAMPLES = Path(__file__).parent.parent / "samples"
TOKEN = "/rest/v1/activities/pagingtoken.json"
CHANGES = "/rest/v1/activities/leadchanges.json"
DELETED = "/rest/v1/activities/deletedleads.json"
ANY = "/rest/v1/activities.json"
FULL = ActivityModel(short_pages=0.0)
SETTINGS = SimulatorSettings(leads=10, activities=FULL)


@dataclass
class Log:
    """What was read, and where to go on."""

    token: str
    items: list[dict[str, Any]] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    @property
    def told(self) -> list[tuple[int, int]]:
        return [(item["activityTypeId"], item["leadId"]) for item in self.items]


async def token(client: Client, since: datetime = START) -> str:
    return str((await client.rest(f"{TOKEN}?sinceDatetime={since:%Y-%m-%dT%H:%M:%SZ}"))["nextPageToken"])


async def read(client: Client, path: str, where: str, **asked: str) -> Log:
    """Follow the token to the end."""
    log = Log(where)
    for _ in range(1_000):
        reply = await client.read(path, {"nextPageToken": log.token, **asked})
        assert list(reply) == ["requestId", "success", "nextPageToken", "moreResult", "result"], reply
        log.items += reply["result"]
        log.pages.append(len(reply["result"]))
        log.token = reply["nextPageToken"]
        if not reply["moreResult"]:
            return log
    raise AssertionError("no end")


async def test_changes_are_the_documented_ones(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await token(client)
    client.sim.world.update(1001, {"firstName": "FirstName_4914"})
    client.clock.advance(5)
    client.sim.world.update(1001, {"firstName": "FirstName_6176", "title": "", "leadScore": "150"})
    sample = json.loads((SAMPLES / "leadchanges.json").read_text())["result"][0]
    (_, item) = (await read(client, CHANGES, since, fields="firstName,company")).items
    assert list(item) == list(sample)
    assert item["fields"] == [{"id": 4, "name": "firstName", "newValue": "FirstName_6176", "oldValue": "FirstName_4914"}]
    assert list(item["fields"][0]) == list(sample["fields"][0])
    assert item["attributes"] == [*sample["attributes"][:2], {"name": "Lead ID", "value": 1001}]
    assert (item["marketoGUID"], item["activityDate"]) == (str(item["id"]), "2026-05-04T12:00:05+0000")
    assert (await read(client, CHANGES, since, fields="leadScore,phone")).items == []


async def test_new_leads_and_nothing_of_those_before_the_start(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await token(client, START - timedelta(days=80))
    new = client.sim.world.create({"firstName": "N", "leadScore": "90"})
    assert new.created == new.updated
    log = await read(client, CHANGES, since, fields="phone")
    assert log.told == [(12, new.id)]
    assert log.items[0]["fields"] == []
    assert (await read(client, ANY, since, activityTypeIds="12,13,22,32,37")).told == [(12, new.id)]
    assert len(client.sim.world.log) == 1


async def test_a_score_is_an_activity_of_its_own(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await token(client)
    client.sim.world.update(1001, {"leadScore": "149"})
    client.sim.world.update(1001, {"leadScore": "150", "title": "T", "Legacy_Segment": "Z"})
    log = await read(client, ANY, since, activityTypeIds="22")
    assert log.told == [(22, 1001)] * 2
    assert log.items[1]["attributes"][:2] == [{"name": "New Value", "value": "150"}, {"name": "Old Value", "value": "149"}]
    assert (log.items[1]["primaryAttributeValueId"], log.items[1]["primaryAttributeValue"]) == (10, "Lead Score")
    (change,) = (await read(client, ANY, since, activityTypeIds="13")).items
    assert [each["name"] for each in change["fields"]] == ["title"]


async def test_written_values_are_dated_by_the_touch(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since, world = await token(client), client.sim.world
    leads = [lead for lead in world if lead.id in (1001, 1002)]
    for lead in leads:
        world.write(lead, {"title": "between"})
        world.write(lead, {"title": "A", "company": lead.values["company"]})
    assert (await read(client, CHANGES, since, fields="title")).items == []
    client.clock.advance(30)
    client.sim.world.touch(leads, START.timestamp() + 20)
    log = await read(client, CHANGES, since, fields="title,company")
    assert {(item["activityDate"], len(item["fields"])) for item in log.items} == {("2026-05-04T12:00:20+0000", 1)}
    client.sim.world.touch(leads, client.clock.now().timestamp())
    world.write(leads[0], {"title": "B"})
    world.write(leads[0], {"title": "A"})
    world.touch(leads, client.clock.now().timestamp())
    assert (await read(client, ANY, log.token, activityTypeIds="12,13,22")).items == []


async def test_imports_and_movement_are_logged(rehearse: Rehearse) -> None:
    moving = Movement(updates_per_second=0.5, creations_per_second=0.5, deletions_per_second=0.1, merges_per_second=0.1)
    settings = SimulatorSettings(leads=200, activities=FULL, imports=ImportModel(overhead_seconds=10, sigma=0), movement=moving)
    client = await rehearse(settings)
    since = await token(client)
    await client.import_("email,title,leadScore\nnew@example.com,T,500\n")
    client.clock.advance(100)
    log = await read(client, ANY, since, activityTypeIds="12,13,22,32,37")
    assert {kind for kind, _ in log.told} == {12, 13, 22, 32, 37}
    dates = [item["activityDate"] for item in log.items]
    assert dates == sorted(dates)
    gone = {lead for kind, lead in log.told if kind == 37}
    merged = {lead for item in log.items if item["activityTypeId"] == 32 for lead in json.loads(item["attributes"][1]["value"])}
    born = {lead for kind, lead in log.told if kind == 12}
    assert {lead.id for lead in client.sim.world} == (set(range(1001, 1201)) | born) - gone - merged
    (new,) = client.sim.world.by_email("new@example.com")
    assert (12, new.id) in log.told


async def test_deletions_are_the_documented_ones(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await token(client)
    client.sim.world.update(1003, {"firstName": "Owyliphys", "lastName": "Iledil"})
    client.sim.world.delete(1003)
    sample = json.loads((SAMPLES / "deletedleads.json").read_text())["result"][0]
    (item,) = (await read(client, DELETED, since)).items
    assert list(item) == list(sample)
    assert (item["leadId"], item["primaryAttributeValue"], item["activityTypeId"]) == (1003, "Owyliphys Iledil", 37)


async def test_pages_of_at_most_300(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=700, activities=FULL))
    since = await token(client)
    for lead in list(client.sim.world):
        client.sim.world.update(lead.id, {"title": f"T{lead.id}"})
    log = await read(client, CHANGES, since, fields="title")
    assert log.pages == [300, 300, 100]
    assert [lead for _, lead in log.told] == list(range(1001, 1701))
    again = await read(client, CHANGES, since, fields="title")
    assert again.items == log.items
    assert (await read(client, CHANGES, log.token, fields="title")).pages == [0]
    assert client.sim.report().activities_served == 1_400


async def test_short_pages_lose_nothing(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=700, activities=ActivityModel(short_pages=0.7)))
    since = await token(client)
    for lead in list(client.sim.world):
        client.sim.world.update(lead.id, {"title": f"T{lead.id}"})
    log = await read(client, CHANGES, since, fields="title")
    assert [lead for _, lead in log.told] == list(range(1001, 1701))
    assert len(log.pages) > 3
    client.sim.script("lead_changes", Fault.SHORT_ACTIVITY_PAGE, times=2)
    quiet = await read(client, CHANGES, log.token, fields="title")
    assert (quiet.pages, quiet.items) == ([0, 0, 0], [])


async def test_late_ones_are_lost_without_an_overlap(rehearse: Rehearse) -> None:
    late = ActivityModel(short_pages=0.0, late_share=0.5, late_seconds=60)
    client = await rehearse(SimulatorSettings(leads=40, activities=late))
    cursor, seen = await token(client), set[str]()
    for lead_id in range(1001, 1041):
        client.sim.world.update(lead_id, {"title": "T"})
        client.clock.advance(2)
        log = await read(client, CHANGES, cursor, fields="title")
        cursor = log.token
        seen |= {item["marketoGUID"] for item in log.items}
    client.clock.advance(60)
    seen |= {item["marketoGUID"] for item in (await read(client, CHANGES, cursor, fields="title")).items}
    whole = {item["marketoGUID"] for item in (await read(client, CHANGES, await token(client), fields="title")).items}
    assert len(whole) == 40
    assert seen < whole
    assert 10 < len(seen) < 30


async def test_a_token_is_a_moment(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    for lead_id in (1001, 1002, 1003):
        client.sim.world.update(lead_id, {"title": "T"})
        client.clock.advance(10)
    since = await token(client, START + timedelta(seconds=10))
    assert [lead for _, lead in (await read(client, CHANGES, since, fields="title")).told] == [1002, 1003]
    later = await token(client, START + timedelta(days=1))
    at_end = (await read(client, CHANGES, later, fields="title")).token
    client.sim.world.update(1004, {"title": "T"})
    assert (await read(client, CHANGES, at_end, fields="title")).items == []
    cursor = (await read(client, CHANGES, since, fields="title")).token
    client.sim.world.update(1005, {"title": "same second"})
    assert [lead for _, lead in (await read(client, CHANGES, cursor, fields="title")).told] == [1005]
    client.sim.world.write(late := next(iter(client.sim.world)), {"title": "dated before the token"})
    client.sim.world.touch([late], client.clock.now().timestamp() - 1)
    assert [lead for _, lead in (await read(client, CHANGES, cursor, fields="title")).told] == [1005]
    assert len((await read(client, CHANGES, since, fields="title")).told) == 5


async def test_old_ones_are_pruned(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await token(client)
    client.sim.world.delete(1001)
    client.sim.world.update(1002, {"title": "T"})
    expected = {13: [(37, 1001), (13, 1002)], 15: [(13, 1002)], 91: []}
    passed = 0
    for days, told in expected.items():
        client.clock.advance((days - passed) * 86_400)
        passed = days
        await client.login()
        assert (await read(client, ANY, since, activityTypeIds="13,37")).told == told
    assert len(client.sim.world.log) == 0


async def test_tokens_must_be_encoded_and_ours(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    where = await token(client)
    assert await client.code(f"{DELETED}?nextPageToken={quote(where, safe='')}") == "ok"
    for bad in (where, quote(where[:-4]), "MTIz", ""):
        assert await client.code(f"{DELETED}?nextPageToken={bad}") == "1003"


async def test_a_long_token_does_not_fit_into_an_address(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=3, activities=ActivityModel(short_pages=0.0, token_chars=8_500)))
    where = await token(client)
    assert len(where) == 8_500
    assert (await client.get(f"{DELETED}?nextPageToken={quote(where, safe='')}"))[0] == 414
    client.sim.world.delete(1001)
    assert (await read(client, DELETED, where)).told == [(37, 1001)]


@pytest.mark.parametrize(
    "path",
    [
        TOKEN,
        f"{TOKEN}?sinceDatetime=yesterday",
        f"{TOKEN}?sinceDatetime=2026-05-04T12:00:00+00:00",
        f"{CHANGES}?fields=title",
        f"{CHANGES}?nextPageToken=TOKEN",
        f"{CHANGES}?nextPageToken=TOKEN&fields=title,FirstName",
        f"{CHANGES}?nextPageToken=TOKEN&fields=title&listId=1001",
        f"{ANY}?nextPageToken=TOKEN",
        f"{ANY}?nextPageToken=TOKEN&activityTypeIds=x",
        f"{ANY}?nextPageToken=TOKEN&activityTypeIds=1,2,3,4,5,6,7,8,9,10,11",
    ],
)
async def test_wrong_requests_are_1003(rehearse: Rehearse, path: str) -> None:
    client = await rehearse(SETTINGS)
    assert await client.code(path.replace("TOKEN", quote(await token(client), safe=""))) == "1003"


async def test_without_the_right_to_read_it_is_603(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, activities_allowed=False))
    for path in (TOKEN, CHANGES, DELETED, ANY):
        assert await client.code(path) == "603"


async def test_it_can_fail_as_others_do(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    where = await token(client)
    for endpoint, path in (("paging_token", TOKEN), ("lead_changes", CHANGES), ("deleted_leads", DELETED), ("activities", ANY)):
        client.sim.script(endpoint, Fault.REST_611)
        assert code_of(await client.read(path, {"nextPageToken": where})) == "611"
