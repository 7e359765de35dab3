"""The schema is what the README promises: every table, column, view and function says what it is for."""

import asyncpg

UNCOMMENTED = """
SELECT c.relname || coalesce('.' || a.attname, '') AS name
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'syncd'
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition AND c.relname <> 'schema_version'
   AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)
UNION ALL
SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND n.nspname = 'syncd'
 WHERE obj_description(p.oid, 'pg_proc') IS NULL
"""


async def test_every_table_column_and_function_is_explained(pool: asyncpg.Pool) -> None:
    assert [row["name"] for row in await pool.fetch(UNCOMMENTED)] == []


async def test_a_plain_insert_does_what_enqueue_does(pool: asyncpg.Pool) -> None:
    first = await pool.fetchval("SELECT syncd.enqueue('acme', 'contacts', ' Ada@Example.com', '{\"firstName\": \"Ada\"}')")
    await pool.execute(
        """INSERT INTO syncd.outbox (instance, push, key, fields) VALUES ('acme', 'contacts', ' Ada@Example.com', '{"firstName": "Ada"}')"""
    )
    rows = await pool.fetch("SELECT instance, push, key, key_norm, fields, state, attempt, waits_for FROM syncd.outbox ORDER BY id")
    assert tuple(rows[0]) == tuple(rows[1])
    assert rows[0]["key_norm"] == "ada@example.com"
    assert await pool.fetchval("SELECT state FROM syncd.change WHERE id = $1", first) == "pending"


async def test_partitions_of_history_are_made_once(pool: asyncpg.Pool) -> None:
    for day in ("2026-03-08", "2026-03-08", "2026-03-09"):
        await pool.execute("SELECT syncd.ensure_history_partition($1::text::date)", day)
    names = await pool.fetch("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY 1")
    assert [row["relname"] for row in names] == ["change_history_20260308", "change_history_20260309"]
