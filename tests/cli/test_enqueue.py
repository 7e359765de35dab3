"""`syncd enqueue`: a CSV into the outbox, whole or not at all."""

import csv
import io
import json
import os

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.cli.enqueue import read_changes
from syncd.store import enqueue as store
from tests.cli.conftest import Run, Yaml

OUTBOX = "SELECT id, instance, push, key, fields::text AS fields, state FROM syncd.outbox ORDER BY id"


async def changes(pool: asyncpg.Pool) -> list[tuple[str, dict[str, str | None]]]:
    return [(row["key"], json.loads(row["fields"])) for row in await pool.fetch(OUTBOX)]


async def enqueued(syncd: Run, yaml: Yaml, content: str | bytes, *more: str) -> tuple[int, str, str]:
    file = yaml.file.parent / "leads.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    ran = await syncd("enqueue", "-c", yaml.write(), "--push", "contacts", file, *more)
    return ran.code, ran.out, ran.err.replace(f"{file}", "leads.csv")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
async def test_rows_become_changes(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, mark: bytes) -> None:
    text = 'firstName,email,notes\r\nÅda,ada@example.com,"two\r\nlines, ""quoted"""\r\n\r\n007,bob@example.com,\r\n'
    assert await enqueued(syncd, yaml, mark + text.encode()) == (
        0,
        "2 changes enqueued for acme, push contacts, ids 1 to 2\n",
        "",
    )
    assert await changes(pool) == [
        ("ada@example.com", {"firstName": "Åda", "notes": 'two\r\nlines, "quoted"'}),
        ("bob@example.com", {"firstName": "007"}),
    ]
    assert {(row["instance"], row["push"], row["state"]) for row in await pool.fetch(OUTBOX)} == {("acme", "contacts", "pending")}


async def test_empty_cells_clear_when_asked_to(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueued(syncd, yaml, "email,firstName,company\na@example.com,,Acme\n", "--clear-empty")
    assert await changes(pool) == [("a@example.com", {"firstName": None, "company": "Acme"})]


async def test_another_column_can_hold_the_key(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await enqueued(syncd, yaml, "mail,firstName\na@example.com,Ada\n", "--key", "mail")
    assert await changes(pool) == [("a@example.com", {"firstName": "Ada"})]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('email,notes\na@x.org,"1\n2\n3"\nb@x.org\n', "leads.csv:5: has 1 cells, the header 2; nothing was enqueued"),
        ("email,notes\na@x.org,1,2\n", "leads.csv:2: has 3 cells, the header 2; nothing was enqueued"),
        ("email,notes\na@x.org,1\n , 2\n", 'leads.csv:3: has no key (column "email" is empty); nothing was enqueued'),
        ("email,notes\na@x.org,1\0\n", "leads.csv:2: holds a NUL character, which PostgreSQL can't keep; nothing was enqueued"),
        ('email,notes\na@x.org,"1"2\n', "leads.csv:2: is not CSV (',' expected after '\"'); nothing was enqueued"),
        ("Email,notes\na@x.org,1\n", 'leads.csv:1: has no column "email"; is it "Email"? then give --key Email; nothing was enqueued'),
        ("email;notes\na@x.org;1\n", "leads.csv:1: seems to be separated by semicolons; save it separated by commas; nothing was enqueued"),
        ("email\tnotes\n", "leads.csv:1: seems to be separated by tabs; save it separated by commas; nothing was enqueued"),
        ("email,,notes\n", "leads.csv:1: column 2 has no name; nothing was enqueued"),
        ("email,notes,notes\n", 'leads.csv:1: two columns are named "notes"; nothing was enqueued'),
        ("", "leads.csv:1: needs a header of REST field names; nothing was enqueued"),
        (b"email,notes\na@x.org,\xff\n", "leads.csv: is not UTF-8 text, at or after line 1; nothing was enqueued"),
    ],
)
async def test_a_bad_file_leaves_nothing(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, content: str | bytes, line: str) -> None:
    assert await enqueued(syncd, yaml, content) == (1, "", f"{line}\n")
    assert await changes(pool) == []


async def test_a_late_mistake_undoes_the_batches_before_it(
    syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 2)
    rows = "".join(f"{n}@example.com,x\n" for n in range(5))
    code, _, line = await enqueued(syncd, yaml, f"email,notes\n{rows}late\n")
    assert (code, line) == (1, "leads.csv:7: has 1 cells, the header 2; nothing was enqueued\n")
    assert await changes(pool) == []
    assert (await enqueued(syncd, yaml, f"email,notes\n{rows}"))[:2] == (
        0,
        "5 changes enqueued for acme, push contacts, ids 5 to 9\n",  # the sequence keeps what the first attempt took
    )
    assert [key for key, _ in await changes(pool)] == [f"{n}@example.com" for n in range(5)]


async def test_a_file_without_rows_enqueues_nothing(syncd: Run, yaml: Yaml) -> None:
    assert await enqueued(syncd, yaml, "email,notes\n") == (0, "0 changes enqueued for acme, push contacts\n", "")


async def test_the_ids_are_ours_alone(database: str, pool: asyncpg.Pool) -> None:
    enqueue = "SELECT syncd.enqueue('acme', 'contacts', $1, '{}')"
    other = await asyncpg.connect(database)
    open_transaction = other.transaction()
    await open_transaction.start()
    await other.execute(enqueue, "uncommitted@example.com")
    async with pool.acquire() as connection:
        done = await store.enqueue_all(
            connection, "acme", "contacts", [store.NewChange("a@example.com", "{}"), store.NewChange("b@example.com", "{}")]
        )
    assert (done.count, done.first_id, done.last_id) == (2, 2, 3)
    await open_transaction.rollback()
    await other.close()


async def test_names_that_are_not_there(syncd: Run, yaml: Yaml) -> None:
    file = yaml.write()
    ran = await syncd("enqueue", "-c", file, "--push", "contcts", "leads.csv")
    assert (ran.code, ran.err) == (2, 'syncd: the instance acme has no push "contcts"; did you mean "contacts"?\n')
    ran = await syncd("enqueue", "-c", file, "--push", "contacts", "-i", "nobody", "leads.csv")
    assert (ran.code, ran.err) == (2, 'syncd: the configuration has no instance "nobody"; there are acme\n')
    ran = await syncd("enqueue", "-c", file, "--push", "contacts", "/no/leads.csv")
    assert (ran.code, ran.err) == (1, "/no/leads.csv: No such file or directory\n")


async def test_of_several_instances_one_must_be_named(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    yaml.instances = ("acme", "beta")
    code, _, line = await enqueued(syncd, yaml, "email\na@example.com\n")
    assert (code, line) == (2, "syncd: say which instance with --instance; there are acme, beta\n")
    assert (await enqueued(syncd, yaml, "email\na@example.com\n", "--instance", "beta"))[0] == 0
    assert [row["instance"] for row in await pool.fetch(OUTBOX)] == ["beta"]


cells = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)


@given(st.lists(st.tuples(cells.filter(str.strip), cells, cells)), st.booleans())
def test_any_table_comes_through(rows: list[tuple[str, str, str]], clear_empty: bool) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([("key", "a", "b"), *rows])
    source = io.BytesIO(file.getvalue().encode())
    found = [(key, json.loads(fields)) for key, fields, _ in read_changes(source, "x.csv", "key", clear_empty, lambda _: None)]
    kept = [(key, {"a": a or None, "b": b or None}) for key, a, b in rows]
    assert found == (
        kept if clear_empty else [(key, {name: cell for name, cell in fields.items() if cell is not None}) for key, fields in kept]
    )


def test_progress_is_told_in_bytes() -> None:
    content = b"key,a\n" + b"k,v\n" * 5_000
    told: list[int] = []
    assert sum(1 for _ in read_changes(io.BytesIO(content), "x.csv", "key", False, told.append)) == 5_000
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= len(content)


def test_a_pipe_will_do() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"key,a\n1,v\n")
    os.close(theirs)
    with os.fdopen(ours, "rb") as source:
        assert list(read_changes(source, "/dev/stdin", "key", False, lambda _: None)) == [("1", '{"a":"v"}', None)]


def test_the_header_may_hold_the_key_alone() -> None:
    assert list(read_changes(io.BytesIO(b"key\n1\n"), "x.csv", "key", False, lambda _: None)) == [("1", "{}", None)]
