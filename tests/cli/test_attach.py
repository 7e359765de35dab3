"""`syncd attach` and `syncd detach`: from a table of the user's into the outbox."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from tests.cli.conftest import Run, Yaml

TABLE = """
CREATE SCHEMA crm;
CREATE TABLE crm.contact (
    id bigint PRIMARY KEY, email text, first_name text, opt_out boolean, score numeric, seen_at timestamptz, born date,
    consent boolean NOT NULL DEFAULT true, other text
);
"""
FIELDS = {
    "firstName": "first_name",
    "unsubscribed": {"column": "opt_out"},
    "leadScore": "score",
    "seenAt": "seen_at",
    "dateOfBirth": "born",
    "leadSource": {"const": "CRM"},
}


def write(yaml: Yaml, fields: Any = FIELDS, **source: Any) -> Any:
    """The YAML with a push from the table."""
    of_table = {"table": "crm.contact", "key": "email", "where": "consent", **source}
    file = yaml.write()
    given = f"lookup_field: {yaml.lookup_field}"
    file.write_text(file.read_text().replace(given, f"{given}, from: {json.dumps(of_table)}, fields: {json.dumps(fields)}"))
    return file


async def changes(pool: asyncpg.Pool, state: str = "pending") -> list[tuple[str, dict[str, Any]]]:
    rows = await pool.fetch("SELECT key, fields FROM syncd.outbox WHERE state = $1 ORDER BY id", state)
    return [(row["key"], json.loads(row["fields"])) for row in rows]


async def attached(syncd: Run, yaml: Yaml, *more: str, **source: Any) -> str:
    ran = await syncd("attach", "-c", write(yaml, **source), "--push", "contacts", *more)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


async def written(pool: asyncpg.Pool, *statements: str) -> Sequence[tuple[str, dict[str, Any]]]:
    """What becomes of some statements."""
    await pool.execute("TRUNCATE syncd.outbox")
    for statement in statements:
        await pool.execute(statement)
    return await changes(pool)


async def test_a_table_is_followed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TABLE)
    await attached(syncd, yaml)
    ada = "INSERT INTO crm.contact VALUES (1, 'ada@example.com', 'Ada', false, 1.50, '2026-03-02 12:00:00.9+02', '1815-12-10')"
    assert await written(pool, ada) == [
        (
            "ada@example.com",
            {
                "firstName": "Ada",
                "unsubscribed": False,
                "leadScore": 1.5,
                "seenAt": "2026-03-02T10:00:00Z",
                "dateOfBirth": "1815-12-10",
                "leadSource": "CRM",
            },
        )
    ]
