"""What becomes of a table that syncd's role may no longer look up: it is told, and all else goes on."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from syncd.store import attaching
from tests.cli.conftest import Run, Yaml
from tests.cli.test_attach import FIELDS, attached, both, write
from tests.cli.test_attach_faults import in_check


@pytest.fixture
async def barred(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> AsyncIterator[None]:
    """A table is attached, and then the right to its schema is gone."""
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("UPDATE crm.contact SET score = 5")  # of a push without changes status says nothing
    await pool.execute("DROP ROLE IF EXISTS clerk5; CREATE ROLE clerk5 LOGIN PASSWORD 'x'; GRANT ALL ON SCHEMA syncd TO clerk5")
    await pool.execute("GRANT ALL ON ALL TABLES IN SCHEMA syncd TO clerk5; GRANT ALL ON ALL SEQUENCES IN SCHEMA syncd TO clerk5")
    owner, yaml.dsn = yaml.dsn, yaml.dsn.replace(yaml.dsn.split("//")[1].split("@")[0], "clerk5:x")
    write(yaml, FIELDS)
    try:
        yield
    finally:
        yaml.dsn = owner
        await pool.execute("DROP OWNED BY clerk5; DROP ROLE clerk5")


async def test_a_schema_without_rights_is_told_of_and_stops_nothing(barred: None, syncd: Run, yaml: Yaml) -> None:
    async with asyncpg.create_pool(yaml.dsn, min_size=1, max_size=1) as clerk:
        assert (await attaching.attachments(clerk, "acme"))["contacts"].fires
        assert (await in_check(clerk, yaml))[0] == (
            "✗ push contacts: table crm.contact: permission denied for schema crm: GRANT USAGE on its schema to syncd's role"
        )
    ran = await syncd("status", "-c", yaml.file)
    assert (ran.code, ran.err) == (0, "")
    assert "crm.contact" in ran.out


async def test_a_name_of_another_database_is_told_of(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    ran = await syncd("attach", "-c", write(yaml, FIELDS, table="elsewhere.crm.contact"), "--push", "contacts")
    assert (ran.code, ran.err[:77]) == (1, "syncd attach: contacts: elsewhere.crm.contact is no name of a table: write sc")
    assert (await in_check(pool, yaml))[0].startswith("✗ push contacts: table elsewhere.crm.contact is no name of a table")
