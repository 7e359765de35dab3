"""The bytes of a quota day: used up, never overdrawn, and counted anew at midnight US Central."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.settings import Limits, UpdatedSince
from syncd.flows.sweep import Sweep
from syncd.ops.clock import ManualClock
from syncd.simulator import Fault
from tests.flows.conftest import Build
from tests.flows.exporting import PULL, QUICK, built, filled, loader, mirror, nothing_is_open, truth

# 12 MB to fetch at 5 MB a day; in the suite a hundredth of both.
SUITE, PROVE = 50_000, 5_000_000
LEADS_OF_ONE_DAY = 1060 / 2.4  # by which a day's bytes are SUITE


@pytest.mark.parametrize("daily", [SUITE, pytest.param(PROVE, marks=pytest.mark.prove)])
@pytest.mark.parametrize(
    ("start", "days"),
    [
        (datetime(2026, 3, 7, 20, tzinfo=UTC), ["2026-03-07", "2026-03-08", "2026-03-09"]),  # the second one has 23 hours
        (datetime(2026, 10, 31, 20, tzinfo=UTC), ["2026-10-31", "2026-11-01", "2026-11-02"]),  # 25
    ],
)
async def test_what_is_more_than_two_days_bytes_is_there_on_the_third(
    house: Build, manual_clock: ManualClock, start: datetime, days: list[str], daily: int
) -> None:
    manual_clock.advance((start - manual_clock.now()).total_seconds())
    since = start - timedelta(days=60)
    pull = replace(PULL, select=UpdatedSince(since), window=timedelta(days=31), every=timedelta(days=10), margin=timedelta())
    limits = Limits(calls_per_20s=100, export_daily_bytes=daily)
    leads = round(2.4 * LEADS_OF_ONE_DAY * daily / SUITE)
    one = await built(house, pull, limits=limits, leads=leads, updated_since=since, exports=replace(QUICK, daily_bytes=daily))
    one.flows = [flow for flow in one.flows if not isinstance(flow, Sweep)]
    await filled(one, 3 * 86_400)
    assert await mirror(one) == truth(one)
    report = one.simulator.report()
    assert (report.exports_failed, report.exports_refused, report.violations) == (0, {}, {})
    assert list(report.export_bytes) == days
    first, second, third = report.export_bytes.values()
    assert first + second + third > 2.2 * daily
    for spent in (first, second):
        assert 0.97 * daily <= spent <= daily


async def test_a_quota_that_strangers_have_spent_is_waited_for(house: Build, manual_clock: ManualClock) -> None:
    manual_clock.advance(15 * 3600)
    one = await built(house, leads=60)
    one.flows = [flow for flow in one.flows if not isinstance(flow, Sweep)]
    one.simulator.script("export_enqueue", Fault.REST_1029_QUOTA)
    await one.run(3600)
    assert one.simulator.report().exports_enqueued == 0
    shared = loader(one)._shared
    assert shared.not_before == datetime(2026, 3, 3, 6, tzinfo=UTC)
    assert not await nothing_is_open(one)
    await filled(one, 2 * 86_400)
    assert await mirror(one) == truth(one)
    assert set(one.simulator.report().exports_by_filter.values()) == {1}


async def test_an_export_that_failed_for_want_of_bytes_is_not_halved(house: Build, manual_clock: ManualClock) -> None:
    """Strangers may have spent the bytes while it waited for its turn."""
    manual_clock.advance(15 * 3600)
    one = await built(house, leads=60, exports=replace(QUICK, daily_bytes=10_000))
    one.flows = [flow for flow in one.flows if not isinstance(flow, Sweep)]
    one.simulator.add_foreign_export(100, 10_000)
    one.simulator.add_foreign_export(100, 10_000)
    await one.run(1800)
    assert one.simulator.report().exports_failed == 1
    await filled(one, 2 * 86_400)
    assert await mirror(one) == truth(one)
    assert (
        await one.pool.fetchval("SELECT count(*) FROM syncd.pull_window WHERE state = 'split' AND ends_at - starts_at <= interval '1 day'")
        == 0
    )
