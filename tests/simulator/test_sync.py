"""Sync Leads: a few leads written at once (protocol section 4)."""

import json
import math
from typing import Any

import aiohttp
import pytest

from syncd.simulator import Fault, ImportModel, Lead, Limits, SimulatorSettings
from syncd.simulator.log import NEW_LEAD, SCORE_CHANGE, VALUE_CHANGE
from tests.simulator.client import Client, code_of
from tests.simulator.conftest import Rehearse

SYNC = "/rest/v1/leads.json"
SETTINGS = SimulatorSettings(leads=0, imports=ImportModel(overhead_seconds=10.0, rows_per_second=math.inf, sigma=0.0))


async def sync(client: Client, *records: Any, **order: Any) -> dict[str, Any]:
    """The whole reply to a call with these records."""
    reply: dict[str, Any] = json.loads((await client.post(SYNC, {"input": list(records), **order}))[1])
    return reply


async def ends(client: Client, *records: Any, **order: Any) -> list[str]:
    """What became of each record: its status, or the code for which it was skipped."""
    reply = await sync(client, *records, **order)
    return [one["reasons"][0]["code"] if one["status"] == "skipped" else one["status"] for one in reply["result"]]


def known(client: Client, **values: str) -> Lead:
    return client.sim.world.create({"email": "k@example.com", "title": "kept"} | values)


async def test_results_stand_in_the_order_of_the_input(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    client.clock.advance(60)
    reply = await sync(
        client, {"email": "new@example.com", "leadScore": 90}, {"email": "é@example.com"}, {"email": "K@example.com", "notes": "n"}
    )
    created, skipped, updated = reply["result"]
    assert reply["success"] is True
    assert created == {"id": lead.id + 1, "status": "created"}
    assert (skipped["status"], [reason["code"] for reason in skipped["reasons"]]) == ("skipped", ["1003"])
    assert skipped["reasons"][0]["message"]
    assert updated == {"id": lead.id, "status": "updated"}
    (made,) = client.sim.world.by_email("new@example.com")
    assert (made.values["leadScore"], made.updated_at) == ("90", client.clock.now())
    assert (lead.email, lead.values["title"], lead.values["notes"], lead.updated_at) == ("k@example.com", "kept", "n", client.clock.now())
    report = client.sim.report()
    assert (report.sync_calls, report.sync_records) == (1, 3)
    assert (report.sync_statuses, report.sync_skipped) == ({"created": 1, "updated": 1, "skipped": 1}, {"1003": 1})
    assert report.violations == {}


async def test_null_clears_and_absent_leaves_alone(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client, phone="1", leadScore="5")
    assert await ends(client, {"email": "k@example.com", "phone": None, "leadScore": 0, "unsubscribed": False}) == ["updated"]
    assert "phone" not in lead.values
    assert (lead.values["title"], lead.values["leadScore"], lead.values["unsubscribed"]) == ("kept", "0", "false")


async def test_blank_is_noted(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    await sync(client, {"email": "k@example.com", "title": ""})
    assert ("title" in lead.values, client.sim.report().violations) == (False, {"blank value in sync record": 1})


async def test_numbers_keep_their_digits(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    body = '{"input":[{"email":"k@example.com","accountNumber":12345678901234567890123,"lifetimeValue":10.50}]}'
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": "application/json"}
    async with client.session.post(client.sim.rest_endpoint + SYNC, data=body, headers=headers) as response:
        assert code_of(await response.json()) == "ok"
    assert (lead.values["accountNumber"], lead.values["lifetimeValue"]) == ("12345678901234567890123", "10.50")


@pytest.mark.parametrize(
    ("action", "present", "absent"),
    [
        ("createOrUpdate", "updated", "created"),
        ("createOnly", "1005", "created"),
        ("updateOnly", "updated", "1004"),
        ("createDuplicate", "created", "created"),
    ],
)
async def test_actions(rehearse: Rehearse, action: str, present: str, absent: str) -> None:
    client = await rehearse(SETTINGS)
    known(client)
    records = {"email": "k@example.com", "title": "T"}, {"email": "new@example.com", "title": "T"}
    assert await ends(client, *records, action=action) == [present, absent]
    leads = list(client.sim.world)
    assert len(leads) == 1 + [present, absent].count("created")
    assert [lead.values["title"] for lead in leads] == ["T" if present == "updated" else "kept"] + ["T"] * (len(leads) - 1)


async def test_id_is_for_update_only(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    order = {"lookupField": "id", "action": "updateOnly"}
    assert await ends(client, {"id": lead.id, "email": "k2@example.com", "title": None}, {"id": 9}, {"title": "T"}, **order) == [
        "updated",
        "1004",
        "1002",
    ]
    assert (client.sim.world.by_email("k2@example.com"), "title" in lead.values) == ([lead], False)
    assert await ends(client, {"id": lead.id, "title": "T"}, lookupField="id") == ["1011"]
    assert await ends(client, {"id": lead.id, "email": "k2@example.com"}) == ["1003"]


async def test_lookup_by_another_field(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client, customerNumber="C-1")
    assert await ends(client, {"customerNumber": "C-1", "title": "T"}, {"customerNumber": "C-2"}, lookupField="customerNumber") == [
        "updated",
        "created",
    ]
    assert (lead.values["title"], len(client.sim.world)) == ("T", 2)


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"title": "T"}, "1002"),
        ({"email": None}, "1002"),
        ({"email": " "}, "1002"),
        ({"leadScore": 1.5}, "1001"),
        ({"leadScore": True}, "1001"),
        ({"unsubscribed": "maybe"}, "1001"),
        ({"title": True}, "1001"),
        ({"title": ["T"]}, "1001"),
        ({"dateOfBirth": "2026-02-30"}, "1001"),
        ({"customerNumber": "x" * 65}, "1003"),
        ({"email": "nobody"}, "1003"),
        ({"leadRating": "hot"}, "1003"),
        ({"shoes": "red"}, "1006"),
        ({"Title": "T"}, "1006"),
        ({"company": "C"}, "1021"),
        ({"company": None}, "1021"),
        ({"website": "https://example.com"}, "1021"),
    ],
)
async def test_record_that_is_skipped(rehearse: Rehearse, record: dict[str, Any], code: str) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    before = dict(lead.values)
    given = record if "email" in record or code == "1002" else {"email": "k@example.com", "notes": "n", **record}
    assert await ends(client, given, {"email": "other@example.com"}) == [code, "created"]
    assert (lead.values, len(client.sim.world)) == (before, 2)


async def test_shared_email_matches_several(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    leads = [known(client), known(client, email="K@example.com")]
    assert await ends(client, {"email": "k@example.com", "title": "T"}) == ["1007"]
    assert [lead.values["title"] for lead in leads] == ["kept", "kept"]


@pytest.mark.parametrize("lookup_field", ["shoes", "leadRating", "company"])
async def test_lookup_field_that_is_not_supported(rehearse: Rehearse, lookup_field: str) -> None:
    client = await rehearse(SETTINGS)
    assert await ends(client, {lookup_field: "x"}, lookupField=lookup_field) == ["1011"]


async def test_one_key_twice_is_noted_and_the_later_record_wins(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    assert await ends(client, {"email": "a@example.com", "title": "1"}, {"email": "A@example.com", "title": "2"}) == ["created", "updated"]
    assert [lead.values["title"] for lead in client.sim.world] == ["2"]
    assert client.sim.report().violations == {"key twice in one sync call": 1}


@pytest.mark.parametrize(
    "order",
    [
        {"action": "upsert"},
        {"listId": 1001},
        {"partitionName": "X"},
        {"lookupField": None},
        {"input": []},
        {"input": None},
        {"input": ["a@example.com"]},
        {"input": [{"email": f"n{number}@example.com"} for number in range(301)]},
    ],
)
async def test_wrong_call_is_1003(rehearse: Rehearse, order: dict[str, Any]) -> None:
    client = await rehearse(SETTINGS)
    assert code_of(await sync(client, {"email": "a@example.com"}, **order)) == "1003"
    report = client.sim.report()
    assert (report.sync_calls, report.sync_records, len(client.sim.world)) == (0, 0, 0)


async def test_three_hundred_records_and_a_partition(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    records = [{"email": f"n{number}@example.com", "title" if number % 2 else "notes": "x"} for number in range(300)]
    assert await ends(client, *records, partitionName="Default") == ["created"] * 300


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("{", "application/json", "609"),
        ('{"input":[{"email":"a@example.com","leadScore":NaN}]}', "application/json", "609"),
        ("[" * 50_000, "application/json", "609"),
        ("[]", "application/json", "1003"),
        ('{"input":[{"email":"a@example.com"}]}', "text/plain", "612"),
    ],
)
async def test_body_that_is_no_order(rehearse: Rehearse, body: str, kind: str, code: str) -> None:
    client = await rehearse(SETTINGS)
    headers = {"Authorization": f"Bearer {client.token}", "Content-Type": kind}
    async with client.session.post(client.sim.rest_endpoint + SYNC, data=body, headers=headers) as response:
        assert code_of(await response.json()) == code


async def test_body_is_limited(rehearse: Rehearse) -> None:
    record = {"email": "a@example.com", "notes": ""}
    client = await rehearse(SimulatorSettings(leads=0, limits=Limits(sync_body_bytes=300)))
    room = 300 - len(json.dumps({"input": [record]}))
    assert (await client.post(SYNC, {"input": [record | {"notes": "x" * (room + 1)}]}))[0] == 413
    assert await ends(client, record | {"notes": "x" * room}) == ["created"]


async def test_calls_count(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0, limits=Limits(rest_calls_per_day=2)))
    replies = [await sync(client, {"email": f"n{number}@example.com"}) for number in range(3)]
    assert [code_of(reply) for reply in replies] == ["ok", "ok", "607"]
    report = client.sim.report()
    assert (report.sync_calls, len(client.sim.world)) == (2, 2)
    assert {(count.endpoint, count.code): count.count for count in report.calls if count.api == "rest"} == {
        ("sync_leads", "ok"): 2,
        ("sync_leads", "607"): 1,
    }


async def test_what_is_written_shows_as_activities(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    client.clock.advance(60)
    began = int(client.clock.now().timestamp())
    await sync(client, {"email": "k@example.com", "title": "T", "leadScore": 7}, {"email": "new@example.com"})
    client.clock.advance(1)
    entries = client.sim.world.log.after((began - 1, 1 << 70), (NEW_LEAD, VALUE_CHANGE, SCORE_CHANGE), client.clock.now().timestamp())
    assert [(entry.type, entry.lead_id, entry.changes) for entry in entries] == [
        (VALUE_CHANGE, lead.id, (("title", "kept", "T"),)),
        (SCORE_CHANGE, lead.id, (("leadScore", None, "7"),)),
        (NEW_LEAD, lead.id + 1, ()),
    ]
    leads, left = client.sim.world.window(began, began, None, 10)
    assert ([each.id for each in leads], left) == ([lead.id, lead.id + 1], 0)


async def test_key_that_passes_a_live_job(rehearse: Rehearse) -> None:
    """A new key makes a duplicate lead; by id no harm is done, and nothing is noted."""
    client = await rehearse(SETTINGS)
    lead = known(client)
    batch = await client.import_("email,title\nnew@example.com,T\nk@example.com,T\n")
    await client.import_(f"id,title\n{lead.id},T\n", "format=csv&lookupField=id")
    assert await ends(client, {"id": lead.id, "notes": "n"}, lookupField="id", action="updateOnly") == ["updated"]
    assert client.sim.report().synced_live_key_count == 0
    assert await ends(client, {"email": "NEW@example.com"}, {"email": "other@example.com"}) == ["created", "created"]
    client.clock.advance(10)
    assert await ends(client, {"email": "k@example.com", "notes": "later"}) == ["updated"]
    report = client.sim.report()
    (found,) = report.synced_live_keys
    assert (found.lookup_field, found.key, found.batch_id, report.synced_live_key_count) == ("email", "new@example.com", batch, 1)
    assert (len(client.sim.world.by_email("new@example.com")), report.duplicate_leads_created) == (2, 1)
    assert report.violations == {"key synced while in a live job": 1, "duplicate leads created by two live jobs": 1}


@pytest.mark.parametrize(("fault", "written"), [(Fault.RESET_BEFORE, 0), (Fault.RESET_AFTER, 1), (Fault.TRUNCATED, 1)])
async def test_broken_connection(rehearse: Rehearse, fault: Fault, written: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("sync_leads", fault)
    with pytest.raises(aiohttp.ClientError):
        await client.post(SYNC, {"input": [{"email": "a@example.com"}]})
    assert (client.sim.report().sync_calls, len(client.sim.world)) == (written, written)


@pytest.mark.parametrize(
    ("fault", "status", "written"),
    [(Fault.HTML_503, 503, 0), (Fault.GATEWAY_502, 502, 0), (Fault.GATEWAY_504, 504, 1), (Fault.JSON_GARBAGE, 200, 1)],
)
async def test_strange_reply(rehearse: Rehearse, fault: Fault, status: int, written: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("sync_leads", fault)
    assert (await client.post(SYNC, {"input": [{"email": "a@example.com"}]}))[0] == status
    assert len(client.sim.world) == written


@pytest.mark.parametrize(("code", "written"), [("602", 0), ("604", 1), ("606", 0), ("611", 0), ("713", 0), ("1003", 0), ("9999", 0)])
async def test_code_in_place_of_the_results(rehearse: Rehearse, code: str, written: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("sync_leads", Fault(f"rest_{code}"))
    assert code_of(await sync(client, {"email": "a@example.com"})) == code
    assert len(client.sim.world) == written


async def test_trouble_with_the_results(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("sync_leads", Fault.SYNC_RESULT_MISSING)
    client.sim.script("sync_leads", Fault.SYNC_SKIPPED)
    assert await ends(client, {"email": "a@example.com"}, {"email": "b@example.com"}) == ["created"]
    assert await ends(client, {"email": "c@example.com"}, {"email": "d@example.com"}) == ["611", "611"]
    assert [lead.email for lead in client.sim.world] == ["a@example.com", "b@example.com"]


async def test_reading_by_post_writes_nothing(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    lead = known(client)
    reply = await client.read(SYNC, {"filterType": "id", "filterValues": str(lead.id), "fields": "email"})
    assert reply["result"] == [{"id": lead.id, "email": "k@example.com"}]
    assert client.sim.report().sync_calls == 0
