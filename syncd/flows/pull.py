"""In: windows of update time, walked page by page into the mirror; rows and position in one transaction."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.retry import Block, decide
from syncd.core.settings import Pull
from syncd.core.values import LeadPage
from syncd.core.windows import halves, increment, plan
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.flows.pages import OnPosition, Pages
from syncd.marketo.soap import SoapApi
from syncd.ops.metrics import Metrics
from syncd.store import cursors, leads
from syncd.store.cursors import OpenWindow, PullState
from syncd.store.leases import Lease

log = structlog.get_logger()

RESTARTS_BEFORE_SPLIT = 3
SLICE = 50  # leads


@dataclass(slots=True)
class PullShared:
    """What the streams of one pull share: which windows are being walked, and one planner at a time."""

    taken: set[int] = field(default_factory=set)
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Walk:
    """A window being walked: `position` and `leads` are what the database has."""

    window: OpenWindow
    pages: Pages
    position: str | None
    leads: int
    expected: int | None


def selector_of(pull: Pull) -> str:
    """What the pull asks for, as a text that differs whenever all must be asked for anew."""
    return f"{pull.source} updated_since={pull.updated_since.isoformat()} fields={','.join(sorted(pull.fields))}"


class PullStream:
    """One of a pull's `streams`; each walks a window of its own."""

    def __init__(
        self,
        instance: str,
        pull: Pull,
        stream: int,
        shared: PullShared,
        soap: SoapApi,
        dictionary: Callable[[], Awaitable[Dictionary]],
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance
        self.name = f"pull {pull.name}/{stream}"
        self._pull = pull
        self._shared = shared
        self._soap = soap
        self._dictionary = dictionary
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._walk: _Walk | None = None
        self._faults = 0
        self._log = log.bind(instance=instance, pull=pull.name)

    async def step(self) -> Outcome:
        """Fetch and write one page; or plan windows; or wait until there is something to plan."""
        walk = self._walk or await self._begin()
        if isinstance(walk, Worked | Idle):
            return walk
        try:
            dictionary = await self._dictionary()
            page = await walk.pages.next()
            self._faults = 0
            return await self._write(walk, page, dictionary)
        except Fault as fault:
            return await self._met(fault, walk)
        except Exception:
            await self.close()  # the page was not written: whoever walks on does so from what the database has
            raise

    async def close(self) -> None:
        """Discard the pages that were asked for and not written."""
        if self._walk is not None:
            self._shared.taken.discard(self._walk.window.id)
            await self._walk.pages.close()
            self._walk = None

    async def _begin(self) -> _Walk | Outcome:
        """Take a window to walk; where there is none, what to do instead."""
        async with self._shared.planning:
            state = await cursors.state(self._lease.pool, self.instance, self._pull.name)
            now = self._clock.now()
            if state.state == "blocked" and state.retry_at is not None and state.retry_at <= now:
                async with self._lease.transaction() as connection:
                    await cursors.unblock(connection, self.instance, self._pull.name)
            elif state.state != "running":
                return Idle(now + SECOND)
            window = await cursors.next_window(self._lease.pool, self.instance, self._pull.name, list(self._shared.taken))
            if window is None:
                return await self._plan(state, now)
            self._shared.taken.add(window.id)
        self._walk = _Walk(window, self._pages(window, window.position), window.position, window.leads, window.expected)
        return self._walk

    async def _plan(self, state: PullState, now: datetime) -> Outcome:
        pull = self._pull
        due = now if state.planned_at is None else state.planned_at + pull.every
        overlap = pull.overlap if state.planned_at is not None else timedelta()
        span = increment(state.planned_until, now, overlap, pull.margin) if due <= now else None
        if span is None:
            return Idle(max(due, now + SECOND))
        windows = list(plan(*span, pull.window))
        async with self._lease.transaction() as connection:
            await cursors.plan(connection, self.instance, pull.name, pull.source, windows, span[1], now)
        if len(windows) > 1:
            self._log.info("windows_planned", windows=len(windows), since=span[0].isoformat(), until=span[1].isoformat())
        return Worked(0)

    def _pages(self, window: OpenWindow, position: str | None) -> Pages:
        oldest, latest = window.window.asked()

        def fetch(position: str | None, known: OnPosition) -> Awaitable[LeadPage]:
            return self._soap.lead_page(
                oldest=oldest,
                latest=latest,
                position=position,
                batch_size=self._pull.batch_size,
                fields=self._pull.fields,
                on_position=known,
            )

        return Pages(fetch, position)

    async def _write(self, walk: _Walk, page: LeadPage, dictionary: Dictionary) -> Outcome:
        rows = []
        for number, lead in enumerate(page.leads):
            if number % SLICE == 0:
                await asyncio.sleep(0)  # a page of wide leads must not hold up the rest of the daemon
            rows.append(mirror_row(lead, dictionary))
        owned = dictionary.owned(self._pull.fields)
        now = self._clock.now()
        got = walk.leads + len(rows)
        expected = len(rows) + page.remaining if walk.expected is None else walk.expected
        window = walk.window
        async with self._lease.transaction() as connection:
            if page.position is not None:
                moved = await cursors.advance(connection, window.id, walk.position, page.position, got, expected)
            elif got < expected and window.walks == 1:
                moved = await cursors.walk_again(connection, window.id, f"{got} leads came of the {expected} promised")
            else:
                moved = await cursors.finish(connection, window.id, got, expected, now)
            if moved is None:
                raise AssertionError(f"window {window.id} was moved by somebody else under our lease")
            upserted = await leads.upsert(connection, self.instance, self._pull.name, rows, owned, page.asked_at, now)
            if upserted.refused:
                # The later answer may have been another pull's, which told nothing of our fields: ask anew rather than lose them.
                message = f"{upserted.refused} leads of the page are known from a later request; asking for it again"
                raise Fault(Nature.TRANSIENT, "older_answer", message, "getMultipleLeads")
        self._metrics.page(self.instance, self._pull.name, len(rows), upserted.created, upserted.changed)
        walk.position, walk.leads, walk.expected = page.position, got, expected
        if page.position is None:
            self._log.debug("window_walked", window=window.id, leads=got, expected=expected)
            await self.close()
        return Worked(len(rows))

    async def _met(self, fault: Fault, walk: _Walk) -> Outcome:
        """A fault discards the pages behind it; the walk goes on at what the database has."""
        self._faults += 1
        now = self._clock.now()
        await self.close()
        if fault.nature is Nature.POSITION:
            return await self._restart(fault, walk, now)
        decision = decide(fault, self._faults, now, self._jitter.random())
        self._metrics.fault(self.instance, fault)
        if isinstance(decision, Block):
            async with self._lease.transaction() as connection:
                await cursors.block(connection, self.instance, self._pull.name, walk.window.id, decision.at, str(fault))
            self._log.error("pull_blocked", window=walk.window.id, fault=str(fault), retry_at=decision.at.isoformat())
            return Worked(0)
        level = self._log.warning if self._faults > 1 else self._log.info
        level("pull_fault", window=walk.window.id, fault=str(fault), attempt=self._faults, clock_skew=fault.clock_skew)
        return Idle(decision.at)

    async def _restart(self, fault: Fault, walk: _Walk, now: datetime) -> Outcome:
        """A refused position: the window from its beginning; at the third time in two halves (architecture.md, Prefetched pages)."""
        async with self._lease.transaction() as connection:
            restarts = await cursors.restart(connection, walk.window.id, str(fault))
            parts = halves(walk.window.window)
            if restarts == RESTARTS_BEFORE_SPLIT and parts is not None:
                await cursors.split(connection, walk.window.id, parts, now)
        self._log.warning("window_restarted", window=walk.window.id, fault=str(fault), restarts=restarts)
        return Idle(now + SECOND)
