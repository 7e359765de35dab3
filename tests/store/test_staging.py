"""Files of exports on their way into the mirror: what Postgres makes of their texts is what Python makes of them."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.core.csvfile import render_line
from syncd.core.mirror import Dictionary, MirrorRow, mirror_row
from syncd.core.values import LeadRecord
from syncd.core.where import keeps
from syncd.store import leads, staging
from syncd.store.leads import Asker, Upserted
from syncd.store.leases import Connection, Pool
from syncd.store.staging import Part, Slice, Staged
from tests.conftest import TEMPLATE, clone
from tests.store.outgoing import table

T = [datetime(2026, 3, 2, 12, tzinfo=UTC) + timedelta(minutes=minute) for minute in range(10)]
KINDS = {
    **{f"f {kind}": kind for kind in ("integer", "score", "percent", "float", "currency", "boolean", "date", "datetime")},
    **{f"f {kind}": kind for kind in ("string", "text", "phone", "formula", "nobody knows")},
    'q"uo\\te': "string",
    "émail": "date",
    "zz": "string",
}
DICTIONARY = Dictionary({name: name for name in ("id", "email", *KINDS)}, KINDS)
ALL = Slice(0, 10**18)
numbers = itertools.count(1)


def file_of(fields: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bytes:
    """A well-formed file, empty values as Marketo writes them."""
    lines = [fields, *([row.get(name, "null") for name in fields] for row in rows)]
    return "".join(render_line(line, "csv") for line in lines).encode()


async def in_pieces(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def stage(
    connection: Connection, fields: Sequence[str], rows: Sequence[Mapping[str, str]], dictionary: Dictionary = DICTIONARY, where: Any = None
) -> Staged:
    part = Part(next(numbers), fields)
    async with connection.transaction():
        await staging.make(connection, part)
    assert await staging.copy(connection, part, in_pieces(file_of(fields, rows), 4096)) == len(rows)
    async with connection.transaction():
        assert await staging.index(connection, part) == 0
    return Staged.of([part], dictionary, where or {})


async def staged_rows(connection: Connection, staged: Staged, piece: Slice = ALL) -> list[tuple[MirrorRow, bool]]:
    query = "SELECT * FROM syncd.staged_leads($1::jsonb, $2::jsonb, '', $3, $4, $5::jsonb)"
    rows = await connection.fetch(query, staged.parts, staged.columns, piece.after, piece.upto, staged.conditions)
    return [(MirrorRow(*list(row.values())[:5]), row["kept"]) for row in rows]


def record(fields: Sequence[str], row: Mapping[str, str]) -> LeadRecord:
    """The lead as core/mirror.py is given it: null and empty alike are no value."""
    told = {name: text.replace("\0", "") for name, text in row.items()}
    told = {name: text for name, text in told.items() if text not in ("", "null")}
    attributes = [(name, "string", told[name]) for name in fields if name in told and name not in ("id", "email")]
    return LeadRecord(int(row["id"]), told.get("email"), attributes)


@pytest.fixture(scope="module")
def steady(postgres: Any) -> Iterator[Any]:
    """A connection for many examples of a property, on a loop of its own."""
    loop = asyncio.new_event_loop()
    context = clone(postgres, TEMPLATE)
    dsn = loop.run_until_complete(context.__aenter__())
    connection = loop.run_until_complete(asyncpg.connect(dsn, server_settings={"enable_seqscan": "off", "jit": "off"}))
    yield lambda work: loop.run_until_complete(work(connection))
    loop.run_until_complete(connection.close())
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


BLANKS = st.text(" \t\n\x0b\r\x1c\x1f\x85\xa0\u2003\u2028\u3000", max_size=2)
digits = st.text("0123456789", max_size=5)
NUMBERLIKE = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "-", "+"]), digits, st.sampled_from(["", ".", ","]), digits, st.sampled_from(["", "e", "E+", "e-"]), digits
    ),
)
LONG = st.builds(
    lambda digit, many, tail: digit * many + tail,
    st.sampled_from("019"),
    st.sampled_from([999, 1000, 1001]),
    st.sampled_from(["", ".5", "." + "1" * 1000, "." + "1" * 1001]),
)
DATELIKE = st.builds("{:04}-{:02}-{:02}".format, st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32)) | st.dates().map(str)
TIMELIKE = st.builds("{:02}:{:02}:{:02}".format, st.integers(0, 25), st.integers(0, 61), st.integers(0, 61)) | st.times().map(str)
OFFSETS = st.sampled_from(
    ["Z", "", "z", "+00:00", "-00:00", "+05:30", "-0530", "+23:59", "-23:59:59", "+24:00", "+05", "+05:60", " +05:30"]
)
MOMENTLIKE = st.builds("{}{}{}{}".format, DATELIKE, st.sampled_from(["T", "T", " ", "t", ""]), TIMELIKE, OFFSETS)
BOOLEANLIKE = st.sampled_from(["true", "false", "1", "0", "TRUE", "False", "yes", "tRuE", "fal\u017fe", "01"])
ANY = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
TEXTS = st.builds(
    "{}{}{}".format,
    BLANKS,
    NUMBERLIKE | LONG | DATELIKE | MOMENTLIKE | BOOLEANLIKE | ANY | st.sampled_from(["null", "NULL", '"', "\\.", "\\N"]),
    BLANKS,
)
EMAILS = ANY | st.integers(598, 602).map(lambda many: "é" * many)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(st.sampled_from(list(KINDS)), TEXTS, max_size=len(KINDS)), min_size=1, max_size=12), emails=st.data())
def test_postgres_makes_of_a_file_what_python_makes_of_its_texts(steady: Any, rows: list[dict[str, str]], emails: st.DataObject) -> None:
    fields = ["f integer", "id", *(name for name in KINDS if name != "f integer"), "email"]
    rows = [{**row, "id": str(number + 1), "email": emails.draw(EMAILS)} for number, row in enumerate(rows)]

    async def by_postgres(connection: Connection) -> list[tuple[MirrorRow, bool]]:
        staged = await stage(connection, fields, rows)
        return await staged_rows(connection, staged)

    got = steady(by_postgres)
    assert [row for row, _ in got] == [mirror_row(record(fields, row), DICTIONARY) for row in rows]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.sampled_from(["", "null", "true", "True", "1", "0", "DE", "de", "7"]), min_size=4, max_size=4),
    where=st.dictionaries(
        st.sampled_from(["id", "email", "f boolean", "zz"]),
        st.lists(st.sampled_from(["", "true", "FALSE", "1", "DE", "7", 'a{b",}']), min_size=1, max_size=3).map(tuple),
    ),
)
def test_where_keeps_the_same_leads(steady: Any, texts: list[str], where: dict[str, tuple[str, ...]]) -> None:
    fields = ["id", "email", "f boolean", "zz"]
    row = {"id": "7", "email": texts[0], "f boolean": texts[1], "zz": texts[2]}

    async def by_postgres(connection: Connection) -> bool:
        ((_, kept),) = await staged_rows(connection, await stage(connection, fields, [row], where=where))
        return kept

    assert steady(by_postgres) is keeps(record(fields, row), where, KINDS)


@pytest.fixture
async def _history(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await leads.ensure_history(connection, "acme", T[0].date())


FIELDS = ("zz", "id", "f integer", "email")
ASKER = Asker("people", "123abc", ["zz", "f integer"])


def people(count: int, zz: str = "x") -> list[dict[str, str]]:
    return [{"id": str(number), "email": f"{number}@x", "zz": zz, "f integer": str(number)} for number in range(count, 0, -1)]


async def load(
    connection: Connection, staged: Staged, asked_at: datetime, asker: Asker = ASKER, most: int = 20_000, now: datetime = T[9]
) -> Upserted:
    after, counts = 0, [0, 0, 0, 0]
    async with connection.transaction():
        while piece := await staging.next_slice(connection, staged, after, most):
            after = piece.upto
            one = await leads.upsert_staged(connection, "acme", asker, staged, piece, asked_at, now)
            counts = [a + b for a, b in zip(counts, (one.created, one.changed, one.refused, one.dropped), strict=True)]
    return Upserted(*counts)


async def mirror(pool: Pool) -> list[tuple[Any, ...]]:
    return await table(pool, "SELECT lead_id, email, attributes, misfits, digests FROM syncd.lead ORDER BY 1")


@pytest.mark.usefixtures("_history")
async def test_an_extract_and_pages_of_the_same_leads_are_one(pool: Pool) -> None:
    rows = people(50)
    async with pool.acquire() as connection:
        assert await load(connection, await stage(connection, FIELDS, rows), T[0], most=7) == Upserted(50, 0)
        loaded = await mirror(pool)
        page = [mirror_row(record(FIELDS, row), DICTIONARY) for row in rows]
        assert await leads.upsert(connection, "acme", ASKER, page, T[1], T[1]) == Upserted(0, 0)
        await connection.execute("TRUNCATE syncd.lead")
        await leads.upsert(connection, "acme", ASKER, page, T[1], T[1])
    assert await mirror(pool) == loaded


@pytest.mark.usefixtures("_history")
async def test_unchanged_leads_cost_no_byte(pool: Pool) -> None:
    async def position() -> int:
        return await connection.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")  # type: ignore[no-any-return]

    async with pool.acquire() as connection:
        staged = await stage(connection, FIELDS, people(300))
        await load(connection, staged, T[0])
        written = []
        for again in range(1, 6):
            at = await position()
            assert await load(connection, staged, T[again]) == Upserted(0, 0)
            written.append(await position() - at)
    assert min(written) == 0


@pytest.mark.usefixtures("_history")
async def test_leads_of_which_a_later_answer_has_told_become_due(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await load(connection, await stage(connection, FIELDS, people(4, "new")), T[3], Asker("others", "456def", ["zz"]))
        staged = await stage(connection, FIELDS, people(6, "old"))
        assert await load(connection, staged, T[2]) == Upserted(2, 0, refused=4)
        assert await load(connection, staged, T[4]) == Upserted(0, 4)
    due = await table(pool, "SELECT pull, lead_id, reason, noted_at, window_id FROM syncd.lead_due ORDER BY lead_id")
    assert due == [("people", number, "overtaken", T[9], None) for number in range(1, 5)]


@pytest.mark.usefixtures("_history")
async def test_parts_are_joined_by_id_and_who_is_not_in_all_of_them_is_left_out(pool: Pool) -> None:
    async with pool.acquire() as connection:
        one, other = Part(next(numbers), ("id", "f integer", "email")), Part(next(numbers), ("email", "zz", "id"))
        for part, rows in ((one, people(9)), (other, people(10)[:8])):
            await staging.make(connection, part)
            await staging.copy(connection, part, in_pieces(file_of(part.fields, rows)))
            await staging.index(connection, part)
        staged = Staged.of([one, other], DICTIONARY, {"zz": ("x",)})
        assert await load(connection, staged, T[0], most=2) == Upserted(7, 0)
        assert await staging.ids(connection, staged, ALL) == [3, 4, 5, 6, 7, 8, 9]
    written = await mirror(pool)
    assert [row[:3] for row in written] == [(number, f"{number}@x", f'{{"zz": "x", "f integer": {number}}}') for number in range(3, 10)]


@pytest.mark.usefixtures("_history")
async def test_very_many_columns_are_one_object(pool: Pool) -> None:
    names = [f"column {number}" for number in range(400)]
    dictionary = Dictionary({name: name for name in names}, {name: ("integer", "string")[number % 2] for number, name in enumerate(names)})
    row = {"id": "1", "email": "null", **{name: "x" if number % 3 else "7" for number, name in enumerate(names)}}
    async with pool.acquire() as connection:
        staged = await stage(connection, ["id", "email", *names], [row], dictionary)
        assert await staged_rows(connection, staged) == [(mirror_row(record(names, row), dictionary), True)]


async def test_of_a_lead_that_comes_twice_the_last_stays(pool: Pool) -> None:
    async with pool.acquire() as connection:
        staged = await stage(connection, FIELDS, [*people(3, "first"), *people(2, "last")])
        assert [(row.lead_id, "last" in row.attributes) for row, _ in await staged_rows(connection, staged)] == [
            (1, True),
            (2, True),
            (3, False),
        ]


async def test_rows_without_an_id_are_counted(pool: Pool) -> None:
    part = Part(next(numbers), ("id", "email"))
    async with pool.acquire() as connection:
        await staging.make(connection, part)
        await staging.copy(connection, part, in_pieces(b"id,email\n1,a\nnull,b\n-7,c\n99999999999999999999,d\n"))
        assert await staging.index(connection, part) == 3


@pytest.mark.parametrize("broken", [b"1,a,b,c\n", b"1\n", b"1,a\xff,b\n", b"1,a\rb,c\n", b'1,"a,b\n'])
async def test_what_copy_refuses_leaves_nothing(pool: Pool, broken: bytes) -> None:
    part = Part(next(numbers), ("id", "email", "zz"))
    async with pool.acquire() as connection:
        await staging.make(connection, part)
        with pytest.raises((asyncpg.BadCopyFileFormatError, asyncpg.CharacterNotInRepertoireError)):
            await staging.copy(connection, part, in_pieces(b"id,email,zz\n1,a,b\n" + broken))
        assert await connection.fetchval(f"SELECT count(*) FROM syncd.staging_{part.export}") == 0


async def test_leftovers_are_dropped_but_for_those_of_other_instances(pool: Pool) -> None:
    new = """INSERT INTO syncd.export (instance, pull, window_id, fields, wanted, begun_at)
             VALUES ($1, 'people', $2, '{id}', '{}', now()) RETURNING id"""
    async with pool.acquire() as connection:
        made = [await connection.fetchval(new, instance, window) for window, instance in enumerate(("acme", "acme", "emca"))]
        for export in made:
            await staging.make(connection, Part(export, ("id",)))
            await staging.make(connection, Part(export, ("id", "email")))  # in place of the first
        await staging.drop(connection, [made[0], 12345])
        assert await staging.drop_leftovers(connection, "acme") == 1
        left = await connection.fetch("SELECT relname FROM pg_class WHERE relname LIKE 'staging\\_%' AND relkind = 'r'")
    assert [row["relname"] for row in left] == [f"staging_{made[2]}"]
