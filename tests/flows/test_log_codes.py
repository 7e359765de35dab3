"""Each code of the protocol's REST table (section 2) at each endpoint that following the log asks: its effect, its metric, its message."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from syncd.core.faults import Nature
from syncd.core.quota import resume_at
from syncd.core.retry import SLOW_RETRY, UNKNOWN_TRIES
from syncd.flows.loop import Idle, Worked
from syncd.marketo.errors import REST_NATURES, rest_fault
from syncd.store import due
from tests.flows.conftest import Build, House
from tests.flows.following import flow, follow, gateway, mirror, refusal, truth

UNKNOWN = "999"
CODES = [*REST_NATURES, UNKNOWN]
BLOCKING = frozenset({Nature.CONFIGURATION, Nature.PERMANENT})
PATHS = {
    "paging_token": "/rest/v1/activities/pagingtoken.json",
    "lead_changes": "/rest/v1/activities/leadchanges.json",
    "activities": "/rest/v1/activities.json",
    "leads": "/rest/v1/leads.json",
}


@dataclass
class Refusing:
    """What the gateway answers in place of Marketo."""

    code: str = ""
    path: str = ""
    times: int = 0
    log: list[str] = field(default_factory=list)

    def answer(self, path: str) -> bytes | None:
        self.log.append(path)
        return refusal(self.code) if path == self.path else None


async def lead_is_due(home: House) -> None:
    assert home.lease is not None
    async with home.lease.transaction() as connection:
        await due.note(connection, "acme", "people", [next(iter(home.simulator.world)).id], "census", home.clock.now())


async def token_is_lost(home: House) -> None:
    await home.pool.execute("DELETE FROM syncd.activity_token WHERE stream LIKE 'pull%'")


async def nothing(home: House) -> None:
    """The time of the next look has come, which is enough."""


PREPARE: dict[str, tuple[str, Callable[[House], Awaitable[None]]]] = {
    "paging_token": ("changes", token_is_lost),
    "lead_changes": ("changes", nothing),
    "activities": ("changes", nothing),
    "leads": ("fetch", lead_is_due),
}


async def begun(house: Build) -> House:
    home = await follow(house)
    await home.run(20)
    return home


async def meet(home: House, name: str, path: str, refusing: Refusing) -> Worked | Idle:
    """Steps until the refusal has been acted on."""
    seen = len(refusing.log)
    outcome: Worked | Idle = Worked()
    for _ in range(4):
        outcome = await flow(home, name).step()
        if path in refusing.log[seen:]:
            return outcome
    raise AssertionError(f"{path} was not asked")


@pytest.mark.parametrize("code", [code for code in CODES if REST_NATURES.get(code) is not Nature.QUOTA])
async def test_a_code_has_its_effect_metric_and_message(house: Build, code: str) -> None:
    nature, refusing = REST_NATURES.get(code, Nature.UNKNOWN), Refusing(code)
    told = rest_fault(code, "", "", None).code
    home = await begun(house)
    async with gateway(home, refusing.answer):
        await home.run(20)
        for endpoint, path in PATHS.items():
            name, prepare = PREPARE[endpoint]
            home.clock.advance(310)
            await home.run(1)  # what the time has made due is done: but for what is about to be refused
            home.clock.advance(310)
            await prepare(home)
            home.clock.advance(1)
            refusing.path = path
            before = faults(home, told)
            with capture_logs() as logs:
                outcome = await meet(home, name, path, refusing)
            row = await home.row("SELECT state, message, retry_at FROM syncd.pull")
            if nature is Nature.EMPTY and endpoint != "paging_token":
                assert (row["state"], faults(home, told)) == ("running", before)
            elif nature in BLOCKING or nature is Nature.EMPTY:
                assert row["state"] == "blocked"
                assert f"{endpoint}: {told} " in row["message"]
                assert "@example" not in row["message"]
                assert ("permission" in row["message"]) is (code == "603")
                assert home.clock.now() < row["retry_at"] <= home.clock.now() + SLOW_RETRY
                assert [line["event"] for line in logs if line["log_level"] == "error"] == ["pull_blocked"]
                assert faults(home, told) == before + 1
            else:
                assert isinstance(outcome, Idle)
                assert row["state"] == "running"
                assert faults(home, told) == before + 1
                assert [f"{endpoint}: {told} " in line["fault"] for line in logs if line["event"] == "pull_fault"] == [True]
            refusing.path = ""
            await home.pool.execute("UPDATE syncd.pull SET state = 'running', retry_at = NULL, message = NULL")
        lead = next(iter(home.simulator.world))
        home.simulator.world.update(lead.id, {"company": "Moved in the end", "leadScore": "1234"})
        await home.run(400)
        assert await mirror(home) == truth(home, lead.id)


@pytest.mark.parametrize("endpoint", PATHS)
async def test_a_spent_quota_waits_for_midnight(house: Build, endpoint: str) -> None:
    refusing = Refusing("607")
    home = await begun(house)
    async with gateway(home, refusing.answer):
        name, prepare = PREPARE[endpoint]
        await home.run(20)
        home.clock.advance(310)
        await prepare(home)
        home.clock.advance(1)
        refusing.path = PATHS[endpoint]
        outcome = await meet(home, name, PATHS[endpoint], refusing)
        assert outcome == Idle(resume_at(home.clock.now()))
        refusing.path = ""
        asked = len(refusing.log)
        await flow(home, name).step()
        assert len(refusing.log) == asked, "until then nothing is asked"
        assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"
        home.clock.advance((resume_at(home.clock.now()) - home.clock.now() + timedelta(hours=3)).total_seconds())
        lead = next(iter(home.simulator.world))
        home.simulator.world.update(lead.id, {"company": "Moved the day after"})
        await home.run(400)
        assert await mirror(home) == truth(home, lead.id)


@pytest.mark.parametrize("endpoint", ["lead_changes", "leads"])
async def test_an_unknown_code_is_retried_a_few_times(house: Build, endpoint: str) -> None:
    refusing = Refusing(UNKNOWN)
    home = await begun(house)
    async with gateway(home, refusing.answer):
        name, prepare = PREPARE[endpoint]
        await home.run(20)
        home.clock.advance(310)
        await prepare(home)
        home.clock.advance(1)
        refusing.path = PATHS[endpoint]
        for _ in range(UNKNOWN_TRIES - 1):
            assert isinstance(await flow(home, name).step(), Idle)
        assert isinstance(await flow(home, name).step(), Worked)
        assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "blocked"


DELETED, MERGED = "/rest/v1/activities/deletedleads.json", "/rest/v1/activities.json"
ONE_OF_EACH_NATURE = {nature: code for code, nature in REST_NATURES.items()}.values()


@pytest.mark.parametrize(("path", "code"), [*((DELETED, code) for code in CODES), *((MERGED, code) for code in ONE_OF_EACH_NATURE)])
async def test_no_code_at_the_deletions_holds_up_the_pulls(house: Build, code: str, path: str) -> None:
    refusing = Refusing(code)
    home = await begun(house)
    lead = next(iter(home.simulator.world))
    async with gateway(home, refusing.answer):
        await home.run(20)
        home.clock.advance(310)
        refusing.path = path
        await meet(home, "deletions", path, refusing)
        told = rest_fault(code, "", "", None).code
        assert faults(home, told) == (0 if REST_NATURES.get(code) is Nature.EMPTY else 1)
        assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"
        refusing.path = ""
        await home.pool.execute("INSERT INTO syncd.lead VALUES ('acme', $1, '', '{}', NULL, '{}', $2, $2, $2)", lead.id, home.clock.now())
        home.clock.advance(2)
        home.simulator.world.delete(lead.id)
        home.clock.advance(86400 if code == "607" else 600)
        await home.run(320)
        assert await home.pool.fetchval("SELECT deleted_at IS NOT NULL FROM syncd.lead")


def faults(home: House, code: str) -> float:
    return sum(value for name, of, value in home.metrics.samples() if name == "syncd_faults_total" and of["code"] == code)
