"""The rehearsal at small sizes: that it agrees, that it would say so if it didn't, and that it can be stopped at any point."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest
from rich.console import Console

from syncd import demo
from syncd.demo import DemoOptions
from syncd.demo.compare import canonical, canonical_json, compare
from syncd.demo.proof import last_value_wins, losses_marked
from syncd.demo.stage import Source
from syncd.demo.view import Board, Events, Glance, Rate
from syncd.simulator import ExportView, SimulatorSettings, Slot, World

LEADS = {
    7: {
        "leadScore": "0",
        "unsubscribed": "false",
        "lifetimeValue": "12.50",
        "lastWebinarAt": "2026-01-02T03:04:05-06:00",
        "notes": "a\n🚀",
    },
    8: {"accountNumber": "10000000000000000000007", "dateOfBirth": "1980-02-29", "Legacy_Segment": "A1"},
    9: {},
}
MIRRORED = {
    7: '{"leadScore": 0, "unsubscribed": false, "lifetimeValue": 12.5, "lastWebinarAt": "2026-01-02T09:04:05Z", "notes": "a\\n🚀"}',
    8: '{"accountNumber": 10000000000000000000007, "dateOfBirth": "1980-02-29", "Legacy_Segment": "A1"}',
    9: "{}",
}


def truth() -> Iterator[tuple[int, str | None, dict[str, str]]]:
    for lead_id, values in LEADS.items():
        yield lead_id, None if lead_id == 9 else f"Lead.{lead_id}@example.com", dict(values)


async def mirror(pool: asyncpg.Pool, rows: Mapping[int, str]) -> None:
    for lead_id, attributes in rows.items():
        email = None if lead_id == 9 else f"Lead.{lead_id}@example.com"
        await pool.execute(
            "INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)"
            " VALUES ('acme', $1, $2, $3::jsonb, '{}', now(), now(), now())",
            lead_id,
            email,
            attributes,
        )


@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("source", ["auto", "soap"])
async def test_both_sides_agree_in_the_end(source: Source, faults: bool) -> None:
    out = Console(file=io.StringIO(), width=120)
    options = DemoOptions(source, leads=1_500, changes=3_000, seed=3, speed=80, faults=faults)
    code = await demo.run(options, out)
    assert isinstance(out.file, io.StringIO)
    told = out.file.getvalue()
    assert code == 0, told
    assert "everything agrees" in told
    assert f"source: {source}" in told
    assert "3,000 enqueued, 3,000 in the view" in told
    assert "40 deleted, 40 merged" in told
    assert ("faults injected" in told) == faults
    assert ("news by the activity log" in told) == (source == "auto")


async def test_what_has_gone_and_is_marked_otherwise_is_found(pool: asyncpg.Pool) -> None:
    await mirror(pool, {**MIRRORED, 3: "{}", 4: "{}"})
    await pool.execute("UPDATE syncd.lead SET deleted_at = now(), merged_into = CASE lead_id WHEN 4 THEN 7 END WHERE lead_id < 7")
    async with pool.acquire() as connection:
        right = await losses_marked(connection, "acme", {3: None, 4: 7, 5: None})
        for wrong in ({4: 7}, {3: None, 4: 8}, {3: 7, 4: 7}, {3: None, 4: None}):
            assert not (await losses_marked(connection, "acme", wrong)).holds, wrong
    assert right.holds
    assert right.detail == "2 deleted, 1 merged; 2 of them had been pulled"


@pytest.mark.parametrize("end", ["applied", "noop"])
@pytest.mark.parametrize(("held", "holds"), [("second", True), ("first", False)])
async def test_the_last_word_on_a_field_is_held_against_marketo(pool: asyncpg.Pool, end: str, held: str, holds: bool) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition('2026-03-02')")
    for number, (value, state) in enumerate((("first", "applied"), ("second", end), ("third", "superseded")), 1):
        await pool.execute(
            "INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at)"
            " VALUES ($1, 'acme', 'contacts', 'a@x', 'a@x', jsonb_build_object('title', $2::text), $3, 0, '2026-03-02', '2026-03-02')",
            number,
            value,
            state,
        )
    world = World(SimulatorSettings(leads=0), 1_770_000_000)
    world.create({"email": "a@x", "title": held})
    async with pool.acquire() as connection:
        assert (await last_value_wins(connection, "acme", world)).holds is holds


async def test_texts_that_count_as_nothing_do_so_on_both_sides(pool: asyncpg.Pool) -> None:
    await mirror(pool, {7: '{"title": "null"}', 8: "{}", 9: '{"title": "null", "notes": "null and void"}'})
    held = [(7, "Lead.7@example.com", {}), (8, "Lead.8@example.com", {"notes": "null"}), (9, None, {"notes": "null and void"})]
    async with pool.acquire() as connection:
        assert (await compare(iter(held), connection, "acme", nothing=("null",))).agrees
        assert (await compare(iter(held), connection, "acme")).differing == 3


async def test_equal_sides_agree(pool: asyncpg.Pool) -> None:
    await mirror(pool, MIRRORED)
    async with pool.acquire() as connection:
        result = await compare(truth(), connection, "acme")
    assert result.agrees
    assert result.marketo.records == result.mirror.records == 3
    assert result.marketo.digest == result.mirror.digest


@pytest.mark.parametrize(
    ("planted", "told"),
    [
        ("UPDATE syncd.lead SET attributes = attributes || '{\"leadScore\": false}' WHERE lead_id = 7", "lead 7: differs in leadScore"),
        ("UPDATE syncd.lead SET attributes = attributes - 'notes' WHERE lead_id = 7", "lead 7: differs in notes"),
        ("UPDATE syncd.lead SET attributes = attributes || '{\"title\": \"CEO\"}' WHERE lead_id = 9", "lead 9: differs in title"),
        ("UPDATE syncd.lead SET email = lower(email) WHERE lead_id = 8", "lead 8: differs in email"),
        ("UPDATE syncd.lead SET misfits = '{\"title\": \"x\"}' WHERE lead_id = 8", "lead 8: differs in title"),
        ("UPDATE syncd.lead SET attributes = attributes || '{\"accountNumber\": 10000000000000000000008}' WHERE lead_id = 8",
         "lead 8: differs in accountNumber"),
        ("DELETE FROM syncd.lead WHERE lead_id = 7", "lead 7: is in Marketo only"),
        ("DELETE FROM syncd.lead WHERE lead_id = 9", "lead 9: is in Marketo only"),
        ("UPDATE syncd.lead SET deleted_at = now() WHERE lead_id = 8", "lead 8: is in Marketo only"),
        ("UPDATE syncd.lead SET lead_id = 10 WHERE lead_id = 9", "lead 9: is in Marketo only"),
    ],
)  # fmt: skip
async def test_a_planted_difference_is_found(pool: asyncpg.Pool, planted: str, told: str) -> None:
    await mirror(pool, MIRRORED)
    await pool.execute(planted)
    async with pool.acquire() as connection:
        result = await compare(truth(), connection, "acme")
    assert not result.agrees
    assert told in result.differences
    assert result.marketo.digest != result.mirror.digest


async def test_a_lead_that_only_the_mirror_has_is_found(pool: asyncpg.Pool) -> None:
    await mirror(pool, {**MIRRORED, 3: "{}", 11: "{}"})
    async with pool.acquire() as connection:
        result = await compare(truth(), connection, "acme")
    assert result.differences == ["lead 3: is in Postgres only", "lead 11: is in Postgres only"]


async def test_a_lead_changed_behind_our_back_ends_in_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    real = World.rest_truth

    def tampered(world: World, fields: tuple[str, ...] | None = None) -> Iterator[tuple[int, str | None, dict[str, str]]]:
        for number, (lead_id, email, values) in enumerate(real(world, fields)):
            yield lead_id, email, {**values, "title": "Spy"} if number == 5 else values

    monkeypatch.setattr(World, "rest_truth", tampered)
    out = Console(file=io.StringIO(), width=120)
    assert await demo.run(DemoOptions(leads=50, changes=30, speed=150), out) == 1
    assert isinstance(out.file, io.StringIO)
    assert "differs in title" in out.file.getvalue()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("leadScore", "-0", "0"),
        ("lifetimeValue", "100.00", "100"),
        ("lifetimeValue", "0.00", "0"),
        ("accountNumber", "1200", "1200"),
        ("unsubscribed", "false", "false"),
        ("title", "007", '"007"'),
        ("lastWebinarAt", "2026-01-01T00:30:00+01:00", '"2025-12-31T23:30:00+00:00"'),
    ],
)
def test_values_have_one_canonical_text(name: str, text: str, value: str) -> None:
    assert canonical(name, text) == value


def test_a_text_is_no_number_nor_boolean() -> None:
    assert canonical_json("title", "12") != canonical("leadScore", "12")
    assert canonical_json("unsubscribed", "true") != canonical("unsubscribed", "true")


@pytest.mark.parametrize("moment", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_midway_stops_cleanly(moment: signal.Signals) -> None:
    code = "import asyncio, sys; from syncd.demo import DemoOptions, run; sys.exit(asyncio.run(run(DemoOptions(leads=2000, speed=20))))"
    process = subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while "settled" not in (line := process.stdout.readline()):
            assert line, "it ended before it began"
        began = time.monotonic()
        servers = postmasters(process.pid)
        assert len(servers) == 1
        process.send_signal(moment)
        rest, _ = process.communicate(timeout=20)
        assert process.returncode == 128 + moment
        assert time.monotonic() - began < 10
        assert "stopped; nothing is left behind" in rest
        assert not any(Path(f"/proc/{server}").exists() for server in servers)
        assert not any(folder.exists() for folder in servers.values())
    finally:
        process.kill()
        process.wait()


def postmasters(parent: int) -> dict[int, Path]:
    """The children of `parent` that are PostgreSQL servers, and the folder that each works in."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "stat").read_text().rpartition(")")[2].split()
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(words[1]) == parent and b"-D" in command:
            found[int(process.name)] = Path(os.fsdecode(command[command.index(b"-D") + 1]))
    return found


EXPORTS = ("Completed", "Completed", "Completed", "Processing", "Processing", "Queued", "Queued", "Created")


def glance(**changes: int) -> Glance:
    slots = [Slot("running", "ours", 1022, 3.0, 2000, 0.4), Slot("running", "foreign", 1023, 2.0, 0, 0.9), Slot("queued", "ours", 1024)]
    return Glance(
        at=101.0,
        leads=12_000,
        leads_in_marketo=20_500,
        changes=changes,
        enqueued=30_000,
        to_enqueue=60_000,
        slots=[*slots, *[Slot("free")] * 7],
        calls_last_20s=37,
        calls_limit=50,
        exports=[*(ExportView(str(each), "ours", state) for each, state in enumerate(EXPORTS)), ExportView("9", "foreign", "Queued")],
        due=1_234,
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_the_board_fits_the_screen(width: int, height: int) -> None:
    events = Events()
    for number in range(60):
        events(None, "info", {"event": "import_settled", "time": "2026-03-02T12:00:00.000Z", "batch": number, "applied": 2_000})
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    board = Board(10.0, events, started=90.0)
    console.print(board.draw(glance(pending=13_640, in_chunk=20_475, applied=9_575, superseded=2_226, rejected=57, warned=6, parked=21)))
    shown = console.export_text().rstrip("\n").splitlines()
    assert len(shown) == height
    assert all(len(line) <= width for line in shown)
    assert not any(line.rstrip("│ ").endswith("■") for line in shown), "a state is broken off its mark"
    text = "\n".join(shown)
    for part in ("12,000 of 20,500 leads", "11,864 of 30,000 settled", "pending 13,640", "▶ 40%", "37 of at most 50", "batch=59"):
        assert part in text
    assert "1,234 due by id; extracts: 3 complete, 1 foreign queued, 2 queued, 2 runn" in text


def test_without_a_terminal_it_is_one_line() -> None:
    line = Board(10.0, Events(), started=90.0).line(glance(pending=9_000, applied=14_000))
    assert "\n" not in line
    assert "00:11  in: 12,000 of 20,500 leads" in line
    assert "1 foreign running, 7 free, 1 ours queued, 1 ours running" in line
    assert "waiting for extracts" in line
    assert "extracts: 3 complete, 1 foreign queued, 2 queued, 2 running; 1,234 due by id" in line


def test_a_rate_looks_back_a_few_seconds_only() -> None:
    rate = Rate()
    assert [rate.note(at, at * 100) for at in (0, 1, 2)][-1] == 100
    for at in range(3, 20):
        last = rate.note(at, 200)
    assert last == 0
