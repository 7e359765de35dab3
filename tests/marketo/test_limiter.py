import asyncio
import contextlib
import random
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.quota import Api
from syncd.core.settings import Limits
from syncd.marketo.limiter import LINGER, SPAN, Limiter, Window
from syncd.ops.clock import ManualClock, WallClock
from tests.marketo.wire import MemoryLedger, limiter_of

NOON = datetime(2026, 3, 1, 18, 0, tzinfo=UTC)


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def busiest(arrivals: list[datetime]) -> int:
    """The most arrivals in any half-open span of 20 s."""
    ordered = sorted(arrivals)
    return max(sum(start <= other < start + SPAN for other in ordered) for start in ordered)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 6),
    calls=st.lists(st.tuples(st.floats(0, 40), st.floats(0, 1)), min_size=1, max_size=30),
)
def test_no_delay_on_the_way_gathers_more_arrivals_than_the_window_holds(size: int, calls: list[tuple[float, float]]) -> None:
    async def scenario() -> list[datetime]:
        clock = ManualClock(NOON)
        window, queue, arrivals = Window(size, clock), asyncio.Lock(), []

        async def call(seconds: float, share: float) -> None:
            async with queue:
                await window.enter()
            arrivals.append(clock.now() + timedelta(seconds=seconds * share))
            await clock.sleep(seconds)
            window.leave(sent=True)

        tasks = [asyncio.create_task(call(*one)) for one in calls]
        while not all(task.done() for task in tasks):
            await settle()
            clock.advance(1.0)
        return arrivals

    arrivals = asyncio.run(scenario())
    assert len(arrivals) == len(calls)
    assert busiest(arrivals) <= size


@pytest.mark.parametrize("size", [1, 2, 3, 10, 50])
async def test_any_20_s_hold_at_most_the_configured_calls_restarts_included(size: int) -> None:
    clock, chance, sent = WallClock(400, time.time()), random.Random(size), list[datetime]()
    limits = Limits(calls_per_20s=size, concurrency=5)

    async def call(limiter: Limiter) -> None:
        async with limiter.call("soap"):
            sent.append(clock.now())
            await clock.sleep(chance.random())

    for _ in range(4):  # four lives of the daemon
        limiter = limiter_of(limits, clock, MemoryLedger())
        await asyncio.gather(*(call(limiter) for _ in range(size)))
    assert len(sent) == 4 * size
    assert busiest(sent) <= size


async def test_the_pace_is_nearly_used_up() -> None:
    clock = WallClock(400, time.time())
    limiter = limiter_of(Limits(calls_per_20s=50, concurrency=5), clock, MemoryLedger())

    async def call() -> datetime:
        async with limiter.call("rest"):
            return clock.now()

    sent = sorted(await asyncio.gather(*(call() for _ in range(90))))
    assert sent[-1] - sent[0] < timedelta(seconds=60)  # 40 s at 45 calls per 20 s


async def test_a_clock_set_back_does_not_block() -> None:
    clock = ManualClock(NOON)
    window = Window(1, clock)
    await window.enter()
    window.leave(sent=True)
    clock.advance(-3600)
    entered = asyncio.create_task(window.enter())
    await settle()
    clock.advance(20)
    await asyncio.wait_for(entered, 5)


async def test_concurrency_is_bounded_and_a_cancelled_waiter_frees_its_turn() -> None:
    limiter = limiter_of(Limits(calls_per_20s=100_000, concurrency=2), WallClock(), MemoryLedger())
    inside, most, full, leave = 0, 0, asyncio.Event(), asyncio.Event()

    async def call() -> None:
        nonlocal inside, most
        async with limiter.call("rest"):
            inside += 1
            most = max(most, inside)
            if inside == 2:
                full.set()
            await leave.wait()
            inside -= 1

    tasks = [asyncio.create_task(call()) for _ in range(8)]
    await full.wait()
    await settle()
    for task in (tasks[0], tasks[4], tasks[5]):
        task.cancel()
    inside -= 1
    leave.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results].count(True) == 3
    assert most == 2
    async with limiter.call("rest"), limiter.call("rest"):
        pass


@pytest.mark.parametrize("cut_short", ["cancelled", "timeout"])
async def test_a_call_that_was_broken_off_keeps_its_place_for_a_while(cut_short: str) -> None:
    """Whoever answers it does not know yet that nobody waits: with the next one there would be more at once than are allowed."""
    limiter = limiter_of(Limits(concurrency=1), ManualClock(NOON))
    entered = asyncio.Event()

    async def broken_off() -> None:
        async with limiter.call("soap"):
            entered.set()
            if cut_short == "timeout":
                raise Fault(Nature.TRANSIENT, "timeout", "no complete reply in time", "getMultipleLeads")
            await asyncio.Event().wait()

    async def next_one() -> float:
        async with limiter.call("soap"):
            return time.monotonic()

    first = asyncio.create_task(broken_off())
    await entered.wait()
    began = time.monotonic()
    second = asyncio.create_task(next_one())
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError, Fault):
        await first
    await settle()
    assert not second.done()
    assert await second - began >= LINGER * 0.9


async def test_a_call_that_was_broken_off_may_arrive_late_and_counts_from_then_on() -> None:
    clock = WallClock(400, time.time())
    limiter = limiter_of(Limits(calls_per_20s=1, concurrency=2), clock, MemoryLedger())
    for _ in range(2):
        with contextlib.suppress(Fault):
            async with limiter.call("soap"):
                sent = clock.now()
                raise Fault(Nature.TRANSIENT, "timeout", "no complete reply in time", "getMultipleLeads")
        arrived = sent + timedelta(seconds=0.9 * LINGER * clock.speed)
        async with limiter.call("soap"):
            assert clock.now() >= arrived + SPAN


async def test_quota_is_reserved_in_blocks_and_what_is_left_given_back() -> None:
    ledger = MemoryLedger()
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=4500), ManualClock(NOON), ledger)
    for _ in range(25):
        async with limiter.call("rest"):
            pass
    assert ledger.reservations == 2
    assert ledger.calls == {date(2026, 3, 1): 40}
    await limiter.aclose()
    assert ledger.calls == {date(2026, 3, 1): 25}


async def test_a_spent_day_says_until_when_and_midnight_central_opens_the_next() -> None:
    clock = ManualClock(NOON)
    limiter = limiter_of(Limits(calls_per_20s=100_000, daily_calls=1), clock, MemoryLedger())
    async with limiter.call("soap"):
        pass
    with pytest.raises(Fault, match="2026-03-02T06:00\\+00:00") as spent:
        async with limiter.call("rest"):
            pytest.fail("the quota is spent")
    assert (spent.value.nature, spent.value.code, spent.value.executed) == (Nature.QUOTA, "daily_calls", False)
    clock.advance(12 * 3600)
    async with limiter.call("rest"):
        pass


async def test_a_refused_call_leaves_its_place_in_the_window() -> None:
    clock = ManualClock(NOON)
    limiter = limiter_of(Limits(calls_per_20s=2, concurrency=1, daily_calls=1), WallClock(10_000, time.time()), MemoryLedger())
    limiter._window = window = Window(2, clock)
    async with limiter.call("soap"):
        pass
    for _ in range(5):
        with pytest.raises(Fault):
            async with limiter.call("soap"):
                pytest.fail("the quota is spent")
    await asyncio.wait_for(window.enter(), 5)


async def test_a_cancelled_call_loses_no_reserved_calls() -> None:
    class SlowLedger(MemoryLedger):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.answer = asyncio.Event(), asyncio.Event()

        async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
            self.asked.set()
            await self.answer.wait()
            return await super().reserve(api, day, wanted, limit)

    ledger = SlowLedger()
    limiter = limiter_of(Limits(calls_per_20s=100_000), ManualClock(NOON), ledger)
    call = asyncio.create_task(limiter.call("rest").__aenter__())
    await ledger.asked.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    ledger.answer.set()
    await limiter.aclose()
    assert ledger.calls == {date(2026, 3, 1): 0}
