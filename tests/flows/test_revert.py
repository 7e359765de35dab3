"""A bad import is undone: what leads had before comes back, what anybody has done since stays."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncd.cli import releasing, revert
from syncd.cli.revert import Result, Wanted
from syncd.core.settings import Database, FieldRule, Push, Secret, UpdatedSince
from syncd.flows.revert import Reverter, Tally
from syncd.simulator import Fault
from syncd.store import reverting
from tests.flows.conftest import PULL, PUSH, Build, House

PEOPLE = replace(PULL, select=UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC)), window=timedelta(days=60), every=timedelta(minutes=1))
LONG = 7200.0
ENQUEUE = """
INSERT INTO syncd.outbox (instance, push, key, fields, created_at)
SELECT 'acme', $4, c.key, c.fields::jsonb, $3 FROM unnest($1::text[], $2::text[]) AS c (key, fields)
"""
World = dict[int, dict[str, str]]


async def filled(house: Build, leads: int, push: Push = PUSH) -> House:
    """A house whose mirror has all leads."""
    home = await house(pulls=[replace(PEOPLE, batch_size=500)], pushes=[push], leads=leads, checked=True)

    async def all_there() -> bool:
        return await home.pool.fetchval("SELECT count(*) = $1 FROM syncd.lead", leads) is True

    await home.run(LONG, all_there)
    await home.run(130)  # the window is done, and the next one too
    return home


async def sent(home: House, changes: Mapping[str, Mapping[str, Any]], push: str = "contacts") -> datetime:
    """Import these fields by key; returns a moment just before."""
    since = home.clock.now()
    home.clock.advance(1)
    texts = [json.dumps(fields) for fields in changes.values()]
    await home.pool.execute(ENQUEUE, list(changes), texts, home.clock.now(), push)
    await home.run(LONG, home.all_ended)
    return since


async def pulled(home: House) -> None:
    """Until the pulls have come past now."""
    await home.run(200)


def world(home: House) -> World:
    """Marketo's side."""
    return {lead.id: dict(lead.values) for lead in home.simulator.world}


def alone(home: House) -> dict[str, int]:
    """The addresses that one lead has."""
    counts = Counter(lead.email for lead in home.simulator.world)
    return {lead.email: lead.id for lead in home.simulator.world if lead.email and counts[lead.email] == 1}


async def reverted(home: House, dsn: str, since: datetime, push: Push = PUSH, **wanted: Any) -> Result:
    """What `syncd revert --yes` does."""
    database, meant = Database(Secret(dsn)), Wanted(since, **{"until": home.clock.now(), "fields": None, **wanted})
    looked = await revert.survey(database, home.instance, push, meant, home.clock.now, print)
    if not looked.tally.changes:
        return looked
    done = await revert.carry_out(database, home.instance, push, meant, home.clock.now, print)
    assert done.tally == looked.tally
    return done


async def released(home: House, dsn: str, result: Result, push: Push = PUSH) -> releasing.Done:
    """What `syncd release --plan` does, and what comes of it."""
    database = Database(Secret(dsn))
    assert result.plan is not None
    found = await releasing.look(database, "acme", push.name, result.plan, False)
    done = await releasing.release(database, "acme", push, found)
    await home.run(LONG, home.all_ended)
    return done


def left(tally: Tally) -> dict[str, dict[str, int]]:
    return {reason: dict(names) for reason, names in tally.left.items()}


def of(values: World, ids: Sequence[int], name: str) -> list[str | None]:
    return [values[lead_id].get(name) for lead_id in ids]


@pytest.mark.parametrize("leads", [200, pytest.param(10_000, marks=pytest.mark.prove)])
async def test_a_bad_import_is_undone_and_what_others_did_since_stays(house: Build, database: str, leads: int) -> None:
    home = await filled(house, leads)
    before, emails = world(home), alone(home)
    ids = list(emails.values())
    new = {f"new{n}@example.com": {"leadScore": 0, "firstName": "Wrong"} for n in range(leads // 20)}
    since = await sent(home, {email: {"leadScore": 0, "firstName": "Wrong"} for email in emails} | new)
    assert await home.states() == {"applied": len(emails) + len(new)}
    await pulled(home)
    wrong = world(home)
    assert set(of(wrong, ids, "firstName")) == {"Wrong"}

    renamed, scored = ids[: leads // 20], ids[leads // 40 : leads // 10]
    for lead_id in renamed:
        home.simulator.world.update(lead_id, {"firstName": "Mended"})
    for lead_id in scored:
        home.simulator.world.update(lead_id, {"leadScore": "77"})
    await pulled(home)

    result = await reverted(home, database, since)
    had_zero = [lead_id for lead_id in ids if before[lead_id].get("leadScore") == "0" and lead_id not in scored]
    assert result.tally.back == {
        "firstName": len(ids) - len(renamed),
        "leadScore": len(ids) - len(scored) - len(had_zero),
    }
    expected = {
        "created": {"leadScore": len(new), "firstName": len(new)},
        "changed": {"firstName": len(renamed), "leadScore": len(scored)},
        "same": {"leadScore": len(had_zero)},
    }
    assert left(result.tally) == {reason: names for reason, names in expected.items() if any(names.values())}
    await home.run(60)
    assert world(home) == {**world(home), **{lead_id: wrong[lead_id] for lead_id in ids if lead_id not in renamed + scored}}, "held"

    assert (await released(home, database, result)).overtaken == 0
    assert set(await home.states()) == {"applied"}
    now = world(home)
    for name, by_others in (("firstName", renamed), ("leadScore", scored)):
        ours = [lead_id for lead_id in ids if lead_id not in by_others]
        assert of(now, ours, name) == of(before, ours, name)
    assert set(of(now, renamed, "firstName")) == {"Mended"}
    assert set(of(now, scored, "leadScore")) == {"77"}
    for email in new:
        (lead,) = home.simulator.world.by_email(email)
        assert (lead.values["firstName"], lead.values["leadScore"]) == ("Wrong", "0")
    assert [len(now), *(await home.pool.fetch("SELECT state FROM syncd.plan"))[0]] == [len(before) + len(new), "released"]

    await pulled(home)
    again = await reverted(home, database, since)
    assert not again.tally.back, "nothing is left of it"
    assert again.plan is None
    assert "not_seen" not in again.tally.left


async def one_by_one(house: Build, push: Push = PUSH) -> tuple[House, list[tuple[str, int]], World]:
    """A house of 40 leads, its first leads with an address of their own, and what they are before."""
    home = await filled(house, 40, push)
    for lead_id in alone(home).values():
        home.simulator.world.update(lead_id, {"leadScore": "42", "firstName": "Ada", "company": "Analytical"})
    await pulled(home)
    return home, list(alone(home).items()), world(home)


async def test_however_late_it_is_released_nothing_of_later_is_undone(house: Build, database: str) -> None:
    home, leads, _ = await one_by_one(house)
    (untouched, first), (by_us, second), (by_others, third), (gone, fourth), (moved, fifth), *_ = leads
    since = await sent(home, {email: {"leadScore": 0, "firstName": "X"} for email, _ in leads[:5]})
    await pulled(home)
    result = await reverted(home, database, since)
    assert (result.tally.back, result.tally.changes) == ({"leadScore": 5, "firstName": 5}, 5)

    home.simulator.world.update(third, {"firstName": "Mended"})
    home.simulator.world.delete(fourth)
    home.simulator.world.update(fifth, {"email": "moved@example.com"})
    await pulled(home)
    await home.pool.execute("UPDATE syncd.lead SET deleted_at = $2 WHERE lead_id = $1", fourth, home.clock.now())  # as a census would
    await home.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    late = (await home.enqueue((by_us, '{"leadScore": 9}')))[0]

    async def ended() -> bool:
        return (await home.fate(late))[0] == "applied"

    await home.run(LONG, ended)
    done = await released(home, database, result)
    assert (done.released, done.overtaken) == (2, 3)
    fates = {
        row["key"]: (row["state"], row["reason"]) for row in await home.pool.fetch("SELECT * FROM syncd.change WHERE retry_of IS NOT NULL")
    }
    assert {fates[email][0] for email in (untouched, by_us)} == {"applied"}
    for email in (by_others, gone, moved):
        assert fates[email] == ("cancelled", "its lead was changed in Marketo, or went, after the plan was made")
    now = world(home)
    assert (now[first]["leadScore"], now[first]["firstName"]) == ("42", "Ada")
    assert (now[second]["leadScore"], now[second]["firstName"]) == ("9", "Ada"), "a later change of ours stays, the rest comes back"
    assert (now[third]["leadScore"], now[third]["firstName"]) == ("0", "Mended")
    assert fourth not in now
    assert home.simulator.world.by_email(moved) == [], "nobody is created by a revert"


async def test_a_change_that_is_committed_late_wins_though_its_id_is_lower(house: Build, database: str) -> None:
    home, ((email, lead_id), *_), _ = await one_by_one(house)
    since = await sent(home, {email: {"leadScore": 0}})
    await pulled(home)
    async with home.pool.acquire() as slow:
        transaction = slow.transaction()
        await transaction.start()
        await slow.execute("SELECT syncd.enqueue('acme', 'contacts', $1, $2)", email, '{"leadScore": 9}')
        result = await reverted(home, database, since)
        await transaction.commit()
    await released(home, database, result)
    assert world(home)[lead_id]["leadScore"] == "9"


async def test_what_was_empty_is_cleared_and_rules_hold(house: Build, database: str) -> None:
    push = replace(PUSH, rules={"lastName": FieldRule(only_set=True)})
    home, ((email, lead_id), *_), _ = await one_by_one(house, push)
    home.simulator.world.update(lead_id, {"leadScore": "", "lastName": ""})
    await pulled(home)
    since = await sent(home, {email: {"leadScore": 5, "lastName": "X", "company": "Y"}})
    await pulled(home)
    result = await reverted(home, database, since, push)
    assert result.tally.back == {"leadScore": 1, "company": 1}
    assert left(result.tally) == {"ruled": {"lastName": 1}}
    assert result.tally.changes == 2, "Sync Leads clears, and has no fields of companies"
    await released(home, database, result, push)
    now = world(home)[lead_id]
    assert ("leadScore" in now, now["lastName"], now["company"]) == (False, "X", "Analytical")


@pytest.mark.parametrize("lookup_field", ["email", "id"])
async def test_pushes_that_only_update(house: Build, database: str, lookup_field: str) -> None:
    push = replace(PUSH, mode="update_only", lookup_field=lookup_field)
    home, ((email, lead_id), (_, other), *_), _ = await one_by_one(house, push)
    key = email if lookup_field == "email" else str(lead_id)
    since = await sent(home, {key: {"leadScore": 0}, "nobody@example.com" if lookup_field == "email" else "999999999": {"leadScore": 0}})
    await pulled(home)
    result = await reverted(home, database, since, push)
    assert (result.tally.back, result.tally.left) == ({"leadScore": 1}, {}), "what ended noop was not sent"
    await released(home, database, result, push)
    now = world(home)
    assert (now[lead_id]["leadScore"], now[other]["leadScore"]) == ("42", "42")


async def test_another_push_by_ids_has_its_say(house: Build, database: str) -> None:
    by_id = replace(PUSH, name="by id", lookup_field="id")
    home, leads, _ = await one_by_one(house)
    await home.restart(pushes=(PUSH, by_id))
    since = await sent(home, {email: {"leadScore": 0} for email, _ in leads[:3]})
    await sent(home, {str(leads[0][1]): {"leadScore": 0}}, "by id")
    await pulled(home)
    await home.pool.execute(ENQUEUE, [str(leads[1][1])], ['{"leadScore": 1}'], home.clock.now(), "by id")
    result = await reverted(home, database, since)
    assert (result.tally.back, left(result.tally)) == ({"leadScore": 1}, {"set_since": {"leadScore": 1}, "on_the_way": {"leadScore": 1}})


async def test_what_was_broken_off_is_cancelled_by_the_next(
    house: Build, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reverting, "PAGE", 7)
    home, leads, before = await one_by_one(house)
    since = await sent(home, {email: {"leadScore": 0} for email, _ in leads})
    await pulled(home)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("syncd.cli.revert.Reverter.go", broken_off(Reverter.go, after=14))
        with pytest.raises(ConnectionError):
            await reverted(home, database, since)
    assert await home.states() == {"applied": len(leads), "held": 14}
    assert [row["state"] for row in await home.pool.fetch("SELECT state FROM syncd.plan")] == ["making"]
    result = await reverted(home, database, since)
    assert result.tally.back == {"leadScore": len(leads)}
    assert "plan 1, a revert that was broken off, is cancelled" in capsys.readouterr().out
    plans = await home.pool.fetch("SELECT state, changes FROM syncd.plan ORDER BY id")
    assert [(row["state"], row["changes"]) for row in plans] == [("discarded", 14), ("waiting", len(leads))]
    assert await home.states() == {"applied": len(leads), "cancelled": 14, "held": len(leads)}
    again = await reverted(home, database, since)
    assert left(again.tally) == {"on_the_way": {"leadScore": len(leads)}}, "one plan is enough"
    await released(home, database, result)
    assert [world(home)[lead_id]["leadScore"] for _, lead_id in leads] == [before[lead_id]["leadScore"] for _, lead_id in leads]


def broken_off(go: Any, after: int) -> Any:
    """The second pass, which makes the plan, loses its database after so many keys."""

    async def until(self: Reverter, connection: Any, plan: int | None, now: datetime, tell: Any) -> Tally:
        def die(keys: int) -> None:
            if plan is not None and keys >= after:
                raise ConnectionError

        return await go(self, connection, plan, now, die)  # type: ignore[no-any-return]

    return until


ERASE = """
UPDATE syncd.change_history SET fields = '{}', erased = '{leadScore}', key = CASE WHEN $2 THEN '' ELSE key END,
       key_norm = CASE WHEN $2 THEN '' ELSE key_norm END WHERE key = $1
"""
TWIN = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT instance, lead_id + 1000000, email, attributes, digests, first_seen_at, changed_at, asked_at FROM syncd.lead WHERE lead_id = $1
"""


async def test_leads_and_values_that_are_no_longer_there_are_counted(house: Build, database: str) -> None:
    home, leads, _ = await one_by_one(house)
    (emptied, _), (forgotten, _), (_, deleted), (_, shared), (_, moved), _ = leads[:6]
    since = await sent(home, {email: {"leadScore": 0} for email, _ in leads[:6]})
    await pulled(home)
    await home.pool.execute(ERASE, emptied, False)
    await home.pool.execute(ERASE, forgotten, True)
    await home.pool.execute("UPDATE syncd.lead SET deleted_at = $2 WHERE lead_id = $1", deleted, home.clock.now())
    await home.pool.execute(TWIN, shared)
    await home.pool.execute("UPDATE syncd.lead SET email = 'moved@example.com' WHERE lead_id = $1", moved)
    result = await reverted(home, database, since)
    assert result.tally.back == {"leadScore": 1}
    assert left(result.tally) == {
        "erased": {"leadScore": 2},
        "deleted": {"leadScore": 1},
        "several": {"leadScore": 1},
        "no_lead": {"leadScore": 1},
    }


async def test_what_no_pull_has_come_past_is_reverted_after_the_next_one(house: Build, database: str) -> None:
    home, leads, _ = await one_by_one(house)
    await home.pool.execute("UPDATE syncd.pull SET state = 'paused'")
    since = await sent(home, {email: {"leadScore": 0, "title": "X"} for email, _ in leads[:3]})
    await home.run(60)
    result = await reverted(home, database, since)
    assert (result.plan, left(result.tally)) == (None, {"not_seen": {"leadScore": 3}, "not_pulled": {"title": 3}})
    await home.pool.execute("UPDATE syncd.pull SET state = 'running'")
    await pulled(home)
    assert (await reverted(home, database, since)).tally.back == {"leadScore": 3}


async def test_an_import_that_went_twice_is_reverted_to_what_was_before_the_first(house: Build, database: str) -> None:
    """The answer to the first was lost, and the pull saw what it did long before the second."""
    push = replace(PUSH, unconfirmed_after=timedelta(minutes=5))
    home, leads, _ = await one_by_one(house, push)
    home.simulator.script("import", Fault.RESET_AFTER)
    since = await sent(home, {email: {"company": "Wrong"} for email, _ in leads})  # which only files write
    assert await home.job_states() == ["absent", "settled"]
    seen = await home.pool.fetchval("SELECT max(seen_at) FROM syncd.lead_history WHERE new #>> '{}' = 'Wrong'")
    assert seen < await home.pool.fetchval("SELECT max(submitted_at) FROM syncd.import_job")
    await pulled(home)
    assert (await reverted(home, database, since, push)).tally.back == {"company": len(leads)}
