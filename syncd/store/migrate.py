"""Bringing the schema `syncd` to the revision this syncd needs: Alembic, run through asyncpg."""

from pathlib import Path
from typing import TextIO

import asyncpg
import sqlalchemy
from alembic import command, op
from alembic.config import Config
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import syncd
from syncd.store.leases import Connection
from syncd.store.pool import CONNECT_TIMEOUT, explained
from syncd.store.schema import refuse_newer, revision

SCHEMA = "syncd"
VERSION_TABLE = "schema_version"
ADVISORY_LOCK = 0x73796E6364  # "syncd": any number that no other program takes


async def upgrade(dsn: str) -> tuple[str | None, str | None]:
    """Migrate to the head in one transaction; returns the revisions before and after (None: nothing there).

    Two at once don't collide: the second waits, and finds nothing to do. Raises DatabaseUnavailable, DatabaseNewer.
    """
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: _connect(dsn), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
            before = await revision(driver)
            refuse_newer(before)
            await _make_schema(dsn, driver)
            await connection.run_sync(_upgrade_on)
            return before, await revision(driver)
    finally:
        await engine.dispose()


def offline_sql(out: TextIO) -> None:
    """Write all revisions as one SQL script, for a DBA to read and run on a database without the schema."""
    config = _config()
    config.output_buffer = out
    command.upgrade(config, "head", sql=True)


async def current(dsn: str) -> str | None:
    """The revision of the database; None when the schema is not there. Raises DatabaseUnavailable."""
    connection = await _connect(dsn)
    try:
        return await revision(connection)
    finally:
        await connection.close()


def run_sql(path: Path) -> None:
    """For revisions: run the statements of an SQL file, whatever is in them; with --sql, print them as they are.

    The server splits the statements (the simple protocol), as a prepared statement holds only one.
    """
    sql = path.read_text(encoding="utf-8")
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(sql)
        return
    adapted = op.get_bind().connection.dbapi_connection
    assert adapted is not None
    adapted.run_async(lambda connection: connection.execute(sql))


async def _make_schema(dsn: str, connection: Connection) -> None:
    """Where Alembic puts its version table, before the first revision runs.

    Asked first: without the right to create schemas, IF NOT EXISTS fails even where a DBA has made ours.
    """
    if await connection.fetchval("SELECT to_regnamespace($1)", SCHEMA) is None:
        with explained(dsn):
            await connection.execute(f"CREATE SCHEMA {SCHEMA}")


def _upgrade_on(connection: sqlalchemy.Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    return config


def _migrations() -> Path:
    """In the wheel they travel inside the package; in a checkout they are beside it."""
    package = Path(syncd.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


async def _connect(dsn: str) -> asyncpg.Connection:
    with explained(dsn):
        return await asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT, server_settings={"application_name": "syncd migrate", "timezone": "UTC"})
