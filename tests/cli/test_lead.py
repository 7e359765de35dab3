"""`syncd lead show`: a lead's story, for people and for programs."""

import json
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from syncd.cli.render import NOTHING
from tests.cli.conftest import Run, Yaml

T = datetime(2026, 3, 2, 12, tzinfo=UTC)
STEER = "a\x1b[31m\x9b31m\u202e\r\nb"
LEAD = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, misfits, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', $1, $2, $3, $4, '{}', $5, $5, $5)
"""
HISTORY = """
INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new) VALUES ('acme', $1, 'people', $2, $3, $4, $5)
"""
SETTLED = """
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, import_job_id, created_at, settled_at)
VALUES (9, 'acme', 'contacts', $1, lower($1), $2, 'rejected', $3, 0, 5, $4, $5)
"""


async def insert_ada(pool: asyncpg.Pool) -> None:
    attributes = json.dumps({"firstName": "Ada", "notes": STEER, "long": "x" * 5_000, "optIn": True})[:-1] + ', "score": 1.50}'
    await pool.execute(LEAD, 4, "ada@example.com", attributes, '{"born": "soon"}', T)
    await pool.execute("SELECT syncd.ensure_lead_history('acme', '2026-03-02'), syncd.ensure_history_partition('2026-03-02')")
    await pool.execute(HISTORY, 4, T + timedelta(minutes=1), "firstName", '"Eda"', '"Ada"')
    await pool.execute(HISTORY, 4, T + timedelta(minutes=1), "notes", None, json.dumps(STEER))
    await pool.execute(HISTORY, 4, T + timedelta(minutes=3), "score", "12345678901234567890123", "1.50")
    await pool.execute("INSERT INTO syncd.list_membership VALUES ('acme', 'P.News', 4, $1, $1, $2, 1)", T, T + timedelta(minutes=5))
    fields = json.dumps({"company": STEER, "title": None})
    await pool.execute(SETTLED, "Ada@example.com", fields, f"1006 {STEER}", T + timedelta(minutes=2), T + timedelta(minutes=4))


async def test_for_people(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_ada(pool)
    ran = await syncd("lead", "show", "ADA@example.com", "-c", yaml.write())
    assert (ran.code, ran.err) == (0, "")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    harmless = "a [31m 31m b"
    for line in (
        "lead 4",
        "email ada@example.com",
        "first seen 2026-03-02 12:00:00Z",
        "firstName Ada",
        f"notes {harmless}",
        "optIn true",
        "score 1.50",
        "born soon does not fit the type of its field",
        f"long {'x' * 300}…",
    ):
        assert line in lines
    assert lines[lines.index("when what") + 1 : -1] == [
        "2026-03-02 12:00:00Z first seen",
        "2026-03-02 12:00:00Z joined list P.News",
        "2026-03-02 12:01:00Z changed, seen by people firstName: Eda → Ada",
        f"notes: {NOTHING} → {harmless}",
        "2026-03-02 12:02:00Z sent, by contacts change 9, rejected, import job 5, settled 2026-03-02 12:04:00Z",
        f"1006 {harmless}",
        f"title = {NOTHING}",
        f"company = {harmless}",
        "2026-03-02 12:03:00Z changed, seen by people score: 12345678901234567890123 → 1.50",
        "2026-03-02 12:05:00Z left list P.News",
    ]
    assert all(character.isprintable() or character == "\n" for character in ran.out)


async def test_for_programs(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_ada(pool)
    ran = await syncd("lead", "show", "4", "-c", yaml.write(), "--json", "--last", "4")
    assert all(character.isprintable() or character == "\n" for character in ran.out)
    (found,) = json.loads(ran.out, parse_int=str, parse_float=str)["leads"]
    lead = found["lead"]
    assert (lead["lead_id"], lead["attributes"]["notes"], len(lead["attributes"]["long"])) == ("4", STEER, 5_000)
    assert (lead["misfits"], lead["deleted_at"], lead["first_seen_at"]) == ({"born": "soon"}, None, "2026-03-02T12:00:00Z")
    assert found["older_events"] == "2"
    changed, sent, again, left = found["events"]
    assert changed["fields"] == [{"field": "firstName", "old": "Eda", "new": "Ada"}, {"field": "notes", "old": None, "new": STEER}]
    assert (sent["event"], sent["fields"], sent["settled_at"]) == (
        "sent",
        {"company": STEER, "title": None},
        "2026-03-02T12:04:00Z",
    )
    assert again["fields"] == [{"field": "score", "old": "12345678901234567890123", "new": "1.50"}]
    assert left == {"event": "left", "at": "2026-03-02T12:05:00Z", "list": "P.News"}


async def test_values_that_are_no_longer_kept(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_ada(pool)
    await pool.execute("UPDATE syncd.change_history SET retried_at = now(), fields = '{}', erased = '{company,title}'")
    lines = [" ".join(line.split()) for line in (await syncd("lead", "show", "4", "-c", yaml.write())).out.splitlines()]
    assert lines[lines.index("1006 a [31m 31m b") + 1 :][:2] == ["company: value no longer kept", "title: value no longer kept"]
    found = json.loads((await syncd("lead", "show", "4", "-c", yaml.write(), "--json")).out)["leads"][0]["events"]
    assert [(each["fields"], each["erased"]) for each in found if each["event"] == "sent"] == [({}, ["company", "title"])]


async def test_no_more_than_asked_for(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await insert_ada(pool)
    ran = await syncd("lead", "show", "4", "-c", yaml.write(), "--last", "1")
    assert "… 5 older ones\n2026-03-02 12:05:00Z" in ran.out
    assert "joined" not in ran.out
    assert "sent" not in ran.out


async def test_an_address_that_two_leads_share(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    for lead_id in (1, 2):
        await pool.execute(LEAD, lead_id, "a@example.com", "{}", None, T)
    await pool.execute("UPDATE syncd.lead SET deleted_at = $1, merged_into = 1 WHERE lead_id = 2", T)
    ran = await syncd("lead", "show", "a@example.com", "-c", yaml.write())
    assert ran.out.startswith("2 leads have this address; ")
    assert ran.out.index("lead 1\n") < ran.out.index("lead 2\n") < ran.out.index("merged into")


async def test_what_was_sent_of_a_lead_that_is_not_there(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', 'new@example.com', '{}')")
    ran = await syncd("lead", "show", "new@example.com", "-c", yaml.write())
    assert ran.out.startswith("not in the mirror\n")
    assert "change 1, pending" in ran.out


@pytest.mark.parametrize("who", ["nobody@example.com", "7", "99999999999999999999"])
@pytest.mark.parametrize("more", [[], ["--json"]])
async def test_nobody_is_one_line(syncd: Run, yaml: Yaml, who: str, more: list[str]) -> None:
    ran = await syncd("lead", "show", who, "-c", yaml.write(), *more)
    assert (ran.code, ran.out, ran.err) == (1, "", "syncd lead show: acme has no such lead, and no changes for one\n")


async def test_help_and_bad_usage(syncd: Run, yaml: Yaml) -> None:
    ran = await syncd("lead", "show", "--help")
    assert (ran.code, "Usage: syncd lead show" in ran.out, "…" in ran.out) == (0, True, False)
    assert (await syncd("lead")).err == "syncd lead: missing command; see syncd lead --help\n"
    assert (await syncd("lead", "show", "1", "--last", "0")).code == 2
    yaml.instances = ("acme", "beta")
    ran = await syncd("lead", "show", "1", "-c", yaml.write())
    assert (ran.code, ran.err) == (2, "syncd: say which instance with --instance; there are acme, beta\n")
