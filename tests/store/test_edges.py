"""One function per edge: each moves exactly the edges it says, whatever the state it finds, and tells the loser of a race."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from syncd.core import states
from syncd.core.faults import Fault, Nature
from syncd.core.states import Edges
from syncd.core.values import ExportStatus, ImportStatus
from syncd.core.windows import Window
from syncd.store import batches, chunks, cursors, endings, exports, imports, pauses, planning, pulls, pushes
from syncd.store.batches import Batch
from syncd.store.imports import Job
from syncd.store.leases import Connection, Pool
from syncd.store.pauses import Choice
from tests.store.outgoing import NOW

Move = Callable[[Connection, int], Awaitable[Any]]

CHECKS = """
SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c
 WHERE c.contype = 'c' AND c.conrelid = ('syncd.' || $1)::regclass
   AND c.conkey = ARRAY[(SELECT attnum FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attname = 'state')]
"""

NEW: dict[str, str] = {
    "import_job": """
        INSERT INTO syncd.import_job (instance, push, chunk_id, batch_id, state, row_count, byte_count, sha256, attempt, submitted_at)
        VALUES ('acme', 'contacts', 1, CASE WHEN $1 IN ('queued', 'importing', 'complete', 'failed', 'settled', 'lost') THEN 7 END,
                $1, CASE WHEN $1 = 'settled' THEN 0 ELSE 1 END, 1, '', 1, now()) RETURNING id
    """,
    "export": """
        INSERT INTO syncd.export (instance, pull, window_id, export_id, state, fields, wanted, begun_at, asked_at, ended_at)
        VALUES ('acme', 'people', 1, CASE WHEN $1 NOT IN ('creating', 'unconfirmed', 'absent') THEN 'e-1' END, $1, '{id}', '{}', now(),
                now(), CASE WHEN $1 IN ('absent', 'failed', 'cancelled', 'loaded', 'expired') THEN now() END) RETURNING id
    """,
    "chunk": """
        WITH chunk AS (
            INSERT INTO syncd.chunk (instance, push, lookup_field, format, columns, header, row_count, byte_count, next_ordinal,
                                     opened_at, state, sha256)
            VALUES ('acme', 'contacts', 'email', 'csv', '{email,f}', E'email,f\\n', 1, 12, 1, now(), $1, 'hash') RETURNING id
        ), line AS (
            INSERT INTO syncd.chunk_row (chunk_id, ordinal, key_norm, line) SELECT id, 0, 'a@x', E'a@x,1\\n' FROM chunk
        ) SELECT id FROM chunk
    """,
    "sync_batch": """
        WITH batch AS (
            INSERT INTO syncd.sync_batch (instance, push, urgent, lookup_field, row_count, byte_count, next_ordinal, opened_at, state,
                                          submitted_at, ended_at)
            VALUES ('acme', 'contacts', false, 'email', CASE WHEN $1 = 'settled' THEN 0 ELSE 1 END, 9, 1, now(), $1,
                    CASE WHEN $1 <> 'open' THEN now() END, CASE WHEN $1 IN ('settled', 'refused', 'absent') THEN now() END) RETURNING id
        ), record AS (
            INSERT INTO syncd.sync_record (batch_id, ordinal, key_norm, record) SELECT id, 0, 'a@x', '{}' FROM batch
        ) SELECT id FROM batch
    """,
    "pull_window": """
        WITH pull AS (
            INSERT INTO syncd.pull (instance, pull, state, selector, planned_until)
            VALUES ('acme', 'people', CASE WHEN $1 = 'blocked' THEN 'blocked' ELSE 'running' END, 'before', now())
        )
        INSERT INTO syncd.pull_window (instance, pull, source, starts_at, ends_at, planned_at, state)
        VALUES ('acme', 'people', 'soap', now() - interval '1 day', now(), now(), $1) RETURNING id
    """,
    "pull": "INSERT INTO syncd.pull (instance, pull, state, selector, planned_until) VALUES ('acme', 'people', $1, 's', now()) RETURNING 1",
    "push": "INSERT INTO syncd.push (instance, push, state, retry_at) VALUES ('acme', 'contacts', $1, now()) RETURNING 1",
}


def looked(state: Any) -> Move:
    return lambda c, row: imports.looked(c, row, ImportStatus(7, state), NOW)


def answered(state: str) -> Move:
    return lambda c, row: imports.to_answered(c, row, 7, state, None, NOW)


def whole(row: int) -> Job:
    return Job(row, "contacts", 1, 7, "complete", NOW, None, 0, 0)


JOB_MOVES: dict[str, Move] = {
    "submitting → queued": answered("queued"),
    "submitting → importing": answered("importing"),
    "submitting → complete": answered("complete"),
    "submitting → failed": answered("failed"),
    "submitting → refused": lambda c, row: imports.to_refused(c, row, "why"),
    "submitting → unconfirmed": lambda c, row: imports.to_unconfirmed(c, row, "why"),
    "submitting → unconfirmed (the daemon died)": lambda c, row: imports.orphaned(c, "acme"),
    "unconfirmed → queued": lambda c, row: imports.to_queued(c, row, 7),
    "unconfirmed → absent": lambda c, row: imports.to_absent(c, row, "why"),
    "queued → queued, importing → importing": looked("queued"),
    "queued → importing, importing → importing": looked("importing"),
    "queued → complete, importing → complete": looked("complete"),
    "queued → failed, importing → failed": looked("failed"),
    "complete → settled, failed → settled": lambda c, row: imports.settle(c, whole(row), 1, {}, NOW),
    "queued → lost, importing → lost, complete → lost, failed → lost": lambda c, row: imports.to_lost(c, whole(row), "why", NOW),
}


FAULT = Fault(Nature.TRANSIENT, "reset", "connection reset", "export_create", "r#1")


def told(state: Any) -> Move:
    return lambda c, row: exports.looked(c, row, ExportStatus("e-1", state), NOW)


EXPORT_MOVES: dict[str, Move] = {
    "creating → created": lambda c, row: exports.to_created(c, row, "e-1", NOW),
    "creating → absent": lambda c, row: exports.to_refused(c, row, FAULT, NOW),
    "creating → unconfirmed": lambda c, row: exports.to_unconfirmed(c, row, FAULT),
    "creating → unconfirmed (the daemon died)": lambda c, row: exports.orphaned(c, "acme", "people"),
    "unconfirmed → created": lambda c, row: exports.adopt(c, row, "e-1", NOW),
    "unconfirmed → absent": lambda c, row: exports.to_absent(c, row, "why", NOW),
    "created → created (about to be queued)": lambda c, row: exports.asked(c, row, NOW),
    "created → queued": lambda c, row: exports.to_queued(c, row, NOW),
    "created → created, queued → queued, processing → processing": told("created"),
    "created → queued, queued → queued, processing → processing": told("queued"),
    "created → processing, queued → processing, processing → processing": told("processing"),
    "created → completed, queued → completed, processing → completed": told("completed"),
    "created → failed, queued → failed, processing → failed": told("failed"),
    "created → cancelled, queued → cancelled, processing → cancelled": told("cancelled"),
    "created → cancelled, queued → cancelled, processing → cancelled (by us)": lambda c, row: exports.to_cancelled(c, row, "why", NOW),
    "completed → completed (told anew)": lambda c, row: exports.told_anew(c, row, ExportStatus("e-1", "completed"), NOW),
    "completed → completed (spoilt)": lambda c, row: exports.spoilt(c, row, "why"),
    "completed → loaded": lambda c, row: exports.to_loaded(c, row, NOW),
    "completed → expired": lambda c, row: exports.to_expired(c, row, "why", NOW),
}


async def started(connection: Connection, row: int) -> Any:
    return await imports.start(connection, chunks.Chunk(row, "", "", "csv", None, None, (), 1, 12, b"", 0), NOW)


CHUNK_MOVES: dict[str, Move] = {
    "open → sealed": lambda c, row: chunks.seal(c, row, NOW),
    "sealed → in_job": started,
    "in_job → sealed": lambda c, row: chunks.to_sealed(c, row, None),
    "in_job → done": lambda c, row: endings.to_done(c, row, NOW),
    "in_job → split": lambda c, row: endings.to_split(c, row, [0], None, NOW),
    "open → dissolved, sealed → dissolved": lambda c, row: endings.dissolve(c, row, "why", NOW),
}


def batch(row: int) -> Batch:
    return Batch(row, "contacts", "submitting", False, "email", None, 1, 9, NOW, NOW)


BATCH_MOVES: dict[str, Move] = {
    "open → submitting": lambda c, row: batches.to_submitting(c, row, NOW),
    "submitting → settled": lambda c, row: batches.settle(c, batch(row), {}, "r#1", NOW),
    "submitting → refused": lambda c, row: batches.to_refused(c, row, "why", NOW),
    "submitting → unconfirmed": lambda c, row: batches.to_unconfirmed(c, row, "why"),
    "submitting → unconfirmed (the daemon died)": lambda c, row: batches.orphaned(c, "acme"),
    "unconfirmed → absent": lambda c, row: batches.to_absent(c, row, "why", NOW),
}

HOUR = timedelta(hours=1)


async def timed_out(connection: Connection) -> None:
    await pauses.pause(connection, "acme", Choice(), NOW, NOW)
    await pauses.enforce(connection, "acme", NOW)


async def come_to_run(connection: Connection) -> None:
    await connection.execute("INSERT INTO syncd.pause (instance, direction, name) VALUES ('acme', 'both', '')")
    await pauses.enforce(connection, "acme", NOW)


PAUSE_MOVES: dict[str, Move] = {
    "running → paused": lambda c, row: pauses.pause(c, "acme", Choice(), None, NOW),
    "running → paused (registered under a pause)": lambda c, row: come_to_run(c),
    "paused → running": lambda c, row: pauses.resume(c, "acme", Choice()),
    "paused → running (its time has come)": lambda c, row: timed_out(c),
}
WINDOW_MOVES: dict[str, Move] = {
    "open → open (advance)": lambda c, row: cursors.advance(c, row, None, "p", 1, 2),
    "open → open (walked again)": lambda c, row: cursors.walk_again(c, row, "why"),
    "open → open (restarted)": lambda c, row: cursors.restart(c, row, "why"),
    "open → done": lambda c, row: cursors.finish(c, row, 1, 1, NOW),
    "open → split": lambda c, row: planning.split(c, row, [Window(NOW - HOUR, NOW)], NOW),
    "open → blocked": lambda c, row: pulls.block(c, "acme", "people", row, NOW, "why"),
    "blocked → open": lambda c, row: pulls.unblock(c, "acme", "people"),
    "open → abandoned, blocked → abandoned": lambda c, row: pulls.register(c, "acme", "people", "after", NOW, NOW, True),
}
PULL_MOVES: dict[str, Move] = {
    "running → blocked": lambda c, row: pulls.block(c, "acme", "people", None, NOW, "why"),
    "blocked → running": lambda c, row: pulls.unblock(c, "acme", "people"),
    "blocked → running (registered)": lambda c, row: pulls.register(c, "acme", "people", "s", NOW, NOW, False),
    **PAUSE_MOVES,
}
PUSH_MOVES: dict[str, Move] = {
    "running → blocked": lambda c, row: pushes.block(c, "acme", "contacts", NOW, "why"),
    "blocked → running": lambda c, row: pushes.unblock_due(c, "acme", NOW + HOUR),
    "blocked → running (registered)": lambda c, row: pushes.register(c, "acme", ["contacts"]),
    "running → held": lambda c, row: pushes.hold(c, "acme", "contacts", "why"),
    "held → running": lambda c, row: pushes.let_go(c, "acme", "contacts"),
    **PAUSE_MOVES,
}

MOVES: dict[str, tuple[Edges, dict[str, Move]]] = {
    "import_job": (states.IMPORT_JOB, JOB_MOVES),
    "chunk": (states.CHUNK, CHUNK_MOVES),
    "sync_batch": (states.SYNC_BATCH, BATCH_MOVES),
    "export": (states.EXPORT, EXPORT_MOVES),
    "pull_window": (states.WINDOW, WINDOW_MOVES),
    "pull": (states.PULL, PULL_MOVES),
    "push": (states.PUSH, PUSH_MOVES),
}


def said(title: str) -> set[tuple[str, str]]:
    return {(a, b) for a, b in re.findall(r"(\w+) → (\w+)", title)}


async def test_the_checks_of_the_database_are_the_tables(pool: Pool) -> None:
    async def checked(table: str) -> set[str]:
        return {state for row in await pool.fetch(CHECKS, table) for state in re.findall(r"'(\w+)'", row[0])}

    for table, (edges, _) in MOVES.items():
        assert await checked(table) == set(edges), table
    live, settled = await checked("outbox"), await checked("change_history")
    assert live == {state for state in states.CHANGE if not states.is_final(states.CHANGE, state)}
    assert settled == set(states.CHANGE) - live


@pytest.mark.parametrize("table", MOVES)
async def test_each_function_moves_the_edges_it_says_and_no_others(pool: Pool, table: str) -> None:
    edges, moves = MOVES[table]
    async with pool.acquire() as connection:
        for title, move in moves.items():
            moved = set()
            for state in edges:
                rollback = connection.transaction()
                await rollback.start()
                row = await connection.fetchval(NEW[table], state)
                before = await connection.fetchval(f"SELECT min(r::text) FROM syncd.{table} r")
                answer = await move(connection, row)
                where = "id = $1" if table in ("import_job", "chunk", "sync_batch", "export", "pull_window") else "$1::bigint > 0"
                after = await connection.fetchrow(f"SELECT state, r::text FROM syncd.{table} r WHERE {where}", row)
                assert after is not None
                if table in ("import_job", "chunk", "sync_batch", "export"):
                    assert bool(answer) == (after[1] != before), (title, state, answer)
                if after["state"] != state or (bool(answer) and (state, state) in said(title)):
                    moved.add((state, after["state"]))
                await rollback.rollback()
            assert moved == said(title), title


@pytest.mark.parametrize("table", MOVES)
def test_every_drawn_edge_has_its_function(table: str) -> None:
    edges, moves = MOVES[table]
    drawn = {(state, target) for state, targets in edges.items() for target in targets if state != target}
    have = {(a, b) for title in moves for a, b in said(title) if a != b}
    through_open = {("blocked", "abandoned")} if table == "pull_window" else set()
    assert have - through_open == drawn
