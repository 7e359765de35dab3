"""`syncd attach` and `syncd detach`: from a table of the user's into the outbox."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

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


async def attached(syncd: Run, yaml: Yaml, *more: str, fields: Any = FIELDS, **source: Any) -> str:
    ran = await syncd("attach", "-c", write(yaml, fields, **source), "--push", "contacts", *more)
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


ADA = "INSERT INTO crm.contact (id, email, first_name, score) VALUES (1, 'ada@example.com', 'Ada', 1)"
GRACE = "INSERT INTO crm.contact (id, email, first_name, score, consent) VALUES (2, 'grace@example.com', 'Grace', 2, false)"
NEW_ADA = ("ada@example.com", {"firstName": "Ada", "leadScore": 1, "leadSource": "CRM"})


async def both(pool: asyncpg.Pool) -> None:
    """Ada, who has consented, and Grace, who has not."""
    await pool.execute(f"{TABLE};{ADA};{GRACE}")


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE crm.contact SET score = 7 WHERE id = 1", [("ada@example.com", {"leadScore": 7})]),
        (
            "UPDATE crm.contact SET score = NULL, first_name = 'A' WHERE id = 1",
            [("ada@example.com", {"leadScore": None, "firstName": "A"})],
        ),
        ("UPDATE crm.contact SET first_name = '' WHERE id = 1", [("ada@example.com", {"firstName": None})]),
        ("UPDATE crm.contact SET first_name = 'ADA' WHERE id = 1", [("ada@example.com", {"firstName": "ADA"})]),
        ("UPDATE crm.contact SET score = 1.0, other = 'new' WHERE id = 1", []),
        ("UPDATE crm.contact SET score = 9 WHERE id = 2", []),
        ("UPDATE crm.contact SET score = score + 1", [("ada@example.com", {"leadScore": 2})]),
        ("UPDATE crm.contact SET consent = false, score = 3 WHERE id = 1", []),
        (
            "UPDATE crm.contact SET consent = true WHERE id = 2",
            [("grace@example.com", {"firstName": "Grace", "leadScore": 2, "leadSource": "CRM"})],
        ),
        (
            "UPDATE crm.contact SET email = 'ada@example.org', score = NULL WHERE id = 1",
            [("ada@example.org", {"firstName": "Ada", "leadScore": None, "leadSource": "CRM"})],
        ),
        ("UPDATE crm.contact SET id = 3 WHERE id = 1", [NEW_ADA]),
        ("UPDATE crm.contact SET id = id WHERE false", []),
        ("DELETE FROM crm.contact", []),
        ("TRUNCATE crm.contact", []),
        ("BEGIN; UPDATE crm.contact SET score = 7; ROLLBACK", []),
        ("INSERT INTO crm.contact (id, email, consent) VALUES (3, 'c@example.com', false)", []),
        ("INSERT INTO crm.contact (id, email, first_name) VALUES (3, 'c@example.com', '')", [("c@example.com", {"leadSource": "CRM"})]),
        (
            "INSERT INTO crm.contact (id, email, score) VALUES (1, 'ada@example.com', 5), (3, 'c@example.com', 0)"
            " ON CONFLICT (id) DO UPDATE SET score = excluded.score",
            [("c@example.com", {"leadScore": 0, "leadSource": "CRM"}), ("ada@example.com", {"leadScore": 5})],
        ),
        (
            "MERGE INTO crm.contact c USING (VALUES (1, 8), (4, 9)) v (id, score) ON c.id = v.id"
            " WHEN MATCHED THEN UPDATE SET score = v.score"
            " WHEN NOT MATCHED THEN INSERT (id, email, score) VALUES (v.id, 'd@example.com', v.score)",
            [("ada@example.com", {"leadScore": 8}), ("d@example.com", {"leadScore": 9, "leadSource": "CRM"})],
        ),
    ],
)
async def test_what_becomes_of_a_write(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, statement: str, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    assert sorted(await written(pool, statement), key=str) == sorted(expected, key=str)
    assert await pool.fetchval("SELECT count(*) FROM syncd.attach_fault") == 0


async def test_copy_is_followed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    await pool.copy_records_to_table(
        "contact", schema_name="crm", columns=["id", "email"], records=[(7, "g@example.com"), (8, "h@example.com")]
    )
    assert await changes(pool) == [(f"{each}@example.com", {"leadSource": "CRM"}) for each in "gh"]


async def test_a_constant_alone_is_sent_once(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", fields={"leadSource": {"const": "it's CRM"}})
    assert await written(pool, ADA.replace("1, 'ada", "5, 'e")) == [("e@example.com", {"leadSource": "it's CRM"})]
    assert await written(pool, "UPDATE crm.contact SET score = 99") == []


async def test_a_row_without_a_value_is_no_change(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", fields={"leadScore": "score"})
    assert await written(pool, "INSERT INTO crm.contact (id, email) VALUES (3, 'c@example.com')") == []


async def test_more_fields_than_a_function_takes(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    columns = [f"c{n}" for n in range(130)]
    await pool.execute(
        f"CREATE SCHEMA crm; CREATE TABLE crm.contact (id int PRIMARY KEY, email text, {', '.join(f'{c} int' for c in columns)})"
    )
    await attached(syncd, yaml, "--no-backfill", where=None, fields={column.upper(): column for column in columns})
    everything = ", ".join(map(str, range(130)))
    assert await written(pool, f"INSERT INTO crm.contact VALUES (1, 'a@example.com', {everything})") == [
        ("a@example.com", {column.upper(): n for n, column in enumerate(columns)})
    ]
    assert await written(pool, "UPDATE crm.contact SET c0 = 1, c129 = NULL, c64 = 64") == [("a@example.com", {"C0": 1, "C129": None})]


TYPES = [
    ("boolean", "'t'", "true"),
    ("smallint", "-3", "-3"),
    ("bigint", "9007199254740993", "9007199254740993"),
    ("numeric", "12345678901234567890.123456789", "12345678901234567890.123456789"),
    ("numeric(10,2)", "1.5", "1.50"),
    ("numeric", "'NaN'", '"NaN"'),
    ("double precision", "0.12345678901234566", "0.12345678901234566"),
    ("money", "1234.5", "1234.50"),
    ("date", "'2026-03-02'", '"2026-03-02"'),
    ("timestamptz", "'2026-03-02 23:30:00.99-05'", '"2026-03-03T04:30:00Z"'),
    ("timestamptz", "'infinity'", '"infinity"'),
    ("timestamp", "'2026-03-02 23:30:00.99'", '"2026-03-02T23:30:00Z"'),
    ("time", "'23:30'", '"23:30:00"'),
    ("text", "'Zoë\"\\'", '"Zoë\\"\\\\"'),
    ("varchar(9)", "'x'", '"x"'),
    ("char(9)", "'x'", '"x"'),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'),
    ("crm.mood", "'glad'", '"glad"'),
    ("crm.score", "7", "7"),
]


async def test_each_type_takes_its_form_whatever_the_writer_has_set(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    columns = [f"c{n}" for n in range(len(TYPES))]
    declared = ", ".join(f"{column} {type_}" for column, (type_, _, _) in zip(columns, TYPES, strict=True))
    await pool.execute(
        "CREATE SCHEMA crm; CREATE TYPE crm.mood AS ENUM ('glad', 'sad'); CREATE DOMAIN crm.score AS int CHECK (VALUE > 0);"
        f"CREATE TABLE crm.contact (id int PRIMARY KEY, email text, {declared})"
    )
    await attached(syncd, yaml, "--no-backfill", where=None, fields={column.upper(): column for column in columns})
    async with pool.acquire() as writer, writer.transaction():
        await writer.execute("SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL datestyle = 'German'; SET LOCAL extra_float_digits = -5")
        await writer.execute(f"INSERT INTO crm.contact VALUES (1, 'a@example.com', {', '.join(value for _, value, _ in TYPES)})")
    found = await pool.fetchval("SELECT fields FROM syncd.outbox")
    assert await pool.fetchval("SELECT code FROM syncd.attach_fault") is None
    for column, (type_, _, expected) in zip(columns, TYPES, strict=True):
        assert await pool.fetchval("SELECT $1::text::jsonb -> $2", found, column.upper()) == expected, type_


async def test_names_of_any_kind(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    names = ["k", "h", "v1", "i1", "n", "o", "c", "code", "it's", 'a "b', "drop table;--", "Größe", "select", "%s", "$f$"]
    quoted = await pool.fetchval("SELECT string_agg(quote_ident(name) || ' text', ', ') FROM unnest($1::text[]) name", names)
    await pool.execute(f'CREATE SCHEMA "Cr M"; CREATE TABLE "Cr M"."con.""tact" ("i d" int PRIMARY KEY, "e mail" text, {quoted})')
    where = "\"k\" <> 'no;%s' -- a comment"
    await attached(syncd, yaml, table='"Cr M"."con.""tact"', key="e mail", where=where, fields={f"f {name}": name for name in names})
    values = ", ".join(f"'{n}'" for n in range(len(names)))
    expected = {f"f {name}": str(n) for n, name in enumerate(names)}
    assert await written(pool, f'INSERT INTO "Cr M"."con.""tact" VALUES (1, \'a@example.com\', {values})') == [("a@example.com", expected)]
    assert await written(pool, 'UPDATE "Cr M"."con.""tact" SET h = NULL, v1 = \'new\'') == [("a@example.com", {"f h": None, "f v1": "new"})]
    assert (await syncd("attach", "-c", yaml.file, "--push", "contacts", "--backfill")).code == 0
    assert await changes(pool, "held") == [
        ("a@example.com", {key: "new" if key == "f v1" else value for key, value in expected.items() if key != "f h"})
    ]
    assert await pool.fetchval("SELECT count(*) FROM syncd.attach_fault") == 0


async def test_a_table_without_a_primary_key_by_a_unique_index(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "CREATE SCHEMA crm; CREATE TABLE crm.contact (region text NOT NULL, nr int NOT NULL, email text, score int, extra text);"
        "CREATE UNIQUE INDEX ON crm.contact (region, nr) INCLUDE (extra);"
        "INSERT INTO crm.contact VALUES ('b', 1, 'b1@example.com', 1), ('a', 2, 'a2@example.com', 2), ('a', 1, 'a1@example.com', 3)"
    )
    out = await attached(syncd, yaml, where=None, fields={"leadScore": "score"})
    assert "plan 1: 3 changes of what it has already are held; syncd release lets them go" in out
    assert [key for key, _ in await changes(pool, "held")] == ["a1@example.com", "a2@example.com", "b1@example.com"]
    found = await written(pool, "UPDATE crm.contact SET score = 3")
    assert sorted(found, key=str) == [("a2@example.com", {"leadScore": 3}), ("b1@example.com", {"leadScore": 3})]


async def test_a_partitioned_table_is_followed_by_its_parent(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(
        "CREATE SCHEMA crm;"
        "CREATE TABLE crm.contact (id int, region text, email text, score int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
        "CREATE TABLE crm.north PARTITION OF crm.contact FOR VALUES IN ('n');"
        "CREATE TABLE crm.south PARTITION OF crm.contact FOR VALUES IN ('s')"
    )
    fields = {"leadScore": "score"}
    await attached(syncd, yaml, where=None, fields=fields)
    assert await written(pool, "INSERT INTO crm.contact VALUES (1, 'n', 'a@example.com', 1)") == [("a@example.com", {"leadScore": 1})]
    assert await written(pool, "UPDATE crm.contact SET score = 2") == [("a@example.com", {"leadScore": 2})]
    assert await written(pool, "UPDATE crm.contact SET region = 's'") == [("a@example.com", {"leadScore": 2})], (
        "another identity: all of it"
    )
    ran = await syncd("attach", "-c", write(yaml, fields, table="crm.north", where=None), "--push", "contacts")
    assert (ran.code, ran.err) == (1, "syncd attach: contacts: crm.north is a part of another table: name that one\n")
