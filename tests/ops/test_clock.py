"""Clocks: processes that are given the same numbers share one, and a test's stands still until moved."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

from syncd.ops.clock import ManualClock, WallClock


def test_the_wall_clock_is_the_walls() -> None:
    assert abs((WallClock().now() - datetime.now(UTC)).total_seconds()) < 1


def test_two_clocks_of_one_origin_and_speed_agree_and_run_fast() -> None:
    origin = time.time() - 10
    one, other = WallClock(60, origin), WallClock(60, origin)
    assert abs((one.now() - other.now()).total_seconds()) < 6
    assert one.now() - datetime.fromtimestamp(origin, UTC) >= timedelta(seconds=600)


async def test_a_fast_clock_sleeps_that_much_shorter() -> None:
    started = time.monotonic()
    await WallClock(1000, time.time()).sleep(20)
    assert time.monotonic() - started < 5


async def test_a_manual_clock_wakes_its_sleepers_in_their_order() -> None:
    clock = ManualClock(datetime(2026, 3, 2, tzinfo=UTC))
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleeper(seconds)) for seconds in (30, 10, 20)]
    await asyncio.sleep(0)
    clock.advance(25)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert woken == [10, 20]
    clock.advance(5)
    await asyncio.gather(*tasks)
    assert woken == [10, 20, 30]
    assert clock.now() == datetime(2026, 3, 2, 0, 0, 30, tzinfo=UTC)
