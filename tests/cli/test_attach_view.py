"""`syncd attach` and `syncd detach` of views and foreign tables."""

from typing import Any

import asyncpg
import pytest

from syncd.cli import attach as work
from syncd.store import comparing
from tests.cli.conftest import Run, Yaml
from tests.cli.test_attach import NEW_ADA, TABLE, attached, both, changes, write, written
from tests.cli.test_attach_again import MANY, plans
from tests.cli.test_attach_faults import in_check

VIEW = "CREATE VIEW crm.v AS SELECT * FROM crm.contact"
OF_VIEW: dict[str, Any] = {"table": "crm.v"}
COUNTS = "SELECT (SELECT count(*) FROM syncd.attachment), (SELECT count(*) FROM syncd.comparison), (SELECT count(*) FROM syncd.snapshot)"


async def counts(pool: asyncpg.Pool) -> tuple[int, ...]:
    """Attachments, comparisons, rows of snapshots."""
    row = await pool.fetchrow(COUNTS)
    assert row is not None
    return tuple(row)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "PAGE", 40)


async def test_what_a_view_has_is_held_for_release(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None) -> None:
    await pool.execute(f"{TABLE}; {VIEW}")
    await pool.execute(MANY, 200)
    await pool.execute("INSERT INTO crm.contact (id, email, first_name) VALUES (900, 'p1@example.com', 'Q')")
    out = await attached(syncd, yaml, **OF_VIEW)
    assert out.splitlines() == [
        "acme: contacts is attached to crm.v: 6 fields, key email",
        "it is compared every 15m, by the daemon",
        "plan 1: 159 changes of what it has already are held; syncd release lets them go",
        "left out: 20 rows without a key, 0 whose key has more than 1,000 bytes",
        "left out: 1 keys that are in several rows with other values",
    ]
    assert await plans(pool) == [(1, "backfill", "waiting", 159, "crm.v was attached for the first time")]
    held = await pool.fetch("SELECT key, fields::text, plan_id, reason FROM syncd.outbox WHERE state = 'held' ORDER BY id")
    assert tuple(held[0]) == (
        "p101@example.com",
        '{"firstName": "P101", "leadSource": "CRM"}',
        1,
        "plan 1, a backfill, waits for its release",
    )
    assert await counts(pool) == (1, 1, 159)
    assert (await in_check(pool, yaml))[0].startswith(
        "✓ push contacts: table crm.v is attached, as the configuration has it: 159 keys, compared at "
    )
    lines = [" ".join(line.split()) for line in (await syncd("status", "-c", yaml.file)).out.splitlines()]
    (line,) = (line for line in lines if "crm.v" in line and "compared at" in line)
    assert "20 rows without a key, 1 keys that are in several rows with other values left out" in " ".join(lines[lines.index(line) :])
    again = await attached(syncd, yaml, **OF_VIEW)
    assert again == "acme: contacts is attached to crm.v already, as the YAML has it\nthe daemon compares it at once\n"
    assert "plan 2: 159 changes" in await attached(syncd, yaml, "--backfill", **OF_VIEW)
    ran = await syncd("detach", "-c", yaml.file, "--push", "contacts")
    assert (ran.code, ran.out) == (0, "acme: contacts is detached from crm.v\n")
    assert await counts(pool) == (0, 0, 0)


async def test_without_a_backfill_nothing_is_sent(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW)
    out = await attached(syncd, yaml, "--no-backfill", every="1h", **OF_VIEW)
    assert out.splitlines()[1:] == ["it is compared every 1h, by the daemon", "no backfill: what it has already goes when it changes"]
    assert (await changes(pool), await changes(pool, "held"), await counts(pool)) == ([], [], (1, 1, 1))


async def test_a_materialized_view(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW.replace("VIEW", "MATERIALIZED VIEW"))
    await attached(syncd, yaml, **OF_VIEW)
    assert await changes(pool, "held") == [NEW_ADA]


async def test_another_mapping_is_backfilled_and_what_is_gone_since_is_told(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill", where=None, **OF_VIEW)
    await pool.execute("DELETE FROM crm.contact WHERE id = 2")
    fields = {"firstName": "first_name", "unsubscribed": "opt_out"}
    out = await attached(syncd, yaml, fields=fields, where=None, on_delete={"unsubscribed": "true"}, **OF_VIEW)
    assert "plan 1: 2 changes of what it has already are held" in out
    assert await changes(pool, "held") == [("ada@example.com", {"firstName": "Ada"}), ("grace@example.com", {"unsubscribed": "true"})]
    assert (await plans(pool))[0][4] == "crm.v was attached with another mapping"
    assert await counts(pool) == (1, 1, 1)


async def test_a_foreign_table_that_can_not_be_read_is_told_and_nothing_is_changed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute("CREATE FOREIGN DATA WRAPPER away; CREATE SERVER s FOREIGN DATA WRAPPER away")
    await pool.execute("CREATE FOREIGN TABLE crm.f (email text, first_name text) SERVER s")
    ran = await syncd("attach", "-c", write(yaml, {"firstName": "first_name"}, table="crm.f", where=None), "--push", "contacts")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "syncd attach: contacts: it can't be read, error 55000 (ObjectNotInPrerequisiteState)\n"
    assert await counts(pool) == (0, 0, 0)
    assert await plans(pool) == []


async def test_a_view_that_fails_while_another_mapping_is_attached_leaves_that_of_before(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool
) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill", **OF_VIEW)
    before = await pool.fetchrow("SELECT layout, generation, based_at FROM syncd.comparison")
    await pool.execute("UPDATE crm.contact SET score = 0")
    ran = await syncd("attach", "-c", write(yaml, where="1 / score > 0", **OF_VIEW), "--push", "contacts")
    assert (ran.code, ran.err) == (1, "syncd attach: contacts: crm.v can't be read, error 22012 (DivisionByZero); nothing was sent\n")
    assert await pool.fetchrow("SELECT layout, generation, based_at FROM syncd.comparison") == before
    assert await plans(pool) == []


async def broken_off(syncd: Run, yaml: Yaml, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Attach, and have the database go away after the second page."""
    right, pages = comparing.write, iter(range(2))

    async def write_page(*given: Any, **named: Any) -> bool:
        if next(pages, None) is None:
            raise ConnectionResetError("the database is gone")
        return await right(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "write", write_page)
        ran = await syncd("attach", "-c", write(yaml, **OF_VIEW), "--push", "contacts", *more)
    assert (ran.code, ran.err) == (1, "the database failed: the database is gone; run syncd check\n")


async def test_a_backfill_that_broke_off_goes_on_where_it_was(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(f"{TABLE}; {VIEW}")
    await pool.execute(MANY, 200)
    await broken_off(syncd, yaml, monkeypatch)
    assert "✗ push contacts: table the first snapshot of crm.v is not complete: it is not compared" in await in_check(pool, yaml)
    assert "plan 1: 160 changes of what it has already are held" in await attached(syncd, yaml, **OF_VIEW)
    found = [row["key"] for row in await pool.fetch("SELECT key FROM syncd.outbox ORDER BY key")]
    assert found == sorted(f"p{n}@example.com" for n in range(1, 201) if n % 10 not in (0, 3)), "each once"


async def test_a_first_snapshot_that_broke_off_is_taken_anew(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(f"{TABLE}; {VIEW}")
    await pool.execute(MANY, 200)
    await broken_off(syncd, yaml, monkeypatch, "--no-backfill")
    assert await counts(pool) != (1, 1, 0)
    assert "plan 1: 160 changes of what it has already are held" in await attached(syncd, yaml, **OF_VIEW)
    assert (await plans(pool))[0][4] == "the first snapshot of crm.v was not completed"


async def test_a_view_takes_the_place_of_a_table_and_gives_it_back(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill")
    await attached(syncd, yaml, "--no-backfill", **OF_VIEW)
    assert await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.contact'::regclass") == 0
    assert await counts(pool) == (1, 1, 1)
    await attached(syncd, yaml, "--no-backfill")
    assert await counts(pool) == (1, 0, 0)
    assert await written(pool, "UPDATE crm.contact SET score = 5 WHERE id = 1") == [("ada@example.com", {"leadScore": 5})]


async def test_nobody_waits_while_the_view_that_takes_a_tables_place_is_read(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill")
    right, seen = comparing.read, []

    async def read(connection: Any, view: comparing.Followed) -> comparing.Found:
        found = await right(connection, view)
        # the transaction is still open; locks it took would still be held
        async with asyncpg.create_pool(yaml.dsn, min_size=1, max_size=1) as others:
            await others.execute("SET lock_timeout = '200ms'; UPDATE crm.contact SET score = 5 WHERE id = 1")
        seen.append(await connection.fetchval("SHOW lock_timeout"))
        return found

    monkeypatch.setattr(comparing, "read", read)
    await attached(syncd, yaml, "--no-backfill", **OF_VIEW)
    assert seen == ["30s"], "as all sessions have it"
    assert await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.contact'::regclass") == 0


async def test_a_view_that_can_not_be_read_leaves_the_triggers_of_before(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill")
    await pool.execute("UPDATE crm.contact SET score = 0")
    ran = await syncd("attach", "-c", write(yaml, where="1 / score > 0", **OF_VIEW), "--push", "contacts")
    assert (ran.code, await counts(pool)) == (1, (1, 0, 0))
    assert await written(pool, "UPDATE crm.contact SET score = 5 WHERE id = 1") != []


async def test_triggers_that_could_not_be_taken_away_are_taken_away_the_next_time(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill")
    monkeypatch.setattr(work, "TRIES", 1)
    async with pool.acquire() as writer, writer.transaction():
        await writer.execute("UPDATE crm.contact SET score = 5 WHERE id = 1")
        ran = await syncd("attach", "-c", write(yaml, **OF_VIEW), "--push", "contacts")
    assert ran.code == 1
    assert "crm.contact is in use by a transaction that does not end: its triggers are still there; look into" in ran.err
    assert "1 changes of what it has already are held" in await attached(syncd, yaml, **OF_VIEW)
    assert await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.contact'::regclass") == 0


async def test_a_view_that_the_configuration_no_longer_names(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute(VIEW)
    await attached(syncd, yaml, "--no-backfill", **OF_VIEW)
    yaml.write()
    (what, remedy) = await in_check(pool, yaml)
    assert what.endswith("crm.v is attached, but by the configuration this push does not follow it: it is not compared")
    assert remedy == "→ syncd detach -i acme --push contacts"


@pytest.mark.parametrize(
    ("grant", "message"),
    [
        ("GRANT TEMPORARY ON DATABASE {database}", "permission denied for view v: GRANT SELECT on it to syncd's role\n"),
        ("GRANT SELECT ON crm.v", "the role clerk3 may make no temporary tables: GRANT TEMPORARY ON DATABASE {database} TO clerk3\n"),
    ],
)
async def test_the_rights_that_are_needed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, grant: str, message: str) -> None:
    await both(pool)
    database = await pool.fetchval("SELECT quote_ident(current_database())")
    await pool.execute(f"{VIEW}; REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    await pool.execute("DROP ROLE IF EXISTS clerk3; CREATE ROLE clerk3 LOGIN PASSWORD 'x'; GRANT ALL ON SCHEMA syncd, crm TO clerk3")
    await pool.execute("GRANT ALL ON ALL TABLES IN SCHEMA syncd TO clerk3; GRANT ALL ON ALL SEQUENCES IN SCHEMA syncd TO clerk3")
    await pool.execute(f"{grant.format(database=database)} TO clerk3")
    try:
        yaml.dsn = yaml.dsn.replace(yaml.dsn.split("//")[1].split("@")[0], "clerk3:x")
        ran = await syncd("attach", "-c", write(yaml, **OF_VIEW), "--push", "contacts")
        assert (ran.code, ran.err) == (1, f"syncd attach: contacts: {message.format(database=database)}")
    finally:
        await pool.execute("DROP OWNED BY clerk3; DROP ROLE clerk3")
