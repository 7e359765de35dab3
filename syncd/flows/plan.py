"""What a pull is to walk next: windows of update time, a list, keys, or once more what a backfill asks for."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta

import orjson
import structlog

from syncd.core import drift, extract
from syncd.core.clock import Clock
from syncd.core.cost import Cost, cost
from syncd.core.extract import BEGINNING
from syncd.core.faults import Fault, Nature
from syncd.core.forget import EMAIL, ID
from syncd.core.retry import SLOW_RETRY
from syncd.core.route import Route
from syncd.core.settings import Instance, Keys, Pull, SmartList, StaticList, UpdatedSince
from syncd.core.windows import WIDEST, increment, plan, stepped_back
from syncd.flows.loop import Idle, Outcome, Worked
from syncd.store import backfills, fields, forgetting, leads, planning, pulls, switching
from syncd.store.leases import Connection, Lease
from syncd.store.pulls import PullState

KEYS_PER_CALL = 100
"""Marketo silently ignores further ones (protocol 1.3)."""

REFUSED_FOR = timedelta(days=1)
LOOK_EVERY = timedelta(seconds=5)
"""How soon a pull that waits for its time sees a backfill, or windows that another of its streams has planned."""

BESIDE_NEWS = timedelta(hours=1)
"""How long news wait for former ones that are under way. An export takes minutes, whatever it brings: news that come more often than
that would leave no place for a backfill; an export may also get stuck, and nobody is to wait for that.
"""

BY_PAGES = Route(False, False, "windows", "SOAP's pages select by update times")

UNSENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

log = structlog.get_logger()


def selector_of(pull: Pull) -> str:
    """What the pull asks for, through whichever source, as a JSON text: when it differs, all must be asked for anew."""
    match pull.select:
        case UpdatedSince(since):
            kind, of = "updated_since", since.isoformat()
        case StaticList(name):
            kind, of = "static_list", repr(name)
        case SmartList(name):
            kind, of = "smart_list", repr(name)
        case Keys(key_type):
            kind, of = "keys", key_type
    return orjson.dumps({"kind": kind, "of": of, "fields": pull.fields, "where": pull.where}).decode()


def is_same(one: str, other: str, names: Mapping[str, str]) -> bool:
    """Whether two selectors ask for the same. `names` gives the mirror's name of a field for either interface's."""
    return _in_the_mirrors_names(one, names) == _in_the_mirrors_names(other, names)


def _in_the_mirrors_names(selector: str, names: Mapping[str, str]) -> object:
    try:
        asked = orjson.loads(selector)
    except orjson.JSONDecodeError:  # of a former version
        return selector
    fields = {names.get(name, name) for name in asked["fields"]}
    return asked["kind"], asked["of"], fields, {names.get(name, name): allowed for name, allowed in asked["where"].items()}


async def register(connection: Connection, instance: Instance, now: datetime) -> None:
    """Write down what the configuration asks for. A pull that asks for something else than before begins anew, or backfills."""
    if instance.history is not None:
        for day in (now, now + timedelta(days=1)):
            await leads.ensure_history(connection, instance.name, day.date())
    await pulls.retire_others(connection, instance.name, [pull.name for pull in instance.pulls])
    names = drift.mirror_names(await fields.read(connection, instance.name))
    for pull in instance.pulls:
        selector = selector_of(pull)
        before = await pulls.selector(connection, instance.name, pull.name)
        other = before is not None and not is_same(before, selector, names)
        if await pulls.register(connection, instance.name, pull.name, selector, pull.since, now, other):
            log.info("pull_asks_anew", instance=instance.name, pull=pull.name, reason="it asks for something else than before")
        if await switching.register(connection, instance.name, pull.name, pull.source, pull.since, now):
            log.info("source_switched", instance=instance.name, pull=pull.name, source=pull.source)


async def running(lease: Lease, instance: str, pull: str, now: datetime) -> PullState | None:
    """The state of a pull that runs, or is to be tried again after it was blocked; None of one that does not, or is paused."""
    state = await pulls.state(lease.pool, instance, pull)
    if state.state == "blocked" and not state.paused and state.retry_at is not None and not now < state.retry_at <= now + SLOW_RETRY:
        async with lease.transaction() as connection:
            await pulls.unblock(connection, instance, pull)
    elif state.state != "running":
        return None
    return state


async def _at_once() -> bool:
    return True


class Planner:
    """Plans for one pull. Of its streams one at a time may ask."""

    def __init__(
        self,
        instance: Instance,
        pull: Pull,
        lease: Lease,
        clock: Clock,
        marketo_now: Callable[[], datetime],
        may_fill: Callable[[], Awaitable[bool]] = _at_once,
    ) -> None:
        """`marketo_now` is how far Marketo's clock has come; `may_fill` tells whether what follows a fill by extracts is ready to miss
        nothing of what happens meanwhile.
        """
        self._may_fill = may_fill
        self._source = "soap" if pull.source == "soap" else "bulk_extract"
        self._widest = WIDEST if pull.source == "soap" else extract.WIDEST
        self._instance = instance.name
        self._limits = instance.limits
        self._pull = pull
        self._lease = lease
        self._clock = clock
        self._marketo_now = marketo_now
        self._refused: dict[str, datetime] = {}
        self._log = log.bind(instance=instance.name, pull=pull.name)

    async def plan(self, state: PullState, route: Route = BY_PAGES) -> Outcome:
        """Plan what is due; Idle until something may be. Raises Fault(CONFIGURATION) when a file of keys can't be read."""
        now = self._clock.now()
        select = self._pull.select
        if isinstance(select, UpdatedSince):
            outcome = await self._increment(state, route, now)
            if (
                isinstance(outcome, Idle)
                and state.backfill is not None
                and not (route.follows == "activities" and state.planned_at is None)
            ):
                return await self._backfill(state, BEGINNING if route.by_creation else select.since, route, now)
            return outcome
        # A walk of a time to come was planned by a clock that was ahead.
        due = state.planned_at is None or state.backfill is not None or not now - self._pull.every < state.planned_at <= now
        if state.unfinished or not due:
            return Idle(now + LOOK_EVERY)
        return await self._walk(select, state.backfill, route, now)

    async def _increment(self, state: PullState, route: Route, now: datetime) -> Outcome:
        pull = self._pull
        assert state.planned_until is not None, "a pull by update time knows where it begins"
        if route.follows == "activities" and state.planned_at is not None:
            return await self._closing(state, route, now)
        if route.follows == "activities" and not await self._may_fill():
            return Idle(now + LOOK_EVERY)
        at_marketo = self._marketo_now()
        if stepped_back(state.planned_until, at_marketo, pull.overlap, pull.margin) and state.planned_at is not None:
            async with self._lease.transaction() as connection:
                rewound = await pulls.rewind(connection, self._instance, pull.name, at_marketo - pull.margin, now - pull.every)
            if not rewound:
                return Idle(now + LOOK_EVERY)
            self._log.warning(
                "clock_stepped_back", planned_until=state.planned_until.isoformat(), remedy="its windows are planned once more"
            )
            return Worked(0)
        every = max(pull.every, BESIDE_NEWS) if state.news_unfinished and self._source != "soap" else pull.every
        due = now if state.planned_at is None else state.planned_at + every
        overlap = pull.overlap if state.planned_at is not None else timedelta()
        begin = BEGINNING if route.by_creation and state.planned_at is None else state.planned_until
        span = increment(begin, at_marketo, overlap, pull.margin) if due <= now else None
        if span is None:
            return Idle(min(max(due, now + timedelta(seconds=1)), now + LOOK_EVERY))
        windows = list(plan(*span, pull.window, self._widest))
        async with self._lease.transaction() as connection:
            await planning.plan(connection, self._instance, pull.name, self._source, windows, span[1], now, route)
        if len(windows) > 1:
            self._log.info("windows_planned", windows=len(windows), since=span[0].isoformat(), until=span[1].isoformat())
        return Worked(0)

    async def _closing(self, state: PullState, route: Route, now: datetime) -> Outcome:
        """A lead that is updated before its window's turn moves out of it, and of an update that changed no field the log tells nothing."""
        pull = self._pull
        if not state.closings or state.closes_from is None or state.unfinished:
            return Idle(now + LOOK_EVERY)
        span = increment(state.closes_from, self._marketo_now(), pull.overlap, pull.margin)
        if span is None:
            return Idle(now + LOOK_EVERY)
        windows = list(plan(*span, pull.window, self._widest))
        async with self._lease.transaction() as connection:
            await planning.plan_closing(connection, self._instance, pull.name, self._source, windows, span[1], now, route)
        self._log.info("closing_planned", windows=len(windows), since=span[0].isoformat(), reason="what moved while the extracts ran")
        return Worked(0)

    async def _backfill(self, state: PullState, earliest: datetime, route: Route, now: datetime) -> Outcome:
        """What lies before the windows that are planned anyway."""
        assert state.backfill is not None
        assert state.planned_until is not None, "a pull by update time knows where it begins"
        since = earliest if route.by_creation else max(earliest, state.backfill_since or earliest)
        windows = list(plan(since, state.planned_until, self._pull.window, self._widest))
        known = await backfills.known_leads(self._lease.pool, self._instance, self._pull.name)
        price = cost(known, len(windows), self._pull.batch_size, self._pull.streams, self._limits) if self._source == "soap" else None
        async with self._lease.transaction() as connection:
            if windows:
                await planning.plan_backfill(connection, self._instance, self._pull.name, self._source, windows, state.backfill, now, route)
            else:
                await backfills.nothing_to_do(connection, state.backfill, now)
        self._log.info(
            "backfill_planned",
            backfill=state.backfill,
            since=since.isoformat(),
            windows=len(windows),
            leads_at_most=known,
            **({} if price is None else _as_told(price)),
        )
        return Worked(0)

    async def _walk(self, select: StaticList | SmartList | Keys, backfill: int | None, route: Route, now: datetime) -> Outcome:
        pull = self._pull
        keys = None if not isinstance(select, Keys) else self._without_refused(await self._keys_of(select), now)
        async with self._lease.transaction() as connection:
            if keys is None or not isinstance(select, Keys):
                await planning.plan_list(connection, self._instance, pull.name, self._source, now, backfill, route.ids_only)
            else:
                kind = ID if select.type == "IDNUM" else EMAIL
                forgotten = await forgetting.known(connection, self._instance, ((kind, key) for key in keys))
                groups = in_groups([key for key in keys if (kind, key) not in forgotten])
                await planning.plan_keys(connection, self._instance, pull.name, self._source, groups, now, backfill)
        return Worked(0)

    def refuse(self, key: str) -> None:
        """Marketo refuses this key: to find that out cost several calls, so it is left out for a day."""
        self._refused[key] = self._clock.now()

    async def _keys_of(self, select: Keys) -> Sequence[str]:
        """The keys as of now, each once; email addresses are one key whatever their case."""
        lines: Sequence[str] = select.values
        if select.file is not None:
            try:
                lines = (await asyncio.to_thread(select.file.read_text, "utf-8-sig")).splitlines()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
                raise Fault(Nature.CONFIGURATION, "keys", f"the file of keys can't be read: {reason} ({select.file})", "keys") from error
        fold = str.lower if select.type in ("EMAIL", "LEADOWNEREMAIL") else str
        keys = {fold(key): key for line in lines if (key := line.strip())}
        sendable = [key for key in keys.values() if not UNSENDABLE.search(key)]
        if len(sendable) < len(keys):
            self._log.warning("keys_passed_over", keys=len(keys) - len(sendable), reason="they have characters that XML can't carry")
        return sendable

    def _without_refused(self, keys: Sequence[str], now: datetime) -> Sequence[str]:
        self._refused = {key: at for key, at in self._refused.items() if now - REFUSED_FOR < at <= now}
        return [key for key in keys if key not in self._refused]


def _as_told(price: Cost) -> dict[str, float]:
    return {
        "calls": price.calls,
        "minutes": math.ceil(price.time.total_seconds() / 60),
        "percent_of_daily_calls": round(100 * price.share_of_day, 1),
    }


def in_groups(keys: Sequence[str]) -> list[Sequence[str]]:
    """`keys` as single calls may ask for them."""
    return [keys[first : first + KEYS_PER_CALL] for first in range(0, len(keys), KEYS_PER_CALL)]
