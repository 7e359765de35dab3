"""The only composition root: builds everything, owns the TaskGroup and the stop."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID, uuid4

import asyncpg
import structlog

import syncd
from syncd.core.clock import Clock
from syncd.core.reload import Reload, connections_of, reload
from syncd.core.settings import Database, Http, Instance, Settings
from syncd.flows import attached, loop
from syncd.flows.answer import Answer
from syncd.flows.census import CensusTaker
from syncd.flows.changes import Changes
from syncd.flows.deletions import Deletions
from syncd.flows.dictionary import Dictionaries
from syncd.flows.exporters import exporters_of
from syncd.flows.exporting import Reach
from syncd.flows.fetch import Fetcher
from syncd.flows.follow import Follower
from syncd.flows.forget import Forgetter
from syncd.flows.gauges import Beat
from syncd.flows.guard import Guard
from syncd.flows.keep import Keeper
from syncd.flows.loop import Flow
from syncd.flows.plan import register
from syncd.flows.preflight import Checks
from syncd.flows.pull import streams_of
from syncd.flows.push import Packer, Submitter
from syncd.flows.resting import Resting
from syncd.flows.route import Router
from syncd.flows.settle import Settler
from syncd.flows.sweep import Sweep
from syncd.flows.sync import Syncer
from syncd.flows.usage import Usage
from syncd.flows.verify import Verifier
from syncd.marketo.deleting import LeadDeletion
from syncd.marketo.describe import describe
from syncd.marketo.wire import Wire, open_wire
from syncd.ops import http, systemd
from syncd.ops.http import PortTaken
from syncd.ops.metrics import Metrics
from syncd.ops.recent import Recent
from syncd.ops.systemd import Pulse
from syncd.page.live import LivePages
from syncd.store import batches, exports, imports, leases, pauses, pushes, schema
from syncd.store.embedded import DirectoryInUse, EmbeddedPostgres
from syncd.store.leases import Lease, LeaseLost
from syncd.store.pool import create_pool
from syncd.store.usage import Ledger

log = structlog.get_logger()

HEARTBEAT = 3.0  # seconds, real
SILENCE = 15.0  # seconds, real: architecture.md, One daemon per instance
STANDBY_LOOK = 1.0  # seconds, real
DRAIN = 5.0  # seconds, real, that running steps have to end by themselves
LAST_WRITES = 2.0  # seconds, real, that cancelled ones have for the writes that they finish
STUCK = 600.0  # seconds, real, without a step of any flow of an instance
SPARE = 40  # connections to the database beyond what the settings need at the start: room for those of a reload


@dataclass(slots=True)
class _Post:
    """The work for one instance: `halt` ends the flows at hand, which begin anew with `instance` as it is then, unless it is `over`."""

    instance: Instance
    halt: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def begin_anew(self, instance: Instance) -> None:
        self.instance = instance
        self.halt.set()

    def end(self) -> None:
        self.over.set()
        self.halt.set()


class Daemon:
    """Works for every instance of the settings until stopped. A rehearsal passes a clock that runs faster."""

    def __init__(self, settings: Settings, clock: Clock, jitter: random.Random | None = None, recent: Recent | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - backoff, not secrets
        self._recent = recent or Recent(clock)
        self._holder: UUID = uuid4()
        self._stop = asyncio.Event()
        self._posts = {instance.name: _Post(instance) for instance in settings.instances}
        self._begin: Callable[[_Post], None] | None = None  # once there is a database to work with
        self._connections = connections_of(settings.instances) + SPARE
        self._pulse = Pulse(self._posts)
        self._standby: set[str] = set()
        self._away: set[str] = set()  # instances whose session with the database was lost
        self.metrics = Metrics()
        self.ready = asyncio.Event()
        self.announced = False
        """Whether the service manager was told READY: a standby may be before it is."""

    def stop(self) -> None:
        """Let running steps finish, then end `run`."""
        self._stop.set()
        for post in self._posts.values():
            post.end()

    def reload(self, settings: Settings) -> Reload:
        """Go on with these as far as a running daemon can. The flows of each instance that they change let steps end, and begin anew."""
        found = reload(self._settings, settings, self._connections)
        if self._stop.is_set():
            return found
        self._settings = found.settings
        for name in found.ended:
            self._posts.pop(name).end()
        for instance in self._settings.instances:
            post = self._posts.get(instance.name)
            if post is None:
                post = self._posts[instance.name] = _Post(instance)
                if self._begin is not None:
                    self._begin(post)
            elif instance.name in found.anew:
                post.begin_anew(instance)
        self._pulse.expect(self._posts)
        return found

    async def run(self) -> None:
        """Work until `stop`. Raises DatabaseUnavailable, SchemaMismatch or PortTaken when it cannot begin."""
        async with AsyncExitStack() as stack:
            dsn = await self._open_database(stack)
            if dsn is None:
                return
            name = leases.application_name(self._holder)
            pool = await create_pool(dsn, application_name=name, min_size=1, max_size=self._connections)
            stack.push_async_callback(_close_pool, pool)
            async with pool.acquire() as connection:
                await schema.require_head(connection)
            listening = await self._begin_to_listen(stack, pool)
            self._announce(self.doing())
            self.ready.set()
            log.info("started", version=syncd.__version__, pid=os.getpid(), instances=[i.name for i in self._settings.instances])
            async with asyncio.TaskGroup() as tasks:
                beats = [tasks.create_task(self._log_metrics())]
                if not listening:
                    beats.append(tasks.create_task(self._listen_later(pool)))
                workers: list[asyncio.Task[None]] = []
                self._begin = lambda post: workers.append(tasks.create_task(self._work_for(post, dsn, pool)))
                for post in self._posts.values():
                    self._begin(post)
                self._tell()
                try:
                    await self._stop.wait()
                    systemd.notify("STOPPING=1", "STATUS=stopping")
                    for beat in beats:
                        beat.cancel()
                    _, late = await asyncio.wait(workers, timeout=DRAIN)
                    for worker in late:
                        worker.cancel()
                finally:
                    asyncio.get_running_loop().call_later(LAST_WRITES, _cut_off, pool)
        self._tell_metrics()  # what was counted since the last beat, too
        log.info("stopped")

    async def _open_database(self, stack: AsyncExitStack) -> str | None:
        """The DSN; None when stopped while another process had the embedded database, for whose end we stand by."""
        told = False
        self._tell()
        while not self._stop.is_set():
            try:
                return await stack.enter_async_context(database(self._settings.database))
            except DirectoryInUse as error:
                if not told:
                    log.info("standby", reason=str(error))
                    self._announce("standby: another process runs the embedded database")
                told = True
                self._pulse.beat(*self._posts)
                await _pause(STANDBY_LOOK, self._stop)
        return None

    async def _begin_to_listen(self, stack: AsyncExitStack, pool: leases.Pool) -> bool:
        """False when that has to wait, for the daemon that we stand by for has the port. Raises PortTaken when a stranger has it."""
        if self._settings.http is None:
            return True
        try:
            await stack.enter_async_context(self._listen(self._settings.http, pool))
        except PortTaken as error:
            async with pool.acquire() as connection:
                holders = [await leases.current_holder(connection, instance.name) for instance in self._settings.instances]
            if not any(holder is not None and holder.silent_for < SILENCE for holder in holders):
                raise
            log.warning("not_listening", reason=str(error), remedy="tried again until it can be had")
            return False
        return True

    async def _listen_later(self, pool: leases.Pool) -> None:
        assert self._settings.http is not None
        while True:
            await asyncio.sleep(STANDBY_LOOK)
            with contextlib.suppress(PortTaken):
                async with self._listen(self._settings.http, pool):
                    log.info("listening")
                    await asyncio.Event().wait()

    async def _work_for(self, post: _Post, dsn: str, pool: leases.Pool) -> None:
        """Hold the instance's lease and run its flows; lose it, and stand by again."""
        name = post.instance.name
        while not post.over.is_set():
            try:
                await self._hold_lease(post, dsn, pool)
            except* LeaseLost:
                log.error("lease_lost", instance=name, remedy="another daemon works for this instance now; standing by")
            except* loop.DATABASE_FAULTS as group:
                self._away.add(name)
                loop.tell_fault(_first(group), instance=name)
            self.metrics.lease(name, held=False)
            self._pulse.beat(name)  # a restart would not bring the database back
            self._tell()
            await _pause(STANDBY_LOOK, post.over)
        self._standby.discard(name)
        self._away.discard(name)
        if name not in self._posts:
            self.metrics.left(name)

    async def _hold_lease(self, post: _Post, dsn: str, pool: leases.Pool) -> None:
        name = post.instance.name
        connection = await asyncpg.connect(dsn, server_settings={"application_name": leases.application_name(self._holder)})
        if name in self._away:
            self._away.discard(name)
            self.metrics.reconnected(name)
        try:
            lease = await self._stand_by(post, connection, pool)
            if lease is None:
                return
            self.metrics.lease(name, held=True)
            log.info("lease_taken", instance=name, epoch=lease.epoch)
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._heartbeat(lease, connection))
                flows = [tasks.create_task(self._keep_working(post, lease))]
                await asyncio.wait((beat, *flows), return_when=asyncio.FIRST_COMPLETED)
                beat.cancel()
        finally:
            connection.terminate()

    async def _stand_by(self, post: _Post, connection: leases.Connection, pool: leases.Pool) -> Lease | None:
        """Wait for the lease; None when stopped first."""
        name = post.instance.name
        while not post.over.is_set():
            lease = await leases.acquire(connection, pool, name, self._holder, SILENCE)
            if lease is not None:
                self._standby.discard(name)
                self._tell()
                return lease
            if name not in self._standby:
                holder = await leases.current_holder(connection, name)
                self._standby.add(name)
                self._tell()
                log.info("standby", instance=name, holder=f"pid {holder.pid} on {holder.host}" if holder else "unknown")
            self._pulse.beat(name)
            await _pause(STANDBY_LOOK, post.over)
        return None

    async def _heartbeat(self, lease: Lease, connection: leases.Connection) -> None:
        while True:
            await asyncio.wait_for(lease.heartbeat(connection), SILENCE)
            await asyncio.sleep(HEARTBEAT)

    async def _keep_working(self, post: _Post, lease: Lease) -> None:
        """Run the flows; those that a reload halts, anew."""
        while not post.over.is_set():
            post.halt.clear()
            await self._run_flows(post.instance, lease, post.halt)

    async def _run_flows(self, instance: Instance, lease: Lease, halt: asyncio.Event) -> None:
        await self._register(instance, lease)
        self.metrics.anew(instance.name, [pull.name for pull in instance.pulls])
        ledger = Ledger(instance.name, lease.pool)
        async with open_wire(instance, self._clock, ledger, self.metrics, lease.is_sure) as wire, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(loop.run(flow, self._clock, halt, self._note_progress, self._jitter))
                for flow in self._build(instance, lease, wire)
            ]
            await halt.wait()
            _, late = await asyncio.wait(running, timeout=DRAIN)
            for flow in late:
                flow.cancel()

    def _build(self, instance: Instance, lease: Lease, wire: Wire) -> Sequence[Flow]:
        name, limits, clock, metrics, jitter = instance.name, instance.limits, self._clock, self.metrics, self._jitter
        rest = wire.rest
        dictionaries = Dictionaries(instance, (lambda: describe(rest)) if rest else None, lease, clock, metrics)
        checks = Checks(instance, dictionaries, lease, clock, metrics)
        flows: list[Flow] = [Sweep(instance, lease, clock), Keeper(instance, lease, clock), Answer(instance, wire, lease, clock)]
        flows.append(Beat(instance, lease, clock, metrics))
        flows += self._inbound(instance, lease, wire, dictionaries)
        flows += [Follower(instance, push, lease, clock) for push in instance.pushes if push.from_table is not None]
        flows.append(Forgetter(instance, LeadDeletion(rest) if rest else None, lease, clock, metrics, jitter))
        if wire.rest is not None:
            flows.append(Resting(Usage(name, limits, wire.rest, wire.limiter, lease, clock, metrics), "both", lease, clock))
        if wire.imports is not None:
            flows.append(Settler(name, instance.pushes, limits, wire.imports, lease, clock, metrics, jitter))
            if any(push.guard is not None for push in instance.pushes):
                flows.append(Guard(name, instance.pushes, lease, clock))
            if instance.pushes:
                flows += [
                    Packer(name, instance.pushes, limits, lease, clock, metrics, checks),
                    Submitter(name, instance.pushes, limits, wire.imports, lease, clock, metrics, jitter),
                ]
        if wire.sync is not None:
            flows.append(Syncer(name, instance.pushes, wire.sync, lease, clock, metrics, jitter, checks))
        return flows

    def _inbound(self, instance: Instance, lease: Lease, wire: Wire, dictionaries: Dictionaries) -> Sequence[Flow]:
        if not instance.pulls:
            return []
        clock, metrics, jitter = self._clock, self.metrics, self._jitter
        flows: list[Flow] = [Resting(dictionaries, "both", lease, clock)]
        for pull in instance.pulls:
            if pull.source == "soap" and wire.soap is not None:
                flows += streams_of(instance, pull, wire.soap, dictionaries.vocabulary, lease, clock, metrics, jitter)
        return [*flows, *self._through_rest(instance, lease, wire, dictionaries)]

    def _through_rest(self, instance: Instance, lease: Lease, wire: Wire, dictionaries: Dictionaries) -> Sequence[Flow]:
        """What REST tells: of pulls through it all, of others what has gone and what is to be read by its id."""
        if wire.exports is None or wire.activities is None or wire.leads is None:
            return []
        clock, metrics, jitter, vocabulary = self._clock, self.metrics, self._jitter, dictionaries.vocabulary
        oldest_export = partial(exports.oldest_asked, lease.pool, instance.name)
        deletions = Deletions(instance, wire.activities, lease, clock, metrics, jitter, wire.now, oldest_export)
        flows: list[Flow] = [Resting(deletions, "in", lease, clock)]
        flows += [Fetcher(instance, pull, wire.leads, vocabulary, lease, clock, metrics, jitter) for pull in instance.pulls]
        router = Router(instance, wire, vocabulary, lease, clock, metrics, jitter)
        through_rest = [pull for pull in instance.pulls if pull.source != "soap"]
        for pull in through_rest:
            if pull.since is not None:
                flows.append(Changes(instance, pull, wire.activities, vocabulary, lease, clock, metrics, jitter, wire.now))
        may_fill = {pull.name: partial(router.may_fill, pull.name) for pull in through_rest}
        reach = Reach(wire.exports, lease, clock, metrics, jitter)
        taker = CensusTaker(instance, wire.leads, lease, clock, metrics, jitter, wire.now) if instance.census is not None else None
        flows += [Resting(taker, "in", lease, clock)] if taker is not None else []
        flows.append(Resting(Verifier(instance, wire.leads, dictionaries, lease, clock, metrics, jitter), "in", lease, clock))
        on_census = taker.found if taker is not None else None
        return [*flows, router, *exporters_of(instance, reach, vocabulary, wire.now, may_fill, router.no_updated_at, on_census)]

    async def _register(self, instance: Instance, lease: Lease) -> None:
        """Write down what the configuration asks for, and what a daemon before us left half done."""
        now = self._clock.now()
        async with lease.transaction() as connection:
            for job_id in await imports.orphaned(connection, instance.name):
                log.warning("import_unconfirmed", instance=instance.name, job=job_id, fault="the daemon before ended amid its submission")
            for batch_id in await batches.orphaned(connection, instance.name):
                log.warning("batch_unconfirmed", instance=instance.name, batch=batch_id, fault="the daemon before ended amid its call")
            await pushes.register(connection, instance.name, [push.name for push in instance.pushes])
            await register(connection, instance, now)
            await pauses.enforce(connection, instance.name, now)
        async with lease.pool.acquire() as connection:
            await attached.tell(connection, instance)

    def _note_progress(self, instance: str, flow: str) -> None:
        self._pulse.beat(instance)
        self.metrics.progress(instance, flow, self._clock.now())

    def _announce(self, doing: str) -> None:
        systemd.notify("READY=1", f"STATUS={doing}")
        self.announced = True

    def doing(self) -> str:
        """What is being done, for whom."""
        if self._begin is None:
            return "starting"
        away = self._away - self._standby
        doing = {
            "working for": self._posts.keys() - self._standby - away,
            "standby for": self._standby & self._posts.keys(),
            "waiting for the database, for": away & self._posts.keys(),
        }
        return "; ".join(f"{what} {', '.join(sorted(names))}" for what, names in doing.items() if names)

    def _tell(self) -> None:
        if not self._stop.is_set():
            systemd.notify(f"STATUS={self.doing()}")

    @asynccontextmanager
    async def _listen(self, settings: Http, pool: leases.Pool) -> AsyncIterator[None]:
        def alive() -> bool:
            return self._pulse.alive(STUCK)

        async def ready() -> bool:
            try:
                return await asyncio.wait_for(pool.fetchval("SELECT true"), 5) is True
            except loop.DATABASE_FAULTS:
                return False

        pages = LivePages(lambda: self._settings, pool, self._clock, self.metrics, self._recent)
        async with http.serve(settings, self.metrics, alive, ready, pages):
            yield

    async def _log_metrics(self) -> None:
        while True:
            await self._clock.sleep(self._settings.logging.metrics_every.total_seconds())
            self._tell_metrics()

    def _tell_metrics(self) -> None:
        """What /metrics shows at this moment, for who has only the log."""
        for name, labels, value in self.metrics.samples():
            log.info("metrics", name=name, value=value, **labels)


@asynccontextmanager
async def database(settings: Database) -> AsyncIterator[str]:
    """The DSN of the database; an embedded one is started, migrated, and stopped at the end. Raises DatabaseUnavailable."""
    if settings.dsn is not None:
        yield settings.dsn.reveal()
        return
    assert settings.embedded is not None, "the configuration names a DSN or a directory"
    async with EmbeddedPostgres(settings.embedded) as server:
        from syncd.store import migrate  # Alembic takes longer to import than all else, and only an embedded database needs it here

        await migrate.upgrade(server.dsn)
        yield server.dsn


async def _pause(seconds: float, until: asyncio.Event) -> None:
    """Wait in real time, or until it is set."""
    try:
        await asyncio.wait_for(until.wait(), seconds)
    except TimeoutError:
        return


def _cut_off(pool: leases.Pool) -> None:
    """End the sessions that keep us waiting, for a database that hangs or for somebody's lock; the next start finds out what they lost."""
    if not pool.is_closing():
        log.warning("database_cut_off", reason="it kept the last writes waiting")
        pool.terminate()


async def _close_pool(pool: leases.Pool) -> None:
    try:
        await asyncio.wait_for(pool.close(), 2)
    except TimeoutError:
        pool.terminate()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
