"""The daemon as a whole, in this process, between a real Postgres and the simulator."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from structlog.testing import capture_logs

from syncd import daemon as module
from syncd.cli import attach
from syncd.core.settings import Database, FromColumn, FromTable, Http, Instance, Limits, Push, Secret, Settings
from syncd.daemon import Daemon, post
from syncd.ops.clock import WallClock
from syncd.ops.http import PortTaken
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
        while not await pool.fetchval(query):
            await asyncio.sleep(0.05)


async def test_an_import_is_settled_although_the_last_push_has_left_the_configuration(database: str, pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'a@example.com', '{\"company\": \"A\"}')")
    async with marketo([PUSH]) as (instance, clock):
        async with running(database, instance, clock):
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.import_job WHERE state IN ('queued', 'importing'))")
        without = Instance(instance.name, instance.rest, instance.soap)
        async with running(database, without, clock):
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.change WHERE state = 'applied')")


async def test_a_daemon_compares_the_views_that_its_pushes_follow(database: str, pool: asyncpg.Pool) -> None:
    await pool.execute("CREATE SCHEMA crm; CREATE TABLE crm.t AS SELECT 'a@example.com' AS email, 1 AS score")
    await pool.execute("CREATE VIEW crm.v AS SELECT * FROM crm.t")
    source = FromTable("crm.v", "email", {"leadScore": FromColumn("score")}, every=timedelta(seconds=10))
    push = replace(PUSH, from_table=source)
    async with marketo([push]) as (instance, clock):
        await attach.attach(Database(Secret(database)), "acme", push, False, clock.now, lambda _: None)
        async with running(database, instance, clock):
            await pool.execute("UPDATE crm.t SET score = 2")
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.change WHERE fields = '{\"leadScore\": 2}')")


async def test_a_daemon_whose_database_is_away_is_alive(database: str, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK", 2.0)
    port = free_port()
    name = database.rpartition("@/")[2].partition("?")[0]
    admin = await asyncpg.connect(postgres.dsn)
    async with marketo([]) as (instance, clock), running(database, instance, clock, Http("127.0.0.1", port)) as daemon:
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        seen = set()
        away_since = time.monotonic()
        while time.monotonic() - away_since < 2 * module.STUCK:
            seen.add((await get(port, "/healthz"))[0])
            await asyncio.sleep(0.2)
        assert (await get(port, "/readyz"))[0] == 503
        assert seen == {200}, "a restart would not bring the database back"
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with asyncio.timeout(20):
            while daemon.metrics.value("syncd_database_reconnects_total", instance="acme") != 1:
                await asyncio.sleep(0.05)
    await admin.close()


async def test_the_page_is_there_and_kept_up_to_date(database: str) -> None:
    http = Http("127.0.0.1", free_port())
    async with marketo([PUSH]) as (instance, clock), running(database, instance, clock, http) as daemon:
        async with asyncio.timeout(20):
            while daemon.metrics.value("syncd_lease_held", instance="acme") != 1:
                await asyncio.sleep(0.05)
        code, text = await get(http.port, "/")
        assert (code, '<h2 id="instance-acme">acme</h2>' in text) == (200, True)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{http.port}/events") as response:
            told = (await response.content.readline()).decode()
        assert told.startswith("data: <p><strong")
        assert (await get(http.port, "/status.json"))[0] == 200


async def test_the_same_configuration_started_twice_stands_by_and_listens_once_it_can(database: str) -> None:
    http = Http("127.0.0.1", free_port())
    async with marketo([]) as (instance, clock):
        first = Daemon(Settings(Database(Secret(database)), (instance,), http), clock)
        working = asyncio.ensure_future(first.run())
        await first.ready.wait()
        while 'syncd_lease_held{instance="acme"} 1.0' not in (await get(http.port, "/metrics"))[1]:
            await asyncio.sleep(0.05)
        with capture_logs() as events:
            async with running(database, instance, clock, http):
                await logged(events, "standby")
                assert [event for event in events if event["event"] == "not_listening"]
                first.stop()
                await working
                await logged(events, "lease_taken")
                await logged(events, "listening")
                assert (await get(http.port, "/healthz"))[0] == 200


async def test_a_port_that_a_stranger_has_ends_the_start(database: str) -> None:
    http = Http("127.0.0.1", free_port())
    async with marketo([]) as (instance, clock):
        server = await asyncio.start_server(lambda *_: None, http.host, http.port)
        async with server:
            with pytest.raises(PortTaken):
                await Daemon(Settings(Database(Secret(database)), (instance,), http), clock).run()


async def test_a_reload_does_not_wait_for_a_marketo_that_hangs(database: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "DRAIN", 0.5)
    slow = SimulatorSettings(leads=1, latency=600.0)
    async with Simulator(slow, ScaledClock(1, time.time())) as simulator:
        instance = instance_of(simulator, slow.credentials, [], [PUSH], Limits())
        async with running(database, instance, WallClock()) as daemon:
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.push WHERE push = 'contacts')")
            another = replace(instance, pushes=(PUSH, replace(PUSH, name="guests")))
            found = daemon.reload(Settings(Database(Secret(database)), (another,), None))
            assert (found.anew, found.changed, found.waiting) == (("acme",), ("instances.acme.pushes.guests (new)",), ())
            await asyncio.wait_for(until(pool, "SELECT EXISTS (SELECT FROM syncd.push WHERE push = 'guests')"), 10)


async def test_an_instance_that_leaves_the_yaml_is_no_longer_told_of(database: str) -> None:
    async with marketo([PUSH]) as (instance, clock), running(database, instance, clock) as daemon:
        async with asyncio.timeout(20):
            while daemon.metrics.value("syncd_lease_held", instance="acme") != 1:
                await asyncio.sleep(0.05)
            daemon.reload(Settings(Database(Secret(database)), (), None))
            while daemon.metrics.value("syncd_lease_held", instance="acme") is not None:
                await asyncio.sleep(0.05)


async def test_a_reload_while_standing_by_counts_once_it_is_our_turn(database: str, pool: asyncpg.Pool) -> None:
    async with marketo([PUSH]) as (instance, clock):
        other = replace(instance, pushes=(replace(PUSH, name="guests"),))
        settings = Settings(Database(Secret(database)), (other,), None)
        async with running(database, instance, clock) as first:
            await until(pool, "SELECT EXISTS (SELECT FROM syncd.push WHERE push = 'contacts')")
            with capture_logs() as events:
                async with running(database, instance, clock) as second:
                    await logged(events, "standby")
                    second.reload(settings)
                    assert second.doing() == "standby for acme"
                    first.stop()
                    await until(pool, "SELECT EXISTS (SELECT FROM syncd.push WHERE push = 'guests')")


async def test_an_embedded_database_that_another_process_runs_is_waited_for() -> None:
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as folder:
        async with marketo([]) as (instance, clock):
            settings = Settings(Database(embedded=Path(folder)), (instance,), None)
            with capture_logs() as events:
                async with EmbeddedPostgres(Path(folder)):
                    waiting = Daemon(settings, clock)
                    working = asyncio.ensure_future(waiting.run())
                    await logged(events, "standby")
                    assert not waiting.ready.is_set()
                await logged(events, "lease_taken")
                waiting.stop()
                await working


async def test_a_stop_ends_the_wait_for_an_embedded_database_too() -> None:
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as folder:
        async with marketo([]) as (instance, clock), EmbeddedPostgres(Path(folder)):
            waiting = Daemon(Settings(Database(embedded=Path(folder)), (instance,), None), clock)
            with capture_logs() as events:
                working = asyncio.ensure_future(waiting.run())
                await logged(events, "standby")
                waiting.stop()
                await asyncio.wait_for(working, 5)


async def logged(events: Sequence[Mapping[str, Any]], name: str) -> None:
    async with asyncio.timeout(20):
        while not any(event["event"] == name for event in events):
            await asyncio.sleep(0.05)
