"""Describe's dictionary: asked for once a day, and yesterday's is better than none."""

import pytest

from syncd.core.faults import Fault, Nature
from syncd.core.values import Field, FieldName
from syncd.flows.dictionary import Dictionaries
from syncd.ops.clock import ManualClock

DAY = 24 * 3600


class Describe:
    """Answers with the newest name, or fails."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False

    async def __call__(self) -> list[Field]:
        self.asked += 1
        if self.fails:
            raise Fault(Nature.TRANSIENT, "611", "System error", "describe")
        return [Field("Company", "string", 255, FieldName(f"company{self.asked}", False), FieldName("Company", False))]


async def test_it_is_asked_for_once_a_day(manual_clock: ManualClock) -> None:
    describe = Describe()
    dictionaries = Dictionaries(describe, manual_clock)
    assert {(await dictionaries.soap()).names["Company"] for _ in range(3)} == {"company1"}
    manual_clock.advance(DAY)
    assert (await dictionaries.soap()).names["Company"] == "company2"


async def test_yesterdays_serves_while_marketo_gives_no_other(manual_clock: ManualClock) -> None:
    describe = Describe()
    dictionaries = Dictionaries(describe, manual_clock)
    await dictionaries.soap()
    manual_clock.advance(DAY)
    describe.fails = True
    assert {(await dictionaries.soap()).names["Company"] for _ in range(3)} == {"company1"}
    assert describe.asked == 2, "a failing describe must not be asked for with every page"
    describe.fails = False
    manual_clock.advance(600)
    assert (await dictionaries.soap()).names["Company"] == "company3"


async def test_without_any_the_fault_is_the_callers(manual_clock: ManualClock) -> None:
    describe = Describe()
    describe.fails = True
    with pytest.raises(Fault, match="611"):
        await Dictionaries(describe, manual_clock).soap()


async def test_without_rest_names_stay_as_the_source_has_them(manual_clock: ManualClock) -> None:
    assert (await Dictionaries(None, manual_clock).soap()).names == {}
