"""A day's quota that runs out in the middle of a window: silence until midnight US Central, then on from where it was."""

import io
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from syncd.cli.render_status import status_of
from syncd.core.quota import CENTRAL, next_reset
from syncd.core.settings import Limits, UpdatedSince
from syncd.marketo.allowance import BLOCK
from syncd.ops.clock import ManualClock
from syncd.simulator import Limits as MarketoLimits
from syncd.store import status
from tests.flows.conftest import PULL, Build, House
from tests.flows.test_pull import mirror, soap_calls, truth

MINUTE = 60.0
DAYS = [date(2026, 4, 14), date(2026, 3, 7), date(2026, 3, 8), date(2026, 10, 31), date(2026, 11, 1)]
OF_MARKETO, OURS = MarketoLimits(soap_calls_per_day=10), Limits(calls_per_20s=100, daily_calls=10)


def paused(home: House) -> set[str]:
    return {labels["api"] for name, labels, value in home.metrics.samples() if name == "syncd_api_paused" and value}


@pytest.mark.parametrize(
    ("day", "marketo", "limits"),
    [*((day, OF_MARKETO, None) for day in DAYS), (date(2026, 3, 8), None, OURS), (date(2026, 11, 1), None, OURS)],
    ids=[*(f"marketo {day}" for day in DAYS), "ours 2026-03-08", "ours 2026-11-01"],
)
async def test_a_spent_quota(
    house: Build, manual_clock: ManualClock, day: date, marketo: MarketoLimits | None, limits: Limits | None
) -> None:
    ten_to_midnight = datetime.combine(day, time(23, 50), CENTRAL).astimezone(UTC)
    midnight = next_reset(ten_to_midnight)
    assert midnight - ten_to_midnight == timedelta(minutes=10)
    manual_clock.advance((ten_to_midnight - manual_clock.now()).total_seconds())
    since = ten_to_midnight - timedelta(days=5)
    pull = replace(PULL, select=UpdatedSince(since), streams=2, every=timedelta(days=1), window=timedelta(days=3))
    home = await house(pulls=[pull], leads=700, updated_since=since, marketo=marketo, limits=limits)
    with capture_logs() as logs:
        await home.run(9 * MINUTE)
    told = [(entry["api"], entry["code"]) for entry in logs if entry["event"] == "api_paused"]
    assert sorted(told) == ([("soap", "20015")] if marketo else [("rest", "daily_calls"), ("soap", "daily_calls")])
    assert paused(home) == {api for api, _ in told}
    spent = soap_calls(home)
    assert spent == (11 if marketo else 9)  # Marketo's 10 and the refused one; of our 10, describe took one
    refused = sum(call.count for call in home.simulator.report().calls if call.code == "20015")
    assert refused == (1 if marketo else 0), "the other stream must not spend a call to find out"
    assert 0 < len(await mirror(home)) < 700
    open_at = await home.pool.fetch("SELECT position FROM syncd.pull_window WHERE state = 'open' AND leads > 0")
    assert any(row["position"] for row in open_at), "it ran out in the middle of a window"
    await home.run((midnight - home.clock.now()).total_seconds() - 2)
    assert soap_calls(home) == spent, "nothing may be called before midnight"
    with capture_logs() as logs:
        await home.run(5 * MINUTE)
    assert [entry["event"] for entry in logs if entry["event"].startswith("api_")] == ["api_resumed"] * len(told)
    assert paused(home) == set()
    assert await mirror(home) == truth(home)
    # 14 pages and a bit; what had been asked ahead and was not written is asked for again, and nothing else
    assert soap_calls(home) <= 15 + (spent - 8) + 3


async def test_the_status_says_that_calls_are_charged_ahead(house: Build) -> None:
    home = await house(limits=Limits(calls_per_20s=100))
    assert home.wire is not None
    async with home.wire.limiter.call("rest"):
        pass
    (acme,) = await status.read(home.pool, home.clock.now())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_of(acme, home.clock.now()))
    assert f"rest {BLOCK}, soap 0 (charged ahead in blocks of {BLOCK} at most)" in console.export_text()
