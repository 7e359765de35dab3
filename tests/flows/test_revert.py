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
from syncd.core.settings import Database, Push, Secret, UpdatedSince
from syncd.flows.revert import Tally
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
