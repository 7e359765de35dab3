"""The schema `syncd`, brought to the revision that this syncd needs."""

import asyncio
import io
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest

from syncd.store import migrate, schema
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.pool import DatabaseUnavailable

OBJECTS = """
SELECT c.relkind::text AS kind, c.relname AS name, pg_describe_object('pg_class'::regclass, c.oid, 0) AS description
FROM pg_class c WHERE c.relnamespace = 'syncd'::regnamespace
UNION ALL
SELECT 'function', p.proname, md5(pg_get_functiondef(p.oid)) FROM pg_proc p WHERE p.pronamespace = 'syncd'::regnamespace
UNION ALL
SELECT 'constraint', n.conname, pg_get_constraintdef(n.oid) FROM pg_constraint n WHERE n.connamespace = 'syncd'::regnamespace
ORDER BY 1, 2, 3
"""


async def objects(dsn: str) -> list[tuple[str, str, str]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(OBJECTS)]
    finally:
        await connection.close()


async def test_a_second_migration_does_nothing(empty_database: str) -> None:
    assert await migrate.current(empty_database) is None
    assert await migrate.upgrade(empty_database) == (None, schema.head())
    made = await objects(empty_database)
    assert await migrate.upgrade(empty_database) == (schema.head(), schema.head())
    assert await migrate.current(empty_database) == schema.head()
    assert await objects(empty_database) == made


async def test_two_migrators_at_once_dont_collide(empty_database: str) -> None:
    steps = await asyncio.gather(*(migrate.upgrade(empty_database) for _ in range(4)))
    assert sorted(steps, key=str) == [(schema.head(), schema.head())] * 3 + [(None, schema.head())]


async def test_the_script_for_a_dba_makes_the_same_schema(empty_database: str, database: str) -> None:
    script = io.StringIO()
    migrate.offline_sql(script)
    connection = await asyncpg.connect(empty_database)
    try:
        await connection.execute(script.getvalue())
        await schema.require_head(connection)
    finally:
        await connection.close()
    assert await objects(empty_database) == await objects(database)


async def test_the_schema_must_be_the_one_this_syncd_needs(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    try:
        with pytest.raises(schema.NotMigrated, match="run syncd migrate"):
            await schema.require_head(connection)
        await migrate.upgrade(empty_database)
        await schema.require_head(connection)
        await connection.execute("UPDATE syncd.schema_version SET version_num = '9999'")
        with pytest.raises(schema.DatabaseNewer, match=r"9999.*upgrade syncd"):
            await schema.require_head(connection)
        with pytest.raises(schema.DatabaseNewer):
            await migrate.upgrade(empty_database)
    finally:
        await connection.close()


async def test_a_role_that_may_not_create_schemas_is_told_so(empty_database: str) -> None:
    admin = await asyncpg.connect(empty_database)
    try:
        await admin.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        with pytest.raises(DatabaseUnavailable, match=r"permission denied for database.*grant"):
            await migrate.upgrade(as_role(empty_database, "reader"))
    finally:
        await admin.execute("DROP ROLE reader")
        await admin.close()


@pytest.mark.parametrize("transport", ["socket", "tcp"])
@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
async def test_every_form_of_dsn(database: str, postgres: EmbeddedPostgres, scheme: str, transport: str) -> None:
    dsn = urlsplit(database if transport == "socket" else postgres.tcp_dsn)
    there = dsn._replace(scheme=scheme, path=urlsplit(database).path).geturl()
    assert await migrate.upgrade(there) == (schema.head(), schema.head())


def test_the_script_has_the_revisions_as_they_were_written() -> None:
    """Comments, colons, percent signs and function bodies: Alembic's own reading of SQL text would alter them."""
    script = io.StringIO()
    migrate.offline_sql(script)
    revisions = sorted((Path(__file__).parents[2] / "migrations" / "versions").glob("*.sql"))
    assert revisions
    assert all(revision.read_text() in script.getvalue() for revision in revisions)


def as_role(dsn: str, role: str) -> str:
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{quote(role)}:{quote(role)}@{parts.netloc.rpartition('@')[2]}").geturl()


def test_every_revision_is_known_to_whoever_only_asks_which_it_is() -> None:
    folder = Path(__file__).parents[2] / "migrations" / "versions"
    assert tuple(sorted(path.name.partition("_")[0] for path in folder.glob("*.py"))) == schema.REVISIONS
