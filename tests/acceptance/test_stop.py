"""SIGTERM while the database does not answer: hung, locked by somebody, or cut off."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg
import pytest

from syncd.demo.traffic import INSTANCE
from syncd.store import requests
from tests.acceptance.rehearsal import Rehearsal, rehearsal

WAITS = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'syncd %' AND wait_event_type = 'Lock')
"""


class Line:
    """The line to the database: while `open` is not set nothing passes, and nobody is told."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.open = asyncio.Event()
        self.open.set()
        self.in_use: list[asyncio.Task[Any]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.in_use += filter(None, [asyncio.current_task()])
        there = await asyncio.open_unix_connection(self._socket)
        try:
            await asyncio.gather(self._pass_on(reader, there[1]), self._pass_on(there[0], writer))
        finally:
            there[1].close()
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                await self.open.wait()
                writer.write(piece)
                await writer.drain()
            writer.write_eof()


@asynccontextmanager
async def line_to(dsn: str) -> AsyncIterator[tuple[str, Line]]:
    """A DSN by which the same database is reached through a Line."""
    parts = urlsplit(dsn)
    where = dict(parse_qsl(parts.query))
    line = Line(Path(where["host"]) / f".s.PGSQL.{where['port']}")
    server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = parts.netloc.rpartition("@")[0]
    yield parts._replace(netloc=f"{credentials}@127.0.0.1:{port}", query="").geturl(), line
    server.close()
    line.open.set()
    await asyncio.gather(*line.in_use, return_exceptions=True)


async def until_one_waits(dsn: str) -> None:
    """Look until a session of the daemon waits for a lock."""
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(10):
        while not await connection.fetchval(WAITS):
            await asyncio.sleep(0.05)
    await connection.close()


async def assert_ends_in_time(one: Rehearsal, daemon: asyncio.subprocess.Process, signals: int = 1) -> None:
    asked = time.monotonic()
    for _ in range(signals):
        daemon.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)  # two that come at once are one
    try:
        code = await asyncio.wait_for(daemon.wait(), 15)
    except TimeoutError:
        pytest.fail(f"still there after 15 s:\n{one.log(0)[-3000:]}")
    took = time.monotonic() - asked
    assert (code, took < 10) == (0, True), f"{took:.1f} s\n{one.log(0)[-3000:]}"


@pytest.mark.parametrize("signals", [1, 2])
async def test_sigterm_ends_in_time_while_the_database_hangs(database: str, tmp_path: Path, signals: int) -> None:
    async with line_to(database) as (dsn, line), rehearsal(database, tmp_path, leads=1_000, changes=2_000, speed=30) as one:
        one.dsn = dsn
        daemon = await one.spawn()
        await one.wait_for_log(0, "import_submitted")
        line.open.clear()
        await asyncio.sleep(1)  # for steps to be caught amid their transactions: that, and not any event, is the point
        await assert_ends_in_time(one, daemon, signals)


async def test_sigterm_ends_in_time_while_somebody_holds_our_rows(database: str, tmp_path: Path) -> None:
    async with rehearsal(database, tmp_path, leads=1_000, changes=2_000, speed=30) as one:
        daemon = await one.spawn()
        await one.wait_for_log(0, "import_submitted")
        async with one.connection.transaction():
            await one.connection.execute("LOCK TABLE syncd.import_job, syncd.outbox, syncd.pull_window IN EXCLUSIVE MODE")
            await until_one_waits(database)
            await assert_ends_in_time(one, daemon)


async def test_sigterm_ends_in_time_while_standing_by(database: str, tmp_path: Path) -> None:
    async with line_to(database) as (dsn, line), rehearsal(database, tmp_path, leads=100, changes=10, speed=30) as one:
        one.dsn = dsn
        assert await requests.keep_daemons_away(one.connection, INSTANCE)
        daemon = await one.spawn()
        await one.wait_for_log(0, "event=standby")
        line.open.clear()
        await assert_ends_in_time(one, daemon)
