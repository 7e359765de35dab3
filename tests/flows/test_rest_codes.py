"""Each code of the protocol's REST table (section 2), met at each endpoint that leads come through: its effect, its metric, its message."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from syncd.core.faults import Nature
from syncd.core.retry import LONGEST_BACKOFF, SLOW_RETRY
from syncd.core.settings import Limits
from syncd.flows.changes import Changes
from syncd.flows.deletions import Deletions
from syncd.flows.export import ExportStarter
from syncd.flows.export_load import ExportLoader
from syncd.flows.export_poll import ExportPoller
from syncd.flows.fetch import Fetcher
from syncd.flows.loop import Flow
from syncd.marketo.errors import REST_NATURES
from syncd.simulator import Fault
from syncd.store import due
from tests.flows.conftest import Build, House
from tests.flows.exporting import PULL as EXTRACTED
from tests.flows.exporting import QUICK, Hooks, with_exports
from tests.flows.following import FOLLOW, WHOLE, flows_of

MIDNIGHT = timedelta(days=1)
CODES = [fault for fault in Fault if fault.value.startswith("rest_")]
TELLING = (
    *(Fault.REST_503, Fault.REST_601, Fault.REST_603, Fault.REST_606, Fault.REST_607, Fault.REST_609, Fault.REST_615, Fault.REST_702),
    *(Fault.REST_1003, Fault.REST_1016, Fault.REST_1029_QUEUE, Fault.REST_1029_QUOTA, Fault.REST_1029_ALREADY, Fault.REST_1035),
    *(Fault.REST_1019, Fault.REST_9999),
)
"""One of each kind, and those that the endpoints treat apart. That each code is named and classified rightly at each endpoint,
tests/marketo/test_rest_codes.py shows; here it is what follows."""
LIMITS = Limits(calls_per_20s=100, daily_calls=1_000_000)
KINDS: dict[str, type[Flow]] = {
    "paging_token": Changes,
    "lead_changes": Changes,
    "activities": Changes,
    "deleted_leads": Deletions,
    "leads": Fetcher,
    "export_create": ExportStarter,
    "export_enqueue": ExportStarter,
    "export_status": ExportPoller,
    "export_file": ExportLoader,
}
EXPORTERS = (ExportStarter, ExportPoller, ExportLoader)
BESIDE = {endpoint: EXPORTERS for endpoint in KINDS if endpoint.startswith("export_")}
"""What must move for the endpoint to be asked."""
HURRY = 20.0
"""Virtual seconds that pass with each step, so that a day takes few of them."""
PAGES = frozenset({"lead_changes", "activities", "deleted_leads"})
RENEWED = frozenset({"601", "602"})  # the token is renewed, and nobody above hears of it
FORGOTTEN = frozenset({"1003", "610", "702"})  # of a job: Marketo does not know it


def code_of(fault: Fault) -> str:
    """As metrics and messages have it: the three meanings of 1029 are told apart."""
    return fault.value.removeprefix("rest_").lower()


def nature_of(code: str) -> Nature:
    told = {"1029_queue": Nature.NO_SLOT, "1029_quota": Nature.QUOTA, "1029_already": Nature.PERMANENT}
    return told.get(code) or REST_NATURES.get(code, Nature.UNKNOWN)


@dataclass
class Met:
    """What became of one fault: what the flows logged of it, how long until it was over, and what the pulls said."""

    code: str
    events: list[str]
    after: timedelta
    state: str
    message: str


async def both(house: Build) -> House:
    """One pull that follows the log, another that goes by extracts, as the daemon has them."""
    home = await house(limits=LIMITS, leads=40, activities=WHOLE, exports=QUICK)
    hooks = Hooks()

    async def also(one: House) -> list[Flow]:
        return [*await with_exports(hooks)(one), *await flows_of(one)]  # in this order: who follows the log is said last

    home.also = also
    await home.restart(pulls=(replace(FOLLOW, fields=(*FOLLOW.fields, "leadScore")), replace(EXTRACTED, name="extracted")))
    await home.run(900)
    return home


def calls(home: House, endpoint: str, code: str) -> float:
    wanted = {"endpoint": endpoint, "code": code}
    return sum(
        value for name, of, value in home.metrics.samples() if name == "syncd_api_calls_total" and wanted.items() <= dict(of).items()
    )


def faults(home: House, code: str) -> float:
    return sum(value for name, of, value in home.metrics.samples() if name == "syncd_faults_total" and dict(of)["code"] == code)


async def provoke(home: House, endpoint: str) -> None:
    """Give the endpoint something to be asked for."""
    match endpoint:
        case "leads":
            async with home.pool.acquire() as connection:
                ids = [lead.id for lead in home.simulator.world][:3]
                await due.note(connection, "acme", "people", ids, "changed", home.clock.now())
        case "paging_token":
            await home.pool.execute("DELETE FROM syncd.activity_token WHERE stream LIKE 'pull %'")
        case "export_create" | "export_enqueue" | "export_status" | "export_file":
            await home.pool.execute("UPDATE syncd.pull SET planned_at = planned_at - interval '2 hours' WHERE pull = 'extracted'")


async def meet(home: House, endpoint: str, fault: Fault) -> Met:
    """Let the next call to the endpoint meet the fault once, and let time pass until a call there has passed again."""
    code = code_of(fault)
    await provoke(home, endpoint)
    home.simulator.script(endpoint, fault)
    before, ok = calls(home, endpoint, code), calls(home, endpoint, "ok")
    nothing_there = wait_of(endpoint, code)[0] == "nothing there"
    met_at: list[datetime] = []
    state: list[tuple[str, str]] = []

    async def over() -> bool:
        home.clock.advance(HURRY if not met_at else 60 * HURRY if code == "607" else 3 * HURRY)
        if calls(home, endpoint, code) == before:
            return False
        if not met_at:
            met_at.append(home.clock.now())
        row = await home.pool.fetchrow("SELECT state, message FROM syncd.pull WHERE state <> 'running' AND instance = 'acme'")
        if row is not None and not state:
            state.append((row["state"], row["message"]))
        return calls(home, endpoint, "ok") > ok or nothing_there

    everything, home.flows = home.flows, [flow for flow in home.flows if isinstance(flow, BESIDE.get(endpoint, KINDS[endpoint]))]
    with capture_logs() as logs:
        await home.run(40 * 3600, over)
    home.flows = everything
    assert met_at, f"{endpoint} was never asked"
    assert calls(home, endpoint, "ok") > ok or nothing_there, f"{endpoint} never healed of {code}"
    told = [event["event"] for event in logs if f"{endpoint}: {code.partition('_')[0]}" in str(event.get("fault") or event.get("reason"))]
    stood, message = state[0] if state else ("running", "")
    return Met(code, told, home.clock.now() - met_at[0], stood, message)


def wait_of(endpoint: str, code: str) -> tuple[str, timedelta]:
    """What the table and the rulings say of the code at the endpoint, and by when it is over at the latest."""
    nature, by_job = nature_of(code), endpoint in ("export_status", "export_file")
    if code in RENEWED:
        return "renewed", timedelta(minutes=6)
    if code == "607":
        return "quota", MIDNIGHT
    if code == "1029_already" and endpoint == "export_enqueue":
        return "taken as done", timedelta(hours=2)
    if nature is Nature.EMPTY and endpoint in (*PAGES, "leads"):
        return "nothing there", timedelta(minutes=30)
    if nature is Nature.PERMANENT and endpoint in PAGES:
        return "another token", timedelta(minutes=30)
    if by_job:
        return "tried again", timedelta(hours=2)
    if nature is Nature.QUOTA:
        return "bytes" if endpoint.startswith("export") else "quota", MIDNIGHT
    if nature in (Nature.CONFIGURATION, Nature.PERMANENT, Nature.EMPTY):
        return "blocked", SLOW_RETRY + timedelta(hours=2)
    return "tried again", LONGEST_BACKOFF + timedelta(hours=2)


def judge(endpoint: str, met: Met, pulls_block: bool) -> None:
    kind, longest = wait_of(endpoint, met.code)
    what = f"{met.code} at {endpoint}: {met}"
    assert met.after <= longest, what
    if kind == "blocked" and pulls_block:
        assert met.state == "blocked", what
        assert met.code.partition("_")[0] in met.message, what
        assert endpoint in met.message, what
    else:
        assert met.state == "running", what
    if kind in ("renewed", "nothing there", "taken as done"):
        assert "pull_blocked" not in met.events, what
    elif pulls_block or kind == "blocked":  # of deletions a passing fault is told when it comes again
        assert met.events, f"nobody was told of {what}"


@pytest.mark.parametrize("endpoint", KINDS)
async def test_each_kind_of_code(endpoint: str, house: Build) -> None:
    await through(endpoint, TELLING, house)


@pytest.mark.prove
@pytest.mark.parametrize("endpoint", KINDS)
async def test_each_code_of_the_table(endpoint: str, house: Build) -> None:
    await through(endpoint, CODES, house)


async def through(endpoint: str, codes: Sequence[Fault], house: Build) -> None:
    home = await both(house)
    for fault in random.Random(endpoint).sample(codes, len(codes)):
        code = code_of(fault)
        before = faults(home, code)
        judge(endpoint, await meet(home, endpoint, fault), pulls_block=KINDS[endpoint] is not Deletions)
        if wait_of(endpoint, code)[0] in ("tried again", "blocked", "bytes", "quota"):
            assert faults(home, code) > before, f"no metric of {code} at {endpoint}"
    assert await home.pool.fetchval("SELECT bool_and(state = 'running') FROM syncd.pull")
    assert home.simulator.report().violations == {}


def test_the_table_is_whole() -> None:
    assert {code_of(fault).partition("_")[0] for fault in CODES} == {*REST_NATURES, "9999"} - {
        code for code in REST_NATURES if 1001 <= int(code) <= 1021 and code not in ("1003", "1016", "1019")
    } | {"1029", "1035"}
