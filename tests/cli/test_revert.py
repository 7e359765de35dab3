"""`syncd revert`: what it says, asks and refuses."""

import json
from typing import Any

import asyncpg
import pytest

from syncd.store import attaching
from tests.cli.conftest import Run, Yaml

DESCRIBED = """
INSERT INTO syncd.field (instance, field, ordinal, rest_name, soap_name, display_name, data_type, read_only, first_seen_at)
VALUES ('acme', 'email', 1, 'email', 'Email', 'Email', 'email', false, now()),
       ('acme', 'firstName', 2, 'firstName', 'FirstName', 'First Name', 'string', false, now()),
       ('acme', 'company', 3, 'company', 'Company', 'Company', 'string', false, now()),
       ('acme', 'title', 4, 'title', 'Title', 'Title', 'string', false, now())
"""
HISTORY = "SELECT syncd.ensure_lead_history('acme', (now() AT TIME ZONE 'UTC')::date)"
# Ada's first name and Eve's were set an hour ago, and seen; Eve's was mended since. The title no pull brings.
STORY = """
SELECT syncd.ensure_lead_history('acme', ((now() - interval '1 hour') AT TIME ZONE 'UTC')::date);
SELECT syncd.ensure_history_partition(((now() - interval '1 hour') AT TIME ZONE 'UTC')::date);
INSERT INTO syncd.pull (instance, pull, state, selector, planned_until) VALUES ('acme', 'people', 'running', '{}', now());
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', 1, 'ada@example.com', '{"firstName": "Wrong"}', '{"people": "x"}', now() - interval '9 days', now(), now()),
       ('acme', 2, 'eve@example.com', '{"firstName": "Mended"}', '{"people": "x"}', now() - interval '9 days', now(), now());
INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
VALUES ('acme', 1, 'people', now() - interval '50 minutes', 'firstName', '"Ada"', '"Wrong"'),
       ('acme', 2, 'people', now() - interval '50 minutes', 'firstName', '"Eve"', '"Wrong"'),
       ('acme', 2, 'people', now() - interval '30 minutes', 'firstName', '"Wrong"', '"Mended"');
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at)
SELECT n, 'acme', 'contacts', who, who, '{"firstName": "Wrong", "title": "Wrong"}', 'applied', 0, now() - interval '1 hour',
       now() - interval '1 hour'
  FROM (VALUES (1, 'ada@example.com'), (2, 'eve@example.com')) AS c (n, who)
"""
SINCE = ("--since", "2026-01-01")


async def told(syncd: Run, yaml: Yaml, *arguments: str) -> tuple[int, str, str]:
    ran = await syncd("revert", "-c", yaml.write(), "--push", "contacts", *arguments)
    return ran.code, ran.out, ran.err


@pytest.fixture
async def imported(pool: asyncpg.Pool) -> asyncpg.Pool:
    await pool.execute(DESCRIBED)
    await pool.execute(STORY)
    return pool


async def since(pool: asyncpg.Pool) -> tuple[str, str]:
    """Two hours ago, but no earlier than the history."""
    moment = await pool.fetchval("SELECT to_char(now() AT TIME ZONE 'UTC' - interval '2 hours', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')")
    return "--since", moment


async def outbox(pool: asyncpg.Pool) -> list[dict[str, Any]]:
    rows = await pool.fetch("SELECT key, fields, state, reason, retry_of, plan_id FROM syncd.outbox ORDER BY id")
    return [dict(row) for row in rows]


async def test_it_counts_asks_and_makes_a_plan(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    code, out, err = await told(syncd, yaml, *await since(imported))
    lines = out.splitlines()
    assert code == 2
    assert lines[0].endswith(", 1 values of 1 leads can be put back")
    assert lines[1] == "  firstName: 1"
    left = [line for line in lines if line.startswith("left as they are")]
    assert left == [
        "left as they are: 2 (title 2): no pull brings the field, so that nobody knows what it had",
        "left as they are: 1 (firstName 1): have another value by now: somebody has changed them since, or ours never arrived",
    ]
    assert err == "syncd revert: nobody to ask: not on a terminal; give --yes to make the plan\n"
    assert await outbox(imported) == []
    assert await imported.fetchval("SELECT count(*) FROM syncd.plan") == 0

    code, out, err = await told(syncd, yaml, *await since(imported), "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == [
        "plan 1: 1 change with 1 value is held",
        "syncd plan -i acme --push contacts --plan 1 tells what they would do, "
        "syncd release -i acme --push contacts --plan 1 lets them go, syncd discard -i acme --push contacts --plan 1 cancels them",
    ]
    assert "example.com" not in out
    (row,) = await outbox(imported)
    assert row == {
        "key": "ada@example.com",
        "fields": '{"firstName": "Ada"}',
        "state": "held",
        "reason": "plan 1, a revert of change 1, waits for its release",
        "retry_of": 1,
        "plan_id": 1,
    }
    ran = await syncd("status", "-c", yaml.file)
    assert "plan 1" in ran.out
    ran = await syncd("failures", "show", "-c", yaml.file, str(await imported.fetchval("SELECT id FROM syncd.outbox")))
    assert "retry or revert of" in ran.out


async def test_a_plan_is_released_or_discarded(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    await told(syncd, yaml, *await since(imported), "--yes")
    ran = await syncd("discard", "-c", yaml.file, "--push", "contacts", "--plan", "1", "--yes")
    assert ran.code == 0
    assert await imported.fetchval("SELECT state FROM syncd.plan") == "discarded"
    await told(syncd, yaml, *await since(imported), "--yes")
    await imported.execute(
        """INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
           VALUES ('acme', 1, 'people', now(), 'company', NULL, '"X"')"""
    )
    ran = await syncd("release", "-c", yaml.file, "--push", "contacts", "--plan", "2", "--yes")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "contacts: 1 released")
    await told(syncd, yaml, *await since(imported), "--yes")
    assert [row["state"] for row in await outbox(imported)] == ["pending"], "it is on its way"


async def test_what_has_changed_since_the_plan_is_not_released(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    await told(syncd, yaml, *await since(imported), "--yes")
    await imported.execute(
        """INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
           VALUES ('acme', 1, 'people', now() + interval '1 second', 'firstName', '"Wrong"', '"Mended"')"""
    )
    ran = await syncd("release", "-c", yaml.file, "--push", "contacts", "--plan", "1", "--yes")
    assert (ran.code, ran.out.splitlines()[-2:]) == (
        0,
        [
            "contacts: 0 released",
            "contacts: 1 reverts cancelled: their leads have changed in Marketo, or gone, since the plan was made",
        ],
    )
    assert await outbox(imported) == []


async def test_json(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    code, out, err = await told(syncd, yaml, *await since(imported), "--fields", "firstName", "--json", "--yes")
    shown = json.loads(out)
    assert code == 0
    assert {key: shown[key] for key in ("push", "put_back", "left", "leads", "changes", "plan")} == {
        "push": "contacts",
        "put_back": {"firstName": 1},
        "left": {"changed": {"firstName": 1}},
        "leads": 1,
        "changes": 1,
        "plan": 1,
    }
    assert shown["commands"][1] == "syncd release -i acme --push contacts --plan 1"
    assert "can be put back" in err


async def test_nothing_to_put_back(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    code, out, _ = await told(syncd, yaml, *await since(imported), "--until", "2026-01-02T00:00:00Z", "--yes")
    assert code == 2, "until is before since"
    code, out, err = await told(syncd, yaml, *SINCE, "--until", "2026-01-02", "--yes")
    assert (code, err) == (0, "")
    assert "0 values of 0 leads can be put back" in out
    assert "the history of the mirror begins on " in out
    assert await imported.fetchval("SELECT count(*) FROM syncd.plan") == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--since", "yesterday"), "--since yesterday is not allowed; a time is written like"),
        (("--since", "2099-01-01"), "--since (2099-01-01 00:00:00Z) is not before now"),
        ((*SINCE, "--fields", " , "), "--fields names no field"),
        ((*SINCE, "--fields", "firstname"), "--fields: describe does not know firstname: REST names are meant"),
    ],
)
async def test_wrong_options(syncd: Run, yaml: Yaml, imported: asyncpg.Pool, arguments: tuple[str, ...], expected: str) -> None:
    code, _, err = await told(syncd, yaml, *arguments)
    assert code == 2
    assert expected in err


async def test_what_cannot_be_reverted(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    code, _, err = await told(syncd, yaml, *SINCE)
    assert (code, "the history of the mirror is empty" in err) == (1, True)
    await pool.execute(HISTORY)
    code, _, err = await told(syncd, yaml, *SINCE)
    assert (code, err) == (1, "syncd revert: Marketo has not described its fields yet: start syncd run once\n")
    await pool.execute(DESCRIBED)
    yaml.lookup_field = "title"
    code, _, err = await told(syncd, yaml, *SINCE)
    assert (code, "only pushes by email or id can be reverted" in err) == (1, True)
    yaml.lookup_field = "email"
    file = yaml.write()
    file.write_text(file.read_text().replace("    pulls:", "    history: null\n    pulls:"))
    ran = await syncd("revert", "-c", file, "--push", "contacts", *SINCE)
    assert (ran.code, "set history: 90d for the instance" in ran.err) == (1, True)
    ran = await syncd("revert", "-c", yaml.write(), "--push", "contcats", *SINCE)
    assert (ran.code, 'did you mean "contacts"?' in ran.err) == (2, True)


async def test_one_at_a_time(syncd: Run, yaml: Yaml, imported: asyncpg.Pool) -> None:
    async with imported.acquire() as other, attaching.alone(other, "acme", "contacts") as alone:
        assert alone
        code, _, err = await told(syncd, yaml, *SINCE, "--yes")
        assert (code, err) == (1, "syncd revert: another syncd revert, attach or detach of contacts is at work; wait for it\n")
