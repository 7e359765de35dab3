"""Leads that vanish: deleted, or merged into others."""

import json
from dataclasses import replace

import pytest

from syncd.simulator import ActivityModel, Movement, SimulatorSettings
from tests.simulator.client import Client, keyed
from tests.simulator.conftest import Rehearse
from tests.simulator.test_activities import ANY, DELETED, read, token

SETTINGS = SimulatorSettings(leads=6, static_lists=(("L", 6),), activities=ActivityModel(short_pages=0.0))


async def merged(client: Client) -> str:
    """Merge 1002 and 1003 into 1001, which lacks a title and a phone; the token before it."""
    since, world = await token(client), client.sim.world
    world.update(1001, {"title": "", "phone": "", "firstName": "Kept"})
    world.update(1002, {"title": "Second", "phone": ""})
    world.update(1003, {"title": "Third", "phone": "3"})
    client.clock.advance(10)
    client.sim.world.merge(1001, [1002, 1003])
    return since


async def test_the_winner_gets_what_it_lacks(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    await merged(client)
    world = client.sim.world
    winner = world.get(1001)
    assert winner is not None
    assert [winner.values[name] for name in ("firstName", "title", "phone")] == ["Kept", "Second", "3"]
    assert winner.updated_at == client.clock.now()
    assert [lead.id for lead in world] == world.lists[1001].members == [1001, 1004, 1005, 1006]
    assert (await client.soap(keyed("IDNUM", 1001, 1002, 1003))).ids == [1001]


async def test_a_merge_is_told_by_the_winner(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since = await merged(client)
    (item,) = (await read(client, ANY, since, activityTypeIds="32")).items
    assert (item["leadId"], item["activityTypeId"], item["activityDate"]) == (1001, 32, "2026-05-04T12:00:10+0000")
    assert item["attributes"] == [
        {"name": "Master Updated", "value": True},
        {"name": "Merge IDs", "value": "[1002, 1003]"},
        {"name": "Merge Source", "value": "Marketo"},
    ]
    assert (await read(client, DELETED, since)).items == []
    last = (await read(client, ANY, since, activityTypeIds="13")).items[-1]
    assert last["leadId"] == 1001
    assert {"phone", "title"} <= {each["name"] for each in last["fields"] if each["oldValue"] is None}


async def test_merges_may_be_deletions_too(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, merges_are_deletions=True))
    since = await merged(client)
    assert (await read(client, DELETED, since)).told == [(37, 1002), (37, 1003)]
    assert (await read(client, ANY, since, activityTypeIds="32")).told == [(32, 1001)]


async def test_an_email_goes_to_a_winner_without(rehearse: Rehearse) -> None:
    client = await rehearse(replace(SETTINGS, leads=0))
    winner, loser = client.sim.world.create({}), client.sim.world.create({"email": "A@example.com"})
    client.sim.world.merge(winner.id, [loser.id])
    assert client.sim.world.by_email("a@example.com") == [winner]


async def test_impossible_merges(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    for losers in ([], [1001], [1002, 1001]):
        with pytest.raises(ValueError, match="losers beside the winner"):
            client.sim.world.merge(1001, losers)
    for winner, loser in ((1001, 7), (7, 1001)):
        with pytest.raises(KeyError):
            client.sim.world.merge(winner, [loser])
    assert len(client.sim.world) == 6


async def test_a_lead_deleted_before_it_is_touched_leaves_a_deletion_only(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    since, world = await token(client), client.sim.world
    lead = world.get(1001)
    assert lead is not None
    world.write(lead, {"title": "T"})
    world.delete(1001)
    assert (await read(client, ANY, since, activityTypeIds="12,13,22,37")).told == [(37, 1001)]


async def test_losses_by_chance_repeat(rehearse: Rehearse) -> None:
    moving = Movement(updates_per_second=1, creations_per_second=1, deletions_per_second=0.5, merges_per_second=0.5)
    one, other = [await rehearse(SimulatorSettings(leads=100, movement=moving)) for _ in range(2)]
    one.clock.advance(200)
    for _ in range(200):
        other.clock.advance(1)
        assert len(other.sim.world)
    assert list(one.sim.world) == list(other.sim.world)
    told = [(await read(client, ANY, await token(client), activityTypeIds="12,32,37")).told for client in (one, other)]
    assert told[0] == told[1]
    assert json.dumps(told[0])
    counted = {kind: sum(1 for each, _ in told[0] if each == kind) for kind in (12, 32, 37)}
    assert all(count > 50 for count in counted.values())
    assert len(one.sim.world) == 100 + counted[12] - counted[32] - counted[37]
