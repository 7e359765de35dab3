"""A view of the user's, compared with its snapshot, through the house, to Marketo."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from syncd.cli import attach as work
from syncd.core.settings import Constant, Database, FromColumn, FromTable, Push, Secret
from syncd.flows.attached import tables
from syncd.flows.follow import Follower
from syncd.flows.loop import Flow, Idle
from syncd.store import attaching, comparing, erasing, forgetting, pauses
from syncd.store.leases import LeaseLost
from syncd.store.pauses import Choice
from tests.flows.conftest import PUSH, Build, House
from tests.flows.test_page import pages_of
from tests.flows.test_sync import value
from tests.store.test_erasing import found

VIEW = """
CREATE SCHEMA crm;
CREATE TABLE crm.person (
    id int PRIMARY KEY, email text, first_name text, score numeric, opt_out boolean, seen_at timestamptz, consent boolean
);
INSERT INTO crm.person VALUES (1, 'ada@example.org', 'Ada', 7, false, '2026-03-01', true),
                              (2, 'Grace@example.org', 'Grace', 8, false, NULL, true),
                              (3, 'alan@example.org', 'Alan', 9, false, NULL, false);
CREATE VIEW crm.contact AS SELECT email, upper(first_name) AS first_name, score, opt_out, seen_at, consent FROM crm.person WHERE id > 0;
"""
FIELDS: Mapping[str, FromColumn | Constant] = {
    "firstName": FromColumn("first_name"),
    "leadScore": FromColumn("score"),
    "unsubscribed": FromColumn("opt_out"),
    "seenAt": FromColumn("seen_at"),
    "title": Constant("CRM"),
}
SOURCE = FromTable("crm.contact", "email", FIELDS, "consent")
FOLLOWING = replace(PUSH, from_table=SOURCE)
EVERY = timedelta(minutes=15)
Changes = list[tuple[str, dict[str, Any]]]


def of(push: Push = PUSH, **source: object) -> Push:
    return replace(push, from_table=replace(SOURCE, **source))  # type: ignore[arg-type]


async def attach(house: House, dsn: str, push: Push = FOLLOWING, backfill: bool | None = None) -> work.Done:
    return await work.attach(Database(Secret(dsn)), "acme", push, backfill, house.clock.now, lambda _: None)


async def followers(home: House) -> list[Flow]:
    assert home.lease is not None
    return [Follower(home.instance, push, home.lease, home.clock) for push in home.instance.pushes]


async def following(house: Build, dsn: str, push: Push = FOLLOWING, *, backfill: bool | None = False, view: str = VIEW) -> House:
    """A house whose push follows the view, from what it has now on."""
    home = await house(pushes=[push], checked=True)
    home.also = followers
    await home.restart()
    await home.pool.execute(view)
    await attach(home, dsn, push, backfill)
    return home


async def compared(home: House, *statements: str) -> Changes:
    """What becomes of some statements at the next comparison."""
    for statement in statements:
        await home.pool.execute(statement)
    await home.pool.execute("TRUNCATE syncd.outbox")
    home.clock.advance(EVERY.total_seconds())
    await steps(home)
    return await changes(home)


async def steps(home: House) -> None:
    """The comparison alone, until it rests."""
    follower = next(flow for flow in home.flows if flow.name == "follow contacts")
    while not isinstance(await follower.step(), Idle):
        pass


async def changes(home: House, state: str = "pending") -> Changes:
    rows = await home.pool.fetch("SELECT key, fields FROM syncd.outbox WHERE state = $1 ORDER BY id", state)
    return [(row["key"], json.loads(row["fields"])) for row in rows]


async def standing(home: House) -> comparing.Compared:
    return (await comparing.compared(home.pool, "acme"))["contacts"]


ADA = {"firstName": "ADA", "leadScore": 7, "unsubscribed": False, "seenAt": "2026-03-01T00:00:00Z", "title": "CRM"}
GRACE = {"firstName": "GRACE", "leadScore": 8, "unsubscribed": False, "title": "CRM"}


async def test_what_changes_in_a_view_arrives(house: Build, database: str) -> None:
    home = await following(house, database, of(fields={name: FIELDS[name] for name in FIELDS if name != "seenAt"}), backfill=None)
    assert await changes(home, "held") == [
        ("ada@example.org", {name: value for name, value in ADA.items() if name != "seenAt"}),
        ("Grace@example.org", GRACE),
    ]
    await home.run(1000)
    assert home.simulator.world.by_email("ada@example.org") == [], "nothing of before goes without a word"
    await home.pool.execute(
        "UPDATE crm.person SET score = 10; INSERT INTO crm.person VALUES (4, 'e@example.org', 'E', 1, true, NULL, true)"
    )
    await home.run(1000)
    assert await home.states() == {"applied": 3, "held": 2}
    assert value(home, "ada@example.org", "leadScore") == "10"
    assert not value(home, "ada@example.org", "firstName")
    assert [value(home, "e@example.org", name) for name in ("firstName", "unsubscribed", "title")] == ["E", "true", "CRM"]
    await home.pool.execute("UPDATE crm.person SET first_name = NULL WHERE id = 4")
    await home.run(1000)
    assert not value(home, "e@example.org", "firstName")
    assert home.simulator.report().violations == {}


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT", []),
        ("UPDATE crm.person SET score = 7.50 WHERE id = 1", [("ada@example.org", {"leadScore": 7.5})]),
        ("UPDATE crm.person SET score = NULL, first_name = 'A' WHERE id = 1", [("ada@example.org", {"leadScore": None, "firstName": "A"})]),
        ("UPDATE crm.person SET first_name = '' WHERE id = 1", [("ada@example.org", {"firstName": None})]),
        ("UPDATE crm.person SET score = 7.0, first_name = 'ada' WHERE id = 1", []),
        ("UPDATE crm.person SET seen_at = '2026-03-01 01:00+01' WHERE id = 1", []),
        ("UPDATE crm.person SET seen_at = '2026-03-01' WHERE id = 2", [("Grace@example.org", {"seenAt": "2026-03-01T00:00:00Z"})]),
        ("UPDATE crm.person SET score = 9 WHERE id = 3", []),
        ("UPDATE crm.person SET consent = true WHERE id = 3", [("alan@example.org", {**GRACE, "firstName": "ALAN", "leadScore": 9})]),
        ("UPDATE crm.person SET consent = false, score = 3 WHERE id = 1", []),
        ("UPDATE crm.person SET email = ' GRACE@example.org' WHERE id = 2", []),
        ("UPDATE crm.person SET email = 'g@example.org' WHERE id = 2", [("g@example.org", GRACE)]),
        ("DELETE FROM crm.person", []),
        ("INSERT INTO crm.person VALUES (5, 'n@example.org', '', NULL, NULL, NULL, true)", [("n@example.org", {"title": "CRM"})]),
    ],
)
async def test_what_becomes_of_a_difference(house: Build, database: str, statement: str, expected: Changes) -> None:
    home = await following(house, database)
    assert await changes(home) == []
    assert await compared(home, statement) == expected
    assert await compared(home) == [], "and nothing a second time"


async def test_who_comes_back_comes_whole(house: Build, database: str) -> None:
    home = await following(house, database)
    assert await compared(home, "UPDATE crm.person SET consent = false WHERE id = 1") == []
    assert (await standing(home)).gone == 1
    assert await compared(home, "UPDATE crm.person SET consent = true WHERE id = 1") == [("ada@example.org", ADA)]


async def test_who_is_gone_gets_what_on_delete_says(house: Build, database: str) -> None:
    home = await following(house, database, of(on_delete={"unsubscribed": "true", "seenAt": None}))
    gone = {"unsubscribed": "true", "seenAt": None}
    assert await compared(home, "DELETE FROM crm.person WHERE id = 1; UPDATE crm.person SET consent = false WHERE id = 2") == [
        ("ada@example.org", gone),
        ("Grace@example.org", gone),
    ]
    assert await compared(home) == []
    assert await compared(home, "UPDATE crm.person SET consent = true WHERE id = 2") == [("Grace@example.org", GRACE)]


async def test_a_key_in_several_rows_is_left_out_unless_they_are_the_same(house: Build, database: str) -> None:
    home = await following(house, database)
    twice = "INSERT INTO crm.person VALUES (11, 'ADA@example.org', 'Ada', 1, false, '2026-03-01', true)"
    assert await compared(home, twice, "UPDATE crm.person SET score = 2 WHERE id = 1") == []
    assert (await standing(home)).duplicates == 1
    async with home.pool.acquire() as connection:
        (told,) = await tables(connection, home.instance)
    assert told.ok
    assert told.detail.endswith("; 1 keys that are in several rows with other values left out")
    assert await compared(home, "UPDATE crm.person SET score = 2 WHERE id = 11") == [("ADA@example.org", {"leadScore": 2})]
    assert (await standing(home)).duplicates == 0
    assert await compared(home, "DELETE FROM crm.person WHERE id = 11") == []


async def test_rows_that_can_have_no_change_are_counted(house: Build, database: str) -> None:
    home = await following(house, database)
    rows = "(21, NULL), (22, ' '), (23, repeat('é', 501)), (24, repeat('é', 500))"
    sent = await compared(home, f"INSERT INTO crm.person (id, email, consent) SELECT n, k, true FROM (VALUES {rows}) v (n, k)")
    assert [len(key) for key, _ in sent] == [500]
    assert ((await standing(home)).no_keys, (await standing(home)).long_keys) == (2, 1)


async def test_a_view_that_fails_changes_nothing_and_is_tried_again(house: Build, database: str) -> None:
    home = await following(house, database, of(where="1 / score > 0.01"))
    with capture_logs() as events:
        assert await compared(home, "UPDATE crm.person SET score = 0 WHERE id = 2; UPDATE crm.person SET score = 1 WHERE id = 1") == []
    (event,) = [event for event in events if event["event"] == "view_not_compared"]
    assert (event["reason"], event["attempt"]) == ("error 22012 (DivisionByZero)", 1)
    async with home.pool.acquire() as connection:
        (told,) = await tables(connection, home.instance)
    assert not told.ok
    assert "crm.contact could not be compared at 2026-03-02 12:1" in told.detail
    assert told.detail.endswith(": error 22012 (DivisionByZero)")
    assert "crm.contact, which contacts follows, " in (await pages_of(home).document()).html
    await home.pool.execute("UPDATE crm.person SET score = 2 WHERE id = 2")
    await steps(home)
    assert await changes(home) == [], "not before it is due"
    assert await compared(home) == [("ada@example.org", {"leadScore": 1}), ("Grace@example.org", {"leadScore": 2})]
    assert (await standing(home)).message is None


async def test_a_column_that_is_gone_and_what_names_no_value_is_told(house: Build, database: str) -> None:
    home = await following(house, database)
    await compared(home, "DROP VIEW crm.contact; CREATE VIEW crm.contact AS SELECT email, consent FROM crm.person")
    assert (await standing(home)).message == 'error 42703, column "first_name" does not exist'
    assert await compared(home, "DROP VIEW crm.contact") == []
    assert (await standing(home)).message == "error 42P01, crm.contact does not exist"


async def test_it_rests_while_its_push_is_paused(house: Build, database: str) -> None:
    home = await following(house, database)
    async with home.pool.acquire() as connection:
        await pauses.pause(connection, "acme", Choice("out"), None, home.clock.now())
    assert await compared(home, "UPDATE crm.person SET score = 1 WHERE id = 1") == []
    async with home.pool.acquire() as connection:
        await pauses.resume(connection, "acme", Choice("out"))
    assert await compared(home) == [("ada@example.org", {"leadScore": 1})]


async def test_it_goes_by_the_mapping_that_is_attached_and_at_once_when_asked(house: Build, database: str) -> None:
    home = await following(house, database)
    await home.restart(pushes=(of(where=None),))
    assert await compared(home, "UPDATE crm.person SET score = 1") == [
        ("ada@example.org", {"leadScore": 1}),
        ("Grace@example.org", {"leadScore": 1}),
    ]
    await home.restart(pushes=(FOLLOWING,))
    await home.pool.execute("UPDATE crm.person SET score = 2 WHERE id = 1; TRUNCATE syncd.outbox")
    await steps(home)
    assert await changes(home) == []
    done = await attach(home, database)
    assert (done.fresh, done.compared) == (False, True)
    await steps(home)
    assert await changes(home) == [("ada@example.org", {"leadScore": 2})]


async def test_it_is_compared_more_often_at_once_when_the_configuration_says_so(house: Build, database: str) -> None:
    home = await following(house, database, of(every=timedelta(days=1)))
    assert await compared(home, "UPDATE crm.person SET score = 1 WHERE id = 1") == []
    await home.restart(pushes=(FOLLOWING,))
    assert await compared(home) == [("ada@example.org", {"leadScore": 1})]


async def test_no_two_comparisons_meet(house: Build, database: str) -> None:
    home = await following(house, database)
    async with home.pool.acquire() as other, attaching.alone(other, "acme", "contacts") as alone:
        assert alone
        assert await compared(home, "UPDATE crm.person SET score = 1 WHERE id = 1") == []
    assert await compared(home) == [("ada@example.org", {"leadScore": 1})]


async def test_a_table_needs_no_comparison(house: Build, database: str) -> None:
    home = await following(house, database, of(table="crm.person"))
    assert await compared(home) == []
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.snapshot") == 0


async def broken(home: House, monkeypatch: pytest.MonkeyPatch, pages: int) -> None:
    """The database ends the session that compares after so many pages."""
    right, left = comparing.write, iter(range(pages))

    async def write(connection: Any, *given: Any, **more: Any) -> bool:
        done = await right(connection, *given, **more)
        if next(left, None) is None:
            await home.pool.execute("SELECT pg_terminate_backend($1)", connection.get_server_pid())
            await connection.execute("SELECT")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "write", write)
        with pytest.raises(Exception, match=r"terminat|closed|connection"):
            await steps(home)


FILL = """
INSERT INTO crm.person SELECT 100 + n, 'p' || n || '@example.org', 'P' || n, n % 50, false, NULL, true FROM generate_series(1, $1::int) n
"""


@pytest.mark.parametrize(("rows", "page"), [(20_000, 50), pytest.param(1_000_000, 2_000, marks=pytest.mark.prove)], ids=["suite", "prove"])
async def test_one_percent_of_a_view_is_found_and_sent_once_whatever_breaks_off(
    house: Build, database: str, rows: int, page: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparing, "PAGE", page)
    home = await house(pushes=[FOLLOWING])
    home.also = followers
    await home.restart()
    await home.pool.execute(VIEW)
    await home.pool.execute(FILL, rows - 2)
    await home.pool.execute("VACUUM ANALYZE crm.person")
    costs: list[tuple[str, float]] = []
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "PAGE", 20_000)
        costs.append(("attached, first snapshot", await seconds(attach(home, database, backfill=False))))
    assert await changes(home) == []
    home.clock.advance(EVERY.total_seconds())
    costs.append(("nothing changed", await seconds(steps(home))))
    assert await changes(home) == []
    await home.pool.execute("UPDATE crm.person SET score = score + 1 WHERE id % 100 = 7")
    home.clock.advance(EVERY.total_seconds())
    for pages in (0, 2):
        await broken(home, monkeypatch, pages)
    assert len(await changes(home)) == 2 * page, "what was committed stays"
    costs.append((f"{rows // 100:,} changed", await seconds(steps(home))))
    sent = await changes(home)
    expected = await home.pool.fetch("SELECT email, score::int FROM crm.person WHERE id % 100 = 7")
    assert sorted(sent, key=str) == sorted(((row["email"], {"leadScore": row["score"]}) for row in expected), key=str)
    assert len(sent) == rows // 100
    home.clock.advance(EVERY.total_seconds())
    await steps(home)
    assert len(await changes(home)) == len(sent), "nothing is sent twice"
    assert (await standing(home)).keys == rows
    size = await home.pool.fetchval("SELECT pg_total_relation_size('syncd.snapshot')")
    with capsys.disabled():
        told = ", ".join(f"{what} {took:.1f} s" for what, took in costs)
        print(f"\na view of {rows:,} rows, five fields: {told}; the snapshot has {size / rows:,.0f} bytes a row")


async def seconds(work: Any) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def test_who_is_forgotten_does_not_come_back_by_a_view(house: Build, database: str) -> None:
    home = await following(house, database)
    pushes = {"contacts": "email"}
    async with home.pool.acquire() as connection, connection.transaction():
        person = await erasing.person_of(connection, "acme", ("email", "ada@example.org"), pushes)
        await forgetting.keep(connection, "acme", person)
        erasure = await erasing.erase(connection, "acme", person, pushes, home.clock.now())
    assert erasure.erased == {"snapshot": 1}
    assert await compared(home, "UPDATE crm.person SET score = 1") == [("Grace@example.org", {"leadScore": 1})]
    assert (await standing(home)).forgotten == 1
    assert await found(home.pool, "ada@example.org") == {}


async def test_who_is_forgotten_while_a_view_is_compared_is_not_written_down_again(house: Build, database: str) -> None:
    home = await following(house, database)
    await home.pool.execute("UPDATE crm.person SET score = 1")
    home.clock.advance(EVERY.total_seconds())
    follower = next(flow for flow in home.flows if flow.name == "follow contacts")
    await follower.step()  # has read it
    pushes = {"contacts": "email"}
    async with home.pool.acquire() as connection, connection.transaction():
        person = await erasing.person_of(connection, "acme", ("email", "ada@example.org"), pushes)
        await forgetting.keep(connection, "acme", person)
        await erasing.erase(connection, "acme", person, pushes, home.clock.now())
    await follower.step()
    assert await changes(home) == [("Grace@example.org", {"leadScore": 1})]
    assert await found(home.pool, "ada@example.org") == {}


async def test_a_daemon_that_has_lost_its_lease_writes_nothing_of_what_it_has_read(house: Build, database: str) -> None:
    home = await following(house, database)
    await home.pool.execute("UPDATE crm.person SET score = 1 WHERE id = 1")
    home.clock.advance(EVERY.total_seconds())
    follower = next(flow for flow in home.flows if flow.name == "follow contacts")
    await follower.step()  # has read it
    await home.pool.execute("UPDATE syncd.lease_fence SET epoch = epoch + 1")
    with pytest.raises(LeaseLost):
        await follower.step()
    assert await changes(home) == []
    await home.restart()
    await steps(home)
    assert await changes(home) == [("ada@example.org", {"leadScore": 1})]
