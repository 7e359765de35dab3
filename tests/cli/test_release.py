"""`syncd release`, and what `syncd discard` and `syncd status` have to do with what is held."""

import json

import asyncpg
import pytest

from tests.cli.conftest import Run, Yaml
from tests.cli.test_operators import REGISTERED, enqueue, told

GUARD = """
INSERT INTO syncd.guard (instance, push, digest, canary, begun_at, held_at, held_why)
VALUES ('acme', 'contacts', 'd', $1, now(), now(), 'more than 400 changes came within an hour')
"""
HOLD = "UPDATE syncd.outbox SET state = 'held', reason = 'surge' WHERE id > 1"
PLAN = """
WITH plan AS (INSERT INTO syncd.plan (instance, push, kind, state, reason, made_at)
              VALUES ('acme', 'contacts', 'backfill', 'waiting', 'all that is there', now()) RETURNING id)
UPDATE syncd.outbox SET state = 'held', plan_id = (SELECT id FROM plan) WHERE key LIKE 'plan%'
"""
STATES = "SELECT string_agg(state, ' ' ORDER BY id) FROM syncd.change"
STOP = "UPDATE syncd.push SET state = 'held', message = 'of a canary of 20 changes 9 failed'"


@pytest.fixture
async def held(pool: asyncpg.Pool) -> asyncpg.Pool:
    """One change that is pending, two that the guard holds, two of a plan."""
    await pool.execute(REGISTERED)
    await pool.execute(GUARD, "good")
    await enqueue(pool, "a@x", "b@x", "c@x", "plan1@x", "plan2@x")
    await pool.execute(HOLD)
    await pool.execute(PLAN)
    return pool


async def test_what_the_guard_holds_is_counted_and_released(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    code, out, err = await told(syncd, yaml, "release", "--push", "contacts")
    assert (code, out) == (2, "contacts: 2 to be released, ids 2, 3; more than 400 changes came within an hour\n")
    assert "give --yes" in err
    assert await held.fetchval(STATES) == "pending held held held held"
    code, out, _ = await told(syncd, yaml, "release", "--push", "contacts", "-y")
    assert (code, out.splitlines()[-1]) == (0, "contacts: 2 released")
    assert await held.fetchval(STATES) == "pending pending pending held held"
    assert await held.fetchval("SELECT held_at FROM syncd.guard") is None
    assert await told(syncd, yaml, "release", "--push", "contacts", "-y") == (0, "contacts: nothing is held\n", "")


async def test_a_plan_is_released(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    code, out, _ = await told(syncd, yaml, "release", "--push", "contacts", "--plan", "1", "-y")
    assert (code, out.splitlines()) == (
        0,
        ["contacts: 2 to be released, of plan 1, ids 4, 5; all that is there", "contacts: 2 released"],
    )
    assert await held.fetchval(STATES) == "pending held held pending pending"
    assert await held.fetchval("SELECT state FROM syncd.plan") == "released"
    code, _, err = await told(syncd, yaml, "release", "--push", "contacts", "--plan", "1", "-y")
    assert (code, err) == (2, "syncd release: contacts has nothing held for a plan 1; syncd status shows what is held\n")


async def test_all_is_released(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    assert (await told(syncd, yaml, "release", "--push", "contacts", "--all", "-y"))[0] == 0
    assert await held.fetchval(STATES) == "pending pending pending pending pending"
    assert await held.fetchval("SELECT state FROM syncd.plan") == "released"


async def test_a_push_that_a_bad_canary_has_stopped_goes_on(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await pool.execute(GUARD, "bad")
    await pool.execute(STOP)
    code, out, _ = await told(syncd, yaml, "release", "--push", "contacts", "-y")
    assert (code, out.splitlines()) == (
        0,
        ["contacts: held as a whole: of a canary of 20 changes 9 failed", "contacts: goes on"],
    )
    assert await pool.fetchval("SELECT state || coalesce(message, '') FROM syncd.push") == "running"
    assert await pool.fetchval("SELECT canary FROM syncd.guard") == "good"


async def test_a_pause_outlasts_a_release(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await pool.execute(GUARD, "bad")
    await pool.execute(STOP)
    await told(syncd, yaml, "pause", "--push", "contacts", "-y")
    await told(syncd, yaml, "release", "--push", "contacts", "-y")
    assert await pool.fetchval("SELECT state FROM syncd.push") == "paused"


async def test_only_what_the_guard_holds_is_discarded(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    assert (await told(syncd, yaml, "discard", "--push", "contacts", "--held", "-y"))[0] == 0
    assert await held.fetchval(STATES) == "pending cancelled cancelled held held"
    assert await held.fetchval("SELECT state FROM syncd.plan") == "waiting"
    assert (await told(syncd, yaml, "discard", "--push", "contacts", "--plan", "1", "-y"))[0] == 0
    assert await held.fetchval(STATES) == "pending cancelled cancelled cancelled cancelled"
    assert await held.fetchval("SELECT state FROM syncd.plan") == "discarded"


async def test_after_a_discard_a_push_that_was_held_tries_another_canary(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await pool.execute(GUARD, "bad")
    await pool.execute(STOP)
    await enqueue(pool, "a@x")
    await enqueue(pool, "b@x")
    assert (await told(syncd, yaml, "discard", "--push", "contacts", "--key", "b*", "-y"))[0] == 0
    assert await pool.fetchval("SELECT state FROM syncd.push") == "held", "those keys were meant, not the push"
    assert (await told(syncd, yaml, "discard", "--push", "contacts", "-y"))[0] == 0
    assert await pool.fetchval("SELECT state FROM syncd.push") == "running"
    assert await pool.fetchval("SELECT canary FROM syncd.guard") == "none"


async def test_status_shows_what_is_held_and_how_to_go_on(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    _, out, _ = await told(syncd, yaml, "status")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert (
        "contacts 2 0 s more than 400 changes came within an hour 2, 3 "
        "syncd plan -i acme --push contacts, or syncd release -i acme --push contacts, or syncd discard -i acme --push contacts --held"
    ) in lines
    assert any("plan 1 2 0 s all that is there 4, 5 syncd plan -i acme --push contacts --plan 1," in line for line in lines)
    _, out, _ = await told(syncd, yaml, "status", "--json")
    assert [hold["changes"] for hold in json.loads(out)["instances"][0]["holds"]] == [2, 2]


async def test_wrong_choices_are_told(syncd: Run, yaml: Yaml, held: asyncpg.Pool) -> None:
    code, _, err = await told(syncd, yaml, "release", "--push", "contacts", "--plan", "1", "--all")
    assert (code, err) == (2, "syncd release: give --plan or --all, not both\n")
    code, _, err = await told(syncd, yaml, "release", "--push", "contcts")
    assert code == 2
    assert 'did you mean "contacts"?' in err
