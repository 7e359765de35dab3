"""The mirror: newer answers win, unchanged leads cost nothing, and pulls leave each other's fields alone."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from syncd.core.mirror import Dictionary, MirrorRow, mirror_row
from syncd.core.values import LeadRecord
from syncd.store import leads
from syncd.store.leads import Upserted
from syncd.store.leases import Connection, Pool
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
OWNED = ("f", "g")


def lead(lead_id: int, email: str | None = "a@x", **fields: tuple[str, str] | str) -> MirrorRow:
    typed = {name: ("string", value) if isinstance(value, str) else value for name, value in fields.items()}
    return mirror_row(LeadRecord(lead_id, email, [(name, *value) for name, value in typed.items()]), Dictionary({}))


async def upsert(
    connection: Connection | Pool, rows: Sequence[MirrorRow], asked: datetime, pull: str = "people", owned: Sequence[str] | None = OWNED
) -> Upserted:
    return await leads.upsert(connection, "acme", pull, rows, owned, asked, asked + timedelta(seconds=1))  # type: ignore[arg-type]


async def mirror(pool: Pool, lead_id: int = 1) -> dict[str, Any]:
    row = await pool.fetchrow("SELECT attributes, coalesce(misfits, '{}') AS misfits FROM syncd.lead WHERE lead_id = $1", lead_id)
    assert row is not None
    attributes: dict[str, Any] = json.loads(row["attributes"])
    return attributes | {f"misfit {name}": value for name, value in json.loads(row["misfits"]).items()}


async def versions(pool: Pool) -> list[Any]:
    return await table(pool, "SELECT lead_id, xmin::text, ctid::text FROM syncd.lead ORDER BY 1")


async def wal(pool: Pool) -> int:
    return await pool.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")  # type: ignore[no-any-return]


async def test_new_changed_and_unchanged_leads_are_counted(pool: Pool) -> None:
    assert await upsert(pool, [lead(1, f="a"), lead(2, f="b")], T[0]) == Upserted(2, 0)
    assert await upsert(pool, [lead(1, f="a"), lead(2, f="c"), lead(3)], T[1]) == Upserted(1, 1)
    (row,) = await table(pool, "SELECT email, attributes, first_seen_at, changed_at, asked_at FROM syncd.lead WHERE lead_id = 2")
    assert row == ("a@x", '{"f": "c"}', T[0] + timedelta(seconds=1), T[1] + timedelta(seconds=1), T[1])


async def test_an_unchanged_lead_costs_no_byte(pool: Pool) -> None:
    page = [lead(number, f="x" * 100) for number in range(300)]
    await upsert(pool, page, T[0])
    before, written = await versions(pool), []
    for again in range(1, 6):  # the server itself writes a few bytes now and then
        at = await wal(pool)
        assert await upsert(pool, page, T[again]) == Upserted(0, 0)
        written.append(await wal(pool) - at)
    assert min(written) == 0
    assert await versions(pool) == before


async def test_a_mirror_that_was_never_analyzed_is_probed_by_its_key(pool: Pool) -> None:
    """A plan that walks the whole mirror for each page makes the first pull quadratic."""
    await upsert(pool, [lead(number) for number in range(3000)], T[0])
    page = list(range(300)), ["a@x"] * 300, ["{}"] * 300, ["{}"] * 300, ["digest"] * 300
    plan = await pool.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {leads.UPSERT}", "acme", *page, "people", None, T[1], T[1])
    walked: list[float] = []

    def visit(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == "lead" and "Scan" in node["Node Type"]:
            walked.append(node["Actual Rows"])
        for child in node.get("Plans", ()):
            visit(child)

    visit(json.loads(plan)[0]["Plan"])
    assert walked == [1]


async def test_an_older_answer_never_overwrites_a_newer_one(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="new")], T[2])
    assert await upsert(pool, [lead(1, f="old")], T[1]) == Upserted(0, 0, refused=1)
    assert await mirror(pool) == {"f": "new"}


async def test_an_older_answer_does_not_resurrect_a_deleted_lead_and_a_newer_one_does(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a")], T[0])
    await pool.execute("UPDATE syncd.lead SET deleted_at = $1", T[2])
    for row, refused in ((lead(1, f="a"), 0), (lead(1, f="b"), 1)):
        assert await upsert(pool, [row], T[1]) == Upserted(0, 0, refused)
    assert await pool.fetchval("SELECT deleted_at FROM syncd.lead") == T[2]
    assert await upsert(pool, [lead(1, f="a")], T[3]) == Upserted(0, 1)
    assert await pool.fetchval("SELECT deleted_at FROM syncd.lead") is None


async def test_two_pulls_of_other_fields_do_not_undo_each_other(pool: Pool) -> None:
    async def both(asked: datetime) -> tuple[Upserted, Upserted]:
        return await upsert(pool, [lead(1, f="a")], asked, "one", ["f"]), await upsert(pool, [lead(1, g="b")], asked, "two", ["g"])

    await both(T[0])
    assert await mirror(pool) == {"f": "a", "g": "b"}
    assert await both(T[1]) == (Upserted(0, 0), Upserted(0, 0))
    before = await versions(pool)
    assert await both(T[2]) == (Upserted(0, 0), Upserted(0, 0))
    assert await versions(pool) == before


async def test_what_one_pull_changes_the_other_sees_again(pool: Pool) -> None:
    """Both ask for f: the answer that the mirror had before is news once more."""
    for asked, pull, value in ((0, "one", "a"), (1, "two", "b"), (2, "one", "a")):
        await upsert(pool, [lead(1, f=value)], T[asked], pull, ["f"])
    assert await mirror(pool) == {"f": "a"}


async def test_owned_fields_are_emptied_and_others_kept(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a", g="b", h="c", n=("integer", "x"))], T[0])
    await upsert(pool, [lead(1, g="b")], T[1], owned=["f", "g", "n"])
    assert await mirror(pool) == {"g": "b", "h": "c"}


async def test_a_pull_of_all_fields_without_a_dictionary_empties_whatever_is_absent(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a", g="b", n=("integer", "x"))], T[0], owned=None)
    await upsert(pool, [lead(1, g="b")], T[1], owned=None)
    assert await mirror(pool) == {"g": "b"}


async def test_a_value_moves_to_the_misfits_and_back(pool: Pool) -> None:
    await upsert(pool, [lead(1, f=("integer", "5"))], T[0])
    await upsert(pool, [lead(1, f=("integer", "five"))], T[1])
    assert await mirror(pool) == {"misfit f": "five"}
    await upsert(pool, [lead(1, f=("integer", "6"))], T[2])
    assert await mirror(pool) == {"f": 6}
    assert await pool.fetchval("SELECT misfits FROM syncd.lead") is None


async def test_numbers_are_kept_to_the_last_digit(pool: Pool) -> None:
    await upsert(pool, [lead(1, f=("integer", "12345678901234567890123"), g=("currency", "1.10"))], T[0])
    assert await pool.fetchval("SELECT attributes FROM syncd.lead") == '{"f": 12345678901234567890123, "g": 1.10}'


async def test_the_email_comes_and_goes(pool: Pool) -> None:
    await upsert(pool, [lead(1, email="None")], T[0])
    assert await upsert(pool, [lead(1, email=None)], T[1]) == Upserted(0, 1)
    assert await pool.fetchval("SELECT email FROM syncd.lead") is None


async def test_of_a_lead_that_comes_twice_in_a_page_the_last_stays(pool: Pool) -> None:
    assert await upsert(pool, [lead(1, f="a"), lead(2), lead(1, f="b")], T[0]) == Upserted(2, 0)
    assert await mirror(pool) == {"f": "b"}


async def test_an_empty_page_is_written(pool: Pool) -> None:
    assert await upsert(pool, [], T[0]) == Upserted(0, 0)


@pytest.mark.parametrize("known", [False, True])
async def test_two_writers_of_the_same_leads_in_other_orders_do_not_deadlock(database: str, pool: Pool, known: bool) -> None:
    one, two = await asyncpg.connect(database), await asyncpg.connect(database)
    numbers = list(range(400))
    if known:
        await upsert(pool, [lead(number) for number in numbers], T[0])
    for attempt in range(6):
        pages = [[lead(number, f=f"{attempt}{writer}") for number in order] for writer, order in enumerate((numbers, numbers[::-1]))]
        await asyncio.wait_for(asyncio.gather(upsert(one, pages[0], T[1]), upsert(two, pages[1], T[1])), 20)
    await one.close()
    await two.close()
    assert await pool.fetchval("SELECT count(*) FROM syncd.lead") == 400
