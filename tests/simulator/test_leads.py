"""Leads by id over REST: typed values, missing ones, limits (protocol section 3.2)."""

import json
from datetime import datetime
from typing import Any

import pytest

from syncd.simulator import Fault, SimulatorSettings
from tests.simulator.client import code_of
from tests.simulator.conftest import Rehearse

LEADS = "/rest/v1/leads.json"
VALUES = {
    "email": "ada@example.com",
    "firstName": 'Zoë "Z"',
    "leadScore": "-7",
    "accountNumber": "12345678901234567890123",
    "lifetimeValue": "10.50",
    "unsubscribed": "true",
    "dateOfBirth": "1999-12-31",
    "lastWebinarAt": "2015-05-11T07:54:00-06:00",
}


def asked(ids: list[int], *fields: str) -> dict[str, str]:
    return {"filterType": "id", "filterValues": ",".join(map(str, ids)), "fields": ",".join(fields)}


async def test_values_are_typed_and_keep_their_digits(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    lead = client.sim.world.create(VALUES)
    status, text = await client.get(f"{LEADS}?filterType=id&filterValues={lead.id}&fields={','.join(VALUES)}")
    reply = json.loads(text, parse_int=str, parse_float=lambda digits: f"float {digits}")
    assert (status, list(reply), reply["success"]) == (200, ["requestId", "success", "result"], True)
    assert reply["result"] == [
        {
            "id": "1001",
            "email": "ada@example.com",
            "firstName": 'Zoë "Z"',
            "leadScore": "-7",
            "accountNumber": "12345678901234567890123",
            "lifetimeValue": "float 10.50",
            "unsubscribed": True,
            "dateOfBirth": "1999-12-31",
            "lastWebinarAt": "2015-05-11T13:54:00Z",
        }
    ]


@pytest.mark.parametrize(
    ("text", "number"), [("+1.50", "1.50"), (".5", "0.5"), ("007.", "7"), ("-0.0", "-0.0"), ("1e5", '"1e5"'), (".", '"."')]
)
async def test_numbers_that_json_cannot_write(rehearse: Rehearse, text: str, number: str) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    client.sim.world.create({"lifetimeValue": text})
    answered = (await client.get(f"{LEADS}?filterType=id&filterValues=1001&fields=lifetimeValue"))[1]
    assert answered.endswith(f'"lifetimeValue":{number}}}]}}')


async def test_post_reads_as_get_does(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=400))
    ids = list(range(1001, 1301))
    reply = await client.read(LEADS, asked(ids, "firstName", "company"))
    assert [lead["id"] for lead in reply["result"]] == ids
    got = await client.rest(f"{LEADS}?filterType=id&filterValues=1003,1001,1003,7&fields=firstName,company")
    assert got["result"] == [reply["result"][0], reply["result"][2]]
    assert client.sim.report().leads_read == 302


async def test_a_field_without_a_value_is_absent_or_null(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=20))
    for lead in client.sim.world:
        client.sim.world.update(lead.id, {"title": "", "phone": ""})
    ids = [lead.id for lead in client.sim.world]
    found: list[dict[str, Any]] = (await client.read(LEADS, asked(ids, "title", "phone")))["result"]
    shown = {(name in lead, lead.get(name)) for lead in found for name in ("title", "phone")}
    assert shown == {(True, None), (False, None)}
    assert (await client.read(LEADS, asked(ids, "title", "phone")))["result"] == found


async def test_by_email_and_without_fields(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    for name in ("Ada", "Ben"):
        client.sim.world.create({"email": "shared@example.com", "firstName": name, "lastName": "L", "title": "T"})
    reply = await client.read(LEADS, {"filterType": "email", "filterValues": "Shared@example.com,nobody@example.com"})
    assert [(lead["id"], lead["firstName"], "title" in lead) for lead in reply["result"]] == [(1001, "Ada", False), (1002, "Ben", False)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filterValues": ",".join(["1"] * 301)}, "301"),
        ({"fields": "firstName,Company"}, "'Company'"),
        ({"fields": "Legacy_Segment"}, "'Legacy_Segment'"),
        ({"filterType": "shoes"}, "'shoes'"),
        ({"filterType": ""}, "filterType"),
        ({"filterValues": ""}, "filterValues"),
    ],
)
async def test_wrong_requests_are_1003(rehearse: Rehearse, changed: dict[str, str], message: str) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    reply = await client.read(LEADS, asked([1001], "firstName") | changed)
    assert code_of(reply) == "1003"
    assert message in reply["errors"][0]["message"]


async def test_a_long_address_is_414(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    query = f"?filterType=id&filterValues={','.join(['1001'] * 300)}&fields="
    room = 8_000 - len(LEADS + query)
    assert (await client.get(LEADS + query + "x" * room))[0] == 200
    assert (await client.get(LEADS + query + "x" * (room + 1)))[0] == 414
    assert (await client.get(LEADS + query + "x" * 20_000))[0] == 414


async def test_a_form_must_say_that_it_is_one(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    _, text = await client.post(f"{LEADS}?_method=GET", asked([1001], "title"))
    assert code_of(json.loads(text)) == "612"
    assert code_of(await client.read(LEADS, asked([1001], "title") | {"access_token": client.token})) == "601"


async def test_rest_truth_compares(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=60))
    names = [name for name in client.sim.world.catalogue.by_rest if name not in ("id", "email")]
    form = asked([lead.id for lead in client.sim.world], *names)
    headers = {"Authorization": f"Bearer {client.token}"}
    async with client.session.post(f"{client.sim.rest_endpoint}{LEADS}?_method=GET", data=form, headers=headers) as response:
        found = json.loads(await response.text(), parse_int=str, parse_float=str)["result"]
    for lead, (lead_id, _, values) in zip(found, client.sim.world.rest_truth(names), strict=True):
        expected = dict(values)
        if "lastWebinarAt" in expected:
            assert datetime.fromisoformat(lead["lastWebinarAt"]) == datetime.fromisoformat(expected["lastWebinarAt"])
            expected["lastWebinarAt"] = lead["lastWebinarAt"]
        got = {name: str(value).lower() if isinstance(value, bool) else value for name, value in lead.items() if value is not None}
        assert got == {"id": str(lead_id)} | expected


async def test_trouble_at_leads(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    client.sim.script("leads", Fault.REST_608)
    assert code_of(await client.read(LEADS, asked([1001], "title"))) == "608"
    client.sim.script("leads", Fault.HTML_503)
    assert (await client.get(LEADS))[0] == 503
