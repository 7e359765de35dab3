"""getMultipleLeads as protocol section 1 tells it."""

import re
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from syncd.simulator import Credentials, Movement, SimulatorSettings
from tests.simulator.client import ACTION, START, Client, SoapReply, at_position, keyed, updated_between
from tests.simulator.conftest import Rehearse

SAMPLES = Path(__file__).parent.parent / "samples"
RECENT = SimulatorSettings(leads=250, updated_since=START - timedelta(days=20))
WINDOW = (START - timedelta(days=29), START)


async def pages(client: Client, params: str, size: int = 60) -> list[SoapReply]:
    """Follow the stream of `params` (a selector) to its end."""
    found = [await client.soap(f"{params}<batchSize>{size}</batchSize>")]
    while found[-1].position:
        found.append(await client.soap(f"{params}{at_position(found[-1].position)}<batchSize>{size}</batchSize>"))
    return found


def compact(xml: str) -> str:
    """Without the white space between elements."""
    return re.sub(r">\s+<", "><", xml).strip()


async def test_reply_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0, first_lead_id=65835))
    world = client.sim.world
    shared = {"leadScore": "16", "website": "marketo.com", "company": "Marketo Test", "lastName": "LnameForm1", "firstName": "FnameForm1"}
    world.create({"email": "formtest1@marketo.com", **shared})
    while len(world) < 67508 - 65835:
        world.create({})
    joe = {"company": "Marketo", "dateOfPurchase": "2012-04-04", "firstName": "Joe", "lastName": "Orante", "leadScore": "11"}
    world.create({"email": "joe@marketo.com", **joe})
    asked = "".join(
        f"<stringItem>{name}</stringItem>" for name in ("Company", "Date_of_purchase", "FirstName", "LastName", "LeadScore", "Website")
    )
    reply = await client.soap(
        keyed(
            "EMAIL",
            "formtest1@marketo.com",
            "joe@marketo.com",
            rest=f"<batchSize>100</batchSize><includeAttributes>{asked}</includeAttributes>",
        )
    )
    assert reply.status == 200
    assert compact(reply.text) == compact((SAMPLES / "getMultipleLeads-reply.xml").read_text())


async def test_documented_request_is_understood(rehearse: Rehearse) -> None:
    """The sample as it is, but for its signature."""
    client = await rehearse(SimulatorSettings(credentials=Credentials(soap_user_id="demo17_1_809934544BFABAE58E5D27"), signature_life=1e12))
    sample = (SAMPLES / "getMultipleLeads-request.xml").read_bytes()
    assert (await client.post_soap(sample)).code == "20014"
    client.credentials = Credentials(soap_user_id="demo17_1_809934544BFABAE58E5D27")
    signed = re.search(
        rb"<requestSignature>.*?</requestSignature>", client.envelope("", at=datetime.fromisoformat("2013-08-02T15:47:06-07:00"))
    )
    assert signed is not None
    reply = await client.post_soap(re.sub(rb"<requestSignature>.*?</requestSignature>", signed[0], sample))
    assert reply.code == "20103"


async def test_fault_is_the_documented_one(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    reply = await client.soap(keyed("IDNUM", 1001), key="another key")
    assert reply.status == 500
    assert compact(reply.text) == compact((SAMPLES / "getMultipleLeads-fault.xml").read_text())


async def test_stale_signature_is_20016(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    fresh, stale = START - timedelta(seconds=299), START - timedelta(seconds=301)
    assert (await client.soap(keyed("IDNUM", 1001), at=fresh)).ids == [1001]
    assert (await client.soap(keyed("IDNUM", 1001), at=stale)).code == "20016"
    assert (await client.soap(keyed("IDNUM", 1001), at=stale, key="wrong")).code == "20014"


async def test_window_is_walked_exactly_once(rehearse: Rehearse) -> None:
    client = await rehearse(RECENT)
    walked = await pages(client, updated_between(*WINDOW))
    assert [page.returned for page in walked] == [60, 60, 60, 60, 10]
    assert [page.remaining for page in walked] == [190, 130, 70, 10, 0]
    assert sorted(lead for page in walked for lead in page.ids) == [lead.id for lead in client.sim.world]


async def test_every_value_survives_the_wire(rehearse: Rehearse) -> None:
    client = await rehearse(RECENT)
    truth = {lead.id: (lead.email, lead.soap_values()) for lead in client.sim.world}
    for page in await pages(client, updated_between(*WINDOW), 250):
        for lead_id, email, attributes in page.leads:
            expected = {name: value for name, value in truth[lead_id][1].items() if name not in ("Id", "Email")}
            assert (email, attributes) == (truth[lead_id][0], expected)


async def test_burst_in_one_second_pages_by_id(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=500, burst_leads=400, updated_since=START - timedelta(days=20)))
    busiest = next(iter(client.sim.world)).updated_at
    walked = await pages(client, updated_between(busiest, busiest), 150)
    assert [page.returned for page in walked[:2]] == [150, 150]
    assert len({lead for page in walked for lead in page.ids}) >= 400


async def test_position_stays_valid_while_leads_move_out(rehearse: Rehearse) -> None:
    client = await rehearse(RECENT)
    selector = updated_between(*WINDOW)
    first = await client.soap(selector + "<batchSize>100</batchSize>")
    later = next(lead.id for lead in client.sim.world if lead.id not in first.ids)
    client.clock.advance(5)
    client.sim.world.update(first.ids[0], {"title": "moved"})
    client.sim.world.update(later, {"title": "moved"})
    second = await client.soap(f"{selector}{at_position(first.position)}<batchSize>100</batchSize>")
    assert second.remaining == 250 - 100 - 1 - 100
    assert later not in second.ids


async def test_position_is_bound_to_its_selector(rehearse: Rehearse) -> None:
    client = await rehearse(RECENT)
    position = (await client.soap(updated_between(*WINDOW, "<batchSize>10</batchSize>"))).position
    other = updated_between(WINDOW[0] + timedelta(seconds=1), WINDOW[1], at_position(position))
    assert (await client.soap(other)).code == "20122"
    for garbage in ("garbage", position.lower(), position[:-4], position + " "):
        assert (await client.soap(updated_between(*WINDOW, at_position(garbage)))).code == "20122"
    assert (await client.soap(updated_between(*WINDOW, at_position(position)))).code is None


async def test_server_caps_the_batch(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=50, soap_batch_limit=20, updated_since=START - timedelta(days=20)))
    assert (await client.soap(updated_between(*WINDOW, "<batchSize>1000</batchSize>"))).returned == 20
    assert (await client.soap(updated_between(*WINDOW))).returned == 20


async def test_over_30_days_is_20022(rehearse: Rehearse) -> None:
    client = await rehearse(RECENT)
    assert (await client.soap(updated_between(START - timedelta(days=30), START))).code is None
    assert (await client.soap(updated_between(START - timedelta(days=30, seconds=1), START))).code == "20022"
    assert (await client.soap(updated_between(START - timedelta(days=31)))).code == "20022"


async def test_only_the_asked_attributes_come(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=5))
    asked = "<includeAttributes><stringItem>FirstName</stringItem><stringItem>Legacy_Segment</stringItem></includeAttributes>"
    reply = await client.soap(keyed("IDNUM", *range(1001, 1006), rest=asked))
    assert {name for _, _, attributes in reply.leads for name in attributes} <= {"FirstName", "Legacy_Segment"}
    assert all(attributes["FirstName"] for _, _, attributes in reply.leads)


async def test_static_list_by_name_and_id(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=100, static_lists=(("Program.List", 30),)))
    members = client.sim.world.lists[1001].members
    by_name = '<leadSelector xsi:type="ns1:StaticListSelector"><staticListName>Program.List</staticListName></leadSelector>'
    walked = await pages(client, by_name, 12)
    assert [lead for page in walked for lead in page.ids] == members
    assert [page.remaining for page in walked] == [18, 6, 0]
    by_id = by_name.replace("staticListName", "staticListId").replace("Program.List", "1001")
    assert (await client.soap(by_id)).ids == members
    assert (await client.soap(by_id.replace("1001", "9"))).code == "20111"


async def test_static_list_ends_at_zero_while_its_members_change(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=40))
    world = client.sim.world
    made = world.create_list("Made.Now", range(1001, 1021))
    asked = f'<leadSelector xsi:type="ns1:StaticListSelector"><staticListId>{made.id}</staticListId></leadSelector>'
    first = await client.soap(f"{asked}<batchSize>8</batchSize>")
    assert (first.ids, first.remaining) == (list(range(1001, 1009)), 12)
    world.remove_members(made.id, [1001, 1010, 1030])
    world.add_members(made.id, [1040, 1011])
    world.delete(1012)
    second = await client.soap(f"{asked}{at_position(first.position)}<batchSize>8</batchSize>")
    assert (second.ids, second.remaining) == ([1009, 1011, *range(1013, 1019)], 3)
    for gone in (1019, 1020, 1040):
        world.delete(gone)
    last = await client.soap(f"{asked}{at_position(second.position)}<batchSize>8</batchSize>")
    assert (last.status, last.ids, last.returned, last.remaining, last.position) == (200, [], 0, 0, "")


async def test_lead_keys(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=150))
    lead = next(lead for lead in client.sim.world if lead.email)
    assert (await client.soap(keyed("EMAIL", (lead.email or "").upper()))).ids == [lead.id]
    assert (await client.soap(keyed("IDNUM", *range(1001, 1151)))).returned == 100
    assert (await client.soap(keyed("EMAIL", "nobody@example.com"))).code == "20103"
    assert (await client.soap(keyed("IDNUM", "9" * 5_000, "²"))).code == "20103"
    assert (await client.soap(keyed("SHOESIZE", "44"))).code == "20102"
    assert client.sim.report().violations == {"more than 100 keys": 1}


async def test_repeated_keys_are_noted(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=3))
    assert (await client.soap(keyed("IDNUM", 1001, 1002, 1001))).ids == [1001, 1002]
    assert (await client.soap(keyed("IDNUM", *range(1002, 1102), 1001))).ids == [1002, 1003]
    assert client.sim.report().violations == {"duplicate keys": 1, "more than 100 keys": 1}


SELECTOR = keyed("IDNUM", 1001)
SWAPPED = '<leadSelector xsi:type="ns1:LastUpdateAtSelector"><oldestUpdatedAt>2026-05-01T00:00:00Z</oldestUpdatedAt>'
SWAPPED += "<latestUpdatedAt>2026-05-02T00:00:00Z</latestUpdatedAt></leadSelector>"


@pytest.mark.parametrize(
    ("params", "code", "violation"),
    [
        (f"<batchSize>1</batchSize>{SELECTOR}", "20012", "wrong SOAP elements or order"),
        (SWAPPED, "20012", "wrong SOAP elements or order"),
        (SELECTOR.replace("leadSelector", "ns1:leadSelector"), "20012", "inner SOAP element in a namespace"),
        (SELECTOR.replace("ns1:LeadKeySelector", "LeadKeySelector"), "20012", "selector without its xsi:type"),
        (f"{SELECTOR}<lastUpdatedAt>2026-05-01T00:00:00Z</lastUpdatedAt>", None, "lastUpdatedAt sent"),
        (f"{SELECTOR}<streamPosition/>", None, "empty element instead of none"),
        (SELECTOR + "<includeAttributes><stringItem>firstName</stringItem></includeAttributes>", None, "unknown attribute asked for"),
    ],
)
async def test_strayed_requests_are_noted(rehearse: Rehearse, params: str, code: str | None, violation: str) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    assert (await client.soap(params)).code == code
    assert client.sim.report().violations == {violation: 1}


async def test_missing_parts(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    assert (await client.soap("")).code == "20017"
    assert (await client.soap(SELECTOR + "<batchSize>many</batchSize>")).code == "20110"
    naive = updated_between(START).replace("+00:00", "")
    assert (await client.soap(naive)).code == "20110"
    assert (await client.soap(naive.replace("2026-05-04T12:00:00", "0001-01-01T00:00:00+14:00"))).code == "20110"
    other = client.envelope(SELECTOR).replace(b"paramsGetMultipleLeads", b"paramsGetLead")
    assert (await client.post_soap(other)).code == "20019"
    assert (await client.post_soap(b"<html>")).code == "20012"


async def test_dtd_is_refused(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    body = b'<!DOCTYPE x [<!ENTITY e "1001">]>' + client.envelope(keyed("IDNUM", "KEY")).replace(b"KEY", b"&e;")
    assert (await client.post_soap(body)).code == "20012"


async def test_headers_are_noted(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    body = client.envelope(SELECTOR)
    assert (await client.post_soap(body, {"Content-Type": "text/xml"})).ids == [1001]
    assert (await client.post_soap(body, {"Content-Type": "application/json", "SOAPAction": ACTION})).ids == [1001]
    assert client.sim.report().violations == {"SOAP without its SOAPAction": 1, "SOAP without Content-Type text/xml": 1}


async def test_empty_things_come_in_all_their_forms(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    for _ in range(9):
        client.sim.world.create({})
    asked = "<includeAttributes><stringItem>FirstName</stringItem></includeAttributes>"
    text = (await client.soap(keyed("IDNUM", *range(1001, 1010), rest=asked))).text
    assert '<Email xsi:nil="true" />' in text
    assert '<leadAttributeList xsi:nil="true" />' in text
    assert "<leadAttributeList />" in text
    assert text.count("leadAttributeList") < 9


async def test_world_moves_by_itself(rehearse: Rehearse) -> None:
    settings = SimulatorSettings(leads=100, movement=Movement(updates_per_second=5, creations_per_second=1))
    client = await rehearse(settings)
    client.clock.advance(100)
    moved = await client.soap(updated_between(START, START + timedelta(seconds=100)))
    assert moved.returned > 80
    assert 150 < len(client.sim.world) < 260
    again = await rehearse(settings)
    for _ in range(100):
        again.clock.advance(1)
        assert len(again.sim.world) >= 100
    assert list(again.sim.world.truth()) == list(client.sim.world.truth())


async def test_it_tells_its_own_time(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    async with client.session.get(f"{client.sim.rest_endpoint}/rest/v1/leads/describe.json") as response:
        assert parsedate_to_datetime(response.headers["Date"]) == START


async def test_its_clock_may_be_wrong(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, clock_skew=-400.0, signature_life=300.0))
    async with client.session.get(client.sim.rest_endpoint) as response:
        assert parsedate_to_datetime(response.headers["Date"]) == START - timedelta(seconds=400)
    assert (await client.soap(keyed("IDNUM", 1001))).code == "20016"
    assert (await client.soap(keyed("IDNUM", 1001), at=START - timedelta(seconds=400))).ids == [1001]
    assert client.sim.world.create({}).updated_at == START
