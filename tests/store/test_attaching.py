"""A table is attached and backfilled while many write to it: changes come in the order of the row's versions, and cost what is told."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg
import pytest

from syncd.cli import attach as work
from syncd.core.settings import Database, FromColumn, FromTable, Push, Secret
from syncd.store import attaching
from syncd.store.leases import Connection

TABLE = """
CREATE SCHEMA crm;
CREATE TABLE crm.contact (id int PRIMARY KEY, email text NOT NULL, first_name text, version int NOT NULL DEFAULT 0, score int,
                          seen_at timestamptz, opt_out boolean NOT NULL DEFAULT false, consent boolean NOT NULL DEFAULT true, other text);
"""
FILL = """
INSERT INTO crm.contact (id, email, first_name, seen_at, other)
SELECT n, 'p' || n || '@example.com', 'P' || n, now(), 'x' FROM generate_series(1, $1::int) n
"""
COLUMNS = {"firstName": "first_name", "version": "version", "leadScore": "score", "seenAt": "seen_at", "unsubscribed": "opt_out"}
PUSH = Push("contacts", from_table=FromTable("crm.contact", "email", {f: FromColumn(c) for f, c in COLUMNS.items()}, "consent"))
ONE = "UPDATE crm.contact SET version = version + 1 WHERE id = $1"
# in the order of ids, so that writers don't lock each other out
SOME = """
UPDATE crm.contact SET version = version + 1
 WHERE id = ANY (ARRAY(SELECT id FROM crm.contact WHERE id = ANY ($1::int[]) ORDER BY id FOR UPDATE))
"""
VERSIONS = "SELECT key, state, (fields ->> 'version')::int AS version FROM syncd.outbox WHERE fields ? 'version' ORDER BY id"
WRITERS = 8


@dataclass
class Pace:
    """What writes took, seconds each, while nothing was attached and afterwards."""

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    attached: bool = False
    over: bool = False

    def note(self, seconds: float) -> None:
        (self.after if self.attached else self.before).append(seconds)


async def attach(dsn: str, push: Push = PUSH, backfill: bool | None = None) -> work.Done:
    told: list[str] = []
    return await work.attach(Database(Secret(dsn)), "acme", push, backfill, lambda: datetime.now(UTC), told.append)


async def write(dsn: str, rows: int, seed: int, pace: Pace) -> None:
    """One writer: single rows, some rows at once, and now and then a transaction that stays open for a while."""
    chance = random.Random(seed)
    connection = await asyncpg.connect(dsn)
    try:
        while not pace.over:
            # few rows are written by many, so that they wait for each other
            one = chance.randint(1, 20 if chance.random() < 0.5 else rows)
            match chance.randint(1, 10):
                case 1:
                    await connection.execute(SOME, [chance.randint(1, rows) for _ in range(20)])
                case 2:
                    async with connection.transaction():
                        await connection.execute(ONE, one)
                        await asyncio.sleep(chance.random() / 50)
                case _:
                    began = time.perf_counter()
                    await connection.execute(ONE, one)
                    pace.note(time.perf_counter() - began)
    finally:
        await connection.close()


@asynccontextmanager
async def writing(dsn: str, rows: int) -> AsyncIterator[Pace]:
    pace = Pace()
    tasks = [asyncio.create_task(write(dsn, rows, seed, pace)) for seed in range(WRITERS)]
    try:
        yield pace
    finally:
        pace.over = True
        await asyncio.gather(*tasks)


async def enough(of: Callable[[], int], count: int) -> None:
    async with asyncio.timeout(120):
        while of() < count:
            await asyncio.sleep(0.01)


async def in_order(pool: asyncpg.Pool) -> int:
    """See that all changes of a key are in the order of its row's versions, and held ones not behind what they haven't seen.

    Returns how many rows have both.
    """
    versions: dict[str, list[int]] = {}
    held: dict[str, int] = {}
    for key, state, version in await pool.fetch(VERSIONS):
        if state == "held":
            assert key not in held, key
            assert version >= versions.get(key, [0])[-1], f"{key} was read before a change with a lower id had been committed"
            held[key] = version
        else:
            versions.setdefault(key, []).append(version)
    now = {row["email"]: row["version"] for row in await pool.fetch("SELECT email, version FROM crm.contact")}
    assert held.keys() == now.keys(), "each row is in the backfill"
    for key, found in versions.items():
        assert found == list(range(found[0], now[key] + 1)), key
    assert all(held[key] == version for key, version in now.items() if key not in versions)
    return len(versions)


def micro(seconds: Sequence[float]) -> float:
    return 1e6 * sorted(seconds)[len(seconds) // 2]


@pytest.mark.parametrize(
    ("rows", "writes"), [(20_000, 800), pytest.param(1_000_000, 40_000, marks=pytest.mark.prove)], ids=["suite", "prove"]
)
async def test_changes_come_in_commit_order_under_eight_writers(
    database: str, pool: asyncpg.Pool, rows: int, writes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attaching, "PAGE", min(attaching.PAGE, rows // 20))
    await pool.execute(TABLE)
    await pool.execute(FILL, rows)
    await pool.execute("VACUUM ANALYZE crm.contact")
    async with writing(database, rows) as pace:
        await enough(lambda: len(pace.before), writes)
        began = time.perf_counter()
        done = await attach(database)
        took = time.perf_counter() - began
        pace.attached = True
        await enough(lambda: len(pace.after), writes)
    assert done.changes == rows
    assert await in_order(pool) > 20
    assert await pool.fetchval("SELECT count(*) FROM syncd.attach_fault") == 0
    before, after = micro(pace.before), micro(pace.after)
    with capsys.disabled():
        print(
            f"\n{WRITERS} writers, {rows:,} rows: a write takes {before:,.0f} µs, attached {after:,.0f} µs (medians of {len(pace.before):,}"
            f" and {len(pace.after):,}); attached and backfilled in {took:.1f} s, {rows / took:,.0f} rows a second, while they wrote"
        )


@contextmanager
def timed(into: dict[str, float], name: str, of: int) -> Iterator[None]:
    began = time.perf_counter()
    yield
    into[name] = 1e6 * (time.perf_counter() - began) / of


@pytest.mark.parametrize("rows", [2_000, pytest.param(100_000, marks=pytest.mark.prove)], ids=["suite", "prove"])
async def test_the_cost_of_writes(database: str, pool: asyncpg.Pool, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Statements of one row first: a plan that was made for them must serve a million as well."""
    statements = {
        "mapped column": "UPDATE crm.contact SET score = coalesce(score, 0) + 1",
        "other column": "UPDATE crm.contact SET other = other || 'y'",
    }
    costs: dict[str, dict[str, float]] = {}
    await pool.execute(TABLE)
    for case in ("not attached", "attached"):
        mine: dict[str, float] = {}
        costs[case] = mine
        await pool.execute("TRUNCATE crm.contact")
        if case == "attached":
            await attach(database, backfill=False)
        async with pool.acquire() as writer:
            with timed(mine, "insert", rows):
                await writer.execute(FILL, rows)
            await writer.execute("VACUUM ANALYZE crm.contact")
            for name, statement in statements.items():
                with timed(mine, f"one row, {name}", rows // 10):  # in the server, without the way there
                    await writer.execute(f"DO $$ BEGIN FOR i IN 1..{rows // 10} LOOP {statement} WHERE id = i; END LOOP; END $$")
            for name, statement in statements.items():
                with timed(mine, f"all rows, {name}", rows):
                    await writer.execute(statement)
    assert await pool.fetchval("SELECT count(*) FROM syncd.outbox") == rows + rows // 10 + rows
    with capsys.disabled():
        print(f"\n{rows:,} rows, µs a row: not attached, attached")
        for name, cost in costs["attached"].items():
            print(f"  {name:24} {costs['not attached'][name]:8.1f} {cost:8.1f}")
    # no walk of all rows for each row
    assert costs["attached"]["all rows, mapped column"] < costs["not attached"]["all rows, mapped column"] + 1_000


@pytest.mark.parametrize("rows", [2_000, pytest.param(100_000, marks=pytest.mark.prove)], ids=["suite", "prove"])
async def test_the_cost_of_deletes(database: str, pool: asyncpg.Pool, rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    costs: dict[str, dict[str, float]] = {}
    assert PUSH.from_table is not None
    told = replace(PUSH, from_table=replace(PUSH.from_table, on_delete={"unsubscribed": "true"}))
    await pool.execute(TABLE)
    for case in ("not attached", "attached"):
        mine: dict[str, float] = {}
        costs[case] = mine
        await pool.execute(FILL, rows + rows // 10)
        if case == "attached":
            await attach(database, told, backfill=False)
        async with pool.acquire() as writer:
            with timed(mine, "one row", rows // 10):
                await writer.execute(f"DO $$ BEGIN FOR i IN 1..{rows // 10} LOOP DELETE FROM crm.contact WHERE id = i; END LOOP; END $$")
            with timed(mine, "all rows", rows):
                await writer.execute("DELETE FROM crm.contact")
    assert await pool.fetchval('SELECT count(*) FROM syncd.outbox WHERE fields = \'{"unsubscribed": "true"}\'') == rows + rows // 10
    with capsys.disabled():
        print(f"\n{rows:,} rows deleted, µs a row: not attached, with on_delete")
        for name, cost in costs["attached"].items():
            print(f"  {name:24} {costs['not attached'][name]:8.1f} {cost:8.1f}")


async def test_a_backfill_waits_for_whoever_had_written_when_its_ids_were_drawn(database: str, pool: asyncpg.Pool) -> None:
    """Their changes have lower ids: a page that did not see them would put old values behind them."""
    await pool.execute(TABLE)
    await pool.execute(FILL, 3)
    await attach(database, backfill=False)
    async with pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE crm.contact SET score = 7 WHERE id = 2")
        backfill = asyncio.create_task(attach(database, backfill=True))
        # it makes its triggers anew, and for that waits as well; then once more with a writer that came after them
        await asyncio.sleep(0)
        await _until(pool, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
        await transaction.commit()
    done = await backfill
    assert done.changes == 3
    rows = await pool.fetch("SELECT state, fields ->> 'leadScore' AS score FROM syncd.outbox WHERE key = 'p2@example.com' ORDER BY id")
    assert [tuple(row) for row in rows] == [("pending", "7"), ("held", "7")]


async def test_a_page_is_not_read_before_the_writers_of_its_ids_are_gone(
    database: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pool.execute(TABLE)
    await pool.execute(FILL, 3)
    draw, drawn, looked = attaching.new_ids, asyncio.Event(), asyncio.Event()
    look = attaching.writers
    async with pool.acquire() as writer:
        transaction = writer.transaction()

        async def new_ids(connection: Connection) -> list[int]:
            """A writer comes between the triggers and the page."""
            if not drawn.is_set():
                await transaction.start()
                await writer.execute("UPDATE crm.contact SET score = 7 WHERE id = 2")
                drawn.set()
            return await draw(connection)

        async def writers(connection: Connection, table: str) -> set[str]:
            found = await look(connection, table)
            looked.set()
            return found

        monkeypatch.setattr(attaching, "new_ids", new_ids)
        monkeypatch.setattr(attaching, "writers", writers)
        backfill = asyncio.create_task(attach(database))
        await asyncio.wait_for(looked.wait(), 20)
        for _ in range(5):
            looked.clear()
            await asyncio.wait_for(looked.wait(), 20)
        assert not backfill.done()
        assert await pool.fetchval("SELECT count(*) FROM syncd.outbox") == 0
        await transaction.commit()
    await asyncio.wait_for(backfill, 20)
    rows = await pool.fetch("SELECT state, fields FROM syncd.outbox WHERE key = 'p2@example.com' ORDER BY id")
    assert [(row["state"], json.loads(row["fields"])["leadScore"]) for row in rows] == [("pending", 7), ("held", 7)]


async def test_who_has_written_counts_as_a_writer_and_no_reader_does(pool: asyncpg.Pool) -> None:
    await pool.execute(TABLE)
    async with pool.acquire() as connection, pool.acquire() as writer:
        async with writer.transaction():
            await writer.execute("SELECT FROM crm.contact FOR SHARE")
            assert await attaching.writers(connection, "crm.contact") == set()
            await writer.execute("DELETE FROM crm.contact")
            assert len(await attaching.writers(connection, "crm.contact")) == 1
        assert await attaching.writers(connection, "crm.contact") == set()


async def test_writers_of_a_partition_count(pool: asyncpg.Pool) -> None:
    await pool.execute("CREATE SCHEMA crm; CREATE TABLE crm.contact (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    await pool.execute("CREATE TABLE crm.part PARTITION OF crm.contact FOR VALUES FROM (0) TO (9)")
    async with pool.acquire() as connection, pool.acquire() as writer, writer.transaction():
        await writer.execute("INSERT INTO crm.part VALUES (1)")
        assert len(await attaching.writers(connection, "crm.contact")) == 1


async def test_many_faults_at_once_don_t_wait_for_each_other(database: str, pool: asyncpg.Pool) -> None:
    await pool.execute(TABLE)
    await pool.execute(FILL, 3)
    lossy = Push("contacts", from_table=FromTable("crm.contact", "email", {"leadScore": FromColumn("score")}, "1 / score > 0"))
    await attach(database, lossy, backfill=False)
    async with pool.acquire() as one, pool.acquire() as two:
        async with one.transaction(), two.transaction():
            await one.execute("UPDATE crm.contact SET score = 0 WHERE id = 1")
            await asyncio.wait_for(two.execute("UPDATE crm.contact SET score = 0 WHERE id = 2"), 10)
        await one.execute("UPDATE crm.contact SET score = 0 WHERE id = 3")
    assert [tuple(row) for row in await pool.fetch("SELECT code, writes FROM syncd.attach_fault ORDER BY writes")] == [
        ("22012", 1),
        ("22012", 2),
    ]
    (found,) = (await attaching.attachments(pool, "acme")).values()
    assert (found.lost, [(fault.code, fault.writes) for fault in found.faults]) == (3, [("22012", 3)])


async def _until(pool: asyncpg.Pool, query: str) -> None:
    async with asyncio.timeout(10):
        while not await pool.fetchval(query):
            await asyncio.sleep(0.01)
