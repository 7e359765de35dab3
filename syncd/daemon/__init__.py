"""The only composition root: builds everything, owns the TaskGroup and the stop."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import structlog

import syncd
from syncd.core.clock import Clock
from syncd.core.reload import Reload, connections_of, reload
from syncd.core.settings import Database, Http, Settings
from syncd.daemon.post import DRAIN, SILENCE, STANDBY_LOOK, Means, Post, pause
from syncd.flows import loop
from syncd.ops import http, systemd
from syncd.ops.http import PortTaken
from syncd.ops.metrics import Metrics
from syncd.ops.recent import Recent
from syncd.ops.systemd import Pulse
from syncd.page.live import LivePages
from syncd.store import leases, schema
from syncd.store.embedded import DirectoryInUse, EmbeddedPostgres
from syncd.store.pool import create_pool

log = structlog.get_logger()

LAST_WRITES = 2.0  # seconds, real, that cancelled ones have for the writes that they finish
STUCK = 600.0  # seconds, real, without a step of any flow of an instance
SPARE = 40  # connections to the database beyond what the settings need at the start: room for those of a reload


class Daemon:
    """Works for every instance of the settings until stopped. A rehearsal passes a clock that runs faster."""

    def __init__(self, settings: Settings, clock: Clock, jitter: random.Random | None = None, recent: Recent | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._recent = recent or Recent(clock)
        self._stop = asyncio.Event()
        self._connections = connections_of(settings.instances) + SPARE
        self._pulse = Pulse(instance.name for instance in settings.instances)
        self.metrics = Metrics()
        jitter = jitter or random.Random()  # noqa: S311 - backoff, not secrets
        self._means = Means(uuid4(), clock, jitter, self.metrics, self._pulse, self._tell)
        self._posts = {instance.name: Post(instance, self._means) for instance in settings.instances}
        self._begin: Callable[[Post], None] | None = None  # once there is a database to work with
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
                post = self._posts[instance.name] = Post(instance, self._means)
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
            name = leases.application_name(self._means.holder)
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
                await pause(STANDBY_LOOK, self._stop)
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

    async def _work_for(self, post: Post, dsn: str, pool: leases.Pool) -> None:
        await post.work(dsn, pool)
        if post.name not in self._posts:
            self.metrics.left(post.name)

    def _announce(self, doing: str) -> None:
        systemd.notify("READY=1", f"STATUS={doing}")
        self.announced = True

    def doing(self) -> str:
        """What is being done, for whom."""
        if self._begin is None:
            return "starting"
        posts: dict[str, list[str]] = {"working for": [], "standby for": [], "waiting for the database, for": []}
        for name, post in sorted(self._posts.items()):
            posts["standby for" if post.standby else "waiting for the database, for" if post.away else "working for"].append(name)
        return "; ".join(f"{what} {', '.join(names)}" for what, names in posts.items() if names)

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
