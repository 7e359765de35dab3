"""One limiter per instance, shared by both APIs and directions: concurrency, calls per 20 s and per day (protocol 1.6, 2)."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
from aiolimiter import AsyncLimiter

from syncd.core.brake import Brake, BrakeKind
from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.observe import Observe
from syncd.core.quota import Api, CallLedger
from syncd.core.settings import Limits
from syncd.marketo.allowance import SPENT, Allowance, Mark

log = structlog.get_logger()

SPAN = timedelta(seconds=20)
BURST = 5
LOOK_AGAIN = 1.0  # seconds, at the most, between two looks at a window that a brake narrows: it widens by itself
LINGER = 0.5
"""Real seconds that a call which we have broken off still counts as under way: it may not have arrived yet, and if it has, whoever
answers it does not know yet."""
BRAKED_BY: dict[str, BrakeKind] = {"20023": "pace", "606": "pace", "20024": "concurrency", "615": "concurrency"}


class Window:
    """At most `size` calls in any `SPAN` of the clock, exactly; fewer while `allowed` says so.

    The server counts a call when it arrives, which is some unknown moment between our sending it and its reply. So a call is
    counted here from its sending until SPAN after its end (of one broken off: after it must have arrived): any SPAN that its
    arrival falls into, and that ends with another arrival, ends while it is still counted. No delay on the way, however uneven,
    can gather more than `size` into a SPAN.
    """

    def __init__(self, size: int, clock: Clock, allowed: Callable[[int], int] = lambda size: size) -> None:
        self._size = size
        self._clock = clock
        self._allowed = allowed
        self._open = 0
        self._ended: deque[datetime] = deque()
        self._change = asyncio.Event()

    async def enter(self) -> None:
        """Wait until one more call fits and count it. One caller at a time."""
        while not self._fits():
            if self._ended:
                seconds = (self._ended[0] + SPAN - self._clock.now()).total_seconds()
                await self._clock.sleep(seconds if self._allowed(self._size) == self._size else min(seconds, LOOK_AGAIN))
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
        return self._open + len(self._ended) < self._allowed(self._size)


class Places:
    """At most `size` calls at once, in the order of asking; fewer while `allowed` says so. Those under way are let end."""

    def __init__(self, size: int, allowed: Callable[[int], int] = lambda size: size) -> None:
        self._size = size
        self._allowed = allowed
        self._open = 0
        self._turn = asyncio.Lock()
        self._change = asyncio.Event()

    async def enter(self) -> None:
        """Wait for a place."""
        async with self._turn:
            # At least one is always allowed, so that who waits here waits for the end of another's call, and looks again then.
            while self._open >= self._allowed(self._size):
                self._change.clear()
                await self._change.wait()
            self._open += 1

    def leave(self) -> None:
        """Give the place up."""
        self._open -= 1
        self._change.set()


class Limiter:
    """Lets a call pass when a concurrency place, the pace and the day's quota allow it.

    A caller takes its concurrency place first and holds it while waiting for the pace. That delays nobody: the pace is one queue
    that every call must pass, so a place kept free could only serve a call from further back in that queue. The other way
    round, permits of the pace would gather behind a slow server and then leave all at once. The quota comes last, because a
    call is charged to the day that it is sent on, and waiting may pass midnight; but what is known to be spent is refused before
    any waiting too. Of our share of the day `kept` calls are for urgent ones alone.
    """

    def __init__(self, instance: str, limits: Limits, clock: Clock, ledger: CallLedger, observe: Observe, kept: int = 0) -> None:
        burst = max(1, min(BURST, limits.calls_per_20s // 2))
        # A leaky bucket lets `burst + rate x 20 s` calls through, hence the rate. It starts full, since a run that ended a
        # moment ago may have used up its own burst; so the sum holds across any number of restarts.
        leaked = max(1, limits.calls_per_20s - burst)
        self._bucket = AsyncLimiter(burst, burst * SPAN.total_seconds() / leaked / clock.speed)
        self._filled = False
        self._instance = instance
        self._clock = clock
        self._observe = observe
        self._brakes: dict[BrakeKind, Brake] = {"pace": Brake(), "concurrency": Brake()}
        self._places = Places(limits.concurrency, lambda size: self._brake("concurrency").allowed(size, clock.now()))
        self._queue = asyncio.Lock()
        self._window = Window(limits.calls_per_20s, clock, lambda size: self._brake("pace").allowed(size, clock.now()))
        self._allowance = Allowance(instance, limits, clock, ledger, kept)
        self.concurrency = limits.concurrency
        observe.brake(instance, "pace", lambda: self.share("pace"))
        observe.brake(instance, "concurrency", lambda: self.share("concurrency"))
        observe.paused(instance, "soap", lambda: self._allowance.pauses.active("soap"))
        observe.paused(instance, "rest", lambda: self._allowance.pauses.active("rest"))

    @asynccontextmanager
    async def call(self, api: Api, urgent: bool = False) -> AsyncIterator[None]:
        """Wait for leave to make one call; the call is the body of the `async with`.

        Raises Fault(QUOTA): "daily_calls" when our share of the day is spent, "urgent_reserve" or "subscription_calls" when the
        subscription's is, Marketo's own code while it has paused this API.
        """
        self._allowance.check(api, urgent)
        asked = asyncio.get_running_loop().time()
        await self._places.enter()
        counted, sent, linger = False, False, 0.0
        try:
            async with self._queue:
                await self._pace()
                await self._window.enter()
                counted = True
            self._observe.waited(self._instance, api, asyncio.get_running_loop().time() - asked)
            await self._allowance.take(api, urgent)
            sent = True
            yield
        except (asyncio.CancelledError, Fault) as error:
            if sent and (not isinstance(error, Fault) or error.code == "timeout"):
                linger = LINGER
            raise
        finally:
            if linger:
                asyncio.get_running_loop().call_later(linger, self._leave, counted, sent)
            else:
                self._leave(counted, sent)

    def met(self, api: Api, fault: Fault) -> None:
        """An exchange ended in `fault`: too fast and too many press a brake for both APIs, a spent quota pauses its own."""
        if fault.code in BRAKED_BY:
            self._press(BRAKED_BY[fault.code], fault.code)
        elif fault.code in SPENT:
            self._allowance.pauses.begin(api, fault.code)

    def share(self, kind: BrakeKind) -> float:
        """The share of the configured limit that is allowed now."""
        return self._brake(kind).share(self._clock.now())

    def mark(self, charged: int) -> Mark:
        """To be taken just before the subscription's usage is asked for; `charged` is what the ledger has for REST today."""
        return self._allowance.subscription.mark(charged, lambda day: self._allowance.quota.unused("rest", day))

    def learn(self, mark: Mark, total: int) -> None:
        """All integrations together had made `total` REST calls of the day when, or a little after, `mark` was taken."""
        self._allowance.subscription.learn(mark, total)

    async def aclose(self) -> None:
        """Give the calls of the day that were reserved and not made back to the ledger."""
        await self._allowance.quota.aclose()

    def _leave(self, counted: bool, sent: bool) -> None:
        if counted:
            self._window.leave(sent)
        self._places.leave()

    async def _pace(self) -> None:
        if not self._filled:
            self._filled = True
            await self._bucket.acquire(self._bucket.max_rate)
        await self._bucket.acquire()

    def _brake(self, kind: BrakeKind) -> Brake:
        self._brakes[kind] = brake = self._brakes[kind].at(self._clock.now())
        return brake

    def _press(self, kind: BrakeKind, code: str) -> None:
        before = self._brake(kind)
        self._brakes[kind] = brake = before.pressed(self._clock.now())
        if brake != before:
            log.warning("brake", instance=self._instance, kind=kind, code=code, share=round(brake.left, 3))
