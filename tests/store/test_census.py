"""The census' statements walk indexes, however large the mirror is, and its counts are those of what was found."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from syncd.core.windows import Window
from syncd.store import census, cursors, planning, pulls
from syncd.store.leases import Lease
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
WINDOW = Window(T[0] - timedelta(days=30), T[0])
LEADS = """
INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT 'acme', n, '{}', '{"people": "d"}', $1, $1, $1 FROM generate_series($2::bigint, $3::bigint) n
"""


async def started(lease: Lease) -> census.Census:
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "one", T[0], T[0], False)
        await census.start(connection, "acme", [WINDOW], T[1])
    found = await census.latest(lease.pool, "acme")
    assert found is not None
    return found


async def test_ids_are_counted_once(lease: Lease) -> None:
    await started(lease)
    async with lease.transaction() as connection:
        await census.collect(connection, "acme", [3, 1, 3], T[0])
        await census.collect(connection, "acme", [1, 2], T[0] - timedelta(days=40))
    found = await census.latest(lease.pool, "acme")
    assert found is not None
    assert (found.leads, found.first_at) == (3, T[0] - timedelta(days=40))


async def test_what_is_due_already_is_no_drift(lease: Lease) -> None:
    await started(lease)
    await lease.pool.execute(LEADS, T[0], 1, 2)
    await lease.pool.execute("INSERT INTO syncd.lead_due VALUES ('acme', 'people', 3, 'changed', $1)", T[0])
    async with lease.transaction() as connection:
        await census.note_lacking(connection, "acme", "people", [1, 2, 3, 4], T[2], T[3])
    found = await census.latest(lease.pool, "acme")
    assert found is not None
    assert found.missing == 1
    assert await table(lease.pool, "SELECT lead_id, reason, noted_at FROM syncd.lead_due ORDER BY 1") == [
        (3, "changed", T[0]),
        (4, "census", T[3]),
    ]


async def test_a_pull_is_beyond_a_time_when_nothing_before_it_is_open(lease: Lease) -> None:
    await started(lease)

    async def beyond(moment: datetime) -> list[str]:
        async with lease.transaction() as connection:
            return await census.beyond(connection, "acme", ["people", "other"], moment)

    assert await beyond(T[0]) == [], "nothing was ever planned"
    async with lease.transaction() as connection:
        await planning.plan(connection, "acme", "people", "soap", [Window(T[0], T[3])], T[3], T[3])
    assert (await beyond(T[0]), await beyond(T[3])) == (["people"], [])
    async with lease.transaction() as connection:
        await cursors.finish(connection, await connection.fetchval("SELECT max(id) FROM syncd.pull_window"), 0, 0, T[3])
    assert (await beyond(T[3]), await beyond(T[4])) == (["people"], [])


async def test_suspects_come_in_slices(lease: Lease) -> None:
    await started(lease)
    await lease.pool.execute(LEADS, T[0], 1, 700)
    await lease.pool.execute(LEADS, T[5], 701, 710)
    async with lease.transaction() as connection:
        await census.collect(connection, "acme", [n for n in range(1, 701) if n % 2], T[0])
    after = 0
    found: list[int] = []
    for _ in range(10):
        some = await census.suspects(lease.pool, "acme", after, T[1], 300)
        if some.upto is None:
            break
        found += some.ids
        after = some.upto
    assert found == [n for n in range(1, 701) if not n % 2]


async def test_the_mirror_is_probed_by_its_key(lease: Lease) -> None:
    await started(lease)
    await lease.pool.execute(LEADS, T[0], 1, 3000)
    async with lease.transaction() as connection:
        await census.collect(connection, "acme", list(range(1, 3000, 2)), T[0])
    ids = list(range(2900, 3100))
    for query, arguments in (
        (census.COLLECT, ("acme", ids, T[0])),
        (census.NOTE_LACKING, ("acme", "people", ids, T[2], T[3])),
        (census.SUSPECTS, ("acme", 1000, T[2], 500, 300)),
        (census.FORGET_COMPARED, ("acme", 100, 200)),
        (census.FILLING, ("acme", "#census", T[2])),
        (census.BEYOND, ("acme", ["people"], T[2])),
    ):
        async with lease.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            if query == census.SUSPECTS:
                await connection.execute(census.IN_ORDER)
            plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments))
            await transaction.rollback()
        visit(plan[0]["Plan"])


def visit(node: dict[str, Any]) -> None:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        assert node["Node Type"] != "Seq Scan", node["Relation Name"]
        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 500
    for child in node.get("Plans", ()):
        visit(child)
