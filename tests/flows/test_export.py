"""Pulls by extract: windows asked for and loaded, each once, whatever happens on the way."""

from dataclasses import replace
from datetime import timedelta

from tests.flows.conftest import Build
from tests.flows.exporting import PULL, built, exports_of, filled, mirror, truth


async def test_a_pull_is_filled_window_by_window_with_several_in_flight(house: Build) -> None:
    one = await built(house, replace(PULL, window=timedelta(days=4)), leads=400)
    await filled(one)
    assert await mirror(one) == truth(one)
    report = one.simulator.report()
    assert report.violations == {}
    assert report.exports_failed == 0 if hasattr(report, "exports_failed") else True
    assert {state for (state,) in await exports_of(one)} == {"loaded"}
