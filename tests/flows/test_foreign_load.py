"""Strangers hold places of the import queue, and come and go: all of ours ends, they are hardly ever in want of a place because of us."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import orjson
import pytest

from syncd.flows.loop import Idle, Outcome
from syncd.simulator import ImportModel
from tests.flows.conftest import PUSH, Build, House

FILES = replace(PUSH, max_body_bytes=1_500, flush_after=timedelta())
OTHERS = replace(FILES, name="others")
IMPORTS = ImportModel(overhead_seconds=10, sigma=0.5)
ROWS = 6  # of a file, about


@dataclass
class Strangers:
    """Other integrations, `at_once` of whose jobs are in the queue at a time; each now and then all of them rest for a minute."""

    home: House
    at_once: int
    name: str = "strangers"
    instance: str = "acme"
    tried: int = 0
    refused: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    async def step(self) -> Outcome:
        now = self.home.clock.now()
        theirs = sum(slot.owner == "foreign" for slot in self.home.simulator.slots())
        for _ in range(self.at_once - theirs):
            self.tried += 1
            try:
                self.home.simulator.add_foreign_job(self.chance.lognormvariate(2.3, 0.8))
            except ValueError:
                self.refused += 1
        return Idle(now + (timedelta(minutes=1) if self.chance.random() < 0.05 else timedelta(seconds=4)))

    async def close(self) -> None: ...


async def backlog(home: House, push: str, files: int) -> list[int]:
    """Changes for that many files, with a field of the company, so that they don't go by Sync Leads."""
    fields = orjson.dumps({"company": "x" * 150}).decode()
    numbers = range(files * ROWS)
    return [
        await home.pool.fetchval("SELECT syncd.enqueue('acme', $1, $2, $3)", push, f"{push}{number}@example.com", fields)
        for number in numbers
    ]


def settled(home: House, changes: list[int]) -> Callable[[], Awaitable[bool]]:
    async def are_settled() -> bool:
        return await home.pool.fetchval("SELECT NOT EXISTS (SELECT FROM syncd.outbox WHERE id = ANY ($1))", changes) is True

    return are_settled


def assert_well(home: House) -> None:
    report = home.simulator.report()
    assert (report.violations, report.duplicate_live_keys, report.duplicate_leads_created) == ({}, (), 0)
    assert report.most_slots_held <= 10


@pytest.mark.parametrize(("at_once", "share_refused", "refused"), [(4, 0.0, 0), (8, 0.15, 8)])
async def test_all_is_applied_and_strangers_are_rarely_refused_because_of_us(
    house: Build, at_once: int, share_refused: float, refused: int
) -> None:
    """Whoever always holds what is free of the ten has six of their POSTs refused beside four, and nearly every other one beside eight."""
    home = await house(pushes=[FILES], imports=IMPORTS)
    strangers = Strangers(home, at_once)
    home.flows.append(strangers)
    await home.run(60)
    assert strangers.tried >= at_once
    changes = await backlog(home, "contacts", 26)
    await home.run(1800, home.all_ended)
    assert await home.states() == {"applied": len(changes)}
    assert strangers.tried > 3 * at_once, "they were at work all the time"
    assert strangers.refused <= share_refused * strangers.tried
    assert home.simulator.report().imports_refused.get("1016", 0) <= refused, "ours, in vain"
    assert_well(home)


@pytest.mark.parametrize(("at_once", "seconds"), [(0, 90), (8, 180)])
async def test_a_few_changes_do_not_wait_behind_another_pushs_backlog(house: Build, at_once: int, seconds: float) -> None:
    home = await house(pushes=[FILES, OTHERS], imports=IMPORTS)
    home.flows.append(Strangers(home, at_once))
    many = await backlog(home, "contacts", 60)
    await home.run(60)
    few = await backlog(home, "others", 1)
    began = home.clock.now()
    await home.run(900, settled(home, few))
    assert home.clock.now() - began < timedelta(seconds=seconds)
    left = await home.pool.fetchval("SELECT count(*) FROM syncd.outbox")
    assert left > len(many) / 2, "the backlog was still there"
    assert_well(home)
