"""Rules in the flows: what must not be sent never comes to Marketo, by files or by Sync Leads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from syncd.core.rules import ALL_DROPPED, DELETED, NO_LEAD, SEVERAL
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
    assert await home.fate(alone) == ("noop", ALL_DROPPED.reason)
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
    assert await home.fate(late) == ("noop", ALL_DROPPED.reason)
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
    assert await home.fate(nothing) == ("noop", ALL_DROPPED.reason)
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
    assert await home.fate(change) == ("noop", DELETED.reason)
    assert await home.fate(urgent) == ("noop", DELETED.reason)
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


async def test_a_push_that_may_only_update_creates_nobody(house: Build) -> None:
    """By a file, by Sync Leads, urgently: each lead is named by its id."""
    home = await filled(house, mode="update_only", rules={})
    leads = list(home.simulator.world)[:4]
    addresses = [address(home, number) for number in range(4)]
    await home.pool.execute("UPDATE syncd.lead SET email = $1 WHERE lead_id = $2", addresses[3].upper(), list(home.simulator.world)[9].id)
    home.simulator.world.update(leads[0].id, {"email": "moved@example.com"})  # which the mirror does not know yet
    by_file, by_sync, nobody, several = await home.enqueue(
        (addresses[0], '{"lastName": "One", "company": "C"}'),
        (addresses[1], '{"lastName": "Two", "firstName": null}'),
        ("nobody@example.com", '{"lastName": "Nobody"}'),
        (addresses[3], '{"lastName": "Four"}'),
    )
    urgent = await home.enqueue_urgent(addresses[2], '{"lastName": "Three"}')
    await home.run(900, home.all_ended)
    assert {(await home.fate(change))[0] for change in (by_file, by_sync, urgent)} == {"applied"}
    assert await home.fate(nobody) == ("noop", NO_LEAD.reason)
    assert await home.fate(several) == ("rejected", SEVERAL.reason)
    assert [lead.values["lastName"] for lead in leads[:3]] == ["One", "Two", "Three"]
    assert "firstName" not in leads[1].values
    assert leads[3].values["lastName"] != "Four"
    assert len(home.simulator.world) == 20
    assert await home.pool.fetchval("SELECT columns FROM syncd.chunk WHERE state = 'done'") == ["id", "company", "lastName"]


async def test_a_row_that_fails_is_told_from_others_by_its_id(house: Build) -> None:
    home = await filled(house, mode="update_only", rules={})
    addresses = [address(home, number) for number in range(3)]
    changes = await home.enqueue(*((each, f'{{"lastName": "L{number}", "company": "C"}}') for number, each in enumerate(addresses)))
    home.simulator.world._remove(list(home.simulator.world)[1].id)  # and the mirror has not heard of it
    await home.run(900, home.all_ended)
    assert [(await home.fate(change))[0] for change in changes] == ["applied", "rejected", "applied"]
    assert home.simulator.world.by_email(addresses[1]) == []


async def test_a_late_change_does_not_overwrite_what_a_newer_one_has_set_by_id(house: Build) -> None:
    home = await filled(house, mode="update_only", rules={})
    lead = next(iter(home.simulator.world))
    assert lead.email is not None
    (older,) = await home.enqueue((lead.email, '{"lastName": "Older", "firstName": "Sent"}'))
    # created_at is the database's time, and history is looked at from then on
    await home.pool.execute("UPDATE syncd.outbox SET state = 'held', created_at = $2 WHERE id = $1", older, home.clock.now())
    (newer,) = await home.enqueue((lead.email, '{"lastName": "Newer"}'))

    async def newer_ended() -> bool:
        return (await home.fate(newer))[0] != "pending" and await home.pool.fetchval("SELECT count(*) FROM syncd.outbox") == 1

    await home.run(900, newer_ended)
    await home.pool.execute("UPDATE syncd.outbox SET state = 'pending' WHERE id = $1", older)
    await home.run(900, home.all_ended)
    assert {(await home.fate(change))[0] for change in (older, newer)} == {"applied"}
    assert (lead.values["lastName"], lead.values["firstName"]) == ("Newer", "Sent")
