"""What a dry run reads comes by indexes, page after page, in a transaction that can't write."""

import asyncpg
import pytest

from syncd.store import dryrun
from syncd.store.dryrun import Priority, Section
from syncd.store.leases import Connection, Pool
from tests.store.outgoing import enqueue

PLAN = """
INSERT INTO syncd.plan (instance, push, kind, state, reason, made_at)
VALUES ('acme', 'contacts', 'backfill', 'waiting', 'a test', now()) RETURNING id
"""

MANY = """
INSERT INTO syncd.outbox (instance, push, key, fields, state, plan_id)
SELECT 'acme', CASE n % 4 WHEN 0 THEN 'contacts' ELSE 'others' END, format('p%s@x', n), '{"a": 1}',
       CASE n % 3 WHEN 0 THEN 'held' ELSE 'pending' END, CASE n % 6 WHEN 0 THEN 1 END
  FROM generate_series(1, 9000) n
"""


@pytest.mark.parametrize(
    ("query", "arguments", "index"),
    [
        (dryrun.PENDING, ("acme", "contacts", 5, 20_000), "outbox_claimable"),
        (dryrun.URGENT, ("acme", "contacts", 5, 300), "outbox_urgent"),
        (dryrun.HELD, ("acme", "contacts", 5, 20_000, "normal", [1]), "outbox_set_aside"),
        (dryrun.PLANNED, ("acme", "contacts", 5, 20_000, "normal", 1), "outbox_of_plan"),
        (dryrun.PENDING_OF_KEYS, ("acme", "contacts", ["a"], [1]), "outbox_by_key"),
        (dryrun.HELD_OF_KEYS, ("acme", "contacts", ["a"], [1], None, [7]), "outbox_by_key"),
        (dryrun.WAITING, ("acme", "contacts"), "outbox_waiting"),
        (dryrun.AGAIN, ("acme", "contacts", ["a"], 5), "outbox_by_key"),
        (dryrun.RARE, ([1, 2], [3]), "outbox_in_chunk"),
        (dryrun.COUNTS, ("acme", "contacts"), "outbox_by_key"),
    ],
)
async def test_each_page_is_a_walk_of_an_index(pool: Pool, query: str, arguments: tuple[object, ...], index: str) -> None:
    await pool.execute(MANY)
    await pool.execute("ANALYZE syncd.outbox")
    found = "\n".join(row[0] for row in await pool.fetch(f"EXPLAIN {query}", *arguments))
    assert index in found, found
    assert "Seq Scan on outbox" not in found


async def test_sections_are_told_apart(pool: Pool) -> None:
    plan_id = await pool.fetchval(PLAN)
    ids = [await enqueue(pool, f"{number}@x", one=number) for number in range(6)]
    await pool.execute("UPDATE syncd.outbox SET state = 'held', plan_id = $1 WHERE id = ANY ($2::bigint[])", plan_id, ids[:2])
    await pool.execute("UPDATE syncd.outbox SET state = 'held' WHERE id = $1", ids[2])
    await pool.execute("UPDATE syncd.outbox SET priority = 'urgent' WHERE id = ANY ($1::bigint[])", [ids[1], ids[5]])

    async with dryrun.snapshot(pool) as connection:
        assert await _both(connection, Section("pending")) == [[ids[3], ids[4]], [ids[5]]]
        assert await _both(connection, Section("held")) == [[ids[0], ids[2]], [ids[1]]]
        assert await _both(connection, Section("held", plan_id)) == [[ids[0]], [ids[1]]]
        assert await _both(connection, Section("held", None, [plan_id])) == [[ids[2]], []]
        assert await dryrun.counts(connection, "acme", "contacts") == dryrun.Counts(3, 3, 0)


async def _both(connection: Connection, section: Section) -> list[list[int]]:
    """Ids of the normal and of the urgent ones."""
    priorities: tuple[Priority, ...] = ("normal", "urgent")
    return [[row["id"] for row in await dryrun.oldest(connection, "acme", "contacts", section, each, 0, 9)] for each in priorities]


async def test_a_snapshot_cannot_write(pool: Pool) -> None:
    async with dryrun.snapshot(pool) as connection:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await enqueue(connection, "a@x", one=1)
