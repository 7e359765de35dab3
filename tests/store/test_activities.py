"""How far the log was read: looks overlap, each entry is dealt with once, and nothing is kept for longer than it is needed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.core.values import Activity
from syncd.store import activities
from syncd.store.activities import Start
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=5 * step) for step in range(20)]
OVERLAP = timedelta(minutes=15)
STREAM = "pull people"


async def began(lease: Lease, since: datetime = T[0], token: str = "first") -> None:
    async with lease.transaction() as connection:
        await activities.begin(connection, "acme", STREAM, since, token)


async def looked(lease: Lease, at: datetime, token: str) -> None:
    async with lease.transaction() as connection:
        await activities.finish(connection, "acme", STREAM, at, token, OVERLAP)


async def start(pool: Pool, look_at: datetime) -> Start | None:
    return await activities.start(pool, "acme", STREAM, look_at - OVERLAP)


async def tokens(pool: Pool) -> list[Any]:
    return [token for (token,) in await table(pool, "SELECT token FROM syncd.activity_token ORDER BY id")]


async def seen(lease: Lease, at: datetime, *guids: str, dated: datetime | None = None) -> list[str]:
    entries = [Activity(guid, 1, 13, dated or at) for guid in guids]
    async with lease.transaction() as connection:
        return [entry.guid for entry in await activities.unseen(connection, "acme", STREAM, entries, at, OVERLAP)]


async def test_a_new_stream_has_no_token(lease: Lease) -> None:
    assert await start(lease.pool, T[0]) is None
    assert await activities.last_look(lease.pool, "acme", STREAM) is None


async def test_a_look_begins_at_the_newest_token_that_is_older_than_the_overlap(lease: Lease) -> None:
    await began(lease)
    starts = []
    for step in range(1, 8):
        starts.append(await start(lease.pool, T[step]))
        await looked(lease, T[step], f"t{step}")
    assert [each and each.token for each in starts] == ["first", "first", "first", "t1", "t2", "t3", "t4"]
    assert await tokens(lease.pool) == ["t4", "t5", "t6", "t7"]
    assert await activities.last_look(lease.pool, "acme", STREAM) == T[7]


async def test_looks_that_follow_each_other_fast_keep_few_tokens(lease: Lease) -> None:
    await began(lease, T[0])
    for second in range(10, 3600, 10):
        at = T[0] + timedelta(seconds=second)
        found = await start(lease.pool, at)
        assert found is not None
        await looked(lease, at, str(second))
    left = await tokens(lease.pool)
    assert len(left) <= activities.TOKENS_PER_OVERLAP + 2
    assert int(left[0]) <= 3600 - OVERLAP.total_seconds()


async def test_a_look_goes_on_where_it_was(lease: Lease) -> None:
    await began(lease)
    await looked(lease, T[5], "end")
    for token in ("page 1", "page 2" * 5_000):
        async with lease.transaction() as connection:
            await activities.advance(connection, "acme", STREAM, T[9], token)
        assert await start(lease.pool, T[12]) == Start(token, T[9])
    await looked(lease, T[9], "end of it")
    assert await tokens(lease.pool) == ["end", "end of it"]
    assert await start(lease.pool, T[12]) == Start("end of it", None)


@pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta(minutes=20)])
async def test_a_clock_that_stepped_back_costs_no_entry(lease: Lease, ahead: timedelta) -> None:
    """Tokens of a time to come were obtained before: the oldest is used until a later one is old enough."""
    await began(lease)
    for step in range(1, 6):
        await looked(lease, T[step] + ahead, f"ahead {step}")
    starts = []
    for step in range(6, 11):
        starts.append(await start(lease.pool, T[step]))
        await looked(lease, T[step], f"t{step}")
    used = [each.token for each in starts if each]
    assert used[3:] == ["t6", "t7"]
    if ahead == timedelta(hours=5):
        assert used[:3] == ["ahead 2"] * 3
    assert await tokens(lease.pool) == ["t7", "t8", "t9", "t10"]


async def test_a_stream_begins_anew_with_one_token(lease: Lease) -> None:
    await began(lease)
    async with lease.transaction() as connection:
        await activities.advance(connection, "acme", STREAM, T[3], "page")
        await activities.begin(connection, "acme", STREAM, T[1], "anew")
    assert await tokens(lease.pool) == ["anew"]
    async with lease.transaction() as connection:
        await activities.forget(connection, "acme", STREAM)
    assert await start(lease.pool, T[3]) is None


async def test_each_entry_is_dealt_with_once(lease: Lease) -> None:
    await began(lease)
    assert await seen(lease, T[1], "a", "b", "a") == ["a", "b"]
    assert await seen(lease, T[2], "b", "c") == ["c"]
    assert await seen(lease, T[2]) == []


async def test_what_no_later_look_meets_is_not_kept(lease: Lease) -> None:
    await began(lease)
    old = T[12] - 2 * OVERLAP - timedelta(seconds=1)
    assert await seen(lease, T[12], "old", dated=old) == ["old"]
    assert await seen(lease, T[12], "new") == ["new"]
    assert await table(lease.pool, "SELECT guid FROM syncd.activity_seen") == [("new",)]
    for step in range(12, 20):
        await looked(lease, T[step], f"t{step}")
    assert await table(lease.pool, "SELECT guid FROM syncd.activity_seen") == [("new",)], "the oldest token is that of step 16"
    await looked(lease, T[19] + 2 * OVERLAP, "later")
    assert await table(lease.pool, "SELECT guid FROM syncd.activity_seen") == []


MANY = "INSERT INTO syncd.activity_seen SELECT 'acme', $1, 'old ' || n, $2 FROM generate_series(1, 20000) n"


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_the_log_is_found_by_walks_of_indexes(lease: Lease, mode: str) -> None:
    """And not by walks of all that was seen, on a table that nobody has analyzed."""
    await began(lease)
    await lease.pool.execute(MANY, STREAM, T[0])
    for query, arguments in (
        (activities.START, ("acme", STREAM, T[1])),
        (activities.SEE, ("acme", STREAM, ["old 1", "x"], T[1])),
        (activities.SEEN, ("acme", STREAM, [f"old {number}" for number in range(300)])),
        (activities.FORGET_SEEN, ("acme", STREAM, OVERLAP)),
        (activities.FORGET_OLDER, ("acme", STREAM, OVERLAP)),
    ):
        async with lease.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments))
            await transaction.rollback()
        visit(plan[0]["Plan"])


def visit(node: dict[str, Any]) -> None:
    if "Relation Name" in node and "Scan" in node["Node Type"]:
        assert node["Node Type"] != "Seq Scan"
        assert node["Actual Rows"] + node.get("Rows Removed by Filter", 0) <= 300
    for child in node.get("Plans", ()):
        visit(child)
