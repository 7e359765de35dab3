"""Clocks: the wall's, one that runs faster for rehearsals, and one that tests move by hand."""

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta


class WallClock:
    """Runs at `speed` from `origin` (Unix seconds): processes given the same two numbers share one clock."""

    def __init__(self, speed: float = 1.0, origin: float = 0.0) -> None:
        self.speed = speed
        self._origin = origin

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._origin + (time.time() - self._origin) * self.speed, UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) / self.speed)


class ManualClock:
    """Virtual time: stands still until `advance`, which wakes the sleepers in their order."""

    speed: float = 1.0

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Move time forward and wake whoever slept until then."""
        self._now += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            woken = heapq.heappop(self._sleepers)[2]
            if not woken.done():
                woken.set_result(None)
