"""`syncd plan --push` against what then happens: equal, as it is the same code over the same values; and it touches nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest

from syncd.core.forget import Person
from syncd.core.rules import ALL_DROPPED
from syncd.core.settings import FieldRule, Guard, UpdatedSince
from syncd.flows import dryrun, push
from syncd.flows.dryrun import Planned, PushPlan
from syncd.store import forgetting, holding
from tests.flows.conftest import PULL, PUSH, Build, House

PEOPLE = replace(
    PULL,
    select=UpdatedSince(datetime(2026, 1, 1, tzinfo=UTC)),
    fields=("firstName", "title", "unsubscribed", "Email"),
    window=timedelta(days=30),
    every=timedelta(hours=6),
)
RULES = {"unsubscribed": FieldRule(never=("false",)), "title": FieldRule(only_set=True)}
LONG = 7200.0


async def planned(home: House, plan_id: int | None = None) -> PushPlan:
    made = await dryrun.plan(home.pool, home.instance, home.instance.pushes[0], plan_id, home.clock.now(), lambda done, total: None)
    assert isinstance(made, PushPlan), made
    return made


async def filled(house: Build, leads: int = 60, **changes: object) -> House:
    push = replace(PUSH, **{"rules": RULES, **changes})  # type: ignore[arg-type]
    home = await house(pulls=[PEOPLE], pushes=[push], leads=leads, checked=True)
    for lead in home.simulator.world:
        home.simulator.world.update(lead.id, {"firstName": "Of Marketo", "title": "CEO"})
    home.clock.advance(120)  # what was updated within the pull's margin comes at its next turn
    await home.run(60)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes ->> 'title' = 'CEO'") == leads
    return home


def emails(home: House) -> list[str]:
    """Of leads that have one for themselves."""
    return [lead.email for lead in home.simulator.world if lead.email and len(home.simulator.world.by_email(lead.email)) == 1]


async def became(home: House, ids: Sequence[int] | None = None) -> Counter[tuple[str, str | None]]:
    """State and reason of each change, or of those; of what Marketo took, no reason."""
    rows = await home.pool.fetch("SELECT state, reason FROM syncd.change_history WHERE $1::bigint[] IS NULL OR id = ANY ($1)", ids)
    return Counter((row["state"], row["reason"] if row["state"] in ("noop", "rejected") else None) for row in rows)


async def sent(home: House) -> tuple[int, int, int]:
    """Files, their bytes, calls of Sync Leads."""
    row = await home.row(
        "SELECT (SELECT count(*) FROM syncd.import_job)::int AS files, (SELECT coalesce(sum(byte_count), 0) FROM syncd.import_job)::int"
        " AS bytes, (SELECT count(*) FROM syncd.sync_batch)::int AS calls"
    )
    return row["files"], row["bytes"], row["calls"]


def rows_of(home: House) -> Counter[str]:
    """What Marketo says it did to leads, by files and by Sync Leads."""
    report = home.simulator.report()
    return Counter({name: report.rows[name] + report.sync_statuses.get(name, 0) for name in ("created", "updated")})


def import_calls(home: House) -> int:
    endpoints = ("import", "status", "failures", "warnings")
    return sum(call.count for call in home.simulator.report().calls if call.endpoint in endpoints)


async def held_against_what_happens(home: House, planned: Planned, ids: Sequence[int] | None = None) -> None:
    """Let the daemon run, and compare."""
    before, rows, calls, began = await sent(home), rows_of(home), import_calls(home), home.clock.now()
    await home.run(LONG, home.all_ended)
    assert await home.all_ended()
    took = home.clock.now() - began
    fates = await became(home, ids)
    tally = planned.tally
    assert Counter({reason: n for (state, reason), n in fates.items() if state == "noop"}) == tally.noop
    assert Counter({reason: n for (state, reason), n in fates.items() if state == "rejected"}) == tally.rejected
    assert fates[("superseded", None)] == tally.superseded
    assert fates[("applied", None)] + fates[("warned", None)] == tally.carried
    assert sum(fates.values()) == tally.changes
    files, size, batches = (now - then for now, then in zip(await sent(home), before, strict=True))
    assert (files, size) == (tally.files, tally.file_bytes)
    least, most = planned.forecast.sync_calls
    assert least <= batches <= most
    assert rows_of(home) - rows == +Counter(created=tally.created, updated=tally.updated)
    least, most = planned.forecast.import_calls
    assert least <= import_calls(home) - calls <= most
    assert planned.forecast.time[0] <= took <= planned.forecast.time[1], (planned.forecast.time, took)


async def enqueue_a_mix(home: House) -> None:
    """Of everything something."""
    known = emails(home)
    new = [(f"new{n}@example.com", orjson.dumps({"firstName": f"New {n}", "lastName": "Person"}).decode()) for n in range(1700)]
    await home.enqueue(
        *new,
        *((address, '{"firstName": "Ours", "lastName": "Known"}') for address in known[:20]),
        *((address, '{"firstName": "Of Marketo"}') for address in known[20:30]),  # echoes
        *((f"bad{n}@example.com", '{"leadScore": 1.5}') for n in range(5)),
        ("bad-name@example.com", '{"fristName": "Ada"}'),
        ("jürgen@example.com", '{"leadScore": 1}'),
        (" ", '{"leadScore": 1}'),
        *((address, '{"lastName": null}') for address in known[30:34]),  # clears
        *((address, '{"title": null}') for address in known[34:37]),  # which a rule drops
        *((address, '{"unsubscribed": false, "lastName": "Ruled"}') for address in known[37:40]),
        *((f"rare{n}@example.com", '{"leadScore": 7, "lastName": "Rare"}') for n in range(9)),
        *((address, '{"company": "Acme"}') for address in known[40:43]),  # by a file, however few
        ("NEW3@example.com", '{"firstName": "Newer"}'),  # rides along
        ("new4@example.com", '{"firstName": "Newer", "lastName": "Still"}'),  # supersedes
        (known[0], '{"lastName": "Later"}'),
    )
    for number in range(4):
        await home.enqueue_urgent(known[45 + number], '{"lastName": "Urgent"}')
    await home.enqueue_urgent("new7@example.com", '{"lastName": "Urgent"}')
    await home.enqueue_urgent("urgent@example.com", '{"lastName": "Urgent"}')


async def test_the_plan_is_what_then_happens(house: Build) -> None:
    home = await filled(house)
    await enqueue_a_mix(home)
    (pending,) = (await planned(home)).sections
    tally = pending.tally
    assert (tally.created, tally.updated) == (1700 + 9 + 1, 20 + 4 + 3 + 3 + 4)
    assert tally.noop[ALL_DROPPED.reason] == 3
    assert sum(tally.noop.values()) == 13
    assert sum(tally.rejected.values()) == 8
    assert tally.files == 2, "the people and the companies"
    await held_against_what_happens(home, pending)
    assert home.simulator.report().duplicate_leads_created == 0


@pytest.mark.parametrize("claim", [7, 40])
async def test_keys_that_come_again_in_other_claims_wait_for_each_other(house: Build, claim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dryrun, "CLAIM", claim)
    monkeypatch.setattr(push, "CLAIM", claim)
    home = await filled(house, flush_after=timedelta(seconds=2))
    people = [*emails(home)[:10], *(f"new{n}@example.com" for n in range(10))]
    await home.enqueue(("new0@example.com", '{"leadScore": 1.5, "company": "No"}'), (emails(home)[20], '{"leadScore": "x"}'))
    for score in range(1, 4):
        await home.enqueue(*((address, f'{{"leadScore": {score}, "company": "Acme {score}"}}') for address in people))
    await home.enqueue((emails(home)[20], '{"firstName": "Of Marketo"}'))
    (pending,) = (await planned(home)).sections
    assert pending.rounds > 1
    assert pending.tally.created == 10
    assert sum(pending.tally.noop.values()) == 1, "whose other change was rejected before"
    await home.run(LONG, home.all_ended)
    fates = await became(home)
    assert sum(n for (state, _), n in fates.items() if state == "noop") == 1
    assert fates[("superseded", None)] == pending.tally.superseded
    assert sum(n for (state, _), n in fates.items() if state == "rejected") == sum(pending.tally.rejected.values())
    assert rows_of(home) == Counter(created=pending.tally.created, updated=pending.tally.updated)


async def test_files_are_cut_where_the_packer_cuts_them(house: Build) -> None:
    home = await filled(house, max_body_bytes=40_000, flush_after=timedelta(minutes=5))
    await home.enqueue(*((f"new{n}@example.com", orjson.dumps({"company": "Acme", "lastName": f"P{n}"}).decode()) for n in range(2500)))
    (pending,) = (await planned(home)).sections
    assert pending.tally.files > 1
    await held_against_what_happens(home, pending)


async def test_what_is_held_is_told_apart_and_is_what_a_release_does(house: Build) -> None:
    home = await filled(house)
    known = emails(home)
    (older,) = await home.enqueue((known[0], '{"firstName": "Old", "lastName": "Old"}'))
    plan_id = await home.pool.fetchval(
        "INSERT INTO syncd.plan (instance, push, kind, state, reason, made_at)"
        " VALUES ('acme', 'contacts', 'backfill', 'waiting', 'a test', now()) RETURNING id"
    )
    ids = [older, *await home.enqueue(*((f"held{n}@example.com", '{"company": "Acme"}') for n in range(6)), (known[9], '{"title": null}'))]
    hold = "UPDATE syncd.outbox SET state = 'held', plan_id = $1, created_at = $3 WHERE id = ANY ($2::bigint[])"
    await home.pool.execute(hold, plan_id, ids, home.clock.now())
    await home.enqueue((known[0], '{"firstName": "Newer"}'), ("new@example.com", '{"company": "Acme"}'))
    pending, held = (await planned(home)).sections
    assert (pending.of, pending.tally.changes, held.of, held.tally.changes) == ("pending", 2, "held", 8)
    assert (held.tally.created, held.tally.updated, sum(held.tally.noop.values())) == (6, 1, 1)
    row = next(row for row in held.sample if row.key == known[0].lower())
    assert row.cells == {"lastName": "Old"}, "what is newer stays"
    await home.run(900, lambda: _only_held(home))
    (alone,) = (await planned(home, plan_id)).sections
    assert (alone.of, alone.tally) == (f"plan {plan_id}", held.tally)
    async with home.pool.acquire() as connection:
        await holding.release(connection, "acme", "contacts", plan_id, 10**9)
    await held_against_what_happens(home, alone, ids)


async def _only_held(home: House) -> bool:
    return await home.pool.fetchval("SELECT NOT EXISTS (SELECT FROM syncd.outbox WHERE state <> 'held')") is True


async def test_an_unfinished_chunk_goes_on(house: Build) -> None:
    home = await filled(house, flush_after=timedelta(minutes=5))
    await home.enqueue(*((f"first{n}@example.com", '{"company": "Acme"}') for n in range(3)))
    await home.run(3)
    ids = await home.enqueue(*((f"second{n}@example.com", '{"company": "Acme"}') for n in range(4)))
    (pending,) = (await planned(home)).sections
    before = await home.pool.fetchval("SELECT byte_count FROM syncd.chunk")
    assert (pending.tally.changes, pending.tally.files, pending.tally.created) == (4, 1, 4)
    await home.run(LONG, home.all_ended)
    assert (await sent(home))[:2] == (1, before + pending.tally.file_bytes)
    assert await became(home, ids) == Counter({("applied", None): 4})


async def test_what_waits_for_a_live_chunk_goes_after_it(house: Build) -> None:
    home = await filled(house)
    await home.enqueue(*((f"new{n}@example.com", '{"company": "Acme"}') for n in range(3)))
    await home.run(60, home.a_job_exists)
    ids = await home.enqueue(("new1@example.com", '{"company": "Later"}'), ("other@example.com", '{"company": "Acme"}'))
    (pending,) = (await planned(home)).sections
    assert (pending.rounds, pending.tally.created, pending.tally.updated, pending.tally.files) == (2, 1, 1, 2)
    await home.run(LONG, home.all_ended)
    assert await became(home, ids) == Counter({("applied", None): 2})


async def test_forgotten_people_and_update_only(house: Build) -> None:
    home = await filled(house, mode="update_only", rules={})
    known = emails(home)
    await home.enqueue((known[0], '{"lastName": "A"}'), (known[1], '{"lastName": null}'), ("nobody@example.com", '{"lastName": "B"}'))
    await home.enqueue((known[2], '{"lastName": "C"}'))
    async with home.pool.acquire() as connection:
        await forgetting.keep(connection, "acme", Person.of([("email", known[2])]))
    (pending,) = (await planned(home)).sections
    assert pending.tally.rejected == Counter({forgetting.REFUSED: 1})
    assert pending.tally.updated == 2
    await held_against_what_happens(home, pending)


@pytest.mark.parametrize(("lookup_field", "expected"), [("id", (0, 1, 1)), ("personId", (0, 0, 2))])
async def test_by_other_keys_nobody_is_said_to_be_new(house: Build, lookup_field: str, expected: tuple[int, int, int]) -> None:
    home = await filled(house, lookup_field=lookup_field, rules={})
    lead = next(iter(home.simulator.world))
    await home.enqueue((str(lead.id), '{"company": "Acme"}'), ("987654321", '{"company": "Acme"}'))
    made = await planned(home)
    tally = made.sections[0].tally
    assert (tally.created, tally.updated, tally.unknown) == expected
    assert tally.files == 1
    assert any("can't be told" in note for note in made.notes) == (lookup_field == "personId")


async def test_a_list_takes_files_only_and_no_clears(house: Build) -> None:
    home = await filled(house, list_id=1001)
    await home.enqueue((emails(home)[0], '{"firstName": "Of Marketo"}'), (emails(home)[1], '{"lastName": null}'))
    tally = (await planned(home)).sections[0].tally
    assert (tally.files, tally.updated, tally.calls) == (1, 1, 0)
    (reason,) = tally.parked
    assert "does not add to a list" in reason
    await home.run(100)
    assert await home.states() == {"in_chunk": 1, "parked": 1} or await home.states() == {"applied": 1, "parked": 1}


STATE = """
SELECT jsonb_object_agg(name, rows) FROM (
    SELECT 'outbox' AS name, jsonb_agg(jsonb_build_array(o.xmin, o.xmax, o.ctid, o.id) ORDER BY id) AS rows FROM syncd.outbox o
    UNION ALL SELECT 'chunk', jsonb_agg(jsonb_build_array(c.xmin, c.xmax, c.ctid, c.id) ORDER BY id) FROM syncd.chunk c
    UNION ALL SELECT 'claims', jsonb_agg(jsonb_build_array(k.xmin, k.xmax, k.ctid, k.key_norm) ORDER BY key_norm) FROM syncd.key_claim k
    UNION ALL SELECT 'mark', jsonb_agg(jsonb_build_array(m.xmin, m.xmax, m.claimed_up_to)) FROM syncd.claim_mark m
    UNION ALL SELECT 'guard', jsonb_agg(jsonb_build_array(g.xmin, g.xmax, g.canary)) FROM syncd.guard g
    UNION ALL SELECT 'batches', jsonb_agg(jsonb_build_array(b.xmin, b.xmax, b.id) ORDER BY id) FROM syncd.sync_batch b
    UNION ALL SELECT 'history', jsonb_agg(jsonb_build_array(h.id)) FROM syncd.change_history h) each
"""


async def test_nothing_is_written_locked_or_asked(house: Build) -> None:
    home = await filled(house, guard=Guard(canary=20, hold_above=400, max_created=5), flush_after=timedelta(minutes=5))
    await home.enqueue(("first@example.com", '{"company": "Acme"}'))
    await home.run(3)
    await enqueue_a_mix(home)
    calls = home.simulator.report().calls_counted
    before = await home.pool.fetchval(STATE)
    made = await planned(home)
    assert await home.pool.fetchval(STATE) == before, "not even a row lock"
    assert home.simulator.report().calls_counted == calls
    assert made.guard[0].startswith("the guard")
    assert any("max_created" in line for line in made.guard)


async def test_the_sample_tells_old_and_new_and_is_the_same_each_time(house: Build) -> None:
    home = await filled(house)
    await enqueue_a_mix(home)
    (pending,) = (await planned(home)).sections
    (again,) = (await planned(home)).sections
    assert pending.sample == again.sample
    assert len(pending.sample) == 20
    known = [row for row in pending.sample if row.key in pending.olds]
    assert all(row.fate == "created" for row in pending.sample if row.key not in pending.olds)
    for row in known:
        if "firstName" in row.cells:
            assert pending.olds[row.key].values["firstName"] == "Of Marketo"


async def test_an_empty_outbox_and_a_field_dictionary_that_is_not_known_yet(house: Build, pool: asyncpg.Pool) -> None:
    home = await house(pushes=[PUSH], checked=True)
    made = await planned(home)
    assert [(each.of, each.tally.changes, each.forecast.time[1]) for each in made.sections] == [("pending", 0, timedelta())]
    await home.enqueue(("new@example.com", '{"fristName": "Ada"}'))
    made = await planned(home)
    assert made.notes[0] == dryrun.NOT_DESCRIBED
    assert made.sections[0].tally.created == 1
