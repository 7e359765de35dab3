"""`syncd backfill`: its price, the order, and how far it is."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from syncd.cli.backfill import left_of, line_of, rate_of
from syncd.cli.render import NOTHING
from syncd.simulator import ScaledClock, Simulator, SimulatorSettings
from syncd.store import backfills
from syncd.store.backfills import Progress
from tests.cli.conftest import LONGEST, Run, Start, Yaml

T = datetime(2026, 1, 30, tzinfo=UTC)
REGISTERED = "INSERT INTO syncd.pull (instance, pull, selector, planned_until, planned_at) VALUES ('acme', $1, 's', $2, $2)"
LEADS = """
INSERT INTO syncd.lead (instance, lead_id, attributes, digests, first_seen_at, changed_at, asked_at)
SELECT 'acme', n, '{}', '{"people": "x", "listed": "x", "keyed": "x"}', now(), now(), now() FROM generate_series(1, 1000) n
"""
ALIVE = "INSERT INTO syncd.lease VALUES ('acme', 1, gen_random_uuid(), 'host-a', 42, now(), now() + interval '1 hour')"
ORDERED = "SELECT instance, pull, since, reason, planned_at FROM syncd.backfill ORDER BY id"
RUNNING = "INSERT INTO syncd.backfill (instance, pull, reason, since, planned_at) VALUES ('acme', 'people', 'test', $1, now()) RETURNING id"
WINDOW = """
INSERT INTO syncd.pull_window (instance, pull, source, state, starts_at, ends_at, expected, leads, planned_at, backfill_id)
VALUES ('acme', 'people', 'soap', $1, now(), now(), $2, $3, now(), $4)
"""
WALKED = "SELECT count(*) > 0 AND bool_and(state = 'done') FROM syncd.pull_window"
OTHER_PULLS = """
      listed: {source: soap, select: {static_list: P.News}, fields: [FirstName]}
      keyed: {source: soap, select: {keys: {type: IDNUM, values: [%s]}}, fields: [FirstName]}
"""


@pytest.fixture
async def registered(pool: asyncpg.Pool) -> None:
    await pool.execute(REGISTERED, "people", T)
    await pool.execute(LEADS)


def with_other_pulls(yaml: Yaml) -> None:
    file = yaml.write()
    pulls = re.sub(r"( {4}pulls:) \{(people: .*)\}\n", rf"\1\n      \2{OTHER_PULLS % ', '.join(map(str, range(1, 251)))}", file.read_text())
    file.write_text(pulls)


async def backfilled(syncd: Run, yaml: Yaml, *more: str) -> tuple[int, str, str]:
    if not yaml.file.exists():
        yaml.write()
    ran = await syncd("backfill", "-c", yaml.file, *more)
    return ran.code, ran.out, ran.err


async def ordered(pool: asyncpg.Pool) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await pool.fetch(ORDERED)]


PRICE = "people: 1,000 leads at most, in 1 window: about 5 calls (0.0 % of the day's 30,000), about 1 min\n"


@pytest.mark.usefixtures("registered")
async def test_it_is_priced_and_ordered(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    later = f"{PRICE}people: ordered\nno daemon runs for acme: start syncd run; it goes on when one does\n"
    assert await backfilled(syncd, yaml, "--pull", "people", "--yes") == (0, later, "")
    assert await ordered(pool) == [("acme", "people", None, "asked for by hand", None)]
    said = "people: is being backfilled already; nothing more was ordered\nwaits for the daemon to plan it\n"
    await pool.execute(ALIVE)
    assert await backfilled(syncd, yaml, "--pull", "people", "--since", "2026-01-20") == (0, said, "")
    assert len(await ordered(pool)) == 1


@pytest.mark.usefixtures("registered")
async def test_since_takes_a_part(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(ALIVE)
    code, out, _ = await backfilled(syncd, yaml, "--pull", "people", "--since", "2026-01-20T02:00:00+02:00", "--yes")
    assert (code, out) == (0, f"{PRICE}people: ordered\n")
    assert await ordered(pool) == [("acme", "people", datetime(2026, 1, 20, tzinfo=UTC), "asked for by hand", None)]
    code, out, _ = await backfilled(syncd, yaml, "--pull", "people", "--since", "2001-01-01", "--yes")
    assert (code, out) == (0, f"{PRICE}people: ordered\n"), "the one under way brings less; before the pull's beginning there is nothing"
    assert len(await ordered(pool)) == 2


@pytest.mark.usefixtures("registered")
async def test_what_was_never_pulled_is_not_pulled_again(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    code, out, _ = await backfilled(syncd, yaml, "--pull", "people", "--since", "2026-02-01", "--yes")
    assert (code, out) == (0, "people: nothing to pull again: it has not come to that yet, and will anyway\n")
    assert await ordered(pool) == []


@pytest.mark.usefixtures("registered")
async def test_a_price_of_days(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    file = yaml.write()
    file.write_text(file.read_text().replace("    pulls:", "    limits: {daily_calls: 100, urgent_reserve: 1}\n    pulls:"))
    await pool.execute(LEADS.replace("generate_series(1, 1000)", "generate_series(1001, 90000)"))
    _, out, _ = await backfilled(syncd, yaml, "--pull", "people", "--yes")
    price = "people: 90,000 leads at most, in 1 window: about 301 calls (301.0 % of the day's 100), about 4 days, by the day's quota"
    assert out.splitlines()[0] == price


async def test_lists_and_keys_are_walked_whole(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    with_other_pulls(yaml)
    for name in ("listed", "keyed"):
        await pool.execute(REGISTERED, name, None if name == "listed" else T)
    await pool.execute(LEADS)
    assert (await backfilled(syncd, yaml, "--pull", "listed", "--yes"))[1].startswith("listed: 1,000 leads at most, in 1 window: ")
    assert (await backfilled(syncd, yaml, "--pull", "keyed", "--yes"))[1].startswith("keyed: 1,000 leads at most, in 3 windows: ")
    assert [row[1:3] for row in await ordered(pool)] == [("listed", None), ("keyed", None)]
    for name, what in (("listed", "list"), ("keyed", "keys")):
        line = f"syncd backfill: --since is not for the pull {name}: its {what} can only be walked whole\n"
        assert await backfilled(syncd, yaml, "--pull", name, "--since", "2026-01-01") == (2, "", line)


@pytest.mark.usefixtures("registered")
async def test_without_a_terminal_it_must_be_told(syncd: Run, start: Start, yaml: Yaml, pool: asyncpg.Pool) -> None:
    code, said = await (await start("backfill", "-c", yaml.write(), "--pull", "people")).end()
    assert (code, said) == (2, f"{PRICE}syncd backfill: nobody to ask: not on a terminal; give --yes to order it\n")
    assert await ordered(pool) == []


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("answer", "count"), [(b"y\n", 1), (b"YES\n", 1), (b"\n", 0), (b"n\n", 0), (b"\x04", 0), (b"\x03", 0)])
async def test_on_a_terminal_it_asks(yaml: Yaml, pool: asyncpg.Pool, answer: bytes, count: int) -> None:
    code, said = await asyncio.to_thread(on_a_terminal, answer, "backfill", "-c", str(yaml.write()), "--pull", "people")
    assert "about 5 calls" in said
    assert len(await ordered(pool)) == count
    assert code == (0 if count else 130 if answer == b"\x03" else 1)
    assert "Traceback" not in said


def on_a_terminal(answer: bytes, *arguments: str, cue: bytes = b"[y/N]") -> tuple[int, str]:
    """Run a command on a terminal of its own, and answer as soon as it says `cue`."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "syncd", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        process_group=0,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    too_long = threading.Timer(LONGEST, process.kill)
    too_long.start()
    os.close(theirs)
    said = b""
    try:
        with contextlib.suppress(OSError):  # Linux's word for the end of a terminal
            while chunk := os.read(ours, 1024):
                said += chunk
                if cue in said and answer:
                    if answer == b"\x03":
                        threading.Thread(target=interrupt, args=(process,)).start()
                    else:
                        os.write(ours, answer)
                    answer = b""
        return process.wait(LONGEST), said.decode()
    finally:
        too_long.cancel()
        process.kill()
        os.close(ours)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, as the terminal sends it; again, since one that comes after the prompt and before the read of the answer is lost on it."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--pull", "peple"], 'syncd: the instance acme has no pull "peple"; did you mean "people"?'),
        (["--pull", "people", "-i", "x"], 'syncd: the configuration has no instance "x"; there are acme'),
        ([], "syncd backfill: missing option --pull; see syncd backfill --help"),
        (
            ["--pull", "people", "--since", "soon"],
            "syncd backfill: --since soon is not allowed; a time is written like 2016-01-01T00:00:00Z",
        ),
        (["--pull", "people", "--since", "1999-01-01"], "syncd backfill: --since 1999-01-01 is not allowed; a time not before 2000-01-01"),
        (["--pull", "people", "--since", "2999-01-01"], "syncd backfill: --since is in the future (2999-01-01 00:00:00Z)"),
    ],
)
async def test_bad_usage_is_one_line(syncd: Run, yaml: Yaml, arguments: list[str], line: str) -> None:
    code, out, err = await backfilled(syncd, yaml, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)


async def test_a_pull_that_no_daemon_has_begun(syncd: Run, yaml: Yaml) -> None:
    line = "syncd backfill: no daemon has begun the pull people yet; start syncd run with this configuration\n"
    assert await backfilled(syncd, yaml, "--pull", "people", "--yes") == (1, "", line)


async def test_help(syncd: Run) -> None:
    ran = await syncd("backfill", "--help")
    assert (ran.code, "Usage: syncd backfill" in ran.out, "…" in ran.out) == (0, True, False)


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("registered", "heeding_ctrl_c")
async def test_watching_tells_what_is_in_the_way(start: Start, yaml: Yaml, pool: asyncpg.Pool) -> None:
    backfill = await pool.fetchval(RUNNING, None)
    for window in (("done", 10, 10), ("split", 70, 0), ("open", 40, 30)):
        await pool.execute(WINDOW, *window, backfill)
    await pool.execute(ALIVE)
    await pool.execute("UPDATE syncd.pull SET state = 'blocked', message = E'20016 \\x1b[31m' WHERE pull = 'people'")
    watching = await start("backfill", "-c", yaml.write(), "--pull", "people", "--watch")
    await watching.line("^people: is being backfilled already; nothing more was ordered$")
    await watching.line(r"^the pull is blocked: 20016  \[31m$")
    await watching.line("^1 of 2 windows, 40 leads")
    watching.signal(signal.SIGINT)
    code, said = await watching.end()
    assert (code, said.splitlines()[-1]) == (130, "stopped watching; what was ordered goes on")
    assert "Traceback" not in said
    assert len(await ordered(pool)) == 1

    again = await start("backfill", "-c", yaml.file, "--pull", "people", "--watch")
    await again.line("^the pull is blocked")
    await pool.execute("UPDATE syncd.pull SET state = 'running', message = NULL")
    await pool.execute("UPDATE syncd.lease SET heartbeat_at = now() - interval '1 minute'")
    await again.line("^no daemon runs for acme: start syncd run$")
    await pool.execute("UPDATE syncd.pull_window SET state = 'done', leads = 40 WHERE state = 'open'")
    await pool.execute("UPDATE syncd.backfill SET finished_at = now()")
    code, said = await again.end()
    assert (code, said.splitlines()[-1]) == (0, "finished: 50 leads in 2 windows")


@pytest.mark.usefixtures("registered")
async def test_what_stays_as_it_is_is_told_once(syncd: Run, yaml: Yaml, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    backfill = await pool.fetchval(RUNNING, None)
    for window in (("done", 10, 10), ("open", 40, 30)):
        await pool.execute(WINDOW, *window, backfill)
    await pool.execute(ALIVE)
    await pool.execute("UPDATE syncd.pull SET state = 'blocked', message = 'denied' WHERE pull = 'people'")
    looks, look = 0, backfills.progress

    async def counted(pool: asyncpg.Pool, backfill: int) -> Progress | None:
        nonlocal looks
        looks += 1
        return await look(pool, backfill)

    monkeypatch.setattr(backfills, "progress", counted)
    monkeypatch.setattr("syncd.cli.backfill.LOOK_EVERY", 0.01)
    monkeypatch.setattr("syncd.cli.backfill.TELL_EVERY", 0.0)
    watching = asyncio.ensure_future(syncd("backfill", "-c", yaml.write(), "--pull", "people", "--watch"))
    for count in (30, 35):
        await pool.execute("UPDATE syncd.pull_window SET leads = $1 WHERE state = 'open'", count)
        before = looks
        async with asyncio.timeout(LONGEST):
            while looks < before + 5:
                await asyncio.sleep(0.01)
    await pool.execute("UPDATE syncd.backfill SET finished_at = now()")
    ran = await watching
    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "people: is being backfilled already; nothing more was ordered",
            "the pull is blocked: denied",
            "1 of 2 windows, 40 leads",
            "1 of 2 windows, 45 leads",
            "finished: 45 leads in 2 windows",
        ],
    )


@pytest.mark.usefixtures("registered")
async def test_watching_one_that_is_broken_off(start: Start, yaml: Yaml, pool: asyncpg.Pool) -> None:
    backfill = await pool.fetchval(RUNNING, None)
    await pool.execute(WINDOW, "open", None, 0, backfill)
    await pool.execute(ALIVE)
    watching = await start("backfill", "-c", yaml.write(), "--pull", "people", "--watch")
    await watching.line("^0 of 1 window, 0 leads$")
    await pool.execute("UPDATE syncd.pull_window SET state = 'abandoned'")
    await pool.execute("UPDATE syncd.backfill SET finished_at = now()")
    code, said = await watching.end()
    assert (code, said.splitlines()[-1]) == (1, "broken off, as the pull asks for something else now; see syncd status")


@pytest.mark.usefixtures("registered", "heeding_ctrl_c")
async def test_a_terminal_has_a_bar(yaml: Yaml, pool: asyncpg.Pool) -> None:
    backfill = await pool.fetchval(RUNNING, None)
    for window in (("done", 10, 10), ("open", 40, 30)):
        await pool.execute(WINDOW, *window, backfill)
    await pool.execute(ALIVE)
    arguments = ("backfill", "-c", str(yaml.write()), "--pull", "people", "--watch")
    code, said = await asyncio.to_thread(on_a_terminal, b"\x03", *arguments, cue=b"1 of 2 windows, 40 leads")
    assert (code, said.endswith("stopped watching; what was ordered goes on\r\n")) == (130, True)
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * 5 in said
    assert "Traceback" not in said


async def test_status_shows_it(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(ALIVE)
    await pool.execute(REGISTERED, "people", T)
    await pool.execute(REGISTERED, "listed", None)
    ran = await syncd("status", "-c", yaml.write())
    assert re.search(rf"^listed +running +{NOTHING} +{NOTHING} +0 +0 +0$", ran.out, re.MULTILINE)
    assert "backfill" not in ran.out
    assert "dropped" not in ran.out

    backfill = await pool.fetchval(RUNNING, None)
    await pool.execute("INSERT INTO syncd.backfill (instance, pull, reason) VALUES ('acme', 'people', 'x'), ('acme', 'listed', 'x')")
    for window in (("done", 10, 10), ("split", 70, 0), ("open", 40, 30)):
        await pool.execute(WINDOW, *window, backfill)
    await pool.execute("UPDATE syncd.pull_window SET starts_at = $1, dropped = 4 WHERE state <> 'split'", T - timedelta(days=20))
    ran = await syncd("status", "-c", yaml.file)
    assert re.search(r"^people +running +2026-01-30 00:00:00Z +\d+ d +0 +0 +0 +8 +1 of 2 windows$", ran.out, re.MULTILINE)
    assert re.search(rf"^listed +running +{NOTHING} +{NOTHING} +0 +0 +0 +0 +ordered$", ran.out, re.MULTILINE)

    listed, people = json.loads((await syncd("status", "-c", yaml.file, "--json")).out)["instances"][0]["pulls"]
    assert (listed["watermark"], listed["backfill"]["planned_at"]) == (None, None)
    assert (people["watermark"], people["leads_dropped"]) == ("2026-01-30T00:00:00Z", 8)
    assert (people["backfill"]["id"], people["backfill"]["windows"], people["backfill"]["done"]) == (backfill, 2, 1)


async def test_a_daemon_does_it(start: Start, yaml: Yaml, pool: asyncpg.Pool) -> None:
    origin = time.time()
    async with Simulator(SimulatorSettings(leads=500), ScaledClock(10, origin)) as marketo:
        yaml.rest, yaml.soap = marketo.rest_endpoint, marketo.soap_endpoint
        daemon = await start("run", "-c", yaml.write(), "--clock", f"10@{origin}")
        async with asyncio.timeout(LONGEST):
            while not await pool.fetchval(WALKED):
                await asyncio.sleep(0.1)
        leads = await pool.fetchval("SELECT count(*) FROM syncd.lead")
        assert leads > 0
        await pool.execute("UPDATE syncd.lead SET digests = '{\"people\": \"old\"}', attributes = '{}'")
        watching = await start("backfill", "-c", yaml.file, "--pull", "people", "--yes", "--watch")
        code, said = await watching.end()
        assert code == 0, said
        assert re.search(
            rf"^people: {leads} leads at most, in \d+ windows: about \d+ calls \(\d+\.\d % of the day's 30,000\), about \d+ min$",
            said,
            re.MULTILINE,
        )
        assert re.search(r"^people: ordered$", said, re.MULTILINE)
        assert re.search(r"^finished: \d+ leads in \d+ windows$", said.splitlines()[-1])
        assert await pool.fetchval("SELECT count(*) FROM syncd.lead WHERE attributes = '{}'") == 0
        daemon.signal(signal.SIGTERM)
        assert (await daemon.end())[0] == 0


def progress(windows: int, done: int, leads: int, left: int) -> Progress:
    return Progress(T, None, windows, done, leads, left, "running", None)


def test_how_long_it_takes_from_here() -> None:
    assert left_of(progress(10, 0, 0, 0)) == 0
    assert left_of(progress(10, 0, 30, 500)) == 500, "what the windows that are being walked promise"
    assert left_of(progress(10, 5, 1_000, 100)) == 1_000, "as many again as so far"
    assert left_of(progress(10, 10, 1_000, 0)) == 0
    assert line_of(progress(10, 5, 1_000, 100), 10) == "5 of 10 windows, 1,000 leads, 10 a second, about 100 s left"
    assert line_of(progress(1, 1, 1, 0), 10) == "1 of 1 window, 1 lead, 10 a second"
    assert line_of(progress(10, 5, 1_000, 100), 0) == "5 of 10 windows, 1,000 leads"


def test_the_rate() -> None:
    assert rate_of([(0.0, 10)]) == 0
    assert rate_of([(0.0, 10), (1.0, 90), (2.0, 30)]) == 10
    assert rate_of([(0.0, 100), (1.0, 0)]) == 0, "a window is walked again"


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("soap", "about 5 calls (0.0 % of the day's 30,000), about"),
        ("bulk_extract", "about 6 calls (0.0 % of the day's 30,000), 0.1 MB of extracts (0.0 % of the day's 500), about"),
        ("activities", "about 4 calls (0.0 % of the day's 30,000), about"),
    ],
)
async def test_what_it_costs_by_each_source(source: str, told: str, syncd: Run, yaml: Yaml) -> None:
    file = yaml.write()
    file.write_text(file.read_text().replace("source: soap", f"source: {source}"))
    ran = await syncd("backfill", "-c", file, "--pull", "people")
    assert "nobody to ask" in ran.err
    assert told in ran.out
