"""How commands by hand come to the database: an embedded one may be running already, under a daemon."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from syncd.core.settings import Database
from syncd.daemon import database
from syncd.store import schema
from syncd.store.embedded import DATABASE, ROLE, EmbeddedPostgres, EmbeddedPostgresError
from syncd.store.leases import Pool
from syncd.store.pool import create_pool


@asynccontextmanager
async def open_database(settings: Database) -> AsyncIterator[str]:
    """The DSN; an embedded server that no other process of ours runs is started for as long as the body takes.

    Raises DatabaseUnavailable, EmbeddedPostgresError.
    """
    async with AsyncExitStack() as stack:
        try:
            dsn = await stack.enter_async_context(database(settings))
        except EmbeddedPostgresError:
            running = running_dsn(settings.embedded) if settings.embedded else None
            if running is None:
                raise
            dsn = running
        yield dsn


@asynccontextmanager
async def open_pool(settings: Database, name: str, size: int = 1) -> AsyncIterator[Pool]:
    """Connections under that name to a schema that is the one needed. Raises DatabaseUnavailable, SchemaMismatch, EmbeddedPostgresError."""
    async with open_database(settings) as dsn:
        pool = await create_pool(dsn, application_name=name, min_size=1, max_size=size)
        try:
            async with pool.acquire() as connection:
                await schema.require_head(connection)
            yield pool
        finally:
            pool.terminate()


def running_dsn(directory: Path) -> str | None:
    """The DSN of the embedded server that runs in `directory` now, by the pid file that PostgreSQL keeps; None when none does."""
    try:
        pid, _, _, port, sockets, _, _, status = (directory / "data" / "postmaster.pid").read_text().splitlines()[:8]
        password = (directory / "password").read_text().strip()
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return None
    if status.strip() != "ready":
        return None
    return f"postgresql://{ROLE}:{password}@/{DATABASE}?host={quote(sockets, safe='')}&port={port}"


async def upgrade(settings: Database) -> tuple[str | None, str | None]:
    """Migrate; returns the revisions before and after (None: nothing there). Raises DatabaseUnavailable, DatabaseNewer."""
    from syncd.store import migrate  # takes longer to import than all else, for this command alone

    if settings.embedded is None or running_dsn(settings.embedded) is not None:
        async with open_database(settings) as dsn:
            return await migrate.upgrade(dsn)
    async with EmbeddedPostgres(settings.embedded) as server:
        return await migrate.upgrade(server.dsn)
