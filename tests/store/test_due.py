"""What is to be read by id: noted once, dropped only by an answer that was asked for later, oldest first."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.core.route import Route
from syncd.core.windows import Window
from syncd.store import backfills, cursors, due, planning, pulls, routes
from syncd.store.due import Due
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import started, table, until_blocked

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
LEAD = """
INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at, deleted_at)
VALUES ('acme', $1, '{}', $2, $3, $3, $3, $4)
"""

LEADS = """
INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT 'acme', n, '{}', '{}', $1, $1, $1 FROM generate_series(1, $2::bigint) n
"""
LOADED = """
INSERT INTO syncd.export (instance, pull, window_id, state, export_id, fields, wanted, begun_at, asked_at, ended_at)
VALUES ('acme', 'people', $1, 'loaded', 'e1', '{id}', '{}', $2, $2, $2)
"""
MANY = """
INSERT INTO syncd.lead_due
SELECT 'acme', 'people', n, 'listed', $1::timestamptz + n * interval '1 millisecond' FROM generate_series(1, $2::bigint) n
"""


async def note(lease: Lease, ids: list[int], at: datetime, reason: due.Reason = "changed", window: int | None = None) -> None:
    async with lease.transaction() as connection:
        await due.note(connection, "acme", "people", ids, reason, at, window)


async def rows(pool: Pool) -> list[Any]:
    return await table(pool, "SELECT lead_id, pull, reason, noted_at FROM syncd.lead_due ORDER BY 2, 1")


async def read(lease: Lease, ids: list[int], asked: datetime, taken: datetime = T[0]) -> list[int]:
    """An answer for ids that had been due since `taken` when they were asked for."""
    async with lease.transaction() as connection:
        return await due.read(connection, "acme", "people", [Due(taken, lead_id) for lead_id in ids], asked)


async def test_a_lead_is_due_once_and_by_its_latest_note(lease: Lease) -> None:
    await note(lease, [3, 1, 3], T[1])
    await note(lease, [1, 2], T[2], "winner")
    await note(lease, [], T[3])
    assert await rows(lease.pool) == [(1, "people", "winner", T[2]), (2, "people", "winner", T[2]), (3, "people", "changed", T[1])]
    assert await due.count(lease.pool, "acme", "people") == 3
    assert await due.oldest(lease.pool, "acme", "people") == T[1]
    assert (await due.count(lease.pool, "acme", "other"), await due.oldest(lease.pool, "acme", "other")) == (0, None)


async def test_the_oldest_are_taken_and_the_next_behind_them(lease: Lease) -> None:
    await note(lease, [5, 4, 9], T[2])
    await note(lease, [7], T[1])
    taken = await due.take(lease.pool, "acme", "people", [], 2)
    assert taken == [Due(T[1], 7), Due(T[2], 4)]
    assert await due.take(lease.pool, "acme", "people", [7, 4], 300) == [Due(T[2], 5), Due(T[2], 9)]


async def test_news_are_taken_before_what_a_fill_has_listed(lease: Lease) -> None:
    await note(lease, [1, 2, 3], T[1], "listed")
    await note(lease, [8], T[3])
    await note(lease, [2], T[4], "winner")
    await note(lease, [8], T[5], "listed")
    assert [each.lead_id for each in await due.take(lease.pool, "acme", "people", [], 3)] == [2, 8, 1]
    assert [each.lead_id for each in await due.take(lease.pool, "acme", "people", [2, 1], 3)] == [8, 3]


async def test_only_an_answer_that_was_asked_for_later_satisfies(lease: Lease) -> None:
    await note(lease, [1, 2], T[1])
    await note(lease, [2], T[3])
    await read(lease, [1, 2, 77], T[2], T[1])
    assert [row[0] for row in await rows(lease.pool)] == [2]
    await read(lease, [2], T[3])
    assert await rows(lease.pool) == []


async def test_the_note_of_a_clock_that_was_ahead_is_satisfied_now(lease: Lease) -> None:
    await note(lease, [1], T[9])
    await read(lease, [1], T[2], taken=T[9])
    assert await rows(lease.pool) == []


async def test_what_was_noted_since_it_was_asked_for_stays_whatever_the_clock_says(lease: Lease) -> None:
    """Also what was noted after the answer began to be written, which a clock would call a time to come."""
    for again_at in (T[4], T[9]):
        await note(lease, [1], T[1])
        await note(lease, [1], again_at)
        await read(lease, [1], T[3], taken=T[1])
        assert await rows(lease.pool) == [(1, "people", "changed", again_at)]


async def test_a_window_of_ids_is_done_when_all_are_read(lease: Lease) -> None:
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "one", T[0], T[0], False)
        backfill = await backfills.order(connection, "acme", "people", None, "why")
        await planning.plan_backfill(connection, "acme", "people", "bulk_extract", [Window(T[0], T[1])], backfill, T[1])
        window = await connection.fetchval("UPDATE syncd.pull_window SET ids_only = true RETURNING id")
        await connection.execute(LOADED, window, T[1])
    await note(lease, [2], T[1])
    await note(lease, [1, 2, 3], T[1], "listed", window)
    await note(lease, [3], T[5])
    for ids, asked, finished in (([1], T[2], False), ([2, 3], T[3], False), ([3], T[6], True)):
        (found,) = await read(lease, ids, asked)
        assert found == window
        async with lease.transaction() as connection:
            assert await cursors.finish_if_read(connection, window, asked) is finished
    assert await table(lease.pool, "SELECT state, finished_at FROM syncd.pull_window") == [("done", T[6])]
    assert await table(lease.pool, "SELECT finished_at FROM syncd.backfill") == [(T[6],)]
    async with lease.transaction() as connection:
        assert not await cursors.finish_if_read(connection, window, T[7])


async def test_the_winner_of_a_merge_is_due_for_the_pulls_that_have_one_of_the_merged(lease: Lease) -> None:
    for lead_id, digests in ((1, {"people": "d"}), (2, {"work": "d"}), (3, {}), (4, {"people": "d", "gone": "d"})):
        await lease.pool.execute(LEAD, lead_id, json.dumps(digests), T[0], None)
    async with lease.transaction() as connection:
        await due.note_winners(connection, "acme", ["people", "work"], [(1, 1), (1, 2), (3, 3), (3, 4), (9, 9)], T[1])
    assert await rows(lease.pool) == [
        (1, "people", "winner", T[1]),
        (3, "people", "winner", T[1]),
        (1, "work", "winner", T[1]),
    ]


async def test_a_pull_that_follows_the_log_is_to_have_every_winner(lease: Lease) -> None:
    """Beside a fill: updated by the merge, the winner has left its windows, and where it lacked nothing no change is logged."""
    async with lease.transaction() as connection:
        await pulls.register(connection, "acme", "people", "selector", T[0], T[0], False)
        await pulls.register(connection, "acme", "work", "selector", T[0], T[0], False)
        await routes.choose(connection, "acme", "people", Route(False, False, "activities", "a test"), T[0])
        await due.note_winners(connection, "acme", ["people", "work"], [(9, 9), (9, 10)], T[1])
    assert await rows(lease.pool) == [(9, "people", "winner", T[1])]


async def test_all_that_a_pull_has_is_due_again(lease: Lease) -> None:
    for lead_id, pull, deleted_at in ((1, "people", None), (2, "people", T[1]), (3, "work", None)):
        await lease.pool.execute(LEAD, lead_id, json.dumps({pull: "d"}), T[0], deleted_at)
    async with lease.transaction() as connection:
        assert await due.note_held(connection, "acme", "people", "listed", T[2]) == 1
    assert await rows(lease.pool) == [(1, "people", "listed", T[2])]


async def test_which_answers_came_too_late(lease: Lease) -> None:
    for lead_id, asked, deleted_at in ((1, T[1], None), (2, T[3], None), (3, T[1], T[3]), (4, T[9], None)):
        await lease.pool.execute(LEAD, lead_id, "{}", asked, deleted_at)
    async with lease.transaction() as connection:
        assert await due.overtaken(connection, "acme", [1, 2, 3, 4, 5], T[2], T[4]) == {2, 3}


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_what_is_due_is_found_by_walks_of_indexes(lease: Lease, mode: str) -> None:
    """On tables that nobody has analyzed, as in a first fill: other plans took 20 s of 200,000."""
    await lease.pool.execute(MANY, T[0], 20_000)
    await lease.pool.execute("INSERT INTO syncd.lead_due SELECT 'acme', 'other', n, 'listed', $1 FROM generate_series(1, 400) n", T[0])
    await lease.pool.execute(LEADS, T[0], 3_000)
    ids = list(range(900, 1200))
    for query, arguments, most in (
        (due.TAKE, ("acme", "people", ids, 300), 600),
        (due.TAKE, ("acme", "other", [], 300), 300),
        (due.READ, ("acme", "people", ids, [T[1]] * len(ids), T[5]), 1),
        (due.OVERTAKEN, ("acme", ids, T[5], T[6]), 1),
        (due.OLDEST, ("acme", "people"), 1),
    ):
        async with lease.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
            plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments))
            await transaction.rollback()
        walked: list[float] = []
        visit(plan[0]["Plan"], walked)
        assert walked
        assert max(walked) <= most, query


def visit(node: dict[str, Any], walked: list[float]) -> None:
    if "Scan" in node["Node Type"] and "Relation Name" in node:
        assert node["Node Type"] != "Seq Scan"
        walked.append(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    for child in node.get("Plans", ()):
        visit(child, walked)


async def test_reading_and_noting_never_wait_for_each_other(pool: Pool, lease: Lease) -> None:
    """Both go by the leads' ids: in the order in which they were taken, a note of two leads and their reading deadlocked."""
    await note(lease, [2], T[0])
    await note(lease, [1], T[1])
    taken = await due.take(pool, "acme", "people", [], 10)
    assert [each.lead_id for each in taken] == [2, 1]

    async def read() -> None:
        async with lease.transaction() as connection:
            await due.read(connection, "acme", "people", taken, T[5])

    async with lease.transaction() as connection:
        await due.note(connection, "acme", "people", [1], "changed", T[6])
        reading = started(read())
        await until_blocked(pool, reading)
        await due.note(connection, "acme", "people", [2], "changed", T[6])
    await reading
    assert await table(pool, "SELECT lead_id FROM syncd.lead_due ORDER BY 1") == [(1,), (2,)]
