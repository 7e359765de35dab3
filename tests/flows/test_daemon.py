"""The daemon as a whole, in this process, between a real Postgres and the simulator."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from syncd import daemon as module
from syncd.core.settings import Database, Http, Instance, Limits, Push, Secret, Settings
from syncd.daemon import Daemon
from syncd.ops.clock import WallClock
from syncd.simulator import ImportModel, ScaledClock, Simulator, SimulatorSettings
from syncd.store.embedded import EmbeddedPostgres
from tests.flows.conftest import PUSH, instance_of
from tests.ops.test_http import free_port, get

SPEED = 60.0


@asynccontextmanager
async def marketo(pushes: list[Push]) -> AsyncIterator[tuple[Instance, WallClock]]:
    """An instance of the simulator's, and the clock that they share."""
    origin = time.time()
    settings = SimulatorSettings(leads=1, imports=ImportModel(overhead_seconds=60, sigma=0))
    async with Simulator(settings, ScaledClock(SPEED, origin)) as simulator:
        yield instance_of(simulator, settings.credentials, [], pushes, Limits()), WallClock(SPEED, origin)


@asynccontextmanager
async def running(dsn: str, instance: Instance, clock: WallClock, http: Http | None = None) -> AsyncIterator[Daemon]:
    daemon = Daemon(Settings(Database(Secret(dsn)), (instance,), http), clock)
    working = asyncio.ensure_future(daemon.run())
    await daemon.ready.wait()
    try:
        yield daemon
    finally:
        daemon.stop()
        await working


async def until(pool: asyncpg.Pool, query: str) -> None:
    async with asyncio.timeout(20):
        while not await pool.fetchval(query):  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.05)


async def test_an_import_is_settled_although_the_last_push_has_left_the_configuration(database: str, pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'a@example.com', '{\"firstName\": \"A\"}')")
    async with marketo([PUSH]) as (instance, clock):
        async with running(database, instance, clock):
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.import_job WHERE state IN ('queued', 'importing'))")
        without = Instance(instance.name, instance.rest, instance.soap)
        async with running(database, without, clock):
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.change WHERE state = 'applied')")


async def test_a_daemon_whose_database_is_away_is_alive(database: str, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK", 2.0)
    port = free_port()
    name = database.rpartition("@/")[2].partition("?")[0]
    admin = await asyncpg.connect(postgres.dsn)
    async with marketo([]) as (instance, clock), running(database, instance, clock, Http("127.0.0.1", port)):
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        seen = set()
        away_since = time.monotonic()
        while time.monotonic() - away_since < 2 * module.STUCK:
            seen.add((await get(port, "/healthz"))[0])
            await asyncio.sleep(0.2)
        assert (await get(port, "/readyz"))[0] == 503
        assert seen == {200}, "a restart would not bring the database back"
    await admin.close()
