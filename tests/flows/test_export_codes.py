"""Each code of the protocol's REST table (section 2), met at each endpoint that extracts ask: its effect, its metric, its message."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from structlog.testing import capture_logs

from syncd.core.faults import Nature
from syncd.core.retry import LONGEST_BACKOFF, SLOW_RETRY
from syncd.core.settings import Limits
from syncd.marketo.errors import REST_NATURES
from syncd.simulator import Fault
from tests.flows.conftest import Build, House
from tests.flows.exporting import built

ENDPOINTS = ("export_create", "export_enqueue", "export_status", "export_file")
CODES = [fault for fault in Fault if fault.value.startswith("rest_")]
TELLING = (
    *(Fault.REST_503, Fault.REST_601, Fault.REST_603, Fault.REST_606, Fault.REST_607, Fault.REST_609, Fault.REST_615, Fault.REST_702),
    *(Fault.REST_1003, Fault.REST_1016, Fault.REST_1029_QUEUE, Fault.REST_1029_QUOTA, Fault.REST_1029_ALREADY, Fault.REST_1035),
    *(Fault.REST_1019, Fault.REST_9999),
)
"""One of each kind, and those that the endpoints treat apart. That each code is named and classified rightly at each endpoint,
tests/marketo/test_rest_codes.py shows; here it is what follows."""
LIMITS = Limits(calls_per_20s=100, daily_calls=1_000_000)
MIDNIGHT = timedelta(days=1)
HURRY = 20.0
"""Virtual seconds that pass with each step, so that a day takes few of them."""
RENEWED = frozenset({"601", "602"})  # the token is renewed, and nobody above hears of it


def code_of(fault: Fault) -> str:
    """As metrics and messages have it: the three meanings of 1029 are told apart."""
    return fault.value.removeprefix("rest_").lower()


def nature_of(code: str) -> Nature:
    told = {"1029_queue": Nature.NO_SLOT, "1029_quota": Nature.QUOTA, "1029_already": Nature.PERMANENT}
    return told.get(code) or REST_NATURES.get(code, Nature.UNKNOWN)


@dataclass
class Met:
    """What became of one fault: what the flows logged of it, how long until it was over, and what the pull said."""

    code: str
    events: list[str]
    after: timedelta
    state: str
    message: str


def calls(home: House, endpoint: str, code: str) -> float:
    wanted = {"endpoint": endpoint, "code": code}
    samples = home.metrics.samples()
    return sum(value for name, of, value in samples if name == "syncd_api_calls_total" and wanted.items() <= dict(of).items())


def faults(home: House, code: str) -> float:
    return sum(value for name, of, value in home.metrics.samples() if name == "syncd_faults_total" and dict(of)["code"] == code)


async def meet(home: House, endpoint: str, fault: Fault) -> Met:
    """Let the next call to the endpoint meet the fault once, and let time pass until a call there has passed again."""
    code = code_of(fault)
    await home.pool.execute("UPDATE syncd.pull SET planned_at = planned_at - interval '2 hours'")
    home.simulator.script(endpoint, fault)
    before, ok = calls(home, endpoint, code), calls(home, endpoint, "ok")
    met_at: list[datetime] = []
    stood: list[tuple[str, str]] = []

    async def over() -> bool:
        home.clock.advance(HURRY if not met_at else 60 * HURRY if code == "607" else 3 * HURRY)
        if calls(home, endpoint, code) == before:
            return False
        if not met_at:
            met_at.append(home.clock.now())
        row = await home.pool.fetchrow("SELECT state, message FROM syncd.pull WHERE state <> 'running'")
        if row is not None and not stood:
            stood.append((row["state"], row["message"]))
        return calls(home, endpoint, "ok") > ok

    with capture_logs() as logs:
        await home.run(40 * 3600, over)
    assert met_at, f"{endpoint} was never asked"
    assert calls(home, endpoint, "ok") > ok, f"{endpoint} never healed of {code}"
    told = [event["event"] for event in logs if f"{endpoint}: {code.partition('_')[0]}" in str(event.get("fault") or event.get("reason"))]
    state, message = stood[0] if stood else ("running", "")
    return Met(code, told, home.clock.now() - met_at[0], state, message)


def effect_of(endpoint: str, code: str) -> tuple[str, timedelta]:
    """What the table and the rulings say of the code at the endpoint, and by when it is over at the latest."""
    nature = nature_of(code)
    if code in RENEWED:
        return "renewed", timedelta(hours=2)
    if nature is Nature.QUOTA and endpoint in ("export_create", "export_enqueue"):
        return "waits", MIDNIGHT
    if code == "607":
        return "waits", MIDNIGHT
    if code == "1029_already" and endpoint == "export_enqueue":
        return "taken as done", timedelta(hours=2)
    if endpoint in ("export_create", "export_enqueue") and nature in (Nature.CONFIGURATION, Nature.PERMANENT, Nature.EMPTY):
        return "blocked", SLOW_RETRY + timedelta(hours=2)
    return "tried again", LONGEST_BACKOFF + timedelta(hours=2)


def judge(endpoint: str, met: Met) -> None:
    effect, longest = effect_of(endpoint, met.code)
    what = f"{met.code} at {endpoint}: {met}"
    assert met.after <= longest, what
    assert met.state == ("blocked" if effect == "blocked" else "running"), what
    if effect == "blocked":
        assert f"{endpoint}: {met.code.partition('_')[0]}" in met.message, what
    assert bool(met.events) == (effect not in ("renewed", "taken as done")), what


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_each_kind_of_code(endpoint: str, house: Build) -> None:
    await through(endpoint, TELLING, house)


@pytest.mark.prove
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_each_code_of_the_table(endpoint: str, house: Build) -> None:
    await through(endpoint, CODES, house)


async def through(endpoint: str, codes: Sequence[Fault], house: Build) -> None:
    home = await built(house, limits=LIMITS, leads=40)
    await home.run(900)
    for fault in random.Random(endpoint).sample(codes, len(codes)):
        code = code_of(fault)
        before = faults(home, code)
        met = await meet(home, endpoint, fault)
        judge(endpoint, met)
        assert (faults(home, code) > before) == bool(met.events), f"metric of {code} at {endpoint}"
    assert await home.pool.fetchval("SELECT state FROM syncd.pull") == "running"
    assert home.simulator.report().violations == {}


def test_the_table_is_whole() -> None:
    of_records = {code for code in REST_NATURES if 1001 <= int(code) <= 1021} - {"1003", "1016", "1019"}
    assert {code_of(fault).partition("_")[0] for fault in CODES} == {*REST_NATURES, "9999", "1029"} - of_records
