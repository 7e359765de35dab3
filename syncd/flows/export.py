"""In, by extract: windows are planned, and asked for one export each, as long as the queue has room and the day bytes."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from syncd.core import extract
from syncd.core.extract import Ask, Learned, in_parts
from syncd.core.faults import Fault, Nature
from syncd.core.mirror import Vocabulary
from syncd.core.quota import next_reset, resume_at
from syncd.core.retry import SLOW_RETRY, Block, decide
from syncd.core.settings import Instance, Pull, SmartList, StaticList
from syncd.core.values import CreatedBetween, ExportFilter, ExportStatus, InSmartList, InStaticList, UpdatedBetween
from syncd.flows.export_doubt import Doubts
from syncd.flows.exporting import CENSUS, POLL, UNKNOWN_JOB, Exporting, Reach, shares
from syncd.flows.loop import SECOND, Idle, Outcome, Worked, shielded
from syncd.flows.plan import LOOK_EVERY, Planner, running
from syncd.flows.reading import asked_fields
from syncd.store import cursors, export_figures, exports, planning, pulls, routes
from syncd.store.cursors import ExtractWindow
from syncd.store.exports import Export
from syncd.store.leases import Connection

log = structlog.get_logger()

FULL_FOR, FULL_AT_MOST = timedelta(seconds=30), timedelta(minutes=5)
MOST_FAILURES = 3
"""Of one window that can't be shared: then a person must look."""

REMEDIES = {
    "1035": "this subscription has no such filter; let the pull select otherwise, or take source: activities, auto or soap",
    "1003": "Marketo refuses what is asked for: look whether the pull's fields and its list exist",
    "603": "give the API user's role the permission Read-Only Lead",
}

OnNoUpdatedAt = Callable[[Connection, str, str], Awaitable[bool]]
"""Given the pull and what Marketo said: route it another way, in the transaction; returns False where there is none."""


class ExportStarter:
    """Plans for one pull, creates its exports and has them queued. Without a `pull` it is the census's, whose windows others plan."""

    def __init__(
        self,
        instance: Instance,
        pull: Pull | None,
        shared: Exporting,
        planner: Planner | None,
        vocabulary: Callable[[], Awaitable[Vocabulary]],
        reach: Reach,
        on_no_updated_at: OnNoUpdatedAt | None = None,
    ) -> None:
        self.instance = instance.name
        self._pull = pull
        self._of = pull.name if pull is not None else CENSUS
        self.name = f"export {self._of}"
        self._shared = shared
        self._planner = planner
        self._vocabulary = vocabulary
        self._api, self._lease, self._clock = reach.api, reach.lease, reach.clock
        self._metrics, self._jitter = reach.metrics, reach.jitter
        self._on_no_updated_at = on_no_updated_at
        self._faults = 0
        self._not_before = self._clock.now()
        self._doubts = Doubts(instance.name, self._of, reach)
        self._told_to_wait: datetime | None = None
        self._learned: Learned | None = None
        self._log = log.bind(instance=instance.name, pull=self._of)

    async def step(self) -> Outcome:
        """Create one export and have it queued; or find out about one in doubt; or plan; or wait until there is something to ask for."""
        try:
            return await self._step()
        except Fault as fault:
            return await self._met(fault, None)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def _step(self) -> Outcome:
        now = self._clock.now()
        jobs = await exports.unfinished(self._lease.pool, self.instance)
        if any(job.state == "creating" and job.pull == self._of for job in jobs):
            return await self._doubts.orphans()
        mine = [job for job in jobs if job.pull == self._of]
        if self._pull is None and not mine and not await cursors.to_ask_for(self._lease.pool, self.instance, self._of, 1):
            return Idle(now + LOOK_EVERY)  # nor may there be a census at all
        state = await running(self._lease, self.instance, self._of, now)
        if state is None:
            return Idle(now + SECOND)
        if now < self._not_before:
            return Idle(min(self._not_before, now + POLL.min))
        for job in mine:
            if job.state == "unconfirmed" and self._doubts.may_look_for(job, now):
                return await self._doubts.look_for(job, jobs, now)
        for job in mine:
            if job.state != "created" or now < self._shared.may_ask_at(self._of):
                continue
            if job.id in self._doubts.certain:
                return await self._enqueue(job)
            if job.looked_at is None or not now < job.looked_at + POLL.min <= now + POLL.min:
                return await self._doubts.ask_status(job)
        windows = await cursors.to_ask_for(self._lease.pool, self.instance, self._of)
        if self._planner is not None and (not windows or windows[0].backfill):
            route = (await routes.read(self._lease.pool, self.instance, self._of)).route
            if route is None:
                return Idle(now + SECOND)  # somebody is finding out
            outcome = await self._planner.plan(state, route)
            if not windows or isinstance(outcome, Worked):  # news go before backfills
                return outcome
        if not windows or now < self._shared.may_ask_at(self._of):
            return Idle(min(max(self._shared.may_ask_at(self._of), now + LOOK_EVERY), now + POLL.min))
        async with self._shared.asking:
            return await self._ask_for(windows, now)

    async def _ask_for(self, windows: Sequence[ExtractWindow], now: datetime) -> Outcome:
        pool = self._lease.pool
        jobs = await exports.unfinished(pool, self.instance)
        if await self._shared.room(pool, self.instance, jobs) <= 0:
            return Idle(now + LOOK_EVERY)
        window = windows[0]
        tries = await export_figures.tries(pool, window.id)
        if tries.in_vain >= MOST_FAILURES and tries.last_at is not None and tries.last_at + SLOW_RETRY > now and shares(window) is None:
            return await self._block(window.id, f"{tries.in_vain} exports of one window came to nothing; ask Marketo's support", now)
        return await self._ask(window, jobs, now)

    async def _ask(self, window: ExtractWindow, jobs: Sequence[Export], now: datetime) -> Outcome:
        """Ask for a part of the window that nobody has asked for; first share it, when the day has not bytes enough for it."""
        live = [job for job in jobs if job.window_id == window.id]
        wanted = self._filter(window)
        seen = await export_figures.seen(self._lease.pool, self.instance, self._of, wanted, window.ids_only)
        learned = self._learned = extract.learn(seen)
        if learned is None and not live and any(job.pull == self._of for job in jobs):
            return Idle(now + LOOK_EVERY)  # the first one tells how much to ask for
        left = await self._shared.bytes_left(self._lease.pool, self.instance, now)
        ask = Ask(window.window, None, None) if live else extract.ask(window.window, learned, left, self._shared.limits.export_daily_bytes)
        if ask is None:
            return await self._wait_for_bytes(left, now)
        if ask.window is not None and ask.rest is not None:
            async with self._lease.transaction() as connection:
                await planning.split(connection, window.id, [ask.window, ask.rest], now)
            return Worked(0)
        parts = [["id"]] if window.ids_only else in_parts(await self._fields())
        for job in live:
            if job.parts != len(parts) or set(job.fields) != set(parts[job.part]):
                return await self._begin_anew(window, live)
        part = min(set(range(len(parts))) - {job.part for job in live})
        estimate = None if ask.estimate is None else ask.estimate // len(parts)
        return await self._create(window, (part, len(parts)), parts[part], wanted, estimate)

    async def _fields(self) -> Sequence[str]:
        """The REST names of all that is wanted of a lead."""
        assert self._pull is not None, "the census asks for ids only"
        dictionary = (await self._vocabulary()).rest
        asked = asked_fields(self._pull, dictionary) or tuple(dictionary.names)
        return list(dict.fromkeys((*asked, *(dictionary.on_the_wire(name) or name for name in self._pull.where))))

    def _filter(self, window: ExtractWindow) -> ExportFilter:
        if window.window is not None:
            kind = CreatedBetween if window.by_creation else UpdatedBetween
            return kind(window.window.starts_at, window.window.ends_at)
        select = self._pull.select if self._pull is not None else None
        assert isinstance(select, StaticList | SmartList), "only those have windows without times"
        return InStaticList(select.list) if isinstance(select, StaticList) else InSmartList(select.list)

    async def _begin_anew(self, window: ExtractWindow, live: Sequence[Export]) -> Outcome:
        """The fields have changed since the first part of the window was asked for: all parts go by what there is now."""
        now, message = self._clock.now(), "the fields of its window have changed since"
        async with self._lease.transaction() as connection:
            for job in live:
                ended = exports.to_expired if job.state == "completed" else exports.to_cancelled
                await ended(connection, job.id, message, now)
        self._log.info("export_dropped", window=window.id, exports=[job.id for job in live], reason=message)
        return Worked(0)

    async def _wait_for_bytes(self, left: int, now: datetime) -> Outcome:
        reset = next_reset(now)
        self._not_before = min(reset, now + timedelta(minutes=5))  # what is under way may come out smaller than thought
        if self._told_to_wait != reset:
            self._told_to_wait = reset
            self._log.info("export_waits_for_bytes", bytes_left=left, until=reset.isoformat(), **await self._what_is_left())
        return Idle(self._not_before)

    async def _what_is_left(self) -> dict[str, int]:
        """How much there is to fetch yet, as far as anybody can tell."""
        if self._learned is None:
            return {}
        size = self._learned.bytes_of(await cursors.span_left(self._lease.pool, self.instance, self._of))
        return {"bytes_to_fetch": size, "days": extract.days(size, self._shared.limits.export_daily_bytes)}

    async def _create(
        self, window: ExtractWindow, part: tuple[int, int], fields: Sequence[str], wanted: ExportFilter, estimate: int | None
    ) -> Outcome:
        now = self._clock.now()
        async with self._lease.transaction() as connection:
            export, ordered = await exports.begin(connection, self.instance, self._of, window.id, part, fields, wanted, estimate, now)
        try:
            status = await self._api.create(ordered, wanted)
        except Fault as fault:
            return await shielded(self._not_created(fault, export, window, wanted))
        await shielded(self._created(export, status))
        for job in await exports.unfinished(self._lease.pool, self.instance):
            if job.id == export and job.state == "created":
                return await self._enqueue(job)
        return Worked(0)

    async def _created(self, export: int, status: ExportStatus) -> None:
        async with self._lease.transaction() as connection:
            await exports.to_created(connection, export, status.export_id, self._clock.now())
        self._doubts.certain.add(export)

    async def _not_created(self, fault: Fault, export: int, window: ExtractWindow, wanted: ExportFilter) -> Outcome:
        """What a failed creation leaves behind, by whether Marketo may have acted on it."""
        now, rerouted = self._clock.now(), False
        async with self._lease.transaction() as connection:
            if fault.executed is None:
                await exports.to_unconfirmed(connection, export, fault)
            else:
                await exports.to_refused(connection, export, fault, now)
            if fault.code == "1035" and isinstance(wanted, UpdatedBetween) and self._on_no_updated_at is not None:
                rerouted = await self._on_no_updated_at(connection, self._of, str(fault))
        if fault.executed is None:
            self._log.warning("export_unconfirmed", window=window.id, export=export, fault=str(fault))
        if rerouted:
            self._log.warning("pull_rerouted", window=window.id, export=export, reason=str(fault))
            return Worked(0)
        return await self._met(fault, window.id)

    async def _enqueue(self, job: Export) -> Outcome:
        """Have a created export queued. Never without `asked_at` before, and not again as long as it may have been."""
        assert job.export_id is not None
        async with self._lease.transaction() as connection:
            if await exports.asked(connection, job.id, self._clock.now()) is None:
                return Worked(0)
        self._doubts.certain.discard(job.id)
        try:
            await self._api.enqueue(job.export_id)
        except Fault as fault:
            if fault.code != "1029_already":
                if fault.executed is False:
                    self._doubts.certain.add(job.id)
                return await shielded(self._not_queued(fault, job))
        await shielded(self._queued(job))
        return Worked()

    async def _queued(self, job: Export) -> None:
        async with self._lease.transaction() as connection:
            await exports.to_queued(connection, job.id, self._clock.now())
        self._faults = self._shared.refusals = 0
        self._log.info("export_queued", window=job.window_id, export=job.id, export_id=job.export_id, part=job.part, parts=job.parts)

    async def _not_queued(self, fault: Fault, job: Export) -> Outcome:
        async with self._lease.transaction() as connection:
            await exports.in_vain(connection, job.id, fault, self._clock.now())
        if fault.code in UNKNOWN_JOB:
            self._doubts.certain.discard(job.id)  # its status tells
        return await self._met(fault, job.window_id)

    async def _met(self, fault: Fault, window: int | None) -> Outcome:
        now = self._clock.now()
        self._metrics.fault(self.instance, fault)
        bound = self._log.bind(window=window, fault=str(fault))
        if fault.code == "1029_quota":
            self._shared.not_before = resume_at(now)
            bound.warning("export_quota_spent", until=self._shared.not_before.isoformat(), **await self._what_is_left())
            return Idle(now + LOOK_EVERY)
        if fault.nature is Nature.NO_SLOT:
            self._shared.refusals += 1
            wait = min(FULL_FOR * (1 << min(self._shared.refusals - 1, 8)), FULL_AT_MOST)
            self._shared.not_before = now + wait * (0.75 + self._jitter.random() / 2)
            bound.info("export_queue_full", refusals=self._shared.refusals, again_at=self._shared.not_before.isoformat())
            return Idle(now + LOOK_EVERY)
        self._faults += 1
        decision = decide(fault, self._faults, now, self._jitter.random())
        if isinstance(decision, Block):
            return await self._block(window, str(fault) + (f": {REMEDIES[fault.code]}" if fault.code in REMEDIES else ""), now)
        level = bound.warning if self._faults > 1 else bound.info
        level("export_fault", attempt=self._faults)
        self._not_before = decision.at
        return Idle(decision.at)

    async def _block(self, window: int | None, message: str, now: datetime) -> Outcome:
        retry_at = now + SLOW_RETRY
        async with self._lease.transaction() as connection:
            blocked = await pulls.block(connection, self.instance, self._of, None, retry_at, message)
        if blocked:
            self._log.error("pull_blocked", window=window, fault=message, retry_at=retry_at.isoformat())
        return Worked(0)
