"""Deletions and merges: marked whatever was in flight, and taken back by what was asked for later."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from syncd.core.mirror import Dictionary, mirror_row
from syncd.core.values import LeadRecord
from syncd.store import gone, leads, story
from syncd.store.gone import Gone
from syncd.store.leads import Asker, Upserted
from syncd.store.leases import Connection, Lease, Pool
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
ASKER = Asker("people", "123abc", ("f",))


@pytest.fixture(autouse=True)
async def _history(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await leads.ensure_history(connection, "acme", T[0].date())


async def answered(connection: Connection | Pool, asked: datetime, *ids: int, now: datetime | None = None, f: str = "a") -> Upserted:
    rows = [mirror_row(LeadRecord(lead_id, "a@x", [("f", "string", f)]), Dictionary({})) for lead_id in ids]
    return await leads.upsert(connection, "acme", ASKER, rows, asked, now or asked + timedelta(seconds=1))  # type: ignore[arg-type]


async def went(lease: Lease, now: datetime, *each: Gone, history: bool = True) -> int:
    async with lease.transaction() as connection:
        return await gone.note(connection, "acme", each, now, history)


async def again(lease: Lease, since: datetime, now: datetime) -> int:
    async with lease.transaction() as connection:
        return await gone.reapply(connection, "acme", since, now, True)


async def mirror(pool: Pool) -> list[Any]:
    return await table(pool, "SELECT lead_id, deleted_at, merged_into FROM syncd.lead ORDER BY 1")


async def history(pool: Pool) -> list[Any]:
    return await table(pool, "SELECT lead_id, pull, field, old, new FROM syncd.lead_history ORDER BY seen_at, lead_id, field")


async def test_what_went_is_marked_and_told_once(lease: Lease) -> None:
    await answered(lease.pool, T[0], 1, 2, 3)
    assert await went(lease, T[3], Gone(1, T[2]), Gone(2, T[2], 3), Gone(9, T[2])) == 2
    assert await mirror(lease.pool) == [(1, T[2], None), (2, T[2], 3), (3, None, None)]
    assert await table(lease.pool, "SELECT changed_at FROM syncd.lead WHERE lead_id = 1") == [(T[3],)]
    told = [(lead_id, "#deletions", "deleted_at", None, '"2026-03-02T12:02:00+00:00"') for lead_id in (1, 2)]
    assert await history(lease.pool) == told
    assert await went(lease, T[4], Gone(1, T[2])) == 0
    assert await again(lease, T[0], T[5]) == 0
    assert await history(lease.pool) == told


async def test_a_merge_that_is_a_deletion_too_is_a_merge_in_either_order(lease: Lease) -> None:
    await answered(lease.pool, T[0], 1, 2, 3, 4)
    await went(lease, T[3], Gone(1, T[2]))
    await went(lease, T[4], Gone(1, T[2], 4))
    await went(lease, T[3], Gone(2, T[2], 4))
    await went(lease, T[4], Gone(2, T[2]))
    await went(lease, T[4], Gone(3, T[2]), Gone(3, T[1], 4))
    assert (await mirror(lease.pool))[:3] == [(1, T[2], 4), (2, T[2], 4), (3, T[1], 4)]
    assert len(await history(lease.pool)) == 3


async def test_an_answer_asked_for_later_brings_it_back_and_its_story_tells(lease: Lease) -> None:
    await answered(lease.pool, T[0], 1)
    await went(lease, T[3], Gone(1, T[2], 7))
    assert await answered(lease.pool, T[4], 1) == Upserted(0, 1)
    assert await mirror(lease.pool) == [(1, None, None)]
    assert await again(lease, T[0], T[5]) == 0
    assert await mirror(lease.pool) == [(1, None, None)]
    assert (await history(lease.pool))[1:] == [(1, "people", "deleted_at", '"2026-03-02T12:02:00+00:00"', None)]
    (told,) = await story.stories(lease.pool, "acme", "1", {}, 10)
    assert [type(event).__name__ for event in told.events] == ["Seen", "Deleted", "Changed"]
    await went(lease, T[6], Gone(1, T[5]))
    (told,) = await story.stories(lease.pool, "acme", "1", {}, 10)
    assert [(type(event).__name__, event.at) for event in told.events][-1] == ("Deleted", T[5])
    assert [type(event).__name__ for event in told.events] == ["Seen", "Deleted", "Changed", "Deleted"]


async def test_a_page_in_flight_does_not_bring_back_what_went(lease: Lease) -> None:
    """It was asked for before the deletion, and is written after: of a lead that the mirror had, and of one that it had not."""
    await answered(lease.pool, T[0], 1)
    await went(lease, T[3], Gone(1, T[2]), Gone(2, T[2]))
    assert await answered(lease.pool, T[1], 1, 2, now=T[4], f="b") == Upserted(1, 0, refused=1)
    assert await mirror(lease.pool) == [(1, T[2], None), (2, None, None)]
    assert [line[2] for line in await history(lease.pool)] == ["deleted_at"], "a row that is refused tells nothing"
    assert await again(lease, T[2] + timedelta(seconds=1), T[5]) == 0, "that was before"
    assert await again(lease, T[0], T[5]) == 1
    assert await mirror(lease.pool) == [(1, T[2], None), (2, T[2], None)]


async def test_an_answer_of_a_time_to_come_does_not_keep_it(lease: Lease) -> None:
    await answered(lease.pool, T[9], 1)
    assert await went(lease, T[3], Gone(1, T[2])) == 1


async def test_without_history_nothing_is_told(lease: Lease) -> None:
    await answered(lease.pool, T[0], 1)
    assert await went(lease, T[3], Gone(1, T[2]), history=False) == 1
    assert await history(lease.pool) == []


async def test_they_are_forgotten(lease: Lease) -> None:
    await went(lease, T[3], Gone(1, T[1]), Gone(2, T[3]))
    async with lease.transaction() as connection:
        await gone.forget(connection, "acme", T[2])
    assert await table(lease.pool, "SELECT lead_id FROM syncd.lead_gone") == [(2,)]


async def test_a_page_and_a_deletion_at_once_do_not_deadlock(database: str, lease: Lease) -> None:
    numbers = list(range(300))
    await answered(lease.pool, T[0], *numbers)
    page = await asyncpg.connect(database)
    for attempt in range(5):
        each = [Gone(number, T[2 + attempt]) for number in numbers[::-1]]
        await asyncio.wait_for(
            asyncio.gather(went(lease, T[3 + attempt], *each), answered(page, T[1], *numbers, now=T[9], f=str(attempt))), 20
        )
        await lease.pool.execute("UPDATE syncd.lead SET deleted_at = NULL, asked_at = $1", T[0])
    await page.close()


async def test_the_mirror_is_probed_by_its_key(lease: Lease) -> None:
    await answered(lease.pool, T[0], *range(3000))
    await went(lease, T[3], *(Gone(number, T[2]) for number in range(5000, 8000)))
    for query, arguments in (
        (gone.MARK, ("acme", list(range(4900, 5100)), T[4], True, "#deletions")),
        (gone.SINCE, ("acme", T[5])),
    ):
        async with lease.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            plan = json.loads(await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *arguments))
            await transaction.rollback()
        walked: list[float] = []
        visit(plan[0]["Plan"], walked)
        assert max(walked) <= 1, walked


def visit(node: dict[str, Any], walked: list[float]) -> None:
    if node.get("Relation Name") in ("lead", "lead_gone") and "Scan" in node["Node Type"]:
        assert node["Node Type"] != "Seq Scan"
        walked.append(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    for child in node.get("Plans", ()):
        visit(child, walked)
