"""Chooses which way the leads of each pull come through REST: by asking what the instance offers, and by price."""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import structlog

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.mirror import Vocabulary
from syncd.core.retry import SLOW_RETRY, Block, decide
from syncd.core.route import NoWay, Offers, Route, wants_extract
from syncd.core.settings import Instance, Pull, UpdatedSince
from syncd.core.windows import floor_second, plan
from syncd.flows.loop import Idle, Outcome
from syncd.flows.offers import offers, way_of
from syncd.flows.plan import running
from syncd.marketo.wire import Wire
from syncd.ops.metrics import Metrics
from syncd.store import activities, backfills, planning, pulls, routes
from syncd.store.leases import Connection, Lease
from syncd.store.routes import Chosen

log = structlog.get_logger()

LOOK_EVERY = timedelta(minutes=1)
ASK_AGAIN_AFTER = timedelta(days=1)


class Router:
    """Chooses for the pulls of one instance that come through REST; the flows that bring their leads wait until it has."""

    name = "route"

    def __init__(
        self,
        instance: Instance,
        wire: Wire,
        vocabulary: Callable[[], Awaitable[Vocabulary]],
        lease: Lease,
        clock: Clock,
        metrics: Metrics,
        jitter: random.Random,
    ) -> None:
        self.instance = instance.name
        self._limits = instance.limits
        self._pulls = [pull for pull in instance.pulls if pull.source != "soap"]
        self._wire = wire
        self._vocabulary = vocabulary
        self._lease = lease
        self._clock = clock
        self._metrics = metrics
        self._jitter = jitter
        self._faults = 0
        self._log = log.bind(instance=instance.name)

    async def step(self) -> Outcome:
        """Choose where nothing was chosen for a day, and plan extracts where a pull is far behind."""
        now = self._clock.now()
        chosen = {pull.name: await routes.read(self._lease.pool, self.instance, pull.name) for pull in self._pulls}
        due = [pull for pull in self._pulls if _is_due(chosen[pull.name], now) and await self._runs(pull, now)]
        if due:
            try:
                await self._choose(due, chosen, await offers(self._wire, now))
                self._faults = 0
            except Fault as fault:
                return await self._met(fault, due)
        for pull in self._pulls:
            await self._catch_up(pull)
        return Idle(now + LOOK_EVERY)

    async def close(self) -> None:
        """Nothing is under way between two steps."""

    async def no_updated_at(self, connection: Connection, pull: str, message: str) -> bool:
        """Marketo has refused an extract by updatedAt (1035): what was planned so can't be had, and the way is chosen anew."""
        since = next(each.since for each in self._pulls if each.name == pull)
        assert since is not None, "only a pull by update time asks for updatedAt"
        await pulls.abandon(connection, self.instance, pull, since, self._clock.now())
        await routes.forget(connection, self.instance, pull)
        self._log.warning("route_lost", pull=pull, fault=message)
        return True

    async def may_fill(self, pull: str) -> bool:
        """Whether what follows the fill of a pull would miss nothing that happens meanwhile: a stream of its changes has begun."""
        return await activities.last_look(self._lease.pool, self.instance, f"pull {pull}") is not None

    async def _runs(self, pull: Pull, now: datetime) -> bool:
        """Whether the pull may be tried; one that is blocked is, now and then."""
        return await running(self._lease, self.instance, pull.name, now) is not None

    async def _choose(self, due: Sequence[Pull], chosen: dict[str, Chosen], offered: Offers) -> None:
        for pull in due:
            now = self._clock.now()
            before = chosen[pull.name].route
            try:
                way = await self._way(pull, offered)
            except NoWay as none:
                await self._block([pull], str(none), now + SLOW_RETRY)
                continue
            async with self._lease.transaction() as connection:
                await routes.choose(connection, self.instance, pull.name, way, now)
            if before != way:
                self._log.info("route_chosen", pull=pull.name, follows=way.follows, ids_only=way.ids_only, reason=way.reason)

    async def _way(self, pull: Pull, offered: Offers) -> Route:
        dictionary = (await self._vocabulary()).rest
        known = await backfills.known_leads(self._lease.pool, self.instance, pull.name)
        return way_of(pull, offered, dictionary, known, self._clock.now(), self._limits)

    async def _catch_up(self, pull: Pull) -> None:
        """Far behind, let extracts bring what the activity log would tell, and go on with it from now."""
        chosen = await routes.read(self._lease.pool, self.instance, pull.name)
        if chosen.route is None or not chosen.begun or chosen.planned_until is None or not isinstance(pull.select, UpdatedSince):
            return
        until = floor_second(self._wire.now() - pull.margin)
        if not wants_extract(pull, chosen.route, until - chosen.planned_until):
            return
        windows = list(plan(chosen.planned_until - pull.overlap, until, pull.window))
        async with self._lease.transaction() as connection:
            await planning.plan(connection, self.instance, pull.name, "bulk_extract", windows, until, self._clock.now(), chosen.route)
            for stream in (f"pull {pull.name}", f"pull {pull.name} scores"):
                await activities.forget(connection, self.instance, stream)
        self._log.info("catching_up", pull=pull.name, since=windows[0].starts_at.isoformat(), windows=len(windows))

    async def _met(self, fault: Fault, due: Sequence[Pull]) -> Outcome:
        self._faults += 1
        self._metrics.fault(self.instance, fault)
        now = self._clock.now()
        decision = decide(fault, self._faults, now, self._jitter.random())
        if isinstance(decision, Block):
            await self._block(due, str(fault), decision.at)
        level = self._log.warning if self._faults > 1 else self._log.info
        level("route_fault", fault=str(fault), attempt=self._faults)
        return Idle(decision.at)

    async def _block(self, due: Sequence[Pull], message: str, retry_at: datetime) -> None:
        for pull in due:
            async with self._lease.transaction() as connection:
                blocked = await pulls.block(connection, self.instance, pull.name, None, retry_at, message)
            if blocked:
                self._log.error("pull_blocked", pull=pull.name, fault=message, retry_at=retry_at.isoformat())


def _is_due(chosen: Chosen, now: datetime) -> bool:
    """Never chosen, or a day ago; one of a time to come was chosen by a clock that was ahead."""
    return chosen.routed_at is None or not now - ASK_AGAIN_AFTER < chosen.routed_at <= now
