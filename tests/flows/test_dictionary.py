"""Describe's dictionary: asked for once a day, and the last one known is better than none, after a restart too."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Instance
from syncd.core.values import Field, FieldName
from syncd.flows.dictionary import Dictionaries
from syncd.ops.clock import ManualClock
from syncd.ops.metrics import Metrics
from syncd.simulator import Fault as SimulatedFault
from syncd.store.leases import Lease, Pool
from tests.flows.conftest import PULL, Build
from tests.store.conftest import lease

__all__ = ["lease"]

DAY = 24 * 3600
INSTANCE = Instance("acme", pulls=(PULL,))


class Describe:
    """Answers with the newest name, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    async def __call__(self) -> Sequence[Field]:
        self.asked += 1
        if self.fails:
            raise Fault(Nature.TRANSIENT, "611", "System error", "describe")
        return [Field("Company", "string", 255, FieldName(f"company{self.asked}", False), FieldName("Company", False))]


@pytest.fixture
def describe() -> Describe:
    return Describe()


Make = Callable[[Callable[[], Awaitable[Sequence[Field]]] | None], Dictionaries]


@pytest.fixture
def dictionaries_of(lease: Lease, manual_clock: ManualClock) -> Make:
    return lambda describe: Dictionaries(INSTANCE, describe, lease, manual_clock, Metrics())


async def test_it_is_asked_for_once_a_day(dictionaries_of: Make, describe: Describe, manual_clock: ManualClock) -> None:
    dictionaries = dictionaries_of(describe)
    assert {(await dictionaries.vocabulary()).soap.names["Company"] for _ in range(3)} == {"company1"}
    manual_clock.advance(DAY)
    assert (await dictionaries.vocabulary()).soap.names["Company"] == "company2"
    await dictionaries.refresh()
    assert (await dictionaries.vocabulary()).soap.names["Company"] == "company3"


async def test_yesterdays_serves_while_marketo_gives_no_other(dictionaries_of: Make, describe: Describe, manual_clock: ManualClock) -> None:
    dictionaries = dictionaries_of(describe)
    await dictionaries.vocabulary()
    manual_clock.advance(DAY)
    describe.fails = True
    assert {(await dictionaries.vocabulary()).soap.names["Company"] for _ in range(3)} == {"company1"}
    assert describe.asked == 2, "a failing describe must not be asked for with every page"
    describe.fails = False
    manual_clock.advance(600)
    assert (await dictionaries.vocabulary()).soap.names["Company"] == "company3"


async def test_without_any_the_fault_is_the_callers(dictionaries_of: Make, describe: Describe) -> None:
    describe.fails = True
    with pytest.raises(Fault, match="611"):
        await dictionaries_of(describe).vocabulary()


async def test_an_answer_without_fields_is_no_answer(dictionaries_of: Make, pool: Pool) -> None:
    async def nothing() -> Sequence[Field]:
        return []

    with pytest.raises(Fault, match="no field"):
        await dictionaries_of(nothing).vocabulary()
    assert await pool.fetchval("SELECT count(*) FROM syncd.field") == 0


async def test_a_restart_goes_on_with_the_last_one_known(dictionaries_of: Make, describe: Describe, manual_clock: ManualClock) -> None:
    known = await dictionaries_of(describe).vocabulary()
    describe.fails = True
    again = dictionaries_of(describe)
    assert await again.vocabulary() == known, "names and types are those of before"
    describe.fails = False
    manual_clock.advance(600)
    assert (await again.vocabulary()).soap.names["Company"] == "company3"


async def test_without_rest_names_stay_as_the_source_has_them(dictionaries_of: Make) -> None:
    assert (await dictionaries_of(None).vocabulary()).soap.names == {}


async def test_a_restart_while_rest_is_down_keeps_pulling(house: Build) -> None:
    home = await house(pulls=[PULL], leads=40)
    await home.run(100)
    types = await home.pool.fetchval("SELECT count(*) FROM syncd.field WHERE data_type = 'integer'")
    lead = next(iter(home.simulator.world))
    home.simulator.world.update(lead.id, {"company": "Moved & Sons"})
    home.simulator.script("describe", SimulatedFault.REST_611, 1000)
    await home.restart(pulls=(replace(PULL, every=timedelta(seconds=30)),))
    await home.run(1200)
    company = await home.pool.fetchval("SELECT attributes ->> 'company' FROM syncd.lead WHERE lead_id = $1", lead.id)
    assert (company, types) == ("Moved & Sons", 3), "pulled since, by the REST name that only the dictionary knows"
