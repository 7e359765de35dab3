"""Identity and describe (protocol sections 2 and 3.3)."""

import json
from pathlib import Path

from syncd.simulator import SimulatorSettings
from tests.simulator.client import Client, code_of
from tests.simulator.conftest import Rehearse

SAMPLES = Path(__file__).parent.parent / "samples"
DESCRIBE = "/rest/v1/leads/describe.json"


async def identity(client: Client, method: str, **given: str) -> tuple[int, dict[str, object]]:
    """Ask for a token with the right parameters but for those given."""
    credentials = client.credentials
    asked = {"grant_type": "client_credentials", "client_id": credentials.client_id, "client_secret": credentials.client_secret} | given
    url = f"{client.sim.rest_endpoint}/identity/oauth/token"
    where = {"params": asked} if method == "GET" else {"data": asked}
    async with client.session.request(method, url, **where) as response:  # type: ignore[arg-type]
        return response.status, await response.json()


async def test_token_is_kept_with_its_remaining_life(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    _, first = await identity(client, "POST")
    client.clock.advance(1_000)
    _, second = await identity(client, "GET")
    assert (first["token_type"], first["expires_in"], second["expires_in"]) == ("bearer", 3_600, 2_600)
    assert first["access_token"] == second["access_token"]
    client.clock.advance(2_600)
    assert (await identity(client, "POST"))[1]["access_token"] != first["access_token"]


async def test_wrong_client_or_secret_is_401(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    assert (await identity(client, "POST", client_id="other"))[0] == 401
    assert (await identity(client, "GET", client_secret="other"))[0] == 401
    assert (await identity(client, "POST", grant_type="password"))[0] == 400


async def test_token_must_be_valid(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    assert await client.code(DESCRIBE) == "ok"
    client.clock.advance(3_600)
    assert await client.code(DESCRIBE) == "602"
    await client.login()
    assert await client.code(DESCRIBE) == "ok"
    client.sim.expire_token()
    assert await client.code(DESCRIBE) == "602"
    client.token = "invented"
    assert await client.code(DESCRIBE) == "601"


async def test_error_has_the_documented_form(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    client.token = "invented"
    status, text = await client.get(DESCRIBE)
    sample = json.loads((SAMPLES / "error.json").read_text())
    assert status == 200
    assert list(json.loads(text)) == list(sample)
    assert json.loads(text)["errors"] == sample["errors"]


async def test_only_the_bearer_header_works(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    url = f"{client.sim.rest_endpoint}{DESCRIBE}?access_token={client.token}"
    async with client.session.get(url) as response:
        assert code_of(await response.json()) == "601"
    async with client.session.get(client.sim.rest_endpoint + DESCRIBE) as response:
        assert code_of(await response.json()) == "601"
    assert client.sim.report().violations == {"access_token outside the Authorization header": 1}


async def test_describe_is_the_dictionary(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    reply = await client.rest(DESCRIBE)
    sample = json.loads((SAMPLES / "describe.json").read_text())
    assert list(reply) == list(sample)
    fields = {field["id"]: field for field in reply["result"]}
    assert fields[2] == sample["result"][0]
    assert [("rest" in field, "soap" in field) for field in (fields[19], fields[20])] == [(True, False), (False, True)]
    assert fields[21]["rest"] == {"name": "leadRating", "readOnly": True}


async def test_addresses_must_be_exact(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=0))
    assert (await client.get("//rest/v1/leads/describe.json"))[0] == 404
    assert (await client.get("/rest/v1/lead.json"))[0] == 404
    assert (await client.post("/rest/v1/leads/describe.json", {"input": []}))[0] == 404
    assert client.sim.report().violations == {"double slash in address": 1, "unknown address": 2}
