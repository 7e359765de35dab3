"""One limiter per instance, shared by both APIs and directions: concurrency, calls per 20 s and per day (protocol 1.6, 2)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

from aiolimiter import AsyncLimiter

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.quota import Api, CallLedger, next_reset, quota_day
from syncd.core.settings import Limits

SPAN = timedelta(seconds=20)
BURST = 5
BLOCK = 20  # calls reserved at once, fewer where the day has few


class Window:
    """At most `size` calls in any `SPAN` of the clock, exactly.

    The server counts a call when it arrives, which is some unknown moment between our sending it and its reply. So a call is
    counted here from its sending until SPAN after its end: any SPAN that its arrival falls into, and that ends with another
    arrival, ends while it is still counted. No delay on the way, however uneven, can gather more than `size` into a SPAN.
    """

    def __init__(self, size: int, clock: Clock) -> None:
        self._size = size
        self._clock = clock
        self._open = 0
        self._ended: deque[datetime] = deque()
        self._change = asyncio.Event()

    async def enter(self) -> None:
        """Wait until one more call fits and count it. One caller at a time."""
        while not self._fits():
            if self._ended:
                await self._clock.sleep((self._ended[0] + SPAN - self._clock.now()).total_seconds())
            else:
                self._change.clear()
                await self._change.wait()
        self._open += 1

    def leave(self, sent: bool) -> None:
        """The call has ended; one that was never sent frees its place at once."""
        self._open -= 1
        if sent:
            self._ended.append(self._clock.now())
        self._change.set()

    def _fits(self) -> bool:
        now = self._clock.now()
        if self._ended and self._ended[-1] > now:  # the clock was set back: without this it would block for as long as that
            self._ended = deque(min(end, now) for end in self._ended)
        while self._ended and self._ended[0] + SPAN <= now:
            self._ended.popleft()
        return self._open + len(self._ended) < self._size


class Quota:
    """The day's calls, taken from the ledger in small blocks so that not every call costs a transaction."""

    def __init__(self, limit: int, clock: Clock, ledger: CallLedger) -> None:
        self._limit = limit
        self._block = max(1, min(BLOCK, limit // 100))
        self._clock = clock
        self._ledger = ledger
        self._blocks: dict[tuple[Api, date], int] = {}
        self._refilling = asyncio.Lock()
        self._refills: set[asyncio.Task[None]] = set()

    async def take(self, api: Api) -> None:
        """Charge one call to the quota day that it is now. Raises Fault(QUOTA) when the day is spent."""
        async with self._refilling:
            block = api, quota_day(self._clock.now())
            if not self._blocks.get(block):
                # A refill outlives the caller's cancellation: calls that the ledger has charged must not get lost.
                refill = asyncio.create_task(self._refill(*block))
                self._refills.add(refill)
                refill.add_done_callback(self._refills.discard)
                await asyncio.shield(refill)
            if not self._blocks.get(block):
                raise self._spent(api)
            self._blocks[block] -= 1

    async def aclose(self) -> None:
        """Give back what was reserved and not called."""
        await asyncio.gather(*self._refills, return_exceptions=True)
        await self._give_back(list(self._blocks))

    async def _refill(self, api: Api, day: date) -> None:
        await self._give_back([block for block in self._blocks if block[1] != day])
        granted = await self._ledger.reserve(api, day, self._block, self._limit)
        self._blocks[api, day] = self._blocks.get((api, day), 0) + granted

    async def _give_back(self, blocks: list[tuple[Api, date]]) -> None:
        for api, day in blocks:
            unused = self._blocks.pop((api, day), 0)
            if unused:
                await self._ledger.give_back(api, day, unused)

    def _spent(self, api: Api) -> Fault:
        now = self._clock.now()
        until = next_reset(now).astimezone(UTC).isoformat(timespec="minutes")
        message = f"the {self._limit} calls allowed on {quota_day(now)} (US Central) are spent; waiting until {until}"
        return Fault(Nature.QUOTA, "daily_calls", message, api, executed=False)


class Limiter:
    """Lets a call pass when a concurrency place, the pace and the day's quota allow it.

    A caller takes its concurrency place first and holds it while waiting for the pace. That delays nobody: the pace is one queue
    that every call must pass, so a place kept free could only serve a call from further back in that queue. The other way
    round, permits of the pace would gather behind a slow server and then leave all at once. The quota comes last, because a
    call is charged to the day that it is sent on, and waiting may pass midnight.
    """

    def __init__(self, limits: Limits, clock: Clock, ledger: CallLedger) -> None:
        burst = max(1, min(BURST, limits.calls_per_20s // 2))
        # A leaky bucket lets `burst + rate x 20 s` calls through, hence the rate. It starts full, since a run that ended a
        # moment ago may have used up its own burst; so the sum holds across any number of restarts.
        leaked = max(1, limits.calls_per_20s - burst)
        self._bucket = AsyncLimiter(burst, burst * SPAN.total_seconds() / leaked / clock.speed)
        self._filled = False
        self._places = asyncio.Semaphore(limits.concurrency)
        self._queue = asyncio.Lock()
        self._window = Window(limits.calls_per_20s, clock)
        self._quota = Quota(limits.daily_calls, clock, ledger)
        self.concurrency = limits.concurrency

    @asynccontextmanager
    async def call(self, api: Api) -> AsyncIterator[None]:
        """Wait for leave to make one call; the call is the body of the `async with`. Raises Fault(QUOTA), code "daily_calls"."""
        async with self._places:
            async with self._queue:
                await self._pace()
                await self._window.enter()
            sent = False
            try:
                await self._quota.take(api)
                sent = True
                yield
            finally:
                self._window.leave(sent)

    async def aclose(self) -> None:
        """Give the calls of the day that were reserved and not made back to the ledger."""
        await self._quota.aclose()

    async def _pace(self) -> None:
        if not self._filled:
            self._filled = True
            await self._bucket.acquire(self._bucket.max_rate)
        await self._bucket.acquire()
