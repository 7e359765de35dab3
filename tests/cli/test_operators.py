"""`syncd pause`, `resume`, `jobs` and `discard`, as operators use them."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from syncd.cli import discard as discard_work
from syncd.cli.discard import like
from syncd.core.words import moment
from tests.cli.conftest import Run, Yaml

REGISTERED = """
INSERT INTO syncd.push (instance, push) VALUES ('acme', 'contacts');
INSERT INTO syncd.pull (instance, pull, selector, planned_until) VALUES ('acme', 'people', 's', now());
"""
STATES = "SELECT (SELECT state FROM syncd.pull) AS pull, (SELECT state FROM syncd.push) AS push"
JOB = """
INSERT INTO syncd.import_job (instance, push, chunk_id, batch_id, state, row_count, byte_count, sha256, attempt, submitted_at, finished_at,
                              looked_at, polls, applied, warned, rejected, retried, message)
VALUES ('acme', 'contacts', $1::int,
        CASE WHEN $2 IN ('refused', 'unconfirmed', 'absent') THEN NULL ELSE 70 + $1::int END, $2, 10, 2000, '', 1, $3,
        CASE WHEN $2 = 'settled' THEN $3::timestamptz END, now() - interval '150 seconds', 4,
        CASE WHEN $2 = 'settled' THEN 6 ELSE 0 END, CASE WHEN $2 = 'settled' THEN 1 ELSE 0 END, CASE WHEN $2 = 'settled' THEN 3 ELSE 0 END,
        0, $4)
"""


async def told(syncd: Run, yaml: Yaml, command: str, *more: str | Path) -> tuple[int, str, str]:
    ran = await syncd(command, "-c", yaml.write(), *more)
    return ran.code, ran.out, ran.err


async def standing(pool: asyncpg.Pool) -> tuple[str, str]:
    row = await pool.fetchrow(STATES)
    assert row is not None
    return row["pull"], row["push"]


async def enqueue(pool: asyncpg.Pool, *keys: str, push: str = "contacts") -> None:
    for key in keys:
        await pool.execute("SELECT syncd.enqueue('acme', $1, $2, '{\"firstName\": \"A\"}')", push, key)


# ── pause and resume ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_instance_is_paused_and_resumed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    code, out, err = await told(syncd, yaml, "pause", "--yes")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "acme: everything (pulls people; pushes contacts; and what comes into the YAML later), until it is resumed; "
        "what Marketo has already is still settled and loaded; nothing new is asked for, packed or submitted",
        "acme: paused everything, until it is resumed",
    ]
    assert await standing(pool) == ("paused", "paused")
    assert await told(syncd, yaml, "resume") == (0, "acme: everything resumed\n", "")
    assert await standing(pool) == ("running", "running")
    assert await told(syncd, yaml, "resume") == (0, "acme: everything was not paused by itself\n", "")


@pytest.mark.parametrize(
    ("choice", "states"),
    [
        (("--direction", "in"), ("paused", "running")),
        (("--direction", "out"), ("running", "paused")),
        (("--pull", "people"), ("paused", "running")),
        (("--push", "contacts"), ("running", "paused")),
    ],
)
async def test_a_part_is_paused(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, choice: tuple[str, str], states: tuple[str, str]) -> None:
    await pool.execute(REGISTERED)
    assert (await told(syncd, yaml, "pause", *choice, "-y"))[0] == 0
    assert await standing(pool) == states
    assert (await told(syncd, yaml, "resume", *choice))[0] == 0
    assert await standing(pool) == ("running", "running")


async def test_what_another_pause_covers_stays_paused_and_is_told(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await told(syncd, yaml, "pause", "--push", "contacts", "-y")
    await told(syncd, yaml, "pause", "-y", "--until", "2100-01-01")
    assert await told(syncd, yaml, "resume") == (
        1,
        "acme: everything resumed\n"
        "the push contacts stays paused (the push contacts, until it is resumed): syncd resume -i acme --push contacts\n",
        "",
    )
    assert await standing(pool) == ("running", "paused")
    await told(syncd, yaml, "pause", "-y", "--direction", "out", "--until", "2100-01-01")
    code, out, _ = await told(syncd, yaml, "resume", "--push", "contacts")
    assert (code, out.splitlines()[1]) == (
        1,
        "the push contacts stays paused (all pushes, until 2100-01-01 00:00:00Z): syncd resume -i acme --direction out",
    )


async def test_what_is_blocked_says_why(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await pool.execute("UPDATE syncd.push SET state = 'blocked', message = '1003: no such list', retry_at = now()")
    _, out, _ = await told(syncd, yaml, "pause", "--push", "contacts", "-y")
    assert out.splitlines()[2] == "the push contacts is blocked anyway: 1003: no such list; it is not tried again before it is resumed"
    assert await told(syncd, yaml, "resume", "--push", "contacts") == (
        0,
        "acme: the push contacts resumed\nthe push contacts is blocked: 1003: no such list\n",
        "",
    )
    assert await standing(pool) == ("running", "blocked")


async def test_a_push_that_left_the_yaml_can_be_resumed(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute("INSERT INTO syncd.pause (instance, direction, name) VALUES ('acme', 'out', 'former')")
    assert await told(syncd, yaml, "resume", "--push", "former") == (0, "acme: the push former resumed\n", "")
    assert await pool.fetchval("SELECT count(*) FROM syncd.pause") == 0


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (("pause", "--pull", "people"), "syncd pause: nobody to ask: not on a terminal; give --yes"),
        (("pause", "--pull", "peopel", "-y"), 'syncd: the instance acme has no pull "peopel"; did you mean "people"?'),
        (("resume", "--push", "contact"), 'syncd: the instance acme has no push "contact"; did you mean "contacts"?'),
        (("pause", "--direction", "up", "-y"), "syncd pause: --direction is in (pulls) or out (pushes)"),
        (
            ("pause", "--direction", "in", "--pull", "people", "-y"),
            "syncd pause: give one of --direction, --pull and --push; none for the whole instance",
        ),
        (
            ("pause", "--until", "tomorrow", "-y"),
            "syncd pause: --until tomorrow is not allowed; a time is written like 2016-01-01T00:00:00Z or 2016-01-01T00:00:00+02:00",
        ),
    ],
)
async def test_what_is_refused_changes_nothing(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, command: tuple[str, ...], line: str) -> None:
    await pool.execute(REGISTERED)
    code, _, err = await told(syncd, yaml, *command)
    assert (code, err) == (2, f"{line}\n")
    assert await standing(pool) == ("running", "running")
    assert await pool.fetchval("SELECT count(*) FROM syncd.pause") == 0


async def test_a_time_that_is_over_is_refused(syncd: Run, yaml: Yaml) -> None:
    code, _, err = await told(syncd, yaml, "pause", "--until", "2026-01-01", "-y")
    assert code == 2
    assert err.startswith("syncd pause: --until is in the past (2026-01-01 00:00:00Z); it is ")


async def test_the_status_tells_of_pauses(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED)
    await pool.execute("INSERT INTO syncd.lease VALUES ('acme', 1, gen_random_uuid(), 'host-a', 42, now(), now())")
    await pool.execute("UPDATE syncd.push SET state = 'blocked', message = '1003'")
    await told(syncd, yaml, "pause", "-y", "--direction", "in", "--until", "2100-01-01T06:00Z")
    await told(syncd, yaml, "pause", "-y", "--push", "contacts")
    _, out, _ = await told(syncd, yaml, "status")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "paused all pulls, until 2100-01-01 06:00:00Z; the push contacts, until it is resumed" in lines
    assert any(line.startswith("people paused until 2100-01-01 06:00:00Z ") for line in lines)
    assert any(line.startswith("contacts blocked, paused ") for line in lines)
    _, out, _ = await told(syncd, yaml, "status", "--json")
    (acme,) = json.loads(out)["instances"]
    assert (acme["pulls"][0]["paused"], acme["pulls"][0]["paused_until"]) == (True, "2100-01-01T06:00:00Z")
    assert acme["pauses"][1] == {"direction": "out", "name": "contacts", "until": None}


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


BATCHES = """
INSERT INTO syncd.sync_batch (instance, push, urgent, lookup_field, row_count, byte_count, next_ordinal, opened_at, state, submitted_at,
                              ended_at, applied, rejected, retried)
VALUES ('acme', 'contacts', false, 'email', 12, 99, 12, now(), 'open', NULL, NULL, 0, 0, 0),
       ('acme', 'contacts', true, 'email', 5, 99, 5, now(), 'settled', now(), now(), 3, 1, 1),
       ('acme', 'contacts', true, 'email', 7, 99, 7, now(), 'settled', now(), now() - interval '25 hours', 7, 0, 0)
"""


async def test_the_queue_is_shown(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    now = datetime.now(UTC)
    settled_at = now - timedelta(hours=1)
    for chunk, (state, at) in enumerate(
        [
            ("settled", now - timedelta(days=8)),
            ("settled", settled_at),
            ("refused", now - timedelta(minutes=50)),
            ("importing", now - timedelta(minutes=5)),
            ("queued", now - timedelta(minutes=4)),
            ("unconfirmed", now - timedelta(minutes=3)),
            ("complete", now - timedelta(minutes=3)),
        ],
        1,
    ):
        await pool.execute(JOB, chunk, state, at, "reset by peer" if state == "unconfirmed" else None)
    await pool.execute(BATCHES)
    code, out, err = await told(syncd, yaml, "jobs")
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in out.splitlines() if line.strip()] == [
        "acme",
        "slots 3 of at most 10 taken, 1 importing; others' can't be seen",
        "chunks that wait for a slot 0",
        "calls of Sync Leads 1 gathering (12 leads); 1 answered in 24 h: 3 applied, 1 rejected, 0 unverified, 1 sent again",
        "job push chunk batch state rows bytes age looks last look message",
        "4 contacts 4 74 importing 10 2,000 5 min 4 2 min ago",
        "5 contacts 5 75 queued 10 2,000 4 min 4 2 min ago",
        "6 contacts 6 unconfirmed 10 2,000 3 min 4 2 min ago reset by peer",
        "7 contacts 7 77 complete 10 2,000 3 min 4 2 min ago",
        "job push chunk batch ended rows imported failed warnings unverified again submitted message",
        f"2 contacts 2 72 settled 10 7 3 1 0 0 {moment(settled_at)}",
    ]
    _, out, _ = await told(syncd, yaml, "jobs", "--all", "--json", "-i", "acme")
    (acme,) = json.loads(out)["instances"]
    assert (acme["slots_used"], acme["slots_allowed"], acme["importing"], acme["chunks_waiting"]) == (3, 10, 1, 0)
    assert [(batch["state"], batch["row_count"]) for batch in acme["batches"]] == [("open", 12)]
    assert acme["answered"] == {"calls": 1, "applied": 3, "rejected": 1, "unverified": 0, "retried": 1}
    assert [(job["id"], job["state"]) for job in acme["ended"]] == [(2, "settled"), (3, "refused")]
    assert {key: acme["ended"][0][key] for key in ("applied", "warned", "rejected")} == {"applied": 6, "warned": 1, "rejected": 3}


async def test_the_last_ten_are_shown(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    now = datetime.now(UTC)
    for chunk in range(1, 13):
        await pool.execute(JOB, chunk, "absent", now - timedelta(minutes=20 - chunk), None)
    for everything, ids in ((), list(range(3, 13))), (("--all",), list(range(1, 13))):
        _, out, _ = await told(syncd, yaml, "jobs", "--json", *everything)
        assert [job["id"] for job in json.loads(out)["instances"][0]["ended"]] == ids


async def test_an_empty_queue_says_so(syncd: Run, yaml: Yaml) -> None:
    code, out, _ = await told(syncd, yaml, "jobs")
    assert code == 0
    assert "no import is under way" in out
    assert (await told(syncd, yaml, "jobs", "-i", "acne"))[0] == 2


# ── discard ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

FATES = "SELECT state, count(*)::int AS n FROM syncd.change GROUP BY 1 ORDER BY 1"


async def fates(pool: asyncpg.Pool) -> dict[str, int]:
    return {row["state"]: row["n"] for row in await pool.fetch(FATES)}


async def test_changes_are_counted_and_cancelled(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueue(pool, *(f"p{n}@example.com" for n in range(7)))
    await pool.execute("UPDATE syncd.outbox SET state = 'parked' WHERE id = 7")
    await pool.execute("UPDATE syncd.outbox SET state = 'in_chunk', chunk_id = 1, ordinal = 0 WHERE id = 1")
    assert await told(syncd, yaml, "discard", "--push", "contacts", "--yes") == (
        0,
        "contacts: 6 to be cancelled (parked 1, pending 5), ids 2, 3, 4, 5, 6, …\n"
        "contacts: 1 more in a chunk already, which may be at Marketo: they go on\n"
        "contacts: 6 cancelled\n",
        "",
    )
    assert await fates(pool) == {"cancelled": 6, "in_chunk": 1}
    code, out, _ = await told(syncd, yaml, "discard", "--push", "contacts", "--yes")
    assert (code, out.splitlines()[0]) == (0, "contacts: nothing to cancel")


async def test_the_choice_is_by_age_time_and_key(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueue(pool, "Old@Example.com", "old@example.org", "new@example.com")
    await pool.execute("UPDATE syncd.outbox SET created_at = now() - interval '13 hours' WHERE id < 3")
    await told(syncd, yaml, "discard", "--push", "contacts", "--older-than", "12h", "--key", "*@EXAMPLE.com", "-y")
    assert await pool.fetchval("SELECT array_agg(id ORDER BY id) FROM syncd.outbox") == [2, 3]
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    await told(syncd, yaml, "discard", "--push", "contacts", "--before", hour_ago, "-y")
    assert await pool.fetchval("SELECT array_agg(id ORDER BY id) FROM syncd.outbox") == [3]


async def test_nothing_is_cancelled_without_a_yes(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await enqueue(pool, "a@example.com")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    code, out, _ = await told(syncd, yaml, "discard", "--push", "contacts")
    assert (code, out.splitlines()[-1]) == (1, "nothing cancelled")
    assert await fates(pool) == {"pending": 1}
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert (await told(syncd, yaml, "discard", "--push", "contacts"))[0] == 0
    assert await fates(pool) == {"cancelled": 1}


async def test_changes_of_a_misspelt_push_can_be_discarded(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueue(pool, "a@example.com", push="contcats")
    assert (await told(syncd, yaml, "discard", "--push", "contcats", "-y"))[0] == 0
    assert await fates(pool) == {"cancelled": 1}
    line = 'syncd: the instance acme has no push "contcats"; did you mean "contacts"?\n'
    assert await told(syncd, yaml, "discard", "--push", "contcats", "-y") == (2, "", line)


async def test_rows_that_stay_locked_are_told(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discard_work, "PATIENCE", 2)
    monkeypatch.setattr(discard_work, "TRY_AGAIN_AFTER", 0)
    await enqueue(pool, "a@example.com", "b@example.com")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM syncd.outbox WHERE id = 1 FOR UPDATE")
        code, out, _ = await told(syncd, yaml, "discard", "--push", "contacts", "-y")
    assert (code, out.splitlines()[1:]) == (
        1,
        ["contacts: 1 cancelled", "contacts: 1 could not be: something holds their rows; run it again"],
    )


async def test_rows_that_are_packed_meanwhile_go_on(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueue(pool, "a@example.com", "b@example.com")
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE syncd.outbox SET state = 'in_chunk', chunk_id = 1, ordinal = 0 WHERE id = 1")
        discarding = asyncio.ensure_future(told(syncd, yaml, "discard", "--push", "contacts", "-y"))
        while await pool.fetchval("SELECT EXISTS (SELECT FROM syncd.outbox WHERE id = 2)"):
            await asyncio.sleep(0.05)
    code, out, _ = await discarding
    assert (code, out.splitlines()[1:]) == (0, ["contacts: 1 cancelled", "contacts: 1 were packed or ended meanwhile: they go on"])


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--older-than", "1h", "--before", "2026-01-01"), "give --older-than or --before, not both"),
        (
            ("--older-than", "12"),
            "--older-than 12 is not allowed; a plain number does not tell its unit; "
            "a duration is written like 90s, 5m, 1h30m, 30d or 250ms",
        ),
        (("--older-than", "999999999d"), "--older-than 999999999d is longer ago than there are times"),
        (
            ("--before", "soon"),
            "--before soon is not allowed; a time is written like 2016-01-01T00:00:00Z or 2016-01-01T00:00:00+02:00",
        ),
    ],
)
async def test_a_wrong_time_is_refused(syncd: Run, yaml: Yaml, more: tuple[str, ...], line: str) -> None:
    assert await told(syncd, yaml, "discard", "--push", "contacts", *more) == (2, "", f"syncd discard: {line}\n")


@pytest.mark.parametrize(
    ("pattern", "sql"),
    [(None, None), ("*@Example.com", "%@example.com"), ("a?c", "a_c"), ("50%_\\ off ", "50\\%\\_\\\\ off")],
)
def test_patterns(pattern: str | None, sql: str | None) -> None:
    assert like(pattern) == sql
