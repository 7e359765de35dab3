"""Backfills of tables, attaching again, and detaching."""

import asyncio
from typing import Any

import asyncpg
import pytest

from syncd.store import attaching
from tests.cli.conftest import Run, Yaml
from tests.cli.test_attach import ADA, NEW_ADA, TABLE, attached, both, changes, write, written
from tests.store.outgoing import until_blocked

PLANS = "SELECT id, kind, state, changes, reason FROM syncd.plan ORDER BY id"
MANY = """
INSERT INTO crm.contact (id, email, first_name, consent)
SELECT n, CASE WHEN n % 10 <> 3 THEN 'p' || n || '@example.com' END, 'P' || n, n % 10 <> 0 FROM generate_series(1, $1::int) n
"""
# All that the catalogue has of a table, but for the flag that VACUUM takes back.
TRACES = """
SELECT 'class', to_jsonb(c) - '{relhastriggers,relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid}'::text[]
  FROM pg_class c WHERE oid = 'crm.contact'::regclass
UNION ALL SELECT 'column', to_jsonb(a) FROM pg_attribute a WHERE attrelid = 'crm.contact'::regclass
UNION ALL SELECT 'trigger', to_jsonb(t) FROM pg_trigger t WHERE tgrelid = 'crm.contact'::regclass
UNION ALL SELECT 'constraint', to_jsonb(c) FROM pg_constraint c WHERE conrelid = 'crm.contact'::regclass
UNION ALL SELECT 'depends', to_jsonb(d) FROM pg_depend d WHERE 'crm.contact'::regclass IN (refobjid, objid)
UNION ALL SELECT 'shared', to_jsonb(d) FROM pg_shdepend d WHERE objid = 'crm.contact'::regclass
UNION ALL SELECT 'function', to_jsonb(p.proname) FROM pg_proc p WHERE pronamespace = 'syncd'::regnamespace
ORDER BY 1, 2
"""


async def plans(pool: asyncpg.Pool) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await pool.fetch(PLANS)]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "PAGE", 40)


async def test_what_the_table_has_is_held_for_release(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None) -> None:
    await pool.execute(TABLE)
    await pool.execute(MANY, 200)
    out = await attached(syncd, yaml)
    assert out.splitlines() == [
        "acme: contacts is attached to crm.contact: 6 fields, key email",
        "plan 1: 160 changes of what it has already are held; syncd release lets them go",
        "left out: 20 rows without a key, 0 whose key has more than 1,000 bytes",
    ]
    assert await plans(pool) == [(1, "backfill", "waiting", 160, "crm.contact was attached for the first time")]
    found = await pool.fetch("SELECT key, fields::text, state, plan_id, reason FROM syncd.outbox ORDER BY id")
    expected = [n for n in range(1, 201) if n % 10 not in (0, 3)]
    assert [row["key"] for row in found] == [f"p{n}@example.com" for n in expected], "in the order of the table's key"
    assert tuple(found[0])[1:] == ('{"firstName": "P1", "leadSource": "CRM"}', "held", 1, "plan 1, a backfill, waits for its release")
    assert await pool.fetchval("SELECT plan_id IS NULL AND backfilled_to IS NULL FROM syncd.attachment")


async def test_without_a_backfill_and_with_one_afterwards(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    assert "no backfill: what the table has already goes when it is written again" in await attached(syncd, yaml, "--no-backfill")
    assert await plans(pool) == []
    assert await attached(syncd, yaml) == "acme: contacts is attached to crm.contact already, as the YAML has it\n"
    assert "plan 1: 1 changes" in await attached(syncd, yaml, "--backfill")
    assert await plans(pool) == [(1, "backfill", "waiting", 1, "asked for by an operator")]
    assert await changes(pool, "held") == [NEW_ADA]


async def test_a_table_with_nothing_to_send_makes_no_plan_to_decide_on(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(f"{TABLE}; INSERT INTO crm.contact (id) VALUES (1)")
    assert "it has nothing to send yet\nleft out: 1 rows without a key" in await attached(syncd, yaml)
    assert [plan[2:4] for plan in await plans(pool)] == [("discarded", 0)]


async def test_another_mapping_replaces_the_triggers_and_is_backfilled(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml)
    fields = {"firstName": "first_name", "title": "other"}
    out = await attached(syncd, yaml, fields=fields, where=None)
    assert "plan 2: 2 changes of what it has already are held" in out
    assert "plan 1, a backfill of before with 1 changes, waits as well" in out
    assert [plan[2:] for plan in await plans(pool)][1] == ("waiting", 2, "crm.contact was attached with another mapping")
    assert await pool.fetchval("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'crm.contact'::regclass") == 2
    statement = "UPDATE crm.contact SET score = 9, other = 'Dr' WHERE id = 2"
    assert await written(pool, statement) == [("grace@example.com", {"title": "Dr"})]


async def test_a_backfill_that_broke_off_goes_on_where_it_was(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(TABLE)
    await pool.execute(MANY, 200)
    await broken_off(syncd, yaml, monkeypatch)
    assert await pool.fetchval("SELECT (state, changes) = ('making', 64) FROM syncd.plan")
    assert await pool.fetchval("SELECT backfilled_to FROM syncd.attachment") == ["80"]
    ran = await syncd("check", "-c", yaml.file)
    assert "the backfill of crm.contact (plan 1) is not complete" in ran.out
    assert "plan 1: 160 changes of what it has already are held" in await attached(syncd, yaml)
    found = [row["key"] for row in await pool.fetch("SELECT key FROM syncd.outbox ORDER BY id")]
    assert found == [f"p{n}@example.com" for n in range(1, 201) if n % 10 not in (0, 3)]


@pytest.mark.parametrize("command", ["attach", "detach"])
async def test_what_of_a_broken_off_backfill_is_not_wanted_any_more_is_cancelled(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, small_pages: None, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    await pool.execute(TABLE)
    await pool.execute(MANY, 200)
    await broken_off(syncd, yaml, monkeypatch)
    ran = await syncd(command, "-c", write(yaml, {"firstName": "first_name"}), "--push", "contacts")
    assert ran.code == 0
    assert (await plans(pool))[0][2:4] == ("discarded", 64)
    ended = await pool.fetch("SELECT state, reason, count(*) AS changes FROM syncd.change_history GROUP BY 1, 2")
    assert [tuple(row) for row in ended] == [("cancelled", "its backfill was not completed", 64)]
    assert len(await changes(pool, "held")) == (160 if command == "attach" else 0)


async def broken_off(syncd: Run, yaml: Yaml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attach, and have the database go away after the second page."""
    right, pages = attaching.page, iter(range(2))

    async def page(*given: Any) -> Any:
        if next(pages, None) is None:
            raise ConnectionResetError("the database is gone")
        return await right(*given)

    with monkeypatch.context() as patch:
        patch.setattr(attaching, "page", page)
        ran = await syncd("attach", "-c", write(yaml), "--push", "contacts")
    assert (ran.code, ran.err) == (1, "the database failed: the database is gone; run syncd check\n")


async def test_two_at_a_time_do_not_meet(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    async with pool.acquire() as other, attaching.alone(other, "acme", "contacts") as alone:
        assert alone
        ran = await syncd("attach", "-c", write(yaml), "--push", "contacts")
    assert (ran.code, ran.err) == (
        1,
        "syncd attach: another syncd attach or detach of contacts, or a comparison of its view, is at work; wait for it\n",
    )


async def test_it_waits_for_writers_and_keeps_them_waiting_for_a_second_at_most(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    async with pool.acquire() as slow, pool.acquire() as quick:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("UPDATE crm.contact SET score = 5 WHERE id = 2")
        attach = asyncio.ensure_future(syncd("attach", "-c", write(yaml), "--push", "contacts", "--no-backfill"))
        await until_blocked(pool, attach)
        # behind the lock that is waited for, until that is given up
        await asyncio.wait_for(quick.execute("UPDATE crm.contact SET score = 6 WHERE id = 1"), 5)
        await transaction.commit()
        ran = await attach
    assert (ran.code, ran.err) == (0, "crm.contact is in use by a transaction; waiting for its end\n")


async def test_detached_it_leaves_no_trace(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    before = await pool.fetch(TRACES)
    await attached(syncd, yaml, where="1 / score > 0")
    await pool.execute("UPDATE crm.contact SET score = 0 WHERE id = 2; UPDATE crm.contact SET score = 5, first_name = 'A' WHERE id = 1")
    assert await pool.fetch(TRACES) != before
    ran = await syncd("detach", "-c", yaml.file, "--push", "contacts")
    assert (ran.code, ran.out, ran.err) == (0, "acme: contacts is detached from crm.contact\n", "")
    assert await pool.fetch(TRACES) == before
    await pool.execute("VACUUM crm.contact")
    assert await pool.fetchval("SELECT relhastriggers FROM pg_class WHERE oid = 'crm.contact'::regclass") is False
    assert (
        await pool.fetchval("SELECT count(*) FROM syncd.attachment") + await pool.fetchval("SELECT count(*) FROM syncd.attach_fault") == 0
    )
    assert await changes(pool) == [("ada@example.com", {"firstName": "A", "leadScore": 5})], "what is in the outbox goes on"
    assert await written(pool, "UPDATE crm.contact SET score = 6") == []
    ran = await syncd("detach", "-c", yaml.file, "--push", "contacts")
    assert (ran.code, ran.out) == (1, "acme: contacts is attached to no table\n")


async def test_a_push_that_has_left_the_configuration_can_be_detached(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml)
    text = yaml.file.read_text().replace("{contacts:", "{others:")
    yaml.file.write_text(text)
    assert (await syncd("detach", "-c", yaml.file, "--push", "contacts")).out == "acme: contacts is detached from crm.contact\n"
    ran = await syncd("detach", "-c", yaml.file, "--push", "contacts")
    assert (ran.code, ran.err.startswith('syncd: the instance acme has no push "contacts"')) == (2, True)


async def test_a_table_that_was_dropped_can_be_detached(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml)
    await pool.execute("DROP TABLE crm.contact")
    assert (await syncd("detach", "-c", yaml.file, "--push", "contacts")).code == 0
    assert await pool.fetchval("SELECT count(*) FROM pg_proc WHERE proname = 'attached_1'") == 0


async def test_a_table_that_was_replaced_is_told_and_attached_again(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml)
    await pool.execute(
        "CREATE TABLE crm.new (LIKE crm.contact INCLUDING ALL);ALTER TABLE crm.contact RENAME TO old; ALTER TABLE crm.new RENAME TO contact"
    )
    assert "triggers of crm.contact are missing or disabled" in (await syncd("check", "-c", yaml.file)).out
    await attached(syncd, yaml, "--no-backfill")
    assert await written(pool, ADA, "UPDATE crm.old SET score = 77") == [NEW_ADA]
