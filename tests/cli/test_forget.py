"""`syncd forget`: with a daemon, and in the place of one."""

import json
import re
import signal
from pathlib import Path

import asyncpg
import pytest

from syncd.simulator import Simulator
from syncd.store import leases
from tests.cli.conftest import Ran, Run, Start, Yaml
from tests.store.test_erasing import ADA, NAME, found

LEAD = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', $1, $2, '{"lastName": "Lovelace"}', '{}', now(), now(), now())
"""
CARRIED = """
WITH chunk AS (
    INSERT INTO syncd.chunk (instance, push, lookup_field, format, columns, header, row_count, byte_count, next_ordinal, opened_at,
                             state, sha256)
    VALUES ('acme', 'contacts', 'email', 'csv', '{email,f}', E'email,f\\n', 1, 12, 1, now(), 'in_job', 'hash') RETURNING id
)
INSERT INTO syncd.outbox (instance, push, key, fields, state, chunk_id, ordinal)
SELECT 'acme', 'contacts', $1, '{"f": "Lovelace"}', 'in_chunk', id, 0 FROM chunk
"""


def receipt_of(ran: Ran) -> dict[str, object]:
    (line,) = [line for line in ran.out.splitlines() if line.startswith("receipt ")]
    receipt: dict[str, object] = json.loads(line.removeprefix("receipt "))
    return receipt


async def plant(pool: asyncpg.Pool, lead_id: int = 4711) -> None:
    await pool.execute(LEAD, lead_id, "Ada@example.com")
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', $1, '{\"lastName\": \"Lovelace\"}')", ADA)


async def test_without_a_daemon_the_command_does_its_work(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await plant(pool)
    ran = await syncd("forget", ADA, "-c", yaml.write(), "--yes")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[:3] == [
        "acme: 1 leads by id, 1 addresses; all that is kept of them will be erased",
        "acme: 1 of their changes wait: they will be cancelled",
        "acme: erased: lead 1, outbox 1",
    ]
    assert re.fullmatch(r"acme: finished \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", lines[3])
    assert (receipt_of(ran)["erased"], receipt_of(ran)["in_marketo"]) == ({"lead": 1, "outbox": 1}, "not asked")
    assert not re.search(rf"{ADA}|{NAME}|4711", ran.out, re.IGNORECASE)
    assert await found(pool, ADA, NAME, "4711") == {}
    async with pool.acquire() as connection:
        assert await connection.fetchval(leases.TRY_LOCK, leases.LOCK_SPACE, "acme"), "the daemon's place is free again"
        await leases.release(connection, "acme")


async def test_marketo_deletes_what_it_is_asked_to(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, marketo: Simulator) -> None:
    born = marketo.world.create({"email": ADA})
    await plant(pool, born.id)
    await pool.execute(LEAD, 4712, ADA)
    ran = await syncd("forget", str(born.id), "-c", yaml.write(), "--delete-in-marketo", "--yes")
    assert ran.code == 0
    assert "acme: Marketo will be asked to delete 2 leads\n" in ran.out
    assert "acme: Marketo has deleted 1; others were not there any more\n" in ran.out
    assert marketo.world.get(born.id) is None


async def test_with_a_daemon_it_is_the_daemon_that_does_it(
    syncd: Run, start: Start, yaml: Yaml, pool: asyncpg.Pool, marketo: Simulator
) -> None:
    daemon = await start("run", "-c", yaml.write())
    await daemon.line("window_walked|list_walked|lease_taken")
    lead = next(lead for lead in marketo.world if lead.email)
    assert lead.email is not None
    ran = await syncd("forget", lead.email, "-c", yaml.file, "--delete-in-marketo", "--yes")
    told = await daemon.line('"person_forgotten"')
    assert json.loads(told)["receipt"] == receipt_of(ran)["id"]
    assert ran.code == 0
    assert lead.email not in ran.out
    daemon.signal(signal.SIGTERM)
    code, said = await daemon.end()
    assert code == 0
    assert lead.email.lower() not in said.lower()


async def test_what_an_import_carries_has_to_wait(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await plant(pool)
    await pool.execute(CARRIED, ADA)
    ran = await syncd("forget", ADA, "-c", yaml.write(), "--yes")
    assert ran.code == 1
    assert "acme: 1 may be at Marketo: they are erased when they have settled\n" in ran.out
    assert "acme: erased: lead 1, outbox 1\nacme: not finished, waits for: an import" in ran.out
    assert await pool.fetchval("SELECT count(*) FROM syncd.forget_request") == 1
    assert set(await found(pool, ADA, NAME)) == {"outbox", "change", "forget_request"}


async def test_nobody_is_forgotten_without_a_yes(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await plant(pool)
    ran = await syncd("forget", ADA, "-c", yaml.write())
    assert (ran.code, ran.err) == (2, "syncd forget: nobody to ask: not on a terminal; give --yes\n")
    assert await pool.fetchval("SELECT count(*) FROM syncd.forgotten") == 0
    assert await pool.fetchval("SELECT count(*) FROM syncd.lead") == 1


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "give an EMAIL or ID, or --again"),
        ([ADA, "--again"], "give an EMAIL or ID, or --again"),
        ([ADA, "--receipts", "x"], "give an EMAIL or ID, or --again"),
        (["Ada"], "that is neither an email address nor the id of a lead"),
        (["0"], "that is neither an email address nor the id of a lead"),
        (["9" * 19], "that is neither an email address nor the id of a lead"),
    ],
)
async def test_wrong_words_are_one_line(syncd: Run, yaml: Yaml, given: list[str], told: str) -> None:
    ran = await syncd("forget", *given, "-c", yaml.write(), "--yes")
    assert ran.code == 2
    assert ran.err.startswith(f"syncd forget: {told}")
    assert ran.err.count("\n") == 1
    assert ADA not in ran.err


async def test_an_address_of_too_many_leads_is_refused(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.executemany(LEAD, [(n, ADA) for n in range(1, 1002)])
    ran = await syncd("forget", ADA, "-c", yaml.write(), "--yes")
    assert (ran.code, ran.err) == (1, "syncd forget: more than 1,000 leads belong to it: that is no person; forget them by their ids\n")


async def test_whom_no_lead_is_known_of_is_kept_out_all_the_same(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    ran = await syncd("forget", ADA, "-c", yaml.write(), "--yes", "--delete-in-marketo")
    assert ran.code == 0
    assert "acme: of no lead of theirs the id is known, so that Marketo can't be asked to delete one\n" in ran.out
    assert "acme: erased: nothing was there\n" in ran.out
    assert await pool.fetchval("SELECT count(*) FROM syncd.forgotten") == 1


# ── again ──


async def test_again_after_a_restore(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, tmp_path: Path) -> None:
    await plant(pool)
    first = await syncd("forget", ADA, "-c", yaml.write(), "--yes")
    nobody = await syncd("forget", "--again", "-c", yaml.file, "--yes")
    assert (nobody.code, nobody.out) == (0, "acme: nobody who was forgotten is there again\n")
    await pool.execute("DELETE FROM syncd.forgotten; DELETE FROM syncd.forget_receipt")  # a backup of before
    await plant(pool)
    assert (await syncd("forget", "--again", "-c", yaml.file, "--yes")).out == nobody.out
    kept = tmp_path / "receipts.txt"
    kept.write_text(f"noted by hand\n{first.out}receipt {json.dumps({'instance': 'beta', 'hashes': ['00']})}\n")
    again = await syncd("forget", "--again", "--receipts", kept, "-c", yaml.file, "--yes")
    assert again.code == 0
    assert receipt_of(again)["hashes"] == receipt_of(first)["hashes"]
    assert receipt_of(again)["erased"] == {"lead": 1, "outbox": 1}
    assert await found(pool, ADA, NAME, "4711") == {}
    assert await pool.fetchval("SELECT count(*) FROM syncd.forgotten") == 2


@pytest.mark.parametrize("text", [None, "receipt {", 'receipt {"instance": "acme", "hashes": ["xy"]}', 'receipt {"hashes": []}'])
async def test_receipts_that_cannot_be_read(syncd: Run, yaml: Yaml, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "r").write_text(text)
    ran = await syncd("forget", "--again", "--receipts", tmp_path / "r", "-c", yaml.write(), "--yes")
    reason = "No such file or directory" if text is None else "a receipt in it is broken off"
    assert (ran.code, ran.err) == (1, f"syncd forget: {tmp_path / 'r'} can't be read: {reason}\n")
