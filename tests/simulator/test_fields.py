"""Fields that come, go and change while the simulator runs (protocol section 3.3)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from syncd.simulator import Catalogue, Field, ImportModel, Movement, SimulatorSettings
from syncd.simulator.fields import BY_KEY, BY_REST, BY_SOAP, CATALOGUE
from tests.simulator.client import START, Client, keyed, updated_between
from tests.simulator.conftest import Rehearse

DESCRIBE = "/rest/v1/leads/describe.json"
SHOES = Field(22, "Shoe Size", "integer", "shoeSize", "Shoe_Size")
LEAD = keyed("IDNUM", 1001)


async def described(client: Client) -> dict[str, str]:
    return {field["displayName"]: field["dataType"] for field in (await client.rest(DESCRIBE))["result"]}


async def attributes(client: Client, *asked: str) -> dict[str, str]:
    items = "".join(f"<stringItem>{name}</stringItem>" for name in asked)
    ((_, _, found),) = (await client.soap(LEAD + (f"<includeAttributes>{items}</includeAttributes>" if items else ""))).leads
    return found


async def test_a_new_field_is_described_answered_and_imported_at_once(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, imports=ImportModel(overhead_seconds=1, sigma=0)))
    assert "Shoe_Size" not in await attributes(client)
    client.sim.add_field(SHOES)
    assert list(await described(client))[-1] == "Shoe Size"
    client.sim.world.update(1001, {"shoeSize": "44"})
    assert (await attributes(client))["Shoe_Size"] == "44"
    assert await attributes(client, "Shoe_Size") == {"Shoe_Size": "44"}
    assert client.sim.world.get(1001).soap_values()["Shoe_Size"] == "44"  # type: ignore[union-attr]
    assert next(client.sim.world.truth(["Shoe_Size"]))[2] == {"shoeSize": "44"}
    batch = await client.import_("id,shoeSize\n1001,45\n1001,big\n", "format=csv&lookupField=id")
    client.clock.advance(60)
    assert (await client.status(batch))["numOfRowsFailed"] == 1
    assert await attributes(client, "Shoe_Size") == {"Shoe_Size": "45"}


async def test_a_field_that_is_gone_is_neither_described_nor_answered(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    client.sim.world.update(1001, {"title": "CEO"})
    client.sim.remove_field("title")
    assert "Job Title" not in await described(client)
    assert "Title" not in await attributes(client)
    assert client.sim.report().violations == {}
    assert await attributes(client, "Title", "FirstName") == await attributes(client, "FirstName")
    assert client.sim.report().violations == {"unknown attribute asked for": 1}
    assert "title" not in next(client.sim.world.truth())[2]
    with pytest.raises(KeyError, match="no such field: title"):
        client.sim.world.update(1001, {"title": "CTO"})
    client.sim.add_field(replace(BY_KEY["title"], id=99, soap="Position"))
    assert (await attributes(client))["Position"] == "CEO"


async def test_a_field_takes_another_type(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    client.sim.world.update(1001, {"leadScore": "7"})
    place = list(await described(client)).index("Lead Score")
    client.sim.retype_field("leadScore", "string")
    assert list((await described(client)).items())[place] == ("Lead Score", "string")
    text = (await client.soap(LEAD)).text
    assert "<attrName>LeadScore</attrName><attrType>string</attrType><attrValue>7</attrValue>" in text
    client.sim.world.update(1001, {"leadScore": "high"})
    assert await attributes(client, "LeadScore") == {"LeadScore": "high"}


async def test_the_world_moves_on_without_its_fields(rehearse: Rehearse) -> None:
    moving = SimulatorSettings(leads=50, movement=Movement(updates_per_second=5, creations_per_second=1))
    drifted, plain = await rehearse(moving), await rehearse(moving)
    for client in (drifted, plain):
        client.clock.advance(100)
    for key in ("leadScore", "title", "email"):
        drifted.sim.remove_field(key)
    for client in (drifted, plain):
        client.clock.advance(100)
    assert [lead.id for lead in drifted.sim.world] == [lead.id for lead in plain.sim.world]
    since = updated_between(START + timedelta(seconds=101))
    leads = (await drifted.soap(since)).leads
    assert [lead_id for lead_id, _, _ in leads] == (await plain.soap(since)).ids
    assert not any({"LeadScore", "Title"} & set(values) for _, _, values in leads)


async def test_a_field_may_go_while_an_import_waits(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, imports=ImportModel(overhead_seconds=10, sigma=0)))
    batch = await client.import_("email,title,phone\nnew@example.com,T,7\n")
    client.sim.remove_field("title")
    client.clock.advance(20)
    assert (await client.status(batch))["numOfLeadsProcessed"] == 1
    values = client.sim.world.by_email("new@example.com")[0].values
    assert (values["phone"], values.get("title")) == ("7", None)
    await client.import_("email,title\nother@example.com,T\n")
    assert client.sim.report().violations == {"header not spelt as describe spells it": 1}


async def test_each_simulator_has_fields_of_its_own(rehearse: Rehearse) -> None:
    one, other = await rehearse(SimulatorSettings(leads=1)), await rehearse(SimulatorSettings(leads=1))
    one.sim.remove_field("company")
    one.sim.add_field(SHOES)
    assert "Company Name" in await described(other)
    assert "Shoe Size" not in await described(other)
    assert "Company" in await attributes(other)
    assert "shoeSize" not in BY_KEY
    assert {"company", "Company"} <= {*BY_REST, *BY_SOAP}


def test_names_and_ids_are_unique() -> None:
    catalogue = Catalogue()
    for taken in (
        replace(SHOES, id=1),
        replace(SHOES, rest="title"),
        replace(SHOES, soap="Title"),
        replace(SHOES, rest=None, soap="Legacy_Segment"),
    ):
        with pytest.raises(ValueError, match="is taken"):
            catalogue.add(taken)
    with pytest.raises(KeyError):
        catalogue.remove("shoeSize")
    with pytest.raises(KeyError):
        catalogue.retype("shoeSize", "string")
    assert tuple(catalogue) == CATALOGUE
