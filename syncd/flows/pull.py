"""In: windows of update time, lists and keys, walked page by page into the mirror; rows and position in one transaction."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.mirror import Vocabulary
from syncd.core.retry import Block, backoff, decide
from syncd.core.settings import Instance, Pull, StaticList
from syncd.core.windows import WORTH_SPLITTING, Window, halves, parts
from syncd.flows.asking import asker_of
from syncd.flows.loop import SECOND, Idle, Outcome, Worked
from syncd.flows.pages import Pages
from syncd.flows.plan import Planner, running
from syncd.flows.reading import MirroredPage, Reader
from syncd.marketo.soap import SoapApi
from syncd.ops.metrics import Metrics
from syncd.store import backfills, cursors, leads, lists, planning, pulls
from syncd.store.cursors import OpenWindow
from syncd.store.leads import Upserted
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

TOO_WIDE = "20022"
"""No window of ours is over 30 days; should Marketo count otherwise, two halves are not."""

RESTARTS_BEFORE_SPLIT = 3
MOST_IDLE_PAGES = 5
"""Some are to be expected where leads come and go; more, and the stream goes in a circle."""

DEEPEST_SPLIT = 6
"""Splits after which refused positions split no more: a server that refuses them all would be asked second by second."""


@dataclass(slots=True)
class PullShared:
    """What the streams of one pull share: what reads for them, which windows are being walked, one planner at a time."""

    reader: Reader
    taken: set[int] = field(default_factory=set)
    planning: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Walk:
    """A window being walked: `position` and `leads` are what the database has; `pages` are there once it is known what to ask for."""

    window: OpenWindow
    position: str | None
    leads: int
    expected: int | None
    pages: Pages[MirroredPage] | None = None
    lowest: float = math.inf
    """The lowest remaining count so far; `idle` is how many pages in a row have not lowered it."""
    idle: int = 0
    all_new: bool = False
    """Whether the page before had new leads only: so will the next one have, in a first fill."""


class PullStream:
    """One of a pull's `streams`; each walks a window of its own."""

    def __init__(
        self,
        instance: Instance,
        pull: Pull,
        stream: int,
        shared: PullShared,
        planner: Planner,
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance.name
        self.name = f"pull {pull.name}/{stream}"
        self._settings = instance
        self._pull = pull
        self._shared = shared
        self._planner = planner
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._walk: _Walk | None = None
        self._faults = 0
        self._restarts = 0
        self._look_at = clock.now()
        self._log = log.bind(instance=instance.name, pull=pull.name)

    async def step(self) -> Outcome:
        """Fetch and write one page; or plan windows; or wait until there is something to plan."""
        try:
            if self._walk is not None and await self._is_paused():
                await self.close()
                return Idle(self._clock.now() + SECOND)
            walk = self._walk or await self._begin()
            if isinstance(walk, Worked | Idle):
                return walk
            if walk.pages is None:
                walk.pages = await self._shared.reader.pages(walk.window)
            outcome = await self._write(walk, await walk.pages.next())
            self._faults = 0
            return outcome
        except Fault as fault:
            return await self._met(fault, self._walk)
        except Exception:
            await self.close()  # the page was not written: whoever walks on does so from what the database has
            raise

    async def close(self) -> None:
        """Discard the pages that were asked for and not written."""
        if self._walk is not None:
            self._shared.taken.discard(self._walk.window.id)
            if self._walk.pages is not None:
                await self._walk.pages.close()
            self._walk = None

    async def _is_paused(self) -> bool:
        """Amid a window, which may have pages for hours: asked once a second."""
        now = self._clock.now()
        if now < self._look_at <= now + SECOND:
            return False
        self._look_at = now + SECOND
        return await pulls.is_paused(self._lease.pool, self.instance, self._pull.name)

    async def _begin(self) -> _Walk | Outcome:
        """Take a window to walk; where there is none, what to do instead."""
        async with self._shared.planning:
            now = self._clock.now()
            state = await running(self._lease, self.instance, self._pull.name, now)
            if state is None:
                return Idle(now + SECOND)
            window = await cursors.next_window(self._lease.pool, self.instance, self._pull.name, list(self._shared.taken))
            if window is None or window.backfill:
                outcome = await self._planner.plan(state)
                if window is None or isinstance(outcome, Worked):  # news go before backfills
                    return outcome
            self._shared.taken.add(window.id)
        self._walk = _Walk(window, window.position, window.leads, window.expected)
        return self._walk

    async def _write(self, walk: _Walk, page: MirroredPage) -> Outcome:
        walk.idle = 0 if page.remaining < walk.lowest else walk.idle + 1
        walk.lowest = min(walk.lowest, page.remaining)
        if walk.idle > MOST_IDLE_PAGES:
            raise Fault(Nature.POSITION, "no_progress", f"{walk.idle} pages in a row left no fewer leads to come", "getMultipleLeads")
        rows = page.rows
        got = walk.leads + len(rows)
        expected = len(rows) + page.remaining if walk.expected is None else walk.expected
        try:
            upserted, goes_on = await self._store(walk, page, got, expected)
        except leads.NotAllNewError:
            walk.all_new = False
            upserted, goes_on = await self._store(walk, page, got, expected)
        walk.all_new = 0 < upserted.created == len(rows)
        self._metrics.page(self.instance, self._pull.name, len(rows), upserted.created, upserted.changed, upserted.dropped)
        self._metrics.forgotten(self.instance, "page", upserted.forgotten)
        walk.position, walk.leads, walk.expected = page.position, got, expected
        if not goes_on:
            self._restarts = 0
            await self._tell_of_backfill(walk.window)
            self._log.debug("window_walked", window=walk.window.id, leads=got, expected=expected)
            await self.close()
        return Worked(len(rows))

    async def _store(self, walk: _Walk, page: MirroredPage, got: int, expected: int) -> tuple[Upserted, bool]:
        """Write the page and move its window, in one transaction; returns what that did, and whether the walk goes on."""
        asker, now = asker_of(self._settings, self._pull, page.vocabulary), self._clock.now()
        async with self._lease.transaction() as connection:
            if walk.all_new and page.kept is None:
                upserted = await leads.insert(connection, self.instance, asker, page.rows, page.asked_at, now)
            else:
                upserted = await leads.upsert(connection, self.instance, asker, page.rows, page.asked_at, now, page.kept)
            if upserted.refused:
                # The later answer may have been another pull's, which told nothing of our fields: ask anew rather than lose them.
                message = f"{upserted.refused} leads of the page are known from a later request; asking for it again"
                raise Fault(Nature.TRANSIENT, "older_answer", message, "getMultipleLeads")
            if isinstance(self._pull.select, StaticList):
                ids = [row.lead_id for row in page.rows]
                await lists.seen(connection, self.instance, str(self._pull.select.list), walk.window.id, ids, now)
            return upserted, await self._move(connection, walk, page, got, expected, upserted.dropped)

    async def _move(self, connection: Connection, walk: _Walk, page: MirroredPage, got: int, expected: int, dropped: int) -> bool:
        """Let the window follow its page, in the page's transaction; returns whether its walk goes on."""
        window, now = walk.window, self._clock.now()
        moved: int | None
        if page.position is not None:
            shares = await self._shares(connection, walk, expected, len(page.rows))
            if shares:
                self._log.info("window_split", window=window.id, expected=expected, parts=len(shares))
                moved = await planning.split(connection, window.id, shares, now, expected)
            else:
                moved = await cursors.advance(connection, window.id, walk.position, page.position, got, expected, dropped)
            goes_on = not shares
        elif got < expected and window.walks == 1:
            moved = await cursors.walk_again(connection, window.id, f"{got} leads came of the {expected} promised")
            goes_on = False
        else:
            moved = await cursors.finish(connection, window.id, got, expected, now, dropped)
            if isinstance(self._pull.select, StaticList) and page.remaining == 0:  # the end of a list (protocol 1.4)
                left = await lists.walked(connection, self.instance, str(self._pull.select.list), window.id, now)
                level = self._log.info if left else self._log.debug
                level("list_walked", window=window.id, members=got, left=left)
            goes_on = False
        if moved is None:
            raise AssertionError(f"window {window.id} was moved by somebody else under our lease")
        return goes_on

    async def _tell_of_backfill(self, window: OpenWindow) -> None:
        progress = await backfills.progress(self._lease.pool, window.backfill) if window.backfill else None
        if progress is not None and progress.finished_at is not None:
            self._log.info("backfill_finished", backfill=window.backfill, windows=progress.windows, leads=progress.leads)

    async def _shares(self, connection: Connection, walk: _Walk, expected: int, came: int) -> list[Window]:
        """How the window is shared with other streams, on its first reply only; none when it is walked whole."""
        window = walk.window.window
        streams, page = self._pull.streams, max(came, self._shared.reader.batch.size)
        if walk.expected is not None or window is None or streams == 1 or expected < WORTH_SPLITTING * page:
            return []
        around = await cursors.around(connection, self.instance, self._pull.name, walk.window.id)
        return parts(window, expected, page, streams, around)

    async def _met(self, fault: Fault, walk: _Walk | None) -> Outcome:
        """A fault discards the pages behind it; the walk goes on at what the database has."""
        self._faults += 1
        if walk is not None and walk.pages is not None:
            await walk.pages.close()
        self._metrics.fault(self.instance, fault)
        try:
            return await self._decide(fault, walk, self._clock.now())
        finally:
            await self.close()  # only now: another stream must not take the window up before it stands as decided

    async def _decide(self, fault: Fault, walk: _Walk | None, now: datetime) -> Outcome:
        if walk is not None and (fault.nature is Nature.POSITION or (fault.code == TOO_WIDE and _halves(walk.window))):
            return await self._restart(fault, walk, now)
        if walk is not None and fault.code == "20102" and walk.window.keys:
            return await self._bad_key(fault, walk, now)
        window = walk.window.id if walk is not None else None
        decision = decide(fault, self._faults, now, self._jitter.random())
        if isinstance(decision, Block):
            async with self._lease.transaction() as connection:
                blocked = await pulls.block(connection, self.instance, self._pull.name, window, decision.at, str(fault))
            if blocked:  # and not by another stream already
                self._log.error("pull_blocked", window=window, fault=str(fault), retry_at=decision.at.isoformat())
            return Worked(0)
        level = self._log.warning if self._faults > 1 else self._log.info
        level("pull_fault", window=window, fault=str(fault), attempt=self._faults, clock_skew=fault.clock_skew)
        return Idle(decision.at)

    async def _restart(self, fault: Fault, walk: _Walk, now: datetime) -> Outcome:
        """A refused position: the window from its beginning; at the third time in two halves (architecture.md, Prefetched pages)."""
        window = walk.window
        async with self._lease.transaction() as connection:
            restarts = await cursors.restart(connection, window.id, str(fault))
            shares = _halves(window) if restarts == RESTARTS_BEFORE_SPLIT or fault.code == TOO_WIDE else None
            if shares:
                await planning.split(connection, window.id, shares, now)
        self._log.warning("window_restarted", window=window.id, fault=str(fault), restarts=restarts)
        self._restarts += 1
        return Idle(now + max(SECOND, backoff(self._restarts, self._jitter.random())))

    async def _bad_key(self, fault: Fault, walk: _Walk, now: datetime) -> Outcome:
        """Whether one bad key spoils a call for all is unknown: halve the keys, until it is alone and passed over."""
        keys = walk.window.keys
        assert keys is not None
        half = len(keys) // 2
        async with self._lease.transaction() as connection:
            if half:
                await planning.split_keys(connection, walk.window, (keys[:half], keys[half:]))
            else:
                await cursors.finish(connection, walk.window.id, 0, 0, now, message=f"passed over: {fault}")
        if not half:
            self._planner.refuse(keys[0])
            self._log.warning("key_refused", window=walk.window.id, fault=str(fault))
        self._faults = 0
        return Worked(0)


def _halves(window: OpenWindow) -> tuple[Window, Window] | None:
    return halves(window.window) if window.window is not None and window.depth < DEEPEST_SPLIT else None


def streams_of(
    instance: Instance,
    pull: Pull,
    soap: SoapApi,
    vocabulary: Callable[[], Awaitable[Vocabulary]],
    lease: Lease,
    clock: Clock,
    metrics: Metrics,
    jitter: random.Random,
) -> list[PullStream]:
    """All the streams of a pull."""
    shared = PullShared(Reader(pull, soap, vocabulary, clock))
    planner = Planner(instance, pull, lease, clock, soap.now)
    return [PullStream(instance, pull, number, shared, planner, lease, clock, metrics, jitter) for number in range(pull.streams)]
