"""What the client and strangers spend of the day's REST calls (protocol section 3.5)."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.simulator import Fault, ForeignLoad, Limits, SimulatorSettings
from tests.simulator.client import Client, keyed
from tests.simulator.conftest import Rehearse

USAGE = "/rest/v1/stats/usage.json"
DESCRIBE = "/rest/v1/leads/describe.json"
US = "syncd@api.example.com"
MIDNIGHT = datetime(2026, 5, 5, 5, 0, tzinfo=UTC)


async def usage(client: Client) -> dict[str, Any]:
    reply = await client.rest(USAGE)
    assert list(reply) == ["requestId", "success", "result"]
    (today,) = reply["result"]
    return dict(today)


@pytest.mark.parametrize("given", [(("crm@example.com", 200), ("idle@example.com", 0)), {"crm@example.com": 200}])
async def test_ours_and_strangers_calls_of_today(rehearse: Rehearse, given: Any) -> None:
    client = await rehearse(SimulatorSettings(leads=1, foreign=ForeignLoad(rest_calls_today=given)))
    await client.code(DESCRIBE)
    await client.soap(keyed("IDNUM", 1001))
    client.sim.add_foreign_calls("crm@example.com", 5)
    client.sim.add_foreign_calls("web@example.com", 3)
    assert await usage(client) == {
        "date": "2026-05-04",
        "total": 210,
        "users": [
            {"userId": US, "count": 2},
            {"userId": "crm@example.com", "count": 205},
            {"userId": "web@example.com", "count": 3},
        ],
    }


async def test_uncounted_codes_are_not_in_it(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    for fault in (Fault.REST_602, Fault.REST_604, Fault.REST_608, Fault.REST_611, Fault.REST_606):
        client.sim.script("describe", fault)
        assert await client.code(DESCRIBE) == fault.value.removeprefix("rest_")
    assert (await usage(client))["total"] == 2


async def test_the_day_turns_at_midnight_us_central(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, foreign=ForeignLoad(rest_calls_today=(("crm@example.com", 7),))))
    client.clock.advance((MIDNIGHT - client.clock.now() - timedelta(seconds=1)).total_seconds())
    client.sim.expire_token()
    await client.login()
    assert (await usage(client))["total"] == 8
    client.clock.advance(1)
    assert await usage(client) == {"date": "2026-05-05", "total": 1, "users": [{"userId": US, "count": 1}]}
    client.sim.add_foreign_calls("crm@example.com", 2)
    assert (await usage(client))["total"] == 4


async def test_the_first_day_is_the_day_it_began(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1, foreign=ForeignLoad(rest_calls_today=(("crm@example.com", 7),))))
    client.clock.advance(2 * 86_400)
    await client.login()
    assert (await usage(client))["total"] == 1


async def test_strangers_spend_the_shared_quota(rehearse: Rehearse) -> None:
    settings = SimulatorSettings(
        leads=1,
        limits=Limits(rest_calls_per_day=10, soap_calls_per_day=1),
        foreign=ForeignLoad(rest_calls_today=(("crm@example.com", 6),)),
    )
    client = await rehearse(settings)
    assert [await client.code(DESCRIBE) for _ in range(2)] == ["ok", "ok"]
    client.sim.add_foreign_calls("web@example.com", 1)
    assert [await client.code(DESCRIBE) for _ in range(2)] == ["ok", "607"]
    assert (await client.soap(keyed("IDNUM", 1001))).code is None


async def test_it_can_fail_as_others_do(rehearse: Rehearse) -> None:
    client = await rehearse(SimulatorSettings(leads=1))
    client.sim.script("usage", Fault.REST_713)
    assert [await client.code(USAGE) for _ in range(2)] == ["713", "ok"]
    client.token = "invented"
    assert await client.code(USAGE) == "601"
