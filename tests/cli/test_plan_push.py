"""`syncd plan --push`: tells what would become of what waits, to people and to programs, and changes nothing."""

import json
import re
from typing import Any

import asyncpg
import pytest

from syncd.simulator import Simulator
from tests.cli.conftest import Run, Yaml

LEAD = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', 7, 'Ada@example.com', '{"firstName": "Ada", "leadScore": 80}', '{"people": "d"}', now(), now(), now())
"""
FIELDS = """
INSERT INTO syncd.field (instance, field, ordinal, rest_name, soap_name, display_name, data_type, length, read_only, first_seen_at)
SELECT 'acme', name, 1, name, name, name, type, 255, false, now()
  FROM (VALUES ('email', 'email'), ('firstName', 'string'), ('leadScore', 'integer'), ('company', 'string')) AS f (name, type)
"""
PLAN = """
WITH plan AS (INSERT INTO syncd.plan (instance, push, kind, state, reason, made_at)
              VALUES ('acme', 'contacts', 'backfill', $1, 'all that is there', now()) RETURNING id)
UPDATE syncd.outbox SET state = 'held', plan_id = (SELECT id FROM plan) WHERE key LIKE 'plan%'
"""


async def enqueue(pool: asyncpg.Pool, key: str, **fields: object) -> int:
    change: int = await pool.fetchval("SELECT syncd.enqueue('acme', 'contacts', $1, $2)", key, json.dumps(fields))
    return change


@pytest.fixture
async def waiting(pool: asyncpg.Pool) -> asyncpg.Pool:
    """One lead that is known, one that is new, one value that does not fit, one clear; and two changes of a plan."""
    await pool.execute(LEAD)
    await pool.execute(FIELDS)
    await enqueue(pool, "ada@example.com", firstName="Countess", company="Acme")
    await enqueue(pool, "new@example.com", firstName="New", company="Acme")
    await enqueue(pool, "bad@example.com", leadScore=1.5)
    await enqueue(pool, "ada@example.com", leadScore=None)
    await enqueue(pool, "plan1@example.com", company="Acme")
    await enqueue(pool, "plan2@example.com", company="Acme")
    await pool.execute(PLAN, "waiting")
    return pool


async def plan(syncd: Run, yaml: Yaml, *more: str) -> Any:
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts", "--json", *more)
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


async def test_people_are_told(syncd: Run, yaml: Yaml, waiting: asyncpg.Pool, marketo: Simulator) -> None:
    before = await waiting.fetch("SELECT xmin, xmax, ctid FROM syncd.outbox ORDER BY id")
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts")
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.replace("│", " ").split()) for line in ran.out.splitlines()]
    assert "contacts: 4 changes pending" in lines
    assert "contacts: 2 changes held" in lines
    for line in ("create a lead 1", "update a lead 2", "rejected 1 leadScore takes whole numbers only", "noop 0"):
        assert line in lines, ran.out
    assert any(re.match("files 1 [0-9]+ bytes, 2 to [0-9]+ calls, 1 slot", line) for line in lines), ran.out
    assert any("firstName: Ada → Countess" in line and " 7 " in line for line in lines), ran.out
    assert any("new@example.com new a file" in line for line in lines), ran.out
    assert any("leadScore: 80 → \N{EN DASH}" in line and "Sync Leads" in line for line in lines), ran.out
    assert lines[-1] == "nothing was sent, and nothing written"
    assert await waiting.fetch("SELECT xmin, xmax, ctid FROM syncd.outbox ORDER BY id") == before
    assert marketo.report().calls == (), "it asks nobody"


async def test_programs_are_told(syncd: Run, yaml: Yaml, waiting: asyncpg.Pool) -> None:
    told = await plan(syncd, yaml)
    assert told["waits"] == {"pending": 4, "held": 2, "parked": 0}
    pending, held = told["sections"]
    assert (pending["of"], pending["changes"], pending["carried"]) == ("pending", 4, 3)
    assert pending["rows"] == {"created": 1, "updated": 2, "unknown": 0}
    assert pending["rejected"] == {"leadScore takes whole numbers only": 1}
    assert pending["files"]["count"] == [1, 1]
    assert pending["sync_leads"]["calls"][0] == 1
    assert pending["seconds"][0] < pending["seconds"][1]
    assert "assumed" in pending["by"]
    ada = next(row for row in pending["sample"] if row["changes"] == [1])
    assert (ada["key"], ada["lead_id"], ada["by"]) == ("ada@example.com", 7, "file")
    assert ada["fields"] == {"company": {"old": None, "new": "Acme"}, "firstName": {"old": "Ada", "new": "Countess"}}
    assert (held["of"], held["changes"], held["rows"]["created"]) == ("held", 2, 2)


async def test_a_plan_alone(syncd: Run, yaml: Yaml, waiting: asyncpg.Pool) -> None:
    (alone,) = (await plan(syncd, yaml, "--plan", "1"))["sections"]
    assert (alone["of"], alone["changes"], alone["rows"]["created"], alone["files"]["count"]) == ("plan 1", 2, 2, [1, 1])
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts", "--plan", "2")
    assert (ran.code, ran.err) == (2, "syncd plan: contacts has no plan 2; syncd status shows the plans that wait\n")
    await waiting.execute("UPDATE syncd.plan SET state = 'released', decided_at = now()")
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts", "--plan", "1")
    assert (ran.code, ran.err) == (2, "syncd plan: contacts has a plan 1 that is released; syncd status shows the plans that wait\n")


async def test_nothing_waits(syncd: Run, yaml: Yaml) -> None:
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0] == "contacts: nothing is pending"
    assert "Marketo has not described its fields yet" in ran.out
    told = await plan(syncd, yaml)
    assert [(each["of"], each["changes"], each["seconds"]) for each in told["sections"]] == [("pending", 0, [0, 0])]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give --pull or --push"),
        (("--pull", "people", "--push", "contacts"), "give --pull or --push"),
        (("--pull", "people", "--plan", "1"), "give --push"),
        (("--push", "contacts", "--leads", "5"), "give --pull"),
        (("--push", "contact"), 'the instance acme has no push "contact"; did you mean "contacts"?'),
    ],
)
async def test_what_is_asked_wrongly(syncd: Run, yaml: Yaml, arguments: tuple[str, ...], complaint: str) -> None:
    ran = await syncd("plan", "-c", yaml.write(), *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert len(ran.err.splitlines()) == 1


async def test_a_terminal_is_not_steered_by_a_value(syncd: Run, yaml: Yaml, waiting: asyncpg.Pool) -> None:
    await enqueue(waiting, "esc@example.com", firstName="\x1b[31mred", company="[bold]x[/bold]")
    ran = await syncd("plan", "-c", yaml.write(), "--push", "contacts")
    assert "\x1b" not in ran.out
    assert "[bold]x[/bold]" in ran.out
