"""Leads deleted by their ids (protocol section 3.4)."""

import json
from typing import Any
from urllib.parse import quote

from syncd.simulator import SimulatorSettings
from tests.simulator.client import Client, code_of
from tests.simulator.conftest import Rehearse

DELETE = "/rest/v1/leads/delete.json"
DELETED_LEADS = "/rest/v1/activities/deletedleads.json?nextPageToken="


async def delete(client: Client, records: Any) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads((await client.post(DELETE, {"input": records}))[1])
    return reply


async def test_each_record_has_an_answer_of_its_own_and_the_log_tells(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    gone, stays = (client.sim.world.create({"email": f"{name}@example.com"}) for name in ("gone", "stays"))
    token = (await client.rest("/rest/v1/activities/pagingtoken.json?sinceDatetime=2026-05-04T11:00:00Z"))["nextPageToken"]
    client.clock.advance(60)
    reply = await delete(client, [{"id": gone.id}, {"id": 4711}, {"email": "stays@example.com"}, {"id": gone.id}])
    told = [(one["status"], one.get("id"), one.get("reasons", [{}])[0].get("code")) for one in reply["result"]]
    assert told == [("deleted", gone.id, None), ("skipped", 4711, "1004"), ("skipped", None, "1002"), ("skipped", gone.id, "1004")]
    assert [lead.id for lead in client.sim.world] == [stays.id]
    client.clock.advance(1200)
    assert [entry["leadId"] for entry in (await client.rest(DELETED_LEADS + quote(token, safe="")))["result"]] == [gone.id]


async def test_calls_that_are_wrong_as_a_whole_delete_nothing(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    lead = client.sim.world.create({"email": "a@example.com"})
    for records in ([], {"id": lead.id}, [lead.id], [{"id": lead.id}] * 301):
        assert code_of(await delete(client, records)) == "1003"
    assert len(client.sim.world) == 1
