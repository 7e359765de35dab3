"""`syncd failures`: what is shown and asked, and the way through a file and back."""

import csv
import io
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.cli.advice import advice
from syncd.cli.deadletters import cells_of
from syncd.cli.enqueue import read_changes
from syncd.cli.failures import Refused
from tests.cli.conftest import Run, Yaml

T = datetime(2026, 3, 2, 12, tzinfo=UTC)
FAILED = """
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at)
VALUES ($1, 'acme', $2, $3, lower($3), $4, $5, $6, 0, $7, $7)
"""
OUTBOX = "SELECT key, fields::text AS fields FROM syncd.outbox ORDER BY id"
STEER = "\x1b[31m"


async def fail(
    pool: asyncpg.Pool, number: int, key: str, fields: object, reason: str = "no", push: str = "contacts", state: str = "rejected"
) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition('2026-03-02')")
    await pool.execute("SELECT setval('syncd.outbox_id_seq', 100)")
    await pool.execute(FAILED, number, push, key, fields if isinstance(fields, str) else json.dumps(fields), state, reason, T)


async def outbox(pool: asyncpg.Pool) -> list[tuple[str, dict[str, object]]]:
    return [(row["key"], json.loads(row["fields"])) for row in await pool.fetch(OUTBOX)]


async def test_any_text_comes_through_a_file_and_back(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, tmp_path: Path) -> None:
    odd = ' a,"b"\r\nc\rd\ne;\t\u2028\u2029\x85Å\U0001f600 =1+1\ufeff '
    await fail(pool, 1, "a@x", {"notes": odd, "big": "x" * 200_000, "zero": 0, "no": False, "title": None, "company": ""})
    await fail(pool, 2, " Ünal@x ", '{"score": 12345678901234567890123.50, "nötes": "null"}', reason=f'why, "so"\r\n{STEER}')
    file, config = tmp_path / "failed.csv", yaml.write()
    ran = await syncd("failures", "export", file, "-c", config)
    assert (ran.code, ran.out, ran.err) == (0, "", f"2 failures exported to {file}\n")
    assert file.stat().st_mode & 0o777 == 0o600
    ran = await syncd("enqueue", "-c", config, "--push", "contacts", file)
    assert (ran.code, ran.err) == (0, "")
    assert await outbox(pool) == [
        (" Ünal@x ", {"score": "12345678901234567890123.50", "nötes": "null"}),
        ("a@x", {"notes": odd, "big": "x" * 200_000, "zero": "0", "no": "false", "title": None, "company": None}),
    ]
    assert await pool.fetchval("SELECT array_agg(retried_as ORDER BY id) FROM syncd.change_history") == [102, 101]
    assert (await syncd("failures", "list", "-c", config)).out == "no failures\n"
    ran = await syncd("enqueue", "-c", config, "--push", "contacts", file)
    told = "change 1 is no failure of the push contacts that still waits to be retried; leave its row out, or its cell in syncd:change"
    assert (ran.code, ran.err) == (1, f"{file}: {told}; nothing was enqueued\n")
    assert len(await outbox(pool)) == 2


async def test_an_exported_file_is_not_overwritten(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, tmp_path: Path) -> None:
    await fail(pool, 1, "a@x", {"f": 1})
    (tmp_path / "failed.csv").write_text("mended")
    ran = await syncd("failures", "export", tmp_path / "failed.csv", "-c", yaml.write())
    assert (ran.code, ran.err) == (1, f"{tmp_path / 'failed.csv'}: File exists; nothing was exported\n")
    assert (tmp_path / "failed.csv").read_text() == "mended"


async def test_what_a_file_cannot_show_is_told(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await fail(pool, 1, "a@x", {"email": "b@x", "f": 1})
    await fail(pool, 2, "A@x", {"email": "a@X ", "f": 1})
    await fail(pool, 3, "c@x", '{"f": ' + "[" * 3_000 + "]" * 3_000 + "}")
    ran = await syncd("failures", "export", "-c", yaml.write())
    assert [row[:2] for row in csv.reader(io.StringIO(ran.out))] == [["email", "f"], ["A@x", "1"], ["a@x", "1"]]
    assert ran.err.splitlines() == [
        "2 failures exported",
        "1 of them set the lookup field otherwise than their key, and only the key is in the file: 1",
        "1 left out, as their values are nested too deep for a cell: 3",
    ]


async def test_values_that_are_no_longer_kept_are_told_of(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    for number in (1, 2):
        await fail(pool, number, f"{number}@x", {"title": None, "score": "x"})
    await pool.execute("UPDATE syncd.change_history SET retried_at = now(), fields = '{}', erased = '{score,title}' WHERE id = 2")
    config = yaml.write()
    ran = await syncd("failures", "export", "--all", "-c", config)
    assert [row[0] for row in csv.reader(io.StringIO(ran.out))] == ["email", "1@x"]
    assert ran.err.splitlines() == ["1 failures exported", "1 left out, as their values are no longer kept: 2"]
    lines = [" ".join(line.split()) for line in (await syncd("failures", "show", "2", "-c", config)).out.splitlines()]
    at = lines.index("field score value no longer kept")
    assert lines[at + 1] == "field title value no longer kept"
    found = json.loads((await syncd("failures", "list", "--all", "-c", config, "--json")).out)["failures"]
    assert [(each["fields"], each["erased"]) for each in found] == [({}, ["score", "title"]), ({"title": None, "score": "x"}, None)]


async def test_one_file_is_of_one_push(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await fail(pool, 1, "a@x", {"f": 1})
    await fail(pool, 2, "a@x", {"f": 1}, push="gone")
    config = yaml.write()
    ran = await syncd("failures", "export", "-c", config)
    assert (ran.code, ran.err) == (
        2,
        "syncd failures export: these came through several pushes; say which with --push: contacts, gone\n",
    )
    assert (await syncd("failures", "export", "-c", config, "--push", "contacts")).code == 0
    ran = await syncd("failures", "retry", "--yes", "-c", config)
    assert ran.err == "left alone: failures of pushes that the configuration no longer has (gone)\n"
    assert ran.out == "1 failures\n1 changes made, ids 101 to 101\n"


async def test_the_list(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    for number in (1, 2, 3):
        await fail(pool, number, f"{number}@x", {"f": 1}, reason=f"bad {STEER}thing")
    await fail(pool, 4, "4@x", {"f": 12345678901234567890123}, reason="who knows", state="unverified")
    config = yaml.write()
    ran = await syncd("failures", "list", "-c", config, "--limit", "2")
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    assert lines == [
        "4 failures, 1 of them unverified",
        "changes push state latest reason",
        "3 contacts rejected 2026-03-02 12:00:00Z bad [31mthing",
        "1 contacts unverified 2026-03-02 12:00:00Z who knows",
        "",
        "change when push key state reason",
        "4 2026-03-02 12:00:00Z contacts 4@x unverified who knows",
        "3 2026-03-02 12:00:00Z contacts 3@x rejected bad [31mthing",
        "… 2 older ones; --limit shows more",
    ]
    found = json.loads((await syncd("failures", "list", "-c", config, "--json", "--state", "unverified")).out)
    assert (found["changes"], found["by_reason"][0]["reason"]) == (1, "who knows")
    assert (found["failures"][0]["fields"], found["failures"][0]["settled_at"]) == ({"f": 12345678901234567890123}, "2026-03-02T12:00:00Z")


async def test_show(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await fail(pool, 1, "a@x", {"title": None, "score": "x"}, reason="Invalid value for field 'score'")
    config = yaml.write()
    ran = await syncd("failures", "show", "1", "-c", config)
    lines = [" ".join(line.split()) for line in ran.out.splitlines()]
    for line in ("reason Invalid value for field 'score'", "field title cleared", "field score x", "import job none: it was in no file"):
        assert line in lines
    told = json.loads((await syncd("failures", "show", "1", "--json", "-c", config)).out)
    assert (told["id"], told["state"], told["push"]) == (1, "rejected", "contacts")
    assert isinstance(told["fields"], dict)
    assert "syncd enqueue it" in told["what_to_do"]
    ran = await syncd("failures", "show", "9", "-c", config)
    assert (ran.code, ran.out, ran.err) == (1, "", "syncd failures show: acme has no change 9\n")


async def test_retry_asks(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await fail(pool, 1, "a@x", {"f": 1}, state="unverified")
    config = yaml.write()
    ran = await syncd("failures", "retry", "-c", config)
    assert (ran.code, ran.err) == (2, "syncd failures retry: nobody to ask: not on a terminal; give --yes\n")
    assert ran.out == "1 failures; 1 are unverified: they may have been applied already\n"
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    ran = await syncd("failures", "retry", "-c", config)
    assert (ran.code, ran.out.splitlines()[-1], await outbox(pool)) == (1, "not retried", [])
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert (await syncd("failures", "retry", "1", "-c", config)).code == 0
    assert await outbox(pool) == [("a@x", {"f": 1})]
    ran = await syncd("failures", "retry", "1", "--yes", "-c", config)
    told = "change 1 is no failure of these that waits to be retried; see syncd failures show 1; nothing was retried"
    assert (ran.code, ran.err) == (1, f"syncd failures retry: {told}\n")
    assert (await syncd("failures", "retry", "--yes", "-c", config)).out == "no failures to retry\n"


async def test_bad_usage(syncd: Run, yaml: Yaml) -> None:
    config = yaml.write()
    ran = await syncd("failures", "list", "-c", config, "--since", "tomorrow")
    assert (ran.code, ran.err.startswith("syncd failures: --since tomorrow is not allowed; a time is written like")) == (2, True)
    ran = await syncd("failures", "list", "-c", config, "--state", "applied")
    assert (ran.code, ran.err) == (2, "syncd failures: --state is rejected or unverified, not applied\n")
    ran = await syncd("failures", "retry", "-c", config, "--push", "contcts")
    assert (ran.code, ran.err) == (2, 'syncd: the instance acme has no push "contcts"; did you mean "contacts"?\n')


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("email,f,syncd:change\na@x,1,7\nb@x,1,7\n", "x.csv:3: change 7 stands in the file twice; nothing was enqueued"),
        ("email,syncd:change\na@x,seven\n", "x.csv:2: syncd:change holds no id of a change; nothing was enqueued"),
        ("email,syncd:clear\na@x,company\n", 'x.csv:2: syncd:clear holds no list of fields such as ["company"]; nothing was enqueued'),
        ("email,syncd:clear\na@x,[1]\n", 'x.csv:2: syncd:clear holds no list of fields such as ["company"]; nothing was enqueued'),
    ],
)
def test_a_spoiled_export_is_one_line(content: str, line: str) -> None:
    with pytest.raises(Refused, match=f"^{re.escape(line)}$"):
        list(read_changes(io.BytesIO(content.encode()), "x.csv", "email", False, lambda _: None))


def test_a_value_mended_into_a_cleared_field_sets_it() -> None:
    content = b'email,title,syncd:clear\na@x,Dr,"[""title"", ""company""]"\n'
    (row,) = read_changes(io.BytesIO(content), "x.csv", "email", False, lambda _: None)
    assert json.loads(row.fields) == {"title": "Dr", "company": None}


texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)


@given(st.dictionaries(texts, st.one_of(st.none(), st.booleans(), st.integers(), texts)))
def test_a_cell_is_what_would_be_sent(fields: dict[str, object]) -> None:
    sent = {name: "" if value is None else value if isinstance(value, str) else str(value).lower() for name, value in fields.items()}
    assert cells_of(json.dumps(fields)) == sent


@pytest.mark.parametrize(
    ("state", "reason", "part"),
    [
        ("rejected", "Email address has characters outside ASCII", "xn--"),
        ("rejected", "anything else", "what the reason names"),
        ("rejected", None, "what the reason names"),
        ("unverified", "invalid", "may have been applied"),
    ],
)
def test_advice(state: str, reason: str | None, part: str) -> None:
    assert part in advice(state, reason)
