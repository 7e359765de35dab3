"""What all tests share: a real PostgreSQL with a fresh, migrated database for each test that asks, and a clock moved by hand."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import settings

from syncd.ops.clock import ManualClock
from syncd.store import migrate
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.pool import create_pool
from tests import overhearing

T = TypeVar("T")

# Properties are about values, not about how busy the machine is.
settings.register_profile("syncd", deadline=None)
settings.load_profile("syncd")

UNSAFE_BUT_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "4GB",
}
TEMPLATE = "syncd_template"
LEFT_BEHIND = """
SELECT 'a setting: ' || name AS what FROM pg_settings WHERE setting IS DISTINCT FROM reset_val AND source = 'session'
UNION ALL
SELECT 'a lock' FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
"""
_numbers = itertools.count(1)


def pytest_configure() -> None:
    overhearing.listen()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """No secret and no address has come out, whatever the test was about."""
    try:
        yield
    finally:
        told = overhearing.let_out(item.nodeid, overhearing.take_finds())
    if told is not None:
        pytest.fail(told, pytrace=False)


def on_its_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in this thread (the server dies with the thread that started it), leaving pytest-asyncio's loop alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


@pytest.fixture(scope="session")
def postgres_directory() -> Iterator[Path]:
    """Not under pytest's own directory: as root the server runs as `nobody`, who cannot pass there."""
    directory = Path(tempfile.mkdtemp(prefix="syncd-test-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres(postgres_directory: Path) -> Iterator[EmbeddedPostgres]:
    """A server per xdist worker, with a migrated database to clone."""
    server = EmbeddedPostgres(postgres_directory, UNSAFE_BUT_FAST)

    async def start() -> None:
        dsn = await server.start()
        overhearing.SECRETS.add(str(urlsplit(dsn).password))
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await connection.close()
        await migrate.upgrade(in_database(dsn, TEMPLATE))

    try:
        on_its_own_loop(start())
        yield server
    finally:
        on_its_own_loop(server.stop())


@pytest.fixture
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DSN of a database without the schema."""
    async with clone(postgres, "template1") as dsn:
        yield dsn


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The DSN of a migrated database of this test's own."""
    async with clone(postgres, TEMPLATE) as dsn:
        yield dsn


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database, application_name="syncd tests", min_size=1, max_size=8)
    yield pool
    # Nothing is put back when a connection is given back (syncd/store/pool.py): there must be nothing to put back.
    idle = [await pool.acquire() for _ in range(pool.get_idle_size())]
    left_behind = [row["what"] for connection in idle for row in await connection.fetch(LEFT_BEHIND)]
    for connection in idle:
        await pool.release(connection)
    await asyncio.wait_for(pool.close(), 10)
    assert not left_behind


@pytest.fixture
def manual_clock() -> ManualClock:
    return ManualClock(datetime(2026, 3, 2, 12, tzinfo=UTC))


def in_database(dsn: str, name: str) -> str:
    """The same server, another database."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def clone(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """A database like `template`, dropped afterwards. A little quicker by FILE_COPY (37 ms) than by WAL_LOG (40 ms)."""
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(postgres.dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield in_database(postgres.dsn, name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
