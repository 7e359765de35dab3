"""What goes wrong with an attached table never fails a write; what can't be attached is told in a line."""

from typing import Any

import asyncpg
import pytest

from syncd.config import load
from syncd.flows.attached import tables
from tests.cli.conftest import Run, Yaml
from tests.cli.test_attach import ADA, FIELDS, NEW_ADA, TABLE, attached, both, changes, write, written

FAULTS = "SELECT code, writes, changes FROM syncd.attach_fault ORDER BY code"


async def faults(pool: asyncpg.Pool) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in await pool.fetch(FAULTS)]


async def in_check(pool: asyncpg.Pool, yaml: Yaml) -> list[str]:
    """What check says of the table, as it shows it; without all else that it tries."""
    async with pool.acquire() as connection:
        (found,) = await tables(connection, load(yaml.file, {}).instances[0])
    remedy = [f"→ {found.remedy}"] if found.remedy else []
    return [f"{'✓' if found.ok else '✗'} {found.what} {found.detail}", *remedy]


async def in_status(syncd: Run, yaml: Yaml) -> str:
    lines = [" ".join(line.split()) for line in (await syncd("status", "-c", yaml.file)).out.splitlines()]
    return next((line for line in lines if "crm.contact" in line), "")


async def test_keys_that_can_not_be_sent_are_counted(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    keys = "NULL", "''", "E' \\t'", "repeat('é', 501)"
    rows = ", ".join(f"({n}, {key}, 'X')" for n, key in enumerate(keys, 10))
    assert await written(pool, f"INSERT INTO crm.contact (id, email, first_name) VALUES {rows}, (20, repeat('é', 500), 'X')") != []
    assert await faults(pool) == [("long_key", 1, 1), ("no_key", 1, 3)]
    await pool.execute("UPDATE crm.contact SET first_name = 'Y' WHERE id = 10")
    assert await faults(pool) == [("long_key", 1, 1), ("no_key", 2, 4)]
    assert (await in_check(pool, yaml))[0].startswith(
        "✓ push contacts: table crm.contact is attached, as the configuration has it; 1 rows with"
    )
    assert "4 rows without a key left out" in await in_status(syncd, yaml)


async def test_an_error_of_where_loses_the_change_and_not_the_write(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", where="1 / score > 0")
    assert await written(pool, "UPDATE crm.contact SET score = 0", "UPDATE crm.contact SET score = 1 WHERE id = 1") == []
    assert await pool.fetchval("SELECT sum(score) FROM crm.contact") == 1
    assert await faults(pool) == [("22012", 2, 3)]
    found = await in_check(pool, yaml)
    assert found[0] == "✗ push contacts: table crm.contact: changes of 3 rows in 2 writes lost by error 22012"
    assert found[1] == "→ see to the cause, then syncd attach -i acme --push contacts: it backfills what was lost"


async def test_what_was_lost_is_made_good_by_attaching_again(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute("CREATE FUNCTION crm.vip(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    await attached(syncd, yaml, "--no-backfill", where="crm.vip(email)")
    await pool.execute("DROP FUNCTION crm.vip(text)")
    assert await written(pool, "UPDATE crm.contact SET score = 5") == []
    assert await faults(pool) == [("42883", 1, 2)]
    await pool.execute("CREATE FUNCTION crm.vip(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    out = await attached(syncd, yaml, where="crm.vip(email)")
    assert "plan 1: 2 changes of what it has already are held" in out
    assert await faults(pool) == []
    assert await pool.fetchval("SELECT reason FROM syncd.plan") == "changes of crm.contact had been lost"
    assert (await in_check(pool, yaml))[0].startswith("✓")


async def test_a_dropped_column_fails_no_write(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("ALTER TABLE crm.contact DROP COLUMN first_name")
    assert await written(pool, "UPDATE crm.contact SET score = 5") == []
    assert await faults(pool) == [("42703", 1, 2)]
    found = await in_check(pool, yaml)
    assert found[0].startswith('✗ push contacts: table fields.firstName: crm.contact has no column "first_name"; ')
    assert found[1] == "→ correct the table or the push's from and fields, then syncd attach -i acme --push contacts"


async def test_a_column_of_another_type_is_told(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("ALTER TABLE crm.contact ALTER score TYPE text")
    assert "by another mapping, or other types of its columns" in (await in_check(pool, yaml))[0]
    assert await written(pool, "UPDATE crm.contact SET score = 'five' WHERE id = 1") == [("ada@example.com", {"leadScore": "five"})]


async def test_a_fault_that_can_not_be_noted_fails_no_write_either(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    told: list[str] = []
    async with pool.acquire() as writer:
        await writer.execute("ALTER TABLE syncd.outbox RENAME TO mislaid; ALTER TABLE syncd.attach_fault RENAME TO gone")
        note = lambda _, message: told.append(f"{message.severity}: {message.message}")  # noqa: E731
        writer.add_log_listener(note)
        await writer.execute("UPDATE crm.contact SET score = 5")
        writer.remove_log_listener(note)
        assert await writer.fetchval("SELECT sum(score) FROM crm.contact") == 10
        await writer.execute("ALTER TABLE syncd.mislaid RENAME TO outbox; ALTER TABLE syncd.gone RENAME TO attach_fault")
    assert told == ["WARNING: syncd: what was written here does not go to Marketo (error 42P01), and that could not be noted (error 42P01)"]


async def test_a_note_that_others_have_written_since_costs_no_change(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("INSERT INTO crm.contact (id, first_name) VALUES (10, 'X')")
    async with pool.acquire() as writer, writer.transaction(isolation="repeatable_read"):
        await writer.execute("SELECT FROM crm.contact")
        await pool.execute("UPDATE crm.contact SET first_name = 'Y' WHERE id = 10")
        await writer.execute("INSERT INTO crm.contact (id, email, first_name) VALUES (11, NULL, 'Y'), (12, 'joan@example.com', 'Joan')")
        await writer.execute("INSERT INTO crm.contact (id, first_name) VALUES (13, 'Z')")
    assert await faults(pool) == [("no_key", 2, 2), ("no_key", 2, 2)]
    assert "joan@example.com" in [key for key, _ in await changes(pool)]


async def test_a_note_of_keys_that_can_not_be_made_costs_no_change(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    told: list[str] = []
    async with pool.acquire() as writer:
        await writer.execute("ALTER TABLE syncd.attach_fault RENAME TO gone")
        note = lambda _, message: told.append(f"{message.severity}: {message.message}")  # noqa: E731
        writer.add_log_listener(note)
        await writer.execute("INSERT INTO crm.contact (id, email, first_name) VALUES (11, NULL, 'Y'), (12, 'joan@example.com', 'Joan')")
        writer.remove_log_listener(note)
        await writer.execute("ALTER TABLE syncd.gone RENAME TO attach_fault")
    assert told == ["WARNING: syncd: rows without a usable key were left out, and that could not be noted (error 42P01)"]
    assert "joan@example.com" in [key for key, _ in await changes(pool)]


async def test_a_writer_needs_no_right_in_the_schema(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill")
    async with pool.acquire() as writer:
        await writer.execute(
            "DROP ROLE IF EXISTS clerk; CREATE ROLE clerk; GRANT USAGE ON SCHEMA crm TO clerk; GRANT ALL ON crm.contact TO clerk"
        )
        try:
            await writer.execute("SET ROLE clerk; CREATE TEMP TABLE outbox (x int)")
            # what a writer puts before the schemas of ours is not looked into
            await writer.execute(
                "SET search_path = pg_temp, crm; UPDATE contact SET score = 5, email = NULL WHERE id = 1; UPDATE contact SET score = 6"
            )
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute("SELECT FROM syncd.outbox")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.execute(
                    "CREATE TEMP TABLE mine (id int); CREATE TRIGGER t AFTER INSERT ON mine EXECUTE FUNCTION syncd.attached_1()"
                )
        finally:
            await writer.execute("RESET ROLE; RESET search_path; DROP OWNED BY clerk; DROP ROLE clerk")
    assert await faults(pool) == [("no_key", 2, 2)]


WHERE = [
    ("consnt", 'column "consnt" does not exist'),
    ("score", "argument of WHERE must be type boolean, not type numeric"),
    ("count(*) > 1", "aggregate functions are not allowed in WHERE"),
    ("vip(email)", "function vip(text) does not exist; functions, types and tables of yours need their schema"),
    ("consent; DROP TABLE crm.contact", 'syntax error at or near ";"'),
    ("true); SELECT FROM crm.contact WHERE (true", "cannot insert multiple commands into a prepared statement"),
    ("consent /* ", "unterminated /* comment at or near"),
    ("email = 'a", "unterminated quoted string at or near"),
    ("email::crm.nothing IS NULL", 'type "crm.nothing" does not exist; functions, types and tables of yours need their schema'),
    ("consent), (true", 'syntax error at or near ","'),
]


@pytest.mark.parametrize(("where", "message"), WHERE)
async def test_a_where_that_is_no_condition(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, where: str, message: str) -> None:
    await both(pool)
    ran = await syncd("attach", "-c", write(yaml, where=where), "--push", "contacts")
    assert ran.code == 1
    assert ran.err.startswith(f"syncd attach: contacts: from.where is no condition on the table's columns: {message}")
    assert len(ran.err.splitlines()) == 1
    assert await pool.fetchval("SELECT count(*) FROM syncd.attachment") + await pool.fetchval("SELECT count(*) FROM syncd.plan") == 0
    assert await pool.fetchval("SELECT count(*) FROM crm.contact") == 2


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("", {"table": "crm.contacts"}, "there is no table crm.contacts; write schema.table, as \\d shows it"),
    ("CREATE SEQUENCE crm.s", {"table": "crm.s"}, "crm.s is no table of yours: only tables, partitioned and foreign ones too, and views"),
    ("", {"table": "syncd.outbox"}, "syncd.outbox is no table of yours"),
    ("ALTER TABLE crm.contact DROP CONSTRAINT contact_pkey", {}, "crm.contact has no primary key, nor a unique index of NOT NULL columns"),
    (
        "ALTER TABLE crm.contact DROP CONSTRAINT contact_pkey; CREATE UNIQUE INDEX ON crm.contact (id) WHERE consent",
        {},
        "crm.contact has no primary key, nor a unique index of NOT NULL columns",
    ),
    ("ALTER TABLE crm.contact ADD tags text[]", {"key": "tags"}, "from.key: the column tags is text[], which no field of Marketo takes"),
    ("", {"where": "id = $1"}, "from.where has a parameter such as $1, for which there is no value"),
]


@pytest.mark.parametrize(("before", "source", "message"), REFUSED)
async def test_a_table_that_can_not_be_followed(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, before: str, source: dict[str, Any], message: str
) -> None:
    await both(pool)
    await pool.execute(before or "SELECT")
    ran = await syncd("attach", "-c", write(yaml, **source), "--push", "contacts")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"syncd attach: contacts: {message}")
    assert len(ran.err.splitlines()) == 1


async def test_columns_that_can_not_be_sent_are_told_together(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute("ALTER TABLE crm.contact ADD tags text[], ADD raw jsonb, ADD photo bytea, ADD wait interval")
    ran = await syncd(
        "attach", "-c", write(yaml, {"a": "tags", "b": "raw", "c": "photo", "d": "wait", "e": "scores"}), "--push", "contacts"
    )
    for part in ("fields.a: the column tags is text[],", "photo is bytea,", "raw is jsonb,", "wait is interval,", 'did you mean "score"?'):
        assert part in ran.err


@pytest.mark.parametrize(
    ("grants", "more", "message"),
    [
        ("", (), "permission denied for schema crm: GRANT USAGE on its schema to syncd's role"),
        (
            "GRANT USAGE ON SCHEMA crm",
            (),
            "the role clerk2 may not make triggers on crm.contact: GRANT SELECT, TRIGGER ON crm.contact TO clerk2",
        ),
        (
            "GRANT USAGE ON SCHEMA crm; GRANT TRIGGER ON crm.contact",
            (),
            "permission denied for table contact: GRANT SELECT on it to syncd's role, or",
        ),
        ("GRANT USAGE ON SCHEMA crm; GRANT TRIGGER ON crm.contact", ("--no-backfill",), None),
        ("GRANT USAGE ON SCHEMA crm; GRANT TRIGGER, SELECT (id, email, score, consent) ON crm.contact", (), None),
    ],
)
async def test_the_rights_that_are_needed(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, grants: str, more: tuple[str, ...], message: str | None
) -> None:
    await both(pool)
    await pool.execute("DROP ROLE IF EXISTS clerk2; CREATE ROLE clerk2 LOGIN PASSWORD 'x'; GRANT ALL ON SCHEMA syncd TO clerk2")
    await pool.execute("GRANT ALL ON ALL TABLES IN SCHEMA syncd TO clerk2; GRANT ALL ON ALL SEQUENCES IN SCHEMA syncd TO clerk2")
    for grant in filter(None, grants.split(";")):
        await pool.execute(f"{grant} TO clerk2")
    try:
        yaml.dsn = yaml.dsn.replace(yaml.dsn.split("//")[1].split("@")[0], "clerk2:x")
        ran = await syncd("attach", "-c", write(yaml, {"leadScore": "score"}), "--push", "contacts", *more)
        assert (ran.code == 0) == (message is None), ran.err
        assert (message or "") in ran.err
        if message is None:
            assert await written(pool, "UPDATE crm.contact SET score = 7") == [("ada@example.com", {"leadScore": 7})]
            assert (await syncd("detach", "-c", yaml.file, "--push", "contacts")).code == 0, "though the table is not its own"
            assert await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.contact'::regclass") == 0
    finally:
        await pool.execute("DROP OWNED BY clerk2; DROP ROLE clerk2")


async def test_rows_that_are_hidden_from_us(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute("ALTER TABLE crm.contact ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    row_security = await pool.fetchval("SELECT row_security_active('crm.contact')")
    ran = await syncd("attach", "-c", write(yaml), "--push", "contacts")
    assert (ran.code, "ALTER ROLE syncd BYPASSRLS" in ran.err) == ((1, True) if row_security else (0, False))


async def test_a_push_of_the_outbox_has_nothing_to_attach(syncd: Run, yaml: Yaml) -> None:
    ran = await syncd("attach", "-c", yaml.write(), "--push", "contacts")
    assert (ran.code, ran.err) == (
        1,
        "syncd attach: contacts takes its changes from the outbox: give it from: {table: …} in the YAML\n",
    )
    ran = await syncd("attach", "-c", yaml.file, "--push", "contact")
    assert (ran.code, ran.err) == (2, 'syncd: the instance acme has no push "contact"; did you mean "contacts"?\n')


async def test_check_tells_of_a_table_that_is_not_attached(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    write(yaml)
    assert await in_check(pool, yaml) == [
        "✗ push contacts: table crm.contact is not attached: what is written to it goes nowhere",
        "→ syncd attach -i acme --push contacts",
    ]
    lines = [" ".join(line.split()) for line in (await syncd("check", "-c", yaml.file)).out.splitlines()]
    assert (await in_check(pool, yaml))[0] in lines
    await attached(syncd, yaml, "--no-backfill")
    assert (await in_check(pool, yaml))[0] == "✓ push contacts: table crm.contact is attached, as the configuration has it"
    write(yaml, FIELDS | {"title": "other"})
    found = "✗ push contacts: table crm.contact is attached by another mapping, or other types of its columns: changes go by those"
    assert (await in_check(pool, yaml))[0] == found
    write(yaml)
    await pool.execute("ALTER TABLE crm.contact DISABLE TRIGGER syncd_attached_1_update")
    assert (await in_check(pool, yaml))[0].startswith("✗ push contacts: table triggers of crm.contact are missing or disabled")
    yaml.write()
    assert await in_check(pool, yaml) == [
        "✗ push contacts: table crm.contact is attached, but by the configuration this push does not follow it:"
        " its changes go on into the outbox",
        "→ syncd detach -i acme --push contacts",
    ]


async def test_the_columns_that_an_application_changes_later_do_not_depend_on_us(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TABLE)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("ALTER TABLE crm.contact RENAME COLUMN opt_out TO gone; ALTER TABLE crm.contact RENAME COLUMN other TO opt_out")
    await pool.execute("ALTER TABLE crm.contact ALTER born TYPE text")
    assert await written(pool, ADA) == [NEW_ADA]
    assert await changes(pool, "held") == []
