"""From a table of the user's, by its triggers, through the house, to Marketo."""

from collections.abc import Mapping
from dataclasses import replace

from structlog.testing import capture_logs

from syncd.cli import attach as work
from syncd.core.settings import Constant, Database, FromColumn, FromTable, Push, Secret
from syncd.flows import attached
from tests.flows.conftest import PUSH, Build, House
from tests.flows.test_gauges import beat, shown
from tests.flows.test_sync import value

TABLE = """
CREATE SCHEMA crm;
CREATE TABLE crm.contact (id int PRIMARY KEY, email text, first_name text, score numeric, opt_out boolean, phone text, consent boolean);
INSERT INTO crm.contact VALUES (1, 'ada@example.org', 'Ada', 7, false, '555-1', true),
                               (2, 'grace@example.org', 'Grace', 8, false, '555-2', true),
                               (3, 'alan@example.org', 'Alan', 9, false, '555-3', false);
"""
FIELDS: Mapping[str, FromColumn | Constant] = {
    "firstName": FromColumn("first_name"),
    "leadScore": FromColumn("score"),
    "unsubscribed": FromColumn("opt_out"),
    "phone": FromColumn("phone"),
    "title": Constant("CRM"),
}
FOLLOWING = replace(PUSH, from_table=FromTable("crm.contact", "email", FIELDS, "consent"))
# as an operator's release does
RELEASE = "UPDATE syncd.outbox SET state = 'pending', reason = NULL, created_at = $1 WHERE state = 'held'"


async def attach(house: House, dsn: str, push: Push = FOLLOWING) -> work.Done:
    return await work.attach(Database(Secret(dsn)), "acme", push, None, house.clock.now, lambda _: None)


def values(house: House, email: str) -> dict[str, str | None]:
    return {name: value(house, email, name) or None for name in FIELDS}


async def test_what_an_application_writes_to_its_table_arrives(house: Build, database: str) -> None:
    home = await house(pushes=[FOLLOWING], checked=True)
    await home.pool.execute(TABLE)
    assert (await attach(home, database)).changes == 2
    await home.run(30)
    assert home.simulator.world.by_email("ada@example.org") == [], "nothing of before goes without a word"
    await home.pool.execute("INSERT INTO crm.contact VALUES (4, 'edith@example.org', 'Edith', 1, false, '555-4', true)")
    await home.pool.execute("UPDATE crm.contact SET score = 10 WHERE id < 4")
    await home.run(90)
    assert await home.states() == {"applied": 3, "held": 2}
    edith = {"firstName": "Edith", "leadScore": "1", "unsubscribed": "false", "phone": "555-4", "title": "CRM"}
    assert values(home, "edith@example.org") == edith
    assert values(home, "ada@example.org") == dict.fromkeys(FIELDS) | {"leadScore": "10"}
    await home.pool.execute("UPDATE crm.contact SET phone = NULL, opt_out = true WHERE id = 4; DELETE FROM crm.contact WHERE id = 2")
    await home.run(90)
    assert values(home, "edith@example.org") == edith | {"phone": None, "unsubscribed": "true"}
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.sync_batch WHERE state = 'settled'") > 0


async def test_what_is_released_late_sets_nothing_that_was_written_since(house: Build, database: str) -> None:
    home = await house(pushes=[FOLLOWING])
    await home.pool.execute(TABLE)
    await attach(home, database)
    await home.pool.execute("UPDATE crm.contact SET score = 10, phone = NULL WHERE id = 1")
    await home.run(90)
    assert await home.states() == {"applied": 1, "held": 2}
    await home.pool.execute(RELEASE, home.clock.now())
    await home.run(600, home.all_ended)
    ada = {"firstName": "Ada", "leadScore": "10", "unsubscribed": "false", "phone": None, "title": "CRM"}
    assert values(home, "ada@example.org") == ada
    assert values(home, "grace@example.org")["leadScore"] == "8"
    assert home.simulator.world.by_email("alan@example.org") == []
    assert home.simulator.report().violations == {}


async def test_what_triggers_lose_is_shown_and_what_has_no_key_is_not(house: Build, database: str) -> None:
    home = await house(pushes=[FOLLOWING])
    await home.pool.execute(TABLE)
    await attach(home, database)
    await home.pool.execute("UPDATE crm.contact SET email = NULL WHERE id = 1")
    await beat(home)
    assert shown(home, "syncd_attach_lost_changes") == {("contacts",): 0}
    await home.pool.execute("ALTER TABLE crm.contact DROP COLUMN phone; UPDATE crm.contact SET score = 10")
    await beat(home)
    assert shown(home, "syncd_attach_lost_changes") == {("contacts",): 3}


async def test_a_daemon_tells_of_a_table_that_is_not_followed_as_configured(house: Build, database: str) -> None:
    home = await house(pushes=[FOLLOWING])
    await home.pool.execute(TABLE)
    assert FOLLOWING.from_table is not None
    other = replace(FOLLOWING, from_table=replace(FOLLOWING.from_table, where=None))
    await attach(home, database, other)
    async with home.pool.acquire() as connection:
        with capture_logs() as events:
            await attached.tell(connection, home.instance)
            await attached.tell(connection, replace(home.instance, pushes=(other,)))
    (event,) = [event for event in events if event["event"] == "table_not_followed"]
    assert event["reason"] == "crm.contact is attached by another mapping, or other types of its columns: changes go by those"
    assert event["remedy"] == "syncd attach -i acme --push contacts"
