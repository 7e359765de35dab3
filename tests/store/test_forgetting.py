"""Hashes of forgotten people: the same in Python and in SQL, and all that they keep out of the tables."""

import asyncio
import json
from collections.abc import Sequence

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.forget import Person, person_hash
from syncd.core.mirror import MirrorRow
from syncd.core.settings import Push
from syncd.store import due, forgetting, gone, leads, lists, migrate, outbox
from syncd.store.gone import Gone
from syncd.store.leads import Asker, NotAllNewError
from syncd.store.leases import Connection, Lease, Pool
from tests.store.outgoing import NOW, PUSH, claim, enqueue, table

ASKER = Asker("people", "q12345", None, history=False)
HASH = """
SELECT syncd.person_hash(k.inner_pad, k.outer_pad, v.instance, v.kind, v.value) AS hash
  FROM syncd.forget_key k, unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS v (instance, kind, value, n) ORDER BY v.n
"""
ADA = Person.of([("email", "ada@example.com"), ("id", "7")])


async def in_sql(connection: Connection | Pool, keys: Sequence[tuple[str, str, str]]) -> list[bytes]:
    instances, kinds, values = (list(column) for column in zip(*keys, strict=True))
    return [row["hash"] for row in await connection.fetch(HASH, instances, kinds, values)]


async def forget(pool: Pool, person: Person = ADA, instance: str = "acme") -> None:
    async with pool.acquire() as connection:
        await forgetting.keep(connection, instance, person)


def row(lead_id: int, email: str | None) -> MirrorRow:
    return MirrorRow(lead_id, email, '{"firstName": "x"}', "{}", f"d{lead_id}")


async def mirrored(pool: Pool) -> list[int]:
    return [found["lead_id"] for found in await pool.fetch("SELECT lead_id FROM syncd.lead ORDER BY 1")]


# ── the hash ──


async def test_python_and_sql_make_the_same_hashes(pool: Pool) -> None:
    secret = await pool.fetchval(forgetting.KEY)
    texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
    seen: list[tuple[str, str, str]] = [
        ("acme", "email", " \t\r\nÀda@EXAMPLE.com"),
        ("acme", "id", "0007"),
        ("ä", "customer", "\u3000K\u0130"),
    ]

    @given(texts, st.sampled_from(["email", "id", "customer"]), texts)
    def gather(instance: str, kind: str, value: str) -> None:
        seen.append((instance, kind, value))

    gather()
    assert len(secret) == 32
    assert await in_sql(pool, seen) == [person_hash(secret, *key) for key in seen]


@pytest.mark.parametrize("length", [32, 63, 64])
async def test_the_pads_are_those_of_hmac_for_every_key(pool: Pool, length: int) -> None:
    secret = bytes(range(255, 255 - length, -1))
    await pool.execute("UPDATE syncd.forget_key SET key = $1", secret)
    assert await in_sql(pool, [("acme", "email", "a@x")]) == [person_hash(secret, "acme", "email", "a@x")]


async def test_each_database_has_one_key_of_its_own(pool: Pool, empty_database: str) -> None:
    await migrate.upgrade(empty_database)
    other = await asyncpg.connect(empty_database)
    assert await other.fetchval(forgetting.KEY) != await pool.fetchval(forgetting.KEY)
    await other.close()
    with pytest.raises(asyncpg.UniqueViolationError):
        await pool.execute("INSERT INTO syncd.forget_key (key) VALUES (sha256('again'))")


# ── leads ──


async def test_pages_bring_nobody_back_by_id_or_by_address(pool: Pool, lease: Lease) -> None:
    await forget(pool)
    page = [row(7, None), row(8, "ADA@example.com "), row(9, "eve@example.com"), row(70, None)]
    async with lease.transaction() as connection:
        upserted = await leads.upsert(connection, "acme", ASKER, page, NOW, NOW, [True, True, True, False])
    assert (upserted.created, upserted.forgotten, upserted.dropped) == (1, 2, 1)
    async with lease.transaction() as connection:
        inserted = await leads.insert(connection, "acme", ASKER, [*page[:2], row(10, "new@example.com")], NOW, NOW)
    assert (inserted.created, inserted.forgotten) == (1, 2)
    assert await mirrored(pool) == [9, 10]
    with pytest.raises(NotAllNewError):
        async with lease.transaction() as connection:
            await leads.insert(connection, "acme", ASKER, page, NOW, NOW)


async def test_other_instances_know_nothing_of_it(pool: Pool, lease: Lease) -> None:
    await forget(pool, instance="beta")
    async with lease.transaction() as connection:
        assert (await leads.upsert(connection, "acme", ASKER, [row(7, "ada@example.com")], NOW, NOW)).created == 1


@pytest.mark.parametrize(("fields", "left"), [(["id", "email"], ["9"]), (["title", "id"], ["8", "9"]), (["email", "title", "id"], ["9"])])
async def test_files_bring_nobody_back(pool: Pool, lease: Lease, fields: list[str], left: list[str]) -> None:
    at = fields.index("id") + 1
    await pool.execute("SELECT syncd.make_staging(1, $1)", len(fields))
    for lead_id, email in (("7", None), ("8", "Ada@Example.com"), ("9", "eve@example.com")):
        cells = [{"id": lead_id, "email": email}.get(name) for name in fields]
        await pool.copy_records_to_table("staging_1", schema_name="syncd", records=[cells])
    async with lease.transaction() as connection:
        assert await forgetting.refuse_staged(connection, "acme", 1, fields) == 0
    await forget(pool)
    async with lease.transaction() as connection:
        assert await forgetting.refuse_staged(connection, "acme", 1, fields) == 3 - len(left)
        assert await forgetting.refuse_staged(connection, "acme", 2, fields) == 0, "there is no such table"
    assert sorted(r[0] for r in await pool.fetch(f"SELECT c{at} FROM syncd.staging_1")) == left


async def test_nothing_is_noted_of_forgotten_leads(pool: Pool, lease: Lease) -> None:
    await forget(pool)
    await pool.execute("INSERT INTO syncd.pull (instance, pull, selector, follows) VALUES ('acme', 'people', 's', 'activities')")
    async with lease.transaction() as connection:
        assert await due.note(connection, "acme", "people", {7, 9}, "changed", NOW) == 1
        assert await due.note(connection, "acme", "people", [7], "changed", NOW) == 1
        await due.note_winners(connection, "acme", ["people"], [(7, 1), (10, 7)], NOW)
        await lists.seen(connection, "acme", "VIPs", 1, [7, 9], NOW)
        went = [Gone(7, NOW), Gone(9, NOW), Gone(11, NOW, 7), Gone(12, NOW, 9)]
        await gone.note(connection, "acme", went, NOW, False)
    assert await table(pool, "SELECT lead_id FROM syncd.lead_due ORDER BY 1") == [(9,), (10,)]
    assert await table(pool, "SELECT lead_id FROM syncd.list_membership") == [(9,)]
    assert await table(pool, "SELECT lead_id, merged_into FROM syncd.lead_gone ORDER BY 1") == [(9, None), (11, None), (12, 9)]


# ── changes ──


async def test_claims_end_what_is_about_forgotten_people_and_name_nobody(pool: Pool, lease: Lease) -> None:
    await forget(pool)
    hers = await enqueue(pool, " Ada@example.com", firstName="Ada", title=None)
    other = await enqueue(pool, "eve@example.com", firstName="Eve")
    packing = await claim(lease)
    assert [r.change_ids for chunk in packing.chunks for r in chunk.rows] == [[other]]
    (ended,) = await pool.fetch("SELECT * FROM syncd.change WHERE id = $1", hers)
    assert (ended["state"], ended["key"], json.loads(ended["fields"]), ended["reason"]) == ("rejected", "", {}, forgetting.REFUSED)
    assert sorted(ended["erased"]) == ["firstName", "title"]
    assert ended["retried_at"] is not None, "it waits for nobody"
    assert await pool.fetchval("SELECT key_norm FROM syncd.change_history WHERE id = $1", hers) == ""


async def test_a_claim_of_forgotten_people_alone_packs_nothing(pool: Pool, lease: Lease) -> None:
    await forget(pool)
    await enqueue(pool, "ada@example.com", firstName="Ada")
    async with lease.transaction() as connection:
        seen = await outbox.claimable(connection, "acme", PUSH, 100)
    assert (list(seen.changes), seen.refused) == ([], 1)
    assert await pool.fetchval("SELECT count(*) FROM syncd.outbox") == 0


async def test_urgent_ones_and_other_lookup_fields_are_known_too(pool: Pool, lease: Lease) -> None:
    await forget(pool, Person.of([*ADA.keys, ("crmNumber", "K1")]))
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'ada@example.com', '{\"title\": \"x\"}', priority => 'urgent')")
    for key, fields in (("7", {"title": "x"}), ("8", {"Email": "ADA@example.com"}), ("9", {"title": "x"})):
        await enqueue(pool, key, push="by id", **fields)
    for key in ("k1", "7"):
        await enqueue(pool, key, push="by number", title="x")
    async with lease.transaction() as connection:
        assert (await outbox.urgent(connection, "acme", PUSH, 100, NOW)).refused == 1
        assert (await outbox.claimable(connection, "acme", Push("by id", "id"), 100)).refused == 2
        assert (await outbox.claimable(connection, "acme", Push("by number", "crmNumber"), 100)).refused == 1
    assert await table(pool, "SELECT push, key FROM syncd.outbox ORDER BY 1, 2") == [("by id", "9"), ("by number", "7")]


# ── what it costs ──


async def test_where_nobody_is_forgotten_one_look_into_an_empty_table_is_all(pool: Pool) -> None:
    async with pool.acquire() as connection:
        asked: list[str] = []
        connection.add_query_logger(lambda record: asked.append(record.query))
        await forgetting.known_leads(connection, "acme", [row(n, f"{n}@example.com") for n in range(300)])
        await forgetting.refuse_changes(connection, "acme", "email", list(range(20_000)))
        await asyncio.sleep(0)  # loggers are called later
        assert asked == [forgetting.KEY_IF_NEEDED, forgetting.KEY_IF_NEEDED]


async def test_each_key_is_one_probe_of_an_index(pool: Pool) -> None:
    await pool.execute("INSERT INTO syncd.forgotten SELECT 'acme', sha256(n::text::bytea) FROM generate_series(1, 5000) n")
    ids = [await enqueue(pool, f"{n}@example.com", title="x") for n in range(50)]
    async with pool.acquire() as connection:
        plan = "\n".join(r[0] for r in await connection.fetch(f"EXPLAIN {forgetting.KNOWN}", "acme", [b"1", b"2"]))
        assert "forgotten_pkey" in plan
        explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {forgetting.CHANGES}"
        text = await connection.fetchval(explain, "acme", ids, "email")
    assert "forgotten_pkey" in text
    loops = [node["Actual Loops"] for node in walk(json.loads(text)[0]["Plan"]) if node.get("Index Name") == "forgotten_pkey"]
    assert loops == [50]


def walk(node: dict[str, object]) -> list[dict[str, object]]:
    plans = node.get("Plans", [])
    assert isinstance(plans, list)
    return [node, *(below for plan in plans for below in walk(plan))]
