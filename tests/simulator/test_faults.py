"""Trouble made on purpose."""

import json
from collections import Counter
from datetime import timedelta

import aiohttp
import pytest

from syncd.simulator import Fault, FaultRates, ImportModel, Simulator, SimulatorSettings
from syncd.simulator.faults import ENDPOINTS, FaultPlan
from syncd.simulator.report import Recorder
from tests.simulator.client import START, ManualClock, code_of, keyed, updated_between
from tests.simulator.conftest import Rehearse

SETTINGS = SimulatorSettings(leads=30, updated_since=START - timedelta(days=20), imports=ImportModel(overhead_seconds=10.0, sigma=0.0))
OF_SEED_7 = [
    ("soap", "reset_after"),
    ("status", "html_200"),
    ("soap", "reset_before"),
    ("import", "rest_606"),
    ("import", "import_1016"),
    ("identity", "json_garbage"),
    ("identity", "gateway_504"),
    ("describe", "gateway_502"),
    ("failures", "rest_608"),
    ("soap", "short_page"),
    ("soap", "short_page"),
    ("warnings", "rest_713"),
    ("failures", "rest_606"),
    ("warnings", "json_garbage"),
    ("import", "import_1016"),
    ("failures", "reset_after"),
    ("import", "html_503"),
    ("failures", "rest_604"),
    ("failures", "rest_611"),
    ("import", "truncated"),
    ("status", "gateway_502"),
    ("failures", "gateway_504"),
    ("identity", "reset_after"),
    ("soap", "reset_before"),
]
TABLE = "email\na@example.com\nb@example.com\n"


@pytest.mark.parametrize(("fault", "jobs"), [(Fault.RESET_BEFORE, 0), (Fault.RESET_AFTER, 1), (Fault.TRUNCATED, 1)])
async def test_broken_connection(rehearse: Rehearse, fault: Fault, jobs: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("import", fault)
    with pytest.raises(aiohttp.ClientError):
        await client.post_import(TABLE)
    assert client.sim.report().imports_accepted == jobs
    assert sum(slot.owner == "ours" for slot in client.sim.slots()) == jobs


@pytest.mark.parametrize(
    ("fault", "status", "start", "jobs"),
    [
        (Fault.HTML_200, 200, "<!DOCTYPE html>", 0),
        (Fault.HTML_500, 500, "<!DOCTYPE html>", 0),
        (Fault.HTML_503, 503, "<!DOCTYPE html>", 0),
        (Fault.GATEWAY_502, 502, "<!DOCTYPE html>", 0),
        (Fault.GATEWAY_504, 504, "<!DOCTYPE html>", 1),
        (Fault.JSON_GARBAGE, 200, '{"requestId":"', 1),
    ],
)
async def test_strange_reply(rehearse: Rehearse, fault: Fault, status: int, start: str, jobs: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("import", fault)
    answered, text = await client.post_import(TABLE)
    assert (answered, text.startswith(start)) == (status, True)
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    assert client.sim.report().imports_accepted == jobs


@pytest.mark.parametrize(
    ("fault", "code", "jobs"),
    [
        (Fault.REST_602, "602", 0),
        (Fault.REST_604, "604", 1),
        (Fault.REST_606, "606", 0),
        (Fault.REST_607, "607", 0),
        (Fault.REST_608, "608", 0),
        (Fault.REST_611, "611", 0),
        (Fault.REST_615, "615", 0),
        (Fault.REST_713, "713", 0),
        (Fault.IMPORT_1016, "1016", 0),
    ],
)
async def test_rest_code(rehearse: Rehearse, fault: Fault, code: str, jobs: int) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("import", fault)
    assert code_of(await client.submit(TABLE)) == code
    report = client.sim.report()
    assert (report.imports_accepted, report.violations, report.faults_injected) == (jobs, {}, {fault.value: 1})
    assert report.imports_refused == ({} if jobs else {code: 1})
    assert code_of(await client.submit("email\nc@example.com\n")) == "ok"


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.value.startswith("soap_")])
async def test_soap_code(rehearse: Rehearse, fault: Fault) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("soap", fault, times=2)
    codes = [(await client.soap(keyed("IDNUM", 1001))).code for _ in range(3)]
    assert codes == [fault.value.removeprefix("soap_")] * 2 + [None]


async def test_short_pages_lose_nothing(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("soap", Fault.SHORT_PAGE, times=6)
    selector, position, found = updated_between(START - timedelta(days=29), START), "", list[int]()
    client.sim.world.create({})
    while True:
        page = await client.soap(selector + (f"<streamPosition>{position}</streamPosition>" if position else ""))
        found += page.ids
        if not page.position:
            break
        position = page.position
    assert sorted(found) == [lead.id for lead in client.sim.world]


async def test_failed_job_processes_a_part(rehearse: Rehearse) -> None:
    client = await rehearse(SETTINGS)
    client.sim.script("import", Fault.JOB_FAILED)
    batch = await client.import_("email\n" + "".join(f"n{number}@example.com\n" for number in range(100)))
    client.clock.advance(60)
    status = await client.status(batch)
    assert status["status"] == "Failed"
    assert status["numOfLeadsProcessed"] == len(client.sim.world) - 30 < 100
    report = client.sim.report()
    assert (report.jobs_failed, report.rows["imported"] + report.rows["unprocessed"]) == (1, 100)


def test_chance_is_seeded_and_near_its_rate() -> None:
    settings = SimulatorSettings(faults=FaultRates(html_503=0.2, gateway_502=0.1, short_page=0.5, rest_604=0.3))
    plans = [FaultPlan(settings, Recorder()) for _ in range(2)]
    drawn = [[plan.draw("soap") for _ in range(2_000)] for plan in plans]
    assert drawn[0] == drawn[1]
    counted = Counter(fault for faults in drawn[0] for fault in faults)
    assert set(counted) == {Fault.HTML_503, Fault.GATEWAY_502, Fault.SHORT_PAGE}
    assert 300 < counted[Fault.HTML_503] < 500
    assert 100 < counted[Fault.GATEWAY_502] < 260


def test_rough_day_is_survivable() -> None:
    plan = FaultPlan(SimulatorSettings(faults=FaultRates.rough()), Recorder())
    untroubled = [sum(not plan.draw(endpoint) for _ in range(1_000)) for endpoint in ENDPOINTS]
    assert all(300 < count < 990 for count in untroubled)


def test_impossible_faults_are_refused() -> None:
    sim = Simulator(SimulatorSettings(leads=0), ManualClock())
    with pytest.raises(ValueError, match="short_page cannot happen at 'import'"):
        sim.script("import", Fault.SHORT_PAGE)
    with pytest.raises(ValueError, match="between 0 and 1"):
        FaultRates(truncated=1.5)
    assert FaultRates.rough().truncated > 0


def test_only_faults_of_a_bad_day_have_rates() -> None:
    rated = set(FaultRates.__dataclass_fields__)
    assert rated < {fault.value for fault in Fault}
    assert {"soap_20024", "rest_615"} < rated
    assert not rated & {"soap_20013", "soap_29999", "rest_607", "gzip_bomb", "slow_drip", "redirect"}


def test_every_documented_soap_fault_can_be_scripted() -> None:
    protocol = (
        "10001 20011 20012 20013 20014 20015 20016 20017 20109 20110 20114 20019 20022 20023 20024 20102 20103 20111 20122 20123 29999"
    )
    plan = FaultPlan(SimulatorSettings(), Recorder())
    for code in protocol.split():
        plan.script("soap", Fault(f"soap_{code}"), 1)
        assert plan.draw("soap") == {Fault(f"soap_{code}")}


def test_new_rates_stay_out_of_old_seeds() -> None:
    """What a rough day of a seed was before there were more faults."""
    plan = FaultPlan(SimulatorSettings(seed=7, faults=FaultRates.rough()), Recorder())
    drawn = [(endpoint, fault.value) for _ in range(40) for endpoint in ENDPOINTS[:7] for fault in sorted(plan.draw(endpoint))]
    assert [each for each in drawn if not each[1].startswith("results_")] == OF_SEED_7
    busy = FaultPlan(SimulatorSettings(faults=FaultRates(soap_20024=1.0, rest_615=1.0)), Recorder())
    assert [next(iter(busy.draw(endpoint))).value for endpoint in ("soap", "usage")] == ["soap_20024", "rest_615"]
