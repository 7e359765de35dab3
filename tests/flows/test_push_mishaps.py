"""Pushing when something goes wrong between two statements, or is odd enough that nobody thought of it."""

import contextlib
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from syncd.core.results import SentRow
from syncd.marketo.errors import rest_fault
from syncd.marketo.imports import Imports, Submitted
from syncd.simulator import Fault, ImportModel
from syncd.store import chunks, imports
from syncd.store.chunks import Chunk
from syncd.store.leases import Connection
from tests.flows.conftest import PUSH, Build
from tests.flows.test_push import SMALL, change, violations


async def test_a_long_import_whose_reply_was_lost_is_not_repeated_because_a_short_one_overtook_it(house: Build) -> None:
    home = await house(pushes=[replace(PUSH, flush_after=timedelta())], imports=ImportModel(overhead_seconds=1, rows_per_second=1, sigma=0))
    home.simulator.script("import", Fault.RESET_AFTER)
    await home.enqueue(*(change(n) for n in range(100)))
    await home.run(6, home.a_job_exists)
    await home.enqueue(change(500))
    await home.run(1800, home.all_ended)
    assert await home.states() == {"applied": 101}
    assert "absent" in await home.job_states()
    assert violations(home) == ({}, (), 0)


async def test_a_job_that_is_finished_when_it_is_answered_is_asked_for_its_failures(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[PUSH], imports=ImportModel(overhead_seconds=0.1, sigma=0))
    submit = Imports.submit

    async def finished_at_once(self: Imports, *file: Any, **named: Any) -> Submitted:
        return replace(await submit(self, *file, **named), status="complete")

    monkeypatch.setattr(Imports, "submit", finished_at_once)
    good, decimal = await home.enqueue(change(1, leadScore=1), change(2, leadScore="1.5"))
    await home.run(120, home.all_ended)
    assert [(await home.fate(one))[0] for one in (good, decimal)] == ["applied", "rejected"]


async def test_a_job_whose_beginning_the_database_did_not_confirm_goes_again(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[PUSH])
    start = imports.start

    async def committed_without_saying_so(_: Connection, chunk: Chunk, now: datetime) -> int | None:
        monkeypatch.setattr(imports, "start", start)
        async with home.pool.acquire() as other:
            await start(other, chunk, now)
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(imports, "start", committed_without_saying_so)
    (only,) = await home.enqueue(change(1))
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await home.run(30)
    await home.run(120, home.all_ended)
    assert (await home.fate(only))[0] == "applied"
    assert home.simulator.report().imports_accepted == 1


async def test_a_change_whose_values_are_nested_too_deeply_is_rejected_and_stops_no_other(house: Build) -> None:
    home = await house(pushes=[PUSH])
    odd, good = await home.enqueue(("odd@example.com", '{"a": ' + "[" * 3000 + "]" * 3000 + "}"), change(1))
    await home.run(60, home.all_ended)
    assert await home.fate(odd) == ("rejected", "its values are nested deeper than any field's")
    assert (await home.fate(good))[0] == "applied"


async def test_no_key_that_the_outbox_takes_stops_the_others(house: Build) -> None:
    home = await house(pushes=[PUSH])
    letters = "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FFF), k=3_000)))  # such as no compression makes smaller
    with pytest.raises(asyncpg.CheckViolationError, match="key_of_1000_bytes_at_most"):
        await home.enqueue((letters, '{"firstName": "Long"}'))
    odd, good = await home.enqueue((letters[:333], '{"firstName": "Long"}'), change(1))
    await home.run(60, home.all_ended)
    assert (await home.fate(good))[0] == "applied"
    assert (await home.fate(odd))[0] == "rejected"  # by Marketo


async def test_settling_reads_the_rows_that_the_results_name_and_all_only_in_doubt(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[PUSH])
    read: list[int] = []
    sent_rows = chunks.sent_rows

    async def counted(*arguments: Any) -> list[SentRow]:
        rows = await sent_rows(*arguments)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(chunks, "sent_rows", counted)
    await home.enqueue(*(change(n, leadScore="1.5" if n == 3 else n) for n in range(30)))
    await home.run(120, home.all_ended)
    assert read == [1]
    failures = Imports.failures

    async def of_somebody_else(self: Imports, batch_id: int) -> bytes:
        return (await failures(self, batch_id)).replace(b"person3@", b"person33@")

    monkeypatch.setattr(Imports, "failures", of_somebody_else)
    await home.enqueue(*(change(n, leadScore="1.5" if n == 3 else n) for n in range(30)))
    await home.run(300, home.all_ended)
    assert read[1:] == [0, 30]
    assert await home.states() == {"applied": 29, "rejected": 1, "unverified": 30}


async def test_a_job_whose_rows_somebody_holds_keeps_no_other_from_being_settled(house: Build) -> None:
    home = await house(pushes=[SMALL])
    # The trigger stands for a lock that is held longer than we wait for one.
    await home.pool.execute(
        """CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF old.key = 'person0@example.com' THEN RAISE lock_not_available; END IF; RETURN old; END $$;
           CREATE TRIGGER held BEFORE DELETE ON syncd.outbox FOR EACH ROW EXECUTE FUNCTION held()"""
    )
    held, *_ = await home.enqueue(*(change(n, company="x" * 100) for n in range(60)))
    for _ in range(20):
        with contextlib.suppress(asyncpg.LockNotAvailableError):
            await home.run(10)
    assert (await home.fate(held))[0] == "in_chunk"
    assert await home.pool.fetchval("SELECT count(DISTINCT chunk_id) FROM syncd.outbox") == 1
    await home.pool.execute("DROP TRIGGER held ON syncd.outbox")
    await home.run(60, home.all_ended)
    assert await home.states() == {"applied": 60}


async def test_a_busy_list_is_asked_after_once_in_a_while_and_not_by_every_file(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[replace(SMALL, list_id=1)])
    refusals = []

    async def busy(*_: Any, **__: Any) -> Submitted:
        refusals.append(home.clock.now())
        raise rest_fault("1019", "Import in progress for the target static list", "import", None)

    monkeypatch.setattr(Imports, "submit", busy)
    await home.enqueue(*(change(n, company="x" * 100) for n in range(100)))
    await home.run(100)
    assert await home.pool.fetchval("SELECT count(*) FROM syncd.chunk WHERE state = 'sealed'") > 5
    assert 2 <= len(refusals) <= 5


async def test_a_refusal_that_no_text_of_the_database_can_hold_is_written_all_the_same(
    house: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = await house(pushes=[PUSH])
    read = orjson.loads

    def with_nul(body: bytes) -> Any:
        parsed = read(body)
        if isinstance(parsed, dict) and "errors" in parsed:
            parsed["requestId"] += "\0"
            parsed["errors"][0]["message"] += "\0"
        return parsed

    monkeypatch.setattr(orjson, "loads", with_nul)
    home.simulator.script("import", Fault.IMPORT_1016)
    await home.enqueue(change(1))
    await home.run(120, home.all_ended)
    assert await home.job_states() == ["refused", "settled"]


async def test_an_answer_that_could_not_be_written_is_written_at_the_stop(house: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    home = await house(pushes=[PUSH])
    await home.enqueue(change(1))
    to_answered = imports.to_answered

    async def away(*_: Any) -> None:
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")

    monkeypatch.setattr(imports, "to_answered", away)
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await home.run(30)
    monkeypatch.setattr(imports, "to_answered", to_answered)
    await home.restart()
    assert await home.job_states() == ["queued"]
