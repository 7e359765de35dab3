"""What becomes of rows that go, where a push's `on_delete` says something."""

from typing import Any

import asyncpg
import pytest

from tests.cli.conftest import Run, Yaml
from tests.cli.test_attach import ADA, NEW_ADA, attached, both, changes, written
from tests.cli.test_attach_again import TRACES
from tests.cli.test_attach_faults import faults, in_check

ON_DELETE = {"unsubscribed": "true", "leadScore": None}
GONE = ("ada@example.com", ON_DELETE)
NEW_GRACE = ("grace@example.com", {"firstName": "Grace", "leadScore": 2, "leadSource": "CRM"})


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM crm.contact WHERE id = 1", [GONE]),
        ("DELETE FROM crm.contact WHERE id = 2", []),
        ("DELETE FROM crm.contact", [GONE]),
        ("DELETE FROM crm.contact WHERE false", []),
        ("UPDATE crm.contact SET score = 7 WHERE id = 1", [("ada@example.com", {"leadScore": 7})]),
        ("UPDATE crm.contact SET consent = false, score = 3 WHERE id = 1", [GONE]),
        ("UPDATE crm.contact SET consent = NOT consent", [GONE, NEW_GRACE]),
        ("UPDATE crm.contact SET email = 'ada@example.org' WHERE id = 1", [GONE, ("ada@example.org", NEW_ADA[1])]),
        ("UPDATE crm.contact SET email = 'ADA@example.com' WHERE id = 1", [("ADA@example.com", NEW_ADA[1])]),
        ("UPDATE crm.contact SET id = 3 WHERE id = 1", [NEW_ADA]),
        ("UPDATE crm.contact SET email = NULL WHERE id = 1", [GONE]),
        ("DELETE FROM crm.contact; " + ADA, [GONE, NEW_ADA]),
        ("TRUNCATE crm.contact", []),
        ("BEGIN; DELETE FROM crm.contact; ROLLBACK", []),
        (
            "MERGE INTO crm.contact c USING (VALUES (1), (2)) v (id) ON c.id = v.id"
            " WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET consent = true",
            [GONE, NEW_GRACE],
        ),
    ],
)
async def test_what_becomes_of_rows_that_go(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, statement: str, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", on_delete=ON_DELETE)
    assert sorted(await written(pool, statement), key=str) == sorted(expected, key=str)


async def test_two_rows_that_change_their_keys_for_each_others_are_still_there(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", where=None, on_delete=ON_DELETE)
    swap = "UPDATE crm.contact SET email = CASE id WHEN 1 THEN 'grace@example.com' ELSE 'ada@example.com' END"
    assert sorted(await written(pool, swap)) == [("ada@example.com", NEW_GRACE[1]), ("grace@example.com", NEW_ADA[1])]


async def test_what_a_cascade_deletes_goes_as_well(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await pool.execute("CREATE TABLE crm.firm (id int PRIMARY KEY); INSERT INTO crm.firm VALUES (1)")
    await pool.execute("ALTER TABLE crm.contact ADD firm int DEFAULT 1 REFERENCES crm.firm ON DELETE CASCADE")
    await attached(syncd, yaml, "--no-backfill", on_delete=ON_DELETE)
    assert await written(pool, "DELETE FROM crm.firm") == [GONE]


async def test_a_fault_fails_no_delete(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", on_delete=ON_DELETE, where="1 / score > 0.1")
    for statement in ("DISABLE TRIGGER USER", "ENABLE TRIGGER USER"):
        await pool.execute(f"ALTER TABLE crm.contact {statement}; UPDATE crm.contact SET score = 0 WHERE score <> 0")
    assert await written(pool, "DELETE FROM crm.contact") == []
    assert await pool.fetchval("SELECT count(*) FROM crm.contact") == 0
    assert await faults(pool) == [("22012", 1, 2)]


async def test_rows_that_never_were_sent_are_not_counted_when_they_go(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    await attached(syncd, yaml, "--no-backfill", on_delete=ON_DELETE)
    await pool.execute("INSERT INTO crm.contact (id, email) VALUES (10, NULL), (11, repeat('é', 501))")
    before = await faults(pool)
    assert await written(pool, "DELETE FROM crm.contact WHERE id > 9") == []
    assert await faults(pool) == before


async def test_attaching_with_it_is_another_mapping_and_detaching_leaves_no_trace(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await both(pool)
    before = await pool.fetch(TRACES)
    await attached(syncd, yaml)
    assert "plan 2: 1 changes" in await attached(syncd, yaml, on_delete=ON_DELETE)
    assert (await in_check(pool, yaml))[0].startswith("✓")
    await pool.execute("DROP TRIGGER syncd_attached_1_delete ON crm.contact")
    assert "triggers of crm.contact are missing or disabled" in (await in_check(pool, yaml))[0]
    assert "plan 3" in await attached(syncd, yaml, on_delete=ON_DELETE)
    assert await written(pool, "DELETE FROM crm.contact") == [GONE]
    assert (await syncd("detach", "-c", yaml.file, "--push", "contacts")).code == 0
    assert await pool.fetch(TRACES) == before
    assert await changes(pool) == [GONE]
