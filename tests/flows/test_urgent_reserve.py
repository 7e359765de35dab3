"""The day's calls are nearly spent: urgent changes go by those that are kept for them, the others wait until the quota day ends."""

from datetime import UTC, date, datetime, time, timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs

from syncd.core.quota import CENTRAL, next_reset, quota_day
from syncd.core.settings import Limits
from syncd.ops.clock import ManualClock
from syncd.store.usage import Ledger
from tests.flows.conftest import PUSH, Build, House

OUR_SHARE = Limits(calls_per_20s=100, daily_calls=190, urgent_reserve=15)  # so few are taken from the ledger one by one
ALL_TOGETHER = Limits(calls_per_20s=100, subscription_calls=1_000, urgent_reserve=20)
FILES = ('{"company": "C", "title": "t"}', 3)
CALLS = ('{"title": null}', 3)


async def spend_all_but(home: House, left: int) -> None:
    """Of what we have today, or of what all have together, where they are counted."""
    assert home.wire is not None
    limits, ledger = home.instance.limits, Ledger("acme", home.pool)
    if limits.subscription_calls is not None:
        home.wire.limiter.learn(home.wire.limiter.mark(0), limits.subscription_calls - left)
    else:
        assert await ledger.reserve("soap", quota_day(home.clock.now()), limits.daily_calls, limits.daily_calls - left) > 0


def called(home: House) -> int:
    return sum(call.count for call in home.simulator.report().calls if call.api == "rest")


async def settled(home: House, change: int) -> bool:
    return await home.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.change_history WHERE id = $1)", change) is True


@pytest.mark.parametrize("limits", [OUR_SHARE, ALL_TOGETHER], ids=["our share", "all together"])
@pytest.mark.parametrize(("fields", "count"), [FILES, CALLS], ids=["files", "calls"])
async def test_urgent_changes_go_by_the_reserve_and_the_others_the_next_day(
    house: Build, manual_clock: ManualClock, limits: Limits, fields: str, count: int
) -> None:
    ten_to_midnight = datetime.combine(date(2026, 4, 14), time(23, 50), CENTRAL).astimezone(UTC)
    manual_clock.advance((ten_to_midnight - manual_clock.now()).total_seconds())
    midnight = next_reset(ten_to_midnight)
    home = await house(pushes=[PUSH], limits=limits, checked=True)
    await home.run(5)
    before = called(home)
    await spend_all_but(home, limits.urgent_reserve)
    with capture_logs() as logs:
        await home.enqueue(*((f"p{number}@example.com", fields) for number in range(count)))
        await home.run(60)
        assert set(await home.states()) <= {"pending", "in_chunk", "in_batch"}
        assert called(home) == before, "the ordinary ones spend nothing of what is kept"
        for number in range(5):
            began = home.clock.now()
            change = await home.enqueue_urgent(f"u{number}@example.com", '{"unsubscribed": true}')
            await home.run(60, partial(settled, home, change))
            assert (await home.fate(change))[0] == "applied"
            assert home.clock.now() - began < timedelta(seconds=8)
    assert called(home) == before + 5
    assert [each["event"] for each in logs if each["event"].startswith("api_")].count("api_resumed") == 0
    await home.run((midnight - home.clock.now()).total_seconds() - 5)
    assert called(home) == before + 5, "nothing is called in vain"
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": count + 5}
    report = home.simulator.report()
    assert (report.violations, report.duplicate_live_keys, report.synced_live_keys) == ({}, (), ())


async def test_the_reserve_ends_too(house: Build, manual_clock: ManualClock) -> None:
    ten_to_midnight = datetime.combine(date(2026, 4, 14), time(23, 50), CENTRAL).astimezone(UTC)
    manual_clock.advance((ten_to_midnight - manual_clock.now()).total_seconds())
    home = await house(pushes=[PUSH], limits=OUR_SHARE, checked=True)
    await home.run(5)
    before = called(home)
    await spend_all_but(home, 0)
    change = await home.enqueue_urgent("u@example.com", '{"unsubscribed": true}')
    await home.run(60)
    assert (called(home), await settled(home, change)) == (before, False)
    await home.run(900, home.all_ended)
    assert await home.states() == {"applied": 1}
