"""The day's calls of one instance: our own share, what all integrations have together, and the pause when Marketo says it is spent."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.quota import Api, CallLedger, next_reset, quota_day, resume_at
from syncd.core.settings import Limits

log = structlog.get_logger()

BLOCK = 20  # calls reserved at once, fewer where the day has few
SPENT = frozenset(("20015", "607"))  # Marketo's codes
DAILY, RESERVE, ALL = "daily_calls", "urgent_reserve", "subscription_calls"  # ours
APIS: tuple[Api, ...] = ("rest", "soap")

Pause = tuple[Api, str]  # and the code of the quota that is spent


Block = tuple[Api, date, bool]  # of reserved calls; whether urgent ones alone may take them


class Quota:
    """The day's calls, taken from the ledger in small blocks so that not every call costs a transaction.

    The last `kept` of the day's `limit` are for urgent calls. Those take what is for all as long as there is any.
    """

    def __init__(self, limit: int, kept: int, clock: Clock, ledger: CallLedger) -> None:
        self._limit = limit
        self._kept = kept
        self._block = max(1, min(BLOCK, limit // 100))
        self._clock = clock
        self._ledger = ledger
        self._blocks: dict[Block, int] = {}
        self._refilling = asyncio.Lock()
        self._refills: set[asyncio.Task[None]] = set()

    async def take(self, api: Api, urgent: bool) -> None:
        """Charge one call to the quota day that it is now. Raises Fault(QUOTA) when the day is spent."""
        async with self._refilling:
            day = quota_day(self._clock.now())
            for block in ((api, day, False), (api, day, True))[: 1 + urgent]:
                if not self._blocks.get(block):
                    # A refill outlives the caller's cancellation: calls that the ledger has charged must not get lost.
                    refill = asyncio.create_task(self._refill(block))
                    self._refills.add(refill)
                    refill.add_done_callback(self._refills.discard)
                    await asyncio.shield(refill)
                if self._blocks.get(block):
                    self._blocks[block] -= 1
                    return
            raise self._spent(api, urgent)

    def unused(self, api: Api, day: date) -> int:
        """Calls that the ledger has charged to `day` and that were not made yet."""
        return self._blocks.get((api, day, True), 0) + self.unused_by_all(api, day)

    def unused_by_all(self, api: Api, day: date) -> int:
        """Those of them that need not be urgent."""
        return self._blocks.get((api, day, False), 0)

    async def aclose(self) -> None:
        """Give back what was reserved and not called."""
        await asyncio.gather(*self._refills, return_exceptions=True)
        await self._give_back(list(self._blocks))

    async def _refill(self, block: Block) -> None:
        api, day, urgent = block
        await self._give_back([other for other in self._blocks if other[1] != day])
        wanted, limit = (1, self._limit) if urgent else (self._block, self._limit - self._kept)
        granted = await self._ledger.reserve(api, day, wanted, limit)
        self._blocks[block] = self._blocks.get(block, 0) + granted

    async def _give_back(self, blocks: list[Block]) -> None:
        for block in blocks:
            unused = self._blocks.pop(block, 0)
            if unused:
                await self._ledger.give_back(*block[:2], unused)

    def _spent(self, api: Api, urgent: bool) -> Fault:
        now = self._clock.now()
        but = f", but for the {self._kept} that are kept for urgent changes" if self._kept and not urgent else ""
        spent = f"the {self._limit} calls allowed on {quota_day(now)} (US Central) are spent{but}"
        return Fault(Nature.QUOTA, DAILY, f"{spent}; waiting until {_minute(resume_at(now))}", api, executed=False)


class Pauses:
    """Which APIs have spent a quota of the day. Forgotten by a restart, for one call.

    Marketo's own word is kept to, so that not every flow asks it. What our own count says is only told: each call is counted
    anew, and may find more than the one before.
    """

    def __init__(self, instance: str, clock: Clock) -> None:
        self._instance = instance
        self._clock = clock
        self._ends: dict[Pause, datetime] = {}

    def begin(self, api: Api, code: str) -> None:
        """A call to `api` was refused as over the quota of `code`, by Marketo (SPENT) or before it was sent."""
        until = _end(code, self._clock.now())
        if not self._lasts((api, code)):
            log.warning("api_paused", instance=self._instance, api=api, code=code, until=until.isoformat(timespec="seconds"))
        self._ends[api, code] = until

    def active(self, api: Api) -> bool:
        """Whether `api` is paused now, for ordinary calls at least."""
        return any(pause[0] == api and self._lasts(pause) for pause in self._ends)

    def check(self, api: Api) -> None:
        """Raises Fault(QUOTA) with Marketo's code while Marketo has paused `api`."""
        for pause in self._ends:
            if pause[0] == api and pause[1] in SPENT and self._lasts(pause):
                message = f"the quota of the day was spent (US Central); nothing is called until {_minute(self._ends[pause])}"
                raise Fault(Nature.QUOTA, pause[1], message, api, executed=False)

    def ended_by(self, api: Api, urgent: bool) -> list[Pause]:
        """What is over when a call to `api` passes that was checked just now.

        An urgent one says nothing of what is not kept from it. Our share of the day is one for both APIs.
        """
        ours = (api, DAILY) in self._ends
        of_this = [(paused, code) for paused, code in self._ends if (ours if code == DAILY else paused == api)]
        return [pause for pause in of_this if not (urgent and pause[1] in (DAILY, RESERVE))]

    def end(self, pauses: list[Pause]) -> None:
        """A call has passed, and these are over, unless Marketo has spoken again meanwhile."""
        ended = {pause for pause in pauses if pause in self._ends and not (pause[1] in SPENT and self._lasts(pause))}
        for pause in ended:
            del self._ends[pause]
        for api in sorted({api for api, _ in ended} - {api for api, _ in self._ends}):
            log.info("api_resumed", instance=self._instance, api=api)

    def _lasts(self, pause: Pause) -> bool:
        """No longer than a refusal of this moment would say: the clock may have been ahead, and set back since."""
        if pause not in self._ends:
            return False
        now = self._clock.now()
        self._ends[pause] = min(self._ends[pause], _end(pause[1], now))
        return now < self._ends[pause]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where our count of calls stood at a moment, to which Marketo's answer is added."""

    day: date
    ours: int  # REST calls of the day until then
    made: int  # REST calls of this process until then


class Subscription:
    """What all integrations together spent of the subscription's REST calls today, by what was last learnt and our calls since."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._calls = limits.subscription_calls
        self._reserve = limits.urgent_reserve
        self._clock = clock
        self._made = 0
        self._total = 0
        self._mark = Mark(quota_day(clock.now()), 0, 0)

    def count(self) -> None:
        """A REST call goes out."""
        self._turn_the_day()
        self._made += 1

    def mark(self, charged: int, unused: Callable[[date], int]) -> Mark:
        """To be taken just before the usage is asked for; of the `charged` calls of the day `unused` were not made yet."""
        day = quota_day(self._clock.now())
        return Mark(day, max(0, charged - unused(day)), self._made)

    def learn(self, mark: Mark, total: int) -> None:
        """All integrations together had made `total` calls when, or a little after, `mark` was taken."""
        self._turn_the_day()
        if mark.day == self._mark.day:
            self._mark, self._total = mark, total

    def check(self, api: Api, urgent: bool) -> None:
        """Raises Fault(QUOTA) when what is left is kept for urgent calls, or nothing is left."""
        if self._calls is None or api != "rest":
            return
        self._turn_the_day()
        since = self._made - self._mark.made
        if self._total + since < self._calls - (0 if urgent else self._reserve):
            return
        now, ours = self._clock.now(), self._mark.ours + since
        spent = (
            f"of the {self._calls:,} REST calls that the subscription has on {self._mark.day} (US Central) {ours:,} were ours "
            f"and {max(0, self._total - self._mark.ours):,} others'"
        )
        kept = "none is left" if urgent else f"the last {self._reserve:,} are kept for urgent calls"
        code = ALL if urgent else RESERVE
        raise Fault(Nature.QUOTA, code, f"{spent}; {kept}; waiting until {_minute(resume_at(now))}", api, executed=False)

    def _turn_the_day(self) -> None:
        day = quota_day(self._clock.now())
        if day != self._mark.day:
            self._mark, self._total = Mark(day, 0, self._made), 0


class Allowance:
    """All that one day has for an instance."""

    def __init__(self, instance: str, limits: Limits, clock: Clock, ledger: CallLedger, kept: int) -> None:
        self._clock = clock
        self.pauses = Pauses(instance, clock)
        self.subscription = Subscription(limits, clock)
        self.quota = Quota(limits.daily_calls, kept, clock, ledger)

    def check(self, api: Api, urgent: bool) -> None:
        """Raises Fault(QUOTA) when it is known that no call may be made now."""
        self.pauses.check(api)
        try:
            self.subscription.check(api, urgent)
        except Fault as fault:
            self.pauses.begin(api, fault.code)
            raise

    async def take(self, api: Api, urgent: bool) -> None:
        """Charge one call, which goes out now. Raises Fault(QUOTA)."""
        self.check(api, urgent)
        ended = self.pauses.ended_by(api, urgent)  # before any waiting: others may be refused meanwhile
        try:
            await self.quota.take(api, urgent)
        except Fault as fault:
            self._begin_for_all(fault.code)
            raise
        if api == "rest":
            self.subscription.count()
        self.pauses.end(ended)

    def _begin_for_all(self, code: str) -> None:
        """Our share of the day is spent, for both APIs; but one may have calls left of those that it had reserved."""
        for api in APIS:
            if not self.quota.unused_by_all(api, quota_day(self._clock.now())):
                self.pauses.begin(api, code)


def _end(code: str, now: datetime) -> datetime:
    """When a pause of `code` that begins at `now` ends: Marketo's clock may be another, our own count starts anew by ours."""
    return resume_at(now) if code in SPENT else next_reset(now)


def _minute(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="minutes")
