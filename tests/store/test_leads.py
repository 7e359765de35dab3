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
from syncd.store.leads import Asker, Upserted
from syncd.store.leases import Connection, Pool
from tests.store.outgoing import started, table, until_blocked

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
OWNED = ("f", "g")
PULLS = {"one": ["f"], "two": ["g"], "all": None}


@pytest.fixture(autouse=True)
async def _history(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await leads.ensure_history(connection, "acme", T[0].date())


def lead(lead_id: int, email: str | None = "a@x", **fields: tuple[str, str] | str) -> MirrorRow:
    typed = {name: ("string", value) if isinstance(value, str) else value for name, value in fields.items()}
    return mirror_row(LeadRecord(lead_id, email, [(name, *value) for name, value in typed.items()]), Dictionary({}))


async def upsert(
    connection: Connection | Pool,
    rows: Sequence[MirrorRow],
    asked: datetime,
    pull: str = "people",
    owned: Sequence[str] | None = OWNED,
    kept: Sequence[bool] | None = None,
    now: datetime | None = None,
    **more: Any,
) -> Upserted:
    others = {name: fields for name, fields in PULLS.items() if name != pull}
    asker = Asker(pull, **{"question": "123abc", "owned": owned, "others": others, **more})
    return await leads.upsert(connection, "acme", asker, rows, asked, now or asked + timedelta(seconds=1), kept)  # type: ignore[arg-type]


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


async def test_leads_that_are_all_new_are_written_as_others_are(pool: Pool) -> None:
    page = [lead(2, f="b", g=("integer", "no number")), lead(1, None, f="a"), lead(2, f="c"), lead(3)]
    asker = Asker("people", "123abc", OWNED)
    every = "SELECT email, attributes, misfits, digests, first_seen_at, changed_at, asked_at, deleted_at FROM syncd.lead ORDER BY lead_id"
    async with pool.acquire() as connection:
        assert await leads.insert(connection, "acme", asker, page, T[0], T[1]) == Upserted(3, 0)
        inserted = await table(pool, every)
        await connection.execute("DELETE FROM syncd.lead")
        assert await leads.upsert(connection, "acme", asker, page, T[0], T[1]) == Upserted(3, 0)
    assert await table(pool, every) == inserted


async def test_a_page_with_a_lead_that_is_known_is_not_taken_for_all_new(pool: Pool) -> None:
    await upsert(pool, [lead(2, f="a")], T[1])
    before = await versions(pool)
    asker = Asker("people", "123abc", OWNED)
    async with pool.acquire() as connection, connection.transaction():
        with pytest.raises(leads.NotAllNewError):
            await leads.insert(connection, "acme", asker, [lead(1), lead(2, f="b")], T[0], T[2])
        assert await connection.fetchval("SELECT true"), "an error would have ended the transaction, and stand in the server's log"
    assert await versions(pool) == before


async def test_what_another_stream_writes_at_this_moment_is_not_taken_for_new(pool: Pool) -> None:
    asker = Asker("people", "123abc", OWNED)
    async with pool.acquire() as other, other.transaction():
        await leads.insert(other, "acme", asker, [lead(2, f="a")], T[0], T[1])
        inserting = started(_insert(pool, asker, [lead(1), lead(2, f="b")]))
        await until_blocked(pool, inserting)
    with pytest.raises(leads.NotAllNewError):
        await asyncio.wait_for(inserting, 10)
    assert await table(pool, "SELECT lead_id, attributes FROM syncd.lead") == [(2, '{"f": "a"}')]


async def _insert(pool: Pool, asker: Asker, rows: list[MirrorRow]) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await leads.insert(connection, "acme", asker, rows, T[0], T[2])


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
    plan = await pool.fetchval(
        f"EXPLAIN (ANALYZE, FORMAT JSON) {leads.UPSERT}", "acme", *page, "people", None, T[1], T[1], None, "{}", True
    )
    walked: list[float] = []

    def visit(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == "lead" and "Scan" in node["Node Type"]:
            walked.append(node["Actual Rows"])
        for child in node.get("Plans", ()):
            visit(child)

    visit(json.loads(plan)[0]["Plan"])
    assert walked == [1, 1]  # by the anti-join, and by the lock that history needs


async def test_an_older_answer_never_overwrites_a_newer_one(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="new")], T[2])
    assert await upsert(pool, [lead(1, f="old")], T[1], now=T[4]) == Upserted(0, 0, refused=1)
    assert await mirror(pool) == {"f": "new"}


async def test_an_older_answer_never_overwrites_what_others_wrote_while_it_was_being_written(pool: Pool) -> None:
    """By this answer's clock the others are a little ahead, as it was read before they wrote."""
    later = T[1] + timedelta(seconds=30)
    await upsert(pool, [lead(1, f="new"), lead(2, f="new")], later)
    await pool.execute("UPDATE syncd.lead SET deleted_at = $1 WHERE lead_id = 2", later)
    assert await upsert(pool, [lead(1, f="old"), lead(2, f="old")], T[0], now=T[1]) == Upserted(0, 0, refused=2)
    assert (await mirror(pool), await mirror(pool, 2)) == ({"f": "new"}, {"f": "new"})
    assert await pool.fetchval("SELECT deleted_at FROM syncd.lead WHERE lead_id = 2") == later


async def test_an_older_answer_does_not_resurrect_a_deleted_lead_and_a_newer_one_does(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a")], T[0])
    await pool.execute("UPDATE syncd.lead SET deleted_at = $1", T[2])
    for row, refused in ((lead(1, f="a"), 0), (lead(1, f="b"), 1)):
        assert await upsert(pool, [row], T[1], now=T[4]) == Upserted(0, 0, refused)
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


async def history(pool: Pool) -> list[Any]:
    return await table(pool, "SELECT lead_id, pull, field, old, new FROM syncd.lead_history ORDER BY seen_at, lead_id, field")


async def test_each_change_of_a_field_becomes_a_line_of_history(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a", n=("integer", "1")), lead(2, f="b")], T[0], owned=["f", "g", "n"])
    assert await history(pool) == []  # first_seen_at tells that
    await upsert(pool, [lead(1, g="new", n=("integer", "many")), lead(2, email="b@x", f="b")], T[1], owned=["f", "g", "n"])
    assert await history(pool) == [
        (1, "people", "f", '"a"', None),
        (1, "people", "g", None, '"new"'),
        (1, "people", "n", "1", '"many"'),
        (2, "people", "email", '"a@x"', '"b@x"'),
    ]


async def test_what_was_never_asked_for_before_is_no_change(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a")], T[0], "one", ["f"])
    await upsert(pool, [lead(1, g="b")], T[1], "two", ["g"])
    await upsert(pool, [lead(1, f="a", h="c")], T[2], "one", ["f", "h"], question="456def")
    assert await history(pool) == []
    await upsert(pool, [lead(1, f="b")], T[3], "one", ["f", "h"], question="456def")
    assert await history(pool) == [(1, "one", "f", '"a"', '"b"'), (1, "one", "h", '"c"', None)]


async def test_a_change_that_another_pull_has_seen_already_is_told_once(pool: Pool) -> None:
    for minute, value in ((0, "a"), (2, "b")):
        for turn, pull in enumerate(("one", "two")):
            await upsert(pool, [lead(1, f=value)], T[minute + turn], pull, ["f"])
    assert await history(pool) == [(1, "one", "f", '"a"', '"b"')]


async def test_history_can_be_off(pool: Pool) -> None:
    for minute, value in enumerate("ab"):
        await upsert(pool, [lead(1, f=value)], T[minute], history=False)
    assert await history(pool) == []


async def test_a_pull_of_all_fields_and_one_of_a_few_come_to_rest(pool: Pool) -> None:
    """The second answers of an unmoved world write nothing, whichever came first."""
    for first, then in (("one", "all"), ("all", "one")):
        await pool.execute("TRUNCATE syncd.lead")
        for minute in range(4):
            if minute == 2:
                before = await versions(pool)
            name = (first, then)[minute % 2]
            fields = {"f": "a"} if name == "one" else {"f": "a", "g": "b"}
            await upsert(pool, [lead(1, **fields)], T[minute], name, PULLS[name])
        assert await versions(pool) == before
    assert await history(pool) == []


async def test_what_a_pull_does_not_keep_is_dropped_unless_it_has_kept_it_before(pool: Pool) -> None:
    rows = [lead(1, f="here"), lead(2, f="there")]
    assert await upsert(pool, rows, T[0], kept=[True, False]) == Upserted(1, 0, dropped=1)
    moved = [lead(1, f="there"), lead(2, f="elsewhere")]
    assert await upsert(pool, moved, T[1], kept=[False, False]) == Upserted(0, 1, dropped=1)
    assert await mirror(pool) == {"f": "there"}
    assert await upsert(pool, [lead(2, f="here")], T[2], "one", ["f"]) == Upserted(1, 0)
    assert await upsert(pool, moved, T[3], kept=[False, False]) == Upserted(0, 0, dropped=1), "another pull's leads are none of ours"


async def test_an_older_answer_writes_no_history(pool: Pool) -> None:
    await upsert(pool, [lead(1, f="a")], T[0])
    await upsert(pool, [lead(1, f="c")], T[3])
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        assert (await upsert(connection, [lead(1, f="b")], T[2], now=T[4])).refused == 1
        await transaction.rollback()  # as a flow does, which then asks anew
    assert await history(pool) == [(1, "people", "f", '"a"', '"c"')]


async def test_two_pulls_of_one_change_at_once_write_one_line(database: str, pool: Pool) -> None:
    for pull in ("one", "two"):
        await upsert(pool, [lead(1, f="a")], T[0], pull, ["f"])
    one, two = await asyncpg.connect(database), await asyncpg.connect(database)
    transaction = one.transaction()
    await transaction.start()
    await upsert(one, [lead(1, f="b")], T[1], "one", ["f"])
    waiting = asyncio.ensure_future(upsert(two, [lead(1, f="b")], T[1], "two", ["f"]))
    while not await pool.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
        await asyncio.sleep(0)
    await transaction.commit()
    await waiting
    assert await history(pool) == [(1, "one", "f", '"a"', '"b"')]
    await one.close()
    await two.close()


async def test_history_goes_by_days_and_by_instances(pool: Pool) -> None:
    async with pool.acquire() as connection:
        for instance in ("acme", "acme_2", "i_acme"):
            for days in range(-3, 1):
                for _ in range(2):
                    await leads.ensure_history(connection, instance, (T[0] + timedelta(days=days)).date())
        await upsert(connection, [lead(1, f="a")], T[0] - timedelta(days=3))
        await upsert(connection, [lead(1, f="b")], T[1] - timedelta(days=2))
        await upsert(connection, [lead(1, f="c")], T[2])
        assert await leads.drop_history(connection, "acme", T[0].date(), timedelta(days=1)) == 2
        assert await leads.drop_history(connection, "never", T[0].date(), timedelta(days=1)) == 0
        assert await history(pool) == [(1, "people", "f", '"b"', '"c"')]
        left = await table(pool, "SELECT relname FROM pg_class WHERE relname LIKE 'lead_history_d%' AND relkind = 'r' ORDER BY 1")
    names = [f"lead_history_d202602{day}_{name}" for day in ("27", "28") for name in ("acme_2", "i_acme")]
    assert [name for (name,) in left] == sorted(
        [*names, *(f"lead_history_d202603{d}_{n}" for d in ("01", "02") for n in ("acme", "acme_2", "i_acme"))]
    )


async def test_a_value_is_news_to_whoever_looks_first_when_another_pull_knew_of_none(pool: Pool) -> None:
    for minute, (pull, value) in enumerate([("one", "a"), ("one", None), ("two", "b"), ("one", "c")]):
        row = lead(1) if value is None else lead(1, f=value)
        await upsert(pool, [row], T[minute], pull, ["f"], others={"two" if pull == "one" else "one": ["f"]}, question=pull * 2)
    assert [line[3:] for line in await history(pool)] == [('"a"', None), (None, '"b"'), ('"b"', '"c"')]


async def test_every_pull_knows_of_the_address(pool: Pool) -> None:
    await upsert(pool, [lead(1, "a@x")], T[0], "one", ["f"])
    await upsert(pool, [lead(1, None)], T[1], "one", ["f"])
    await upsert(pool, [lead(1, "b@x")], T[2], "two", ["g"])
    assert [line[2:] for line in await history(pool)] == [("email", '"a@x"', None), ("email", None, '"b@x"')]
