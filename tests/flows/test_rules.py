"""Rules in the flows: what must not be sent never comes to Marketo, by files or by Sync Leads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from syncd.core.rules import ALL_DROPPED, DELETED
from syncd.core.settings import FieldRule, UpdatedSince
from tests.flows.conftest import PULL, PUSH, Build, House

PEOPLE = replace(
    PULL,
    select=UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC)),
    fields=("firstName", "title", "unsubscribed", "Email"),
    window=timedelta(days=30),
    every=timedelta(minutes=1),
)
RULES = {"unsubscribed": FieldRule(never=("false",)), "title": FieldRule(owner="marketo"), "firstName": FieldRule(only_set=True)}
RULED = replace(PUSH, rules=RULES)


async def filled(house: Build, **changes: object) -> House:
    home = await house(pulls=[PEOPLE], pushes=[replace(RULED, **changes)], leads=20, checked=True)  # type: ignore[arg-type]
    for lead in home.simulator.world:
        home.simulator.world.update(lead.id, {"firstName": "Of Marketo", "title": "CEO", "unsubscribed": "true"})
    await home.run(200)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes ->> 'title' = 'CEO'") == 20
    return home


def address(home: House, number: int) -> str:
    lead = list(home.simulator.world)[number]
    assert lead.email is not None
    return lead.email


async def test_no_file_subscribes_anybody_again(house: Build) -> None:
    home = await filled(house)
    addresses = [address(home, number) for number in range(2)]
    alone, among = await home.enqueue((addresses[0], '{"unsubscribed": false}'), (addresses[1], '{"unsubscribed": 0, "lastName": "New"}'))
    await home.run(900, home.all_ended)
    assert await home.fate(alone) == ("noop", ALL_DROPPED)
    assert (await home.fate(among))[0] == "applied"
    (first,), (second,) = (home.simulator.world.by_email(each) for each in addresses)
    assert (first.values["unsubscribed"], second.values["unsubscribed"]) == ("true", "true")
    assert second.values["lastName"] == "New"


async def test_a_field_of_marketos_is_filled_and_then_left_alone(house: Build) -> None:
    home = await filled(house)
    lead = list(home.simulator.world)[2]
    assert lead.email is not None
    home.simulator.world.update(lead.id, {"title": ""})
    await home.run(200)
    (filled_in,) = await home.enqueue((lead.email, '{"title": "CTO"}'))
    await home.run(900, home.all_ended)
    assert (await home.fate(filled_in))[0] == "applied"
    assert lead.values["title"] == "CTO"
    await home.run(200)
    (late,) = await home.enqueue((lead.email, '{"title": "CIO"}'))
    await home.run(900, home.all_ended)
    assert await home.fate(late) == ("noop", ALL_DROPPED)
    assert lead.values["title"] == "CTO"


async def test_what_is_taken_out_of_a_chunk_or_goes_by_sync_leads_is_ruled_as_well(house: Build) -> None:
    home = await filled(house, flush_after=timedelta(seconds=1))
    addresses = [address(home, number) for number in range(3)]
    by_flush, by_clear = await home.enqueue(
        (addresses[0], '{"title": "CTO", "lastName": "One"}'), (addresses[1], '{"title": "CTO", "lastName": "Two", "firstName": null}')
    )
    urgent = await home.enqueue_urgent(addresses[2], '{"title": "CTO", "lastName": "Three"}')
    nothing = await home.enqueue_urgent(address(home, 3), '{"title": "CTO"}')
    await home.run(900, home.all_ended)
    assert {(await home.fate(change))[0] for change in (by_flush, by_clear, urgent)} == {"applied"}
    assert await home.fate(nothing) == ("noop", ALL_DROPPED)
    leads = [home.simulator.world.by_email(each)[0].values for each in addresses]
    assert [each["title"] for each in leads] == ["CEO"] * 3
    assert [each["firstName"] for each in leads] == ["Of Marketo"] * 3
    assert [each["lastName"] for each in leads] == ["One", "Two", "Three"]


async def test_a_deleted_lead_stays_deleted(house: Build) -> None:
    home = await filled(house)
    first, second, *_ = list(home.simulator.world)
    assert first.email is not None
    assert second.email is not None
    for lead in (first, second):
        home.simulator.world.delete(lead.id)
        await home.pool.execute("UPDATE syncd.lead SET deleted_at = $1 WHERE lead_id = $2", home.clock.now(), lead.id)
    (change,) = await home.enqueue((first.email.upper(), '{"lastName": "Back"}'))
    urgent = await home.enqueue_urgent(second.email, '{"lastName": "Back"}')
    (new,) = await home.enqueue(("new@example.com", '{"lastName": "New"}'))
    await home.run(900, home.all_ended)
    assert await home.fate(change) == ("noop", DELETED)
    assert await home.fate(urgent) == ("noop", DELETED)
    assert (await home.fate(new))[0] == "applied"
    assert home.simulator.world.by_email(first.email) == []
    assert home.simulator.world.by_email(second.email) == []


async def test_a_deleted_lead_is_created_again_where_that_is_wanted(house: Build) -> None:
    home = await filled(house, deleted_in_marketo="recreate")
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    home.simulator.world.delete(lead.id)
    await home.pool.execute("UPDATE syncd.lead SET deleted_at = $1 WHERE lead_id = $2", home.clock.now(), lead.id)
    (change,) = await home.enqueue((lead.email, '{"lastName": "Back"}'))
    await home.run(900, home.all_ended)
    assert (await home.fate(change))[0] == "applied"
    assert len(home.simulator.world.by_email(lead.email)) == 1
