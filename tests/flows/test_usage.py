"""Learning what all integrations spend of the shared quota."""

import io
from datetime import date, timedelta

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from syncd.cli.render_status import status_of
from syncd.core.faults import Fault, Nature
from syncd.core.quota import quota_day
from syncd.core.settings import Limits
from syncd.flows.check import probe
from syncd.flows.loop import Idle
from syncd.flows.usage import AFTER_FAULT, AFTER_REFUSAL, FAR, NEAR, Usage
from syncd.marketo.describe import describe
from syncd.simulator import Fault as Meets
from syncd.store import status
from syncd.store.usage import remember_users, users_of
from tests.flows.conftest import Build, House

LIMITS = Limits(calls_per_20s=100, subscription_calls=1_000, urgent_reserve=100)


def usage_of(home: House) -> Usage:
    assert home.wire is not None
    assert home.wire.rest is not None
    assert home.lease is not None
    return Usage("acme", home.instance.limits, home.wire.rest, home.wire.limiter, home.lease, home.clock, home.metrics)


async def waits(home: House, flow: Usage) -> timedelta:
    outcome = await flow.step()
    assert isinstance(outcome, Idle)
    return outcome.until - home.clock.now()


async def calls(home: House) -> dict[str, int]:
    return {user.user_id: user.calls for user in await users_of(home.pool, "acme", quota_day(home.clock.now()))}


def shown(home: House) -> dict[str, float]:
    return {labels["owner"]: value for name, labels, value in home.metrics.samples() if name == "syncd_subscription_calls_today"}


async def an_ordinary_call(home: House) -> None:
    assert home.wire is not None
    assert home.wire.rest is not None
    await describe(home.wire.rest)


async def test_strangers_calls_are_shown_and_stop_ours_before_the_reserve(house: Build) -> None:
    home = await house(limits=LIMITS)
    flow = usage_of(home)
    with capture_logs() as logs:
        assert await waits(home, flow) == FAR
        for _ in range(3):
            await an_ordinary_call(home)
        home.simulator.add_foreign_calls("crm@example.com", 500)
        assert await waits(home, flow) == NEAR
        assert (await calls(home))["crm@example.com"] == 500
        assert shown(home) == {"ours": 4, "others": pytest.approx(500, abs=1)}
        await an_ordinary_call(home)
        home.simulator.add_foreign_calls("crm@example.com", 395)
        await flow.step()
        with pytest.raises(Fault, match=r"89[56] others'") as stopped:
            await an_ordinary_call(home)
        assert (stopped.value.code, stopped.value.nature) == ("urgent_reserve", Nature.QUOTA)
        await flow.step()  # its own call is urgent
    home.clock.advance(20 * 3600)
    await an_ordinary_call(home)
    assert not any("@" in str(value) for entry in logs for value in entry.values())
    assert not any("@" in str(labels) for _, labels, _ in home.metrics.samples())


async def test_a_fault_is_told_once_and_asked_again_slowly(house: Build) -> None:
    home = await house(limits=LIMITS)
    flow = usage_of(home)
    home.simulator.script("usage", Meets.REST_611, 2)
    with capture_logs() as logs:
        assert [await waits(home, flow) for _ in range(3)] == [AFTER_FAULT, AFTER_FAULT, FAR]
    assert [entry["event"] for entry in logs] == ["usage_unknown"]
    await an_ordinary_call(home)


async def test_a_missing_right_waits_for_a_person(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(rest: object) -> None:
        raise Fault(Nature.CONFIGURATION, "603", "Access denied", "usage", executed=False)

    monkeypatch.setattr("syncd.flows.usage.usage", refuse)  # the simulator has no rights to take away
    home = await house()
    flow = usage_of(home)
    with capture_logs() as logs:
        assert [await waits(home, flow) for _ in range(2)] == [AFTER_REFUSAL, AFTER_REFUSAL]
    assert [(entry["event"], entry["code"]) for entry in logs] == [("usage_unknown", "603")]
    await an_ordinary_call(home)


async def test_the_operator_sees_who_spends(house: Build) -> None:
    home = await house(limits=LIMITS)
    home.simulator.add_foreign_calls("crm@example.com", 12_345)
    await usage_of(home).step()
    (acme,) = await status.read(home.pool, home.clock.now())
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(status_of(acme, home.clock.now()))
    (line,) = (line for line in console.export_text().splitlines() if "crm@example.com" in line)
    assert line.split() == ["crm@example.com", "12,345", "0", "s", "ago"]


async def test_the_check_tells_the_usage_or_that_it_may_not_be_known(house: Build) -> None:
    home = await house(limits=LIMITS)
    assert home.wire is not None
    home.simulator.add_foreign_calls("crm@example.com", 40)
    (found,) = [each for each in await probe(home.instance, home.wire, home.clock) if each.what == "REST usage"]
    assert found.ok
    assert found.detail.endswith(" of 1,000 REST calls today, by 2 API users (US Central)")
    home.simulator.script("usage", Meets.REST_611)
    (found,) = [each for each in await probe(home.instance, home.wire, home.clock) if each.what == "REST usage"]
    assert found.ok
    assert "not known now" in found.detail


async def test_days_long_gone_are_forgotten(house: Build) -> None:
    home = await house()
    assert home.lease is not None
    today = quota_day(home.clock.now())
    async with home.lease.transaction() as connection:
        for days in (8, 9):
            await remember_users(connection, "acme", today - timedelta(days=days), {"crm": days}, home.clock.now())
    await usage_of(home).step()
    days_kept: list[date] = [row["day"] for row in await home.pool.fetch("SELECT DISTINCT day FROM syncd.api_user ORDER BY 1")]
    assert today - timedelta(days=8) in days_kept
    assert today - timedelta(days=9) not in days_kept
