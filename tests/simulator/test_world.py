"""The lead database, the update index against a plain model, and the clock."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.simulator import ScaledClock, Simulator, SimulatorSettings, World
from syncd.simulator.index import UpdateIndex
from tests.simulator.client import START, ManualClock

NOW = START.timestamp()


def test_generation_repeats_by_its_seed() -> None:
    settings = SimulatorSettings(leads=300)
    assert list(World(settings, NOW)) == list(World(settings, NOW))
    assert list(World(settings, NOW)) != list(World(replace(settings, seed=2), NOW))


def test_generated_leads_are_varied() -> None:
    leads = list(World(SimulatorSettings(leads=2_000), NOW))
    assert [lead.id for lead in leads] == list(range(1_001, 3_001))
    assert all(datetime(2016, 1, 1, tzinfo=UTC) <= lead.updated_at <= START for lead in leads)
    assert all(len(lead.values["accountNumber"]) == 23 for lead in leads)
    emails = [lead.email for lead in leads if lead.email]
    assert len(set(emails)) < len(emails) < 2_000
    notes = {lead.values.get("notes", "") for lead in leads}
    assert all(any(mark in note for note in notes) for mark in ('"', "\n", "🚀"))


def test_truth_is_what_soap_shows() -> None:
    world = World(SimulatorSettings(leads=50), NOW)
    for lead_id, email, values in world.truth():
        lead = world.get(lead_id)
        assert lead is not None
        assert email == lead.email
        assert values == {name: value for name, value in lead.values.items() if name not in ("email", "memberLevel")}
    asked = {name for _, _, values in world.truth(["FirstName", "Company"]) for name in values}
    assert asked == {"firstName", "company"}


def test_changes_by_hand() -> None:
    clock = ManualClock()
    sim = Simulator(SimulatorSettings(leads=3, static_lists=(("L", 3),)), clock)
    clock.advance(7)
    made = sim.world.create({"email": "A@example.com", "leadScore": "90", "title": "T"})
    assert (made.updated_at, made.values["leadRating"]) == (clock.now(), "hot")
    sim.world.update(made.id, {"email": "b@example.com", "title": ""})
    assert "title" not in made.values
    assert (sim.world.by_email("a@example.com"), sim.world.by_email("B@example.com ")) == ([], [made])
    sim.world.delete(made.id)
    sim.world.delete(1_001)
    assert [lead.id for lead in sim.world] == [1_002, 1_003]
    assert sim.world.lists[1_001].members == [1_002, 1_003]
    assert sim.world.window(0, int(NOW) + 10, None, 10)[1] == 0
    with pytest.raises(KeyError, match="no such field: shoes"):
        sim.world.update(1_002, {"shoes": "44"})


def test_lists_by_hand() -> None:
    world = World(SimulatorSettings(leads=5, static_lists=(("L", 0),)), NOW)
    made = world.create_list("M", [1_004, 1_002])
    assert (made.id, made.members, world.list_named("M")) == (1_002, [1_002, 1_004], made)
    world.add_members(made.id, [1_001, 1_004])
    world.remove_members(made.id, [1_002, 1_005])
    assert made.members == [1_001, 1_004]
    world.delete(1_004)
    assert made.members == [1_001]
    with pytest.raises(ValueError, match="there is a list 'M'"):
        world.create_list("M")
    with pytest.raises(KeyError, match="no such lead: 7"):
        world.create_list("N", [7])
    with pytest.raises(KeyError, match="no such lead: 1004"):
        world.add_members(made.id, [1_001, 1_004])
    with pytest.raises(KeyError):
        world.add_members(9, [1_001])
    assert sorted(world.lists) == [1_001, 1_002]


def test_a_burst_of_5000_in_one_second() -> None:
    clock = ManualClock()
    sim = Simulator(SimulatorSettings(leads=6_000), clock)
    clock.advance(60)
    world = sim.world
    for lead_id in range(1_001, 6_001):
        world.update(lead_id, {"title": "changed"})
    for _ in range(5_000):
        world.create({"title": "new"})
    second = int(clock.now().timestamp())
    page, left = world.window(second, second, None, 300)
    assert (len(page), left) == (300, 9_700)
    assert [lead.id for lead in page] == list(range(1_001, 1_301))


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 30)), max_size=300), st.booleans(), st.integers(1, 9))
def test_index_pages_like_a_sorted_list(moves: list[tuple[int, int]], at_once: bool, size: int) -> None:
    index, model = UpdateIndex(), dict[int, int]()
    if at_once:
        model = dict(moves)
        index.replace([], [(moment, lead) for lead, moment in model.items()])
    else:
        for lead, moment in moves:
            index.replace([(model[lead], lead)] if lead in model else [], [(moment, lead)])
            model[lead] = moment
    expected = sorted((moment, lead) for lead, moment in model.items() if 5 <= moment <= 25)
    walked, after, left = list[tuple[int, int]](), None, 1
    while left:
        page, left = index.page(5, 25, after, size)
        walked += page
        after = page[-1] if page else after
        assert left == len(expected) - len(walked)
    assert walked == expected


async def test_scaled_clock_runs_faster() -> None:
    origin = time.time() - 10
    clock = ScaledClock(1_000, origin)
    assert timedelta(seconds=9_999) < clock.now() - datetime.fromtimestamp(origin, UTC) < timedelta(seconds=20_000)
    before = clock.now()
    await clock.sleep(10)
    assert clock.now() - before >= timedelta(seconds=10)
    with pytest.raises(ValueError, match="above 0"):
        ScaledClock(0, origin)
