"""Brakes and pauses as a call meets them, and the subscription's quota that others spend too."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from syncd.core.brake import EASES_IN, ONE_BURST
from syncd.core.faults import Fault, Nature
from syncd.core.quota import Api
from syncd.core.settings import Limits
from syncd.marketo.limiter import Limiter
from syncd.ops.clock import ManualClock, WallClock
from syncd.ops.metrics import Metrics
from tests.marketo.wire import MemoryLedger, Observed, limiter_of

NOON = datetime(2026, 3, 2, 18, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 3, 6, tzinfo=UTC)
AMPLE = Limits(calls_per_20s=100_000)


def fault(code: str, nature: Nature = Nature.RATE) -> Fault:
    return Fault(nature, code, "too much", "e")


async def call(limiter: Limiter, api: Api = "rest", urgent: bool = False) -> None:
    async with limiter.call(api, urgent):
        pass


async def refused(limiter: Limiter, api: Api = "rest", urgent: bool = False) -> Fault:
    with pytest.raises(Fault) as met:
        await call(limiter, api, urgent)
    assert (met.value.nature, met.value.executed) == (Nature.QUOTA, False)
    return met.value


@pytest.mark.parametrize(("code", "kind"), [("606", "pace"), ("20023", "pace"), ("615", "concurrency"), ("20024", "concurrency")])
def test_each_code_presses_its_brake_and_says_so_once_a_burst(code: str, kind: str) -> None:
    clock, metrics = ManualClock(NOON), Metrics()
    limiter = Limiter("acme", AMPLE, clock, MemoryLedger(), metrics)

    def shares() -> dict[str, float]:
        return {labels["kind"]: value for name, labels, value in metrics.samples() if name == "syncd_brake"}

    other = "concurrency" if kind == "pace" else "pace"
    assert shares() == {"pace": 1, "concurrency": 1}
    with capture_logs() as logs:
        for _ in range(4):
            limiter.met("rest", fault(code))
    assert logs == [{"event": "brake", "log_level": "warning", "instance": "acme", "kind": kind, "code": code, "share": 0.5}]
    assert shares() == {kind: 0.5, other: 1}
    seen = []
    for _ in range(4):
        clock.advance(20)
        seen.append(shares()[kind])
    assert all(one < later for one, later in pairwise(seen))
    clock.advance(EASES_IN.total_seconds())
    assert shares() == {kind: 1, other: 1}


def test_other_faults_press_nothing() -> None:
    observed = Observed()
    limiter = limiter_of(AMPLE, ManualClock(NOON), observed=observed)
    for nature in Nature:
        limiter.met("soap", fault("611", nature))
    assert [share() for share in observed.shares.values()] == [1, 1]
    assert [paused() for paused in observed.pauses.values()] == [False, False]


async def busiest(limiter: Limiter, calls: int) -> int:
    """How many of so many calls, asked for together, were under way together."""
    inside = most = 0

    async def one() -> None:
        nonlocal inside, most
        async with limiter.call("rest"):
            inside += 1
            most = max(most, inside)
            for _ in range(5):
                await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(calls)))
    return most


async def test_a_braked_limiter_lets_fewer_calls_run_at_once() -> None:
    clock = ManualClock(NOON)
    limiter = limiter_of(Limits(calls_per_20s=100_000, concurrency=4), clock)
    assert await busiest(limiter, 20) == 4
    limiter.met("soap", fault("20024"))
    assert await busiest(limiter, 20) == 2
    for _ in range(5):
        clock.advance(ONE_BURST.total_seconds())
        limiter.met("rest", fault("615"))
    assert await busiest(limiter, 20) == 1
    clock.advance(EASES_IN.total_seconds())
    assert await busiest(limiter, 20) == 4


async def test_a_braked_limiter_lets_fewer_calls_into_20_s() -> None:
    clock = WallClock(2_000, time.time())
    limiter = limiter_of(Limits(calls_per_20s=40, concurrency=5), clock)
    sent = list[datetime]()

    async def one() -> None:
        async with limiter.call("rest"):
            sent.append(clock.now())

    for _ in range(6):
        await clock.sleep(ONE_BURST.total_seconds() + 0.1)
        limiter.met("rest", fault("606"))
    began = clock.now()
    await asyncio.gather(*(one() for _ in range(60)))
    in_20_s = sum(moment < began + timedelta(seconds=20) for moment in sent)
    # 4 at the floor, and as many more as it eases in those 20 s; the rest follows faster and faster
    assert 4 <= in_20_s <= 10
    assert sent[-1] - began < EASES_IN


async def test_a_braked_window_that_nobody_presses_lets_everybody_through_in_the_end() -> None:
    clock = ManualClock(NOON)
    clock.speed = 1e6
    limiter = limiter_of(Limits(calls_per_20s=4, concurrency=2), clock)
    for _ in range(4):
        limiter.met("rest", fault("606"))
        clock.advance(ONE_BURST.total_seconds())
    tasks = [asyncio.create_task(call(limiter)) for _ in range(12)]
    for _ in range(200):
        await asyncio.sleep(0.001)  # aiolimiter counts real time
        clock.advance(1)
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize(("api", "code", "other"), [("soap", "20015", "rest"), ("rest", "607", "soap")])
async def test_a_spent_quota_pauses_its_api_until_midnight_and_no_longer(api: Api, code: str, other: Api) -> None:
    clock, ledger, observed = ManualClock(NOON), MemoryLedger(), Observed()
    limiter = limiter_of(AMPLE, clock, ledger, observed)
    with capture_logs() as logs:
        for _ in range(3):
            limiter.met(api, fault(code, Nature.QUOTA))
        before = await refused(limiter, api)
        await call(limiter, other)
        assert [observed.pauses[each]() for each in (api, other)] == [True, False]
        clock.advance((MIDNIGHT - NOON).total_seconds() - 1)
        await refused(limiter, api)
        clock.advance(1)
        assert not observed.pauses[api]()
        await call(limiter, api)
        await call(limiter, api)
    assert before.code == code
    assert "2026-03-03T06:00+00:00" in before.message
    paused = {
        "event": "api_paused",
        "log_level": "warning",
        "instance": "acme",
        "api": api,
        "code": code,
        "until": "2026-03-03T06:00:00+00:00",
    }
    assert logs == [paused, {"event": "api_resumed", "log_level": "info", "instance": "acme", "api": api}]


async def test_soon_after_midnight_it_asks_again_after_ten_minutes_and_then_believes() -> None:
    clock, asked = ManualClock(MIDNIGHT), list[datetime]()
    limiter = limiter_of(AMPLE, clock)
    while clock.now() < MIDNIGHT + timedelta(hours=5):
        with contextlib.suppress(Fault):
            async with limiter.call("soap"):
                asked.append(clock.now())
            limiter.met("soap", fault("20015", Nature.QUOTA))
        clock.advance(60)
    assert [(moment - MIDNIGHT) // timedelta(minutes=1) for moment in asked] == list(range(0, 130, 10))


async def test_a_pause_begun_by_a_clock_that_was_ahead_ends_in_time() -> None:
    clock = ManualClock(NOON + timedelta(days=3))
    limiter = limiter_of(AMPLE, clock)
    limiter.met("rest", fault("607", Nature.QUOTA))
    clock.advance(-3 * 86_400)
    await refused(limiter)
    clock.advance((MIDNIGHT - NOON).total_seconds())
    await call(limiter)


async def test_who_waits_when_the_pause_begins_is_refused_too() -> None:
    limiter = limiter_of(Limits(calls_per_20s=100_000, concurrency=1), ManualClock(NOON))
    async with limiter.call("soap"):
        waiting = asyncio.create_task(refused(limiter, "soap"))
        await asyncio.sleep(0)
        limiter.met("soap", fault("20015", Nature.QUOTA))
    assert (await waiting).code == "20015"


def shared(subscription_calls: int = 100, urgent_reserve: int = 10) -> tuple[Limiter, ManualClock, Callable[[], date]]:
    clock = ManualClock(NOON)
    limits = Limits(calls_per_20s=100_000, subscription_calls=subscription_calls, urgent_reserve=urgent_reserve)
    return limiter_of(limits, clock), clock, lambda: clock.now().date()


async def test_ordinary_calls_stop_at_the_reserve_and_urgent_ones_at_the_end() -> None:
    limiter, clock, _ = shared()
    mark = limiter.mark(0)
    await call(limiter)
    await call(limiter, "soap")  # has a quota of its own
    limiter.learn(mark, 87)  # of which the call after the mark may be one, or not: it is counted
    for _ in range(2):
        await call(limiter)
    stopped = await refused(limiter)
    assert stopped.code == "urgent_reserve"
    assert "of the 100 REST calls that the subscription has on 2026-03-02 (US Central) 3 were ours and 87 others'" in stopped.message
    assert "the last 10 are kept for urgent calls; waiting until 2026-03-03T06:00+00:00" in stopped.message
    for _ in range(10):
        await call(limiter, urgent=True)
    assert (await refused(limiter, urgent=True)).code == "subscription_calls"
    await call(limiter, "soap")
    clock.advance((MIDNIGHT - NOON).total_seconds())
    await call(limiter)


def paused(code: str, *apis: Api) -> list[dict[str, str]]:
    event = {
        "event": "api_paused",
        "log_level": "warning",
        "instance": "acme",
        "code": code,
        "until": f"{MIDNIGHT:%Y-%m-%dT%H:%M:%S}+00:00",
    }
    return [{**event, "api": api} for api in apis]


def resumed(*apis: Api) -> list[dict[str, str]]:
    return [{"event": "api_resumed", "log_level": "info", "instance": "acme", "api": api} for api in apis]


def gauges(observed: Observed) -> dict[str, bool]:
    return {api: paused() for api, paused in observed.pauses.items()}


async def test_our_own_spent_day_is_told_once_for_both_apis_and_ends_with_the_day() -> None:
    clock, observed = ManualClock(NOON), Observed()
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=3), clock, observed=observed)
    with capture_logs() as logs:
        for _ in range(3):
            await call(limiter)
        assert gauges(observed) == {"rest": False, "soap": False}
        for api in ("rest", "soap", "rest"):
            await refused(limiter, api, urgent=True)
        assert gauges(observed) == {"rest": True, "soap": True}
        clock.advance((MIDNIGHT - NOON).total_seconds() - 1)
        await refused(limiter)
        assert gauges(observed) == {"rest": True, "soap": True}
        clock.advance(1)
        assert gauges(observed) == {"rest": False, "soap": False}
        await call(limiter, "soap")
        await call(limiter)
    assert logs == [*paused("daily_calls", "rest", "soap"), *resumed("rest", "soap")]


async def test_a_day_spent_soon_after_midnight_is_not_told_every_ten_minutes() -> None:
    clock = ManualClock(MIDNIGHT - timedelta(days=1))
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=1), clock)
    with capture_logs() as logs:
        await call(limiter)
        while clock.now() < MIDNIGHT:
            await refused(limiter)
            clock.advance(600)
        await call(limiter)
        await refused(limiter)
    assert logs[:4] == [*paused("daily_calls", "rest", "soap"), *resumed("rest", "soap")]
    assert [(entry["event"], entry["until"]) for entry in logs[4:]] == [("api_paused", "2026-03-04T06:00:00+00:00")] * 2


async def test_calls_given_back_go_out_at_once() -> None:
    clock, ledger, observed = ManualClock(NOON), MemoryLedger(), Observed()
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=1), clock, ledger, observed)
    with capture_logs() as logs:
        await call(limiter)
        await refused(limiter)
        await ledger.give_back("soap", date(2026, 3, 2), 1)
        await call(limiter)
        assert gauges(observed) == {"rest": False, "soap": False}
        await refused(limiter, "soap")
    assert logs == [*paused("daily_calls", "rest", "soap"), *resumed("rest", "soap"), *paused("daily_calls", "rest", "soap")]


async def test_an_api_with_reserved_calls_left_is_not_paused_yet() -> None:
    observed = Observed()
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=200), ManualClock(NOON), observed=observed)
    with capture_logs() as logs:
        await call(limiter, "soap")  # of two
        for _ in range(198):
            await call(limiter)
        await refused(limiter)
        assert gauges(observed) == {"rest": True, "soap": False}
        await call(limiter, "soap")
        assert gauges(observed) == {"rest": True, "soap": False}
        await refused(limiter, "soap")
    assert logs == [*paused("daily_calls", "rest"), *paused("daily_calls", "soap")]


async def test_the_reserve_is_told_while_urgent_calls_pass() -> None:
    clock, observed = ManualClock(NOON), Observed()
    limiter = limiter_of(Limits(calls_per_20s=100_000, subscription_calls=100, urgent_reserve=2), clock, observed=observed)
    with capture_logs() as logs:
        limiter.learn(limiter.mark(0), 98)
        for _ in range(2):
            await refused(limiter)
            await call(limiter, urgent=True)
            assert gauges(observed) == {"rest": True, "soap": False}
        for _ in range(2):
            await refused(limiter, urgent=True)
        limiter.learn(limiter.mark(0), 99)  # there were fewer: an urgent one passes again, and then an ordinary one too
        await call(limiter, urgent=True)
        assert len(logs) == 2
        limiter.learn(limiter.mark(0), 50)
        await call(limiter)
        assert gauges(observed) == {"rest": False, "soap": False}
    assert logs == [*paused("urgent_reserve", "rest"), *paused("subscription_calls", "rest"), *resumed("rest")]


async def test_a_pause_of_marketo_outlasts_one_of_ours() -> None:
    ledger, observed = MemoryLedger(), Observed()
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=1), ManualClock(NOON), ledger, observed)
    with capture_logs() as logs:
        await call(limiter)
        await refused(limiter)
        limiter.met("soap", fault("20015", Nature.QUOTA))
        await ledger.give_back("rest", date(2026, 3, 2), 1)
        await call(limiter)
        assert gauges(observed) == {"rest": False, "soap": True}
        assert (await refused(limiter, "soap")).code == "20015"
    assert logs == [*paused("daily_calls", "rest", "soap"), *paused("20015", "soap"), *resumed("rest")]


async def test_a_call_that_was_checked_before_the_reserve_was_reached_ends_nothing() -> None:
    class SlowLedger(MemoryLedger):
        answer = asyncio.Event()

        async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
            await self.answer.wait()
            return await super().reserve(api, day, wanted, limit)

    ledger, observed = SlowLedger(), Observed()
    limits = Limits(calls_per_20s=100_000, subscription_calls=100, urgent_reserve=10)
    limiter = limiter_of(limits, ManualClock(NOON), ledger, observed)
    with capture_logs() as logs:
        under_way = asyncio.create_task(call(limiter))
        while not limiter._allowance.quota._refills:
            await asyncio.sleep(0)
        limiter.learn(limiter.mark(0), 90)
        await refused(limiter)
        ledger.answer.set()
        await under_way
        assert gauges(observed) == {"rest": True, "soap": False}
    assert logs == paused("urgent_reserve", "rest")


async def test_what_was_reserved_and_not_made_is_not_ours_yet() -> None:
    clock, ledger = ManualClock(NOON), MemoryLedger()
    limiter = limiter_of(Limits(calls_per_20s=100_000, subscription_calls=50, urgent_reserve=0), clock, ledger)
    for _ in range(3):
        await call(limiter)
    charged = ledger.calls[date(2026, 3, 2)]
    assert charged > 3
    assert limiter.mark(charged).ours == 3


async def test_usage_asked_for_before_midnight_says_nothing_of_the_new_day() -> None:
    limiter, clock, _ = shared()
    mark = limiter.mark(0)
    clock.advance((MIDNIGHT - NOON).total_seconds())
    limiter.learn(mark, 100)
    await call(limiter)


async def test_without_a_number_nothing_is_kept() -> None:
    limiter = limiter_of(AMPLE, ManualClock(NOON))
    limiter.learn(limiter.mark(0), 10**9)
    await call(limiter)


async def test_of_our_own_day_the_last_calls_are_for_urgent_ones_alone() -> None:
    clock, ledger, observed = ManualClock(NOON), MemoryLedger(), Observed()
    limiter = Limiter("acme", Limits(calls_per_20s=100_000, daily_calls=1_000), clock, ledger, observed, kept=15)
    assert await ledger.reserve("soap", date(2026, 3, 2), 983, 983) == 983
    with capture_logs() as logs:
        await call(limiter, urgent=True)
        await call(limiter)
        assert "are spent, but for the 15 that are kept for urgent changes; waiting until 2026-03-03T06:00" in str(await refused(limiter))
        for api in ("rest", "soap"):
            await call(limiter, api, urgent=True)
            await refused(limiter, api)
        for _ in range(13):
            await call(limiter, urgent=True)
        assert "but for" not in str(await refused(limiter, urgent=True))
        assert ledger.calls == {date(2026, 3, 2): 1_000}
        assert gauges(observed) == {"rest": True, "soap": True}
        clock.advance((MIDNIGHT - NOON).total_seconds())
        await call(limiter, urgent=True)
        await call(limiter)
    assert logs == [*paused("daily_calls", "rest", "soap"), *resumed("rest", "soap")]


@pytest.mark.parametrize(("daily", "reserve", "kept"), [(30_000, 1_000, 1_000), (5_000, 1_000, 500), (100, 9, 9), (100, 0, 0), (0, 9, 0)])
def test_however_few_calls_we_have_a_tenth_at_most_is_kept(daily: int, reserve: int, kept: int) -> None:
    assert Limits(daily_calls=daily, urgent_reserve=reserve).urgent_calls == kept
