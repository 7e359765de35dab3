"""`syncd status`: what the page shows, on a terminal, a pipe and for programs; with `--watch`, time and again."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from syncd.store.embedded import EmbeddedPostgres
from tests.cli.conftest import LONGEST, NOT_OF_TESTS, Run, Yaml
from tests.overhearing import hear

TROUBLE = """
INSERT INTO syncd.lease VALUES ('acme', 1, gen_random_uuid(), 'host-a', 42, now(), now() + interval '1 hour');
INSERT INTO syncd.pull (instance, pull, selector, planned_until, state, message)
VALUES ('acme', 'people', 's', now(), 'blocked', '603 Access denied');
INSERT INTO syncd.push (instance, push) VALUES ('acme', 'contacts');
SELECT syncd.ensure_history_partition((now() AT TIME ZONE 'UTC')::date);
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at)
SELECT n, 'acme', 'contacts', 'k' || n, 'k' || n, '{}', 'rejected', 'no number', 1, now(), now() FROM generate_series(1, 3) n
"""


async def test_what_needs_a_person_comes_first(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TROUBLE)
    ran = await syncd("status", "-c", yaml.write())
    lines = ran.out.splitlines()
    assert (ran.code, lines[0]) == (0, "acme: The pull people is blocked: 603 Access denied")
    assert lines[1].endswith(": syncd check")
    assert lines[2:4] == [
        "acme: 3 changes failed",
        "  → look at the reasons, mend them and send them again: syncd failures list --instance acme",
    ]
    assert "import queue: 0 ours, 0 others', 10 free" in lines
    assert re.search(r"^3 +contacts +rejected +\S+ \S+ +no number$", ran.out, re.MULTILINE)


async def test_all_is_well(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TROUBLE.split(";")[0])
    ran = await syncd("status", "-c", yaml.write())
    assert ran.out.splitlines()[0] == "acme: all is well"


async def test_programs_are_told_what_the_page_tells_them(syncd: Run, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TROUBLE)
    (acme,) = json.loads((await syncd("status", "-c", yaml.write(), "--json")).out)["instances"]
    assert (acme["failures"]["changes"], len(acme["slots"]), acme["pulls"][0]["state"]) == (3, 10, "blocked")


@pytest.mark.parametrize(("more", "why"), [(["--json"], "goes without --json"), ([], "needs a terminal")])
async def test_watching_is_for_people(syncd: Run, yaml: Yaml, more: list[str], why: str) -> None:
    ran = await syncd("status", "-c", yaml.write(), "--watch", *more)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"syncd status: invalid value for --watch: {why}; see syncd status --help\n"


@dataclass
class Terminal:
    """What a person sees of a command that runs in one."""

    process: "subprocess.Popen[bytes]"
    end: int
    seen: str = ""

    def until(self, pattern: str) -> None:
        """Wait for it to be written from here on."""
        begin, deadline = len(self.seen), time.monotonic() + LONGEST
        while not re.search(pattern, self.seen[begin:]):
            assert time.monotonic() < deadline, self.seen[-2000:]
            assert self.read(), f"it ended: {self.seen[-2000:]}"

    def interrupt(self) -> int:
        """Press Ctrl-C; what it ends with."""
        self.process.send_signal(signal.SIGINT)
        while self.read():
            pass
        return self.process.wait(LONGEST)

    def read(self) -> bool:
        """False once there is nobody who would write."""
        if select.select([self.end], [], [], 0.2)[0]:
            try:
                self.seen += os.read(self.end, 65536).decode(errors="replace")
            except OSError:  # its other end is closed
                return False
        return True


@contextmanager
def terminal(*arguments: str | Path) -> Iterator[Terminal]:
    ours, its = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OF_TESTS)}
    environment |= {"TERM": "xterm", "COLUMNS": "140", "LINES": "60"}
    command = [sys.executable, "-m", "syncd", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
    os.close(its)
    found = Terminal(process, ours)
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        hear("syncd status", found.seen)


async def test_it_is_shown_anew_until_ctrl_c(yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(TROUBLE)
    with terminal("status", "-c", yaml.write(), "--watch") as screen:
        await asyncio.to_thread(screen.until, r"\x1b\[1;31macme: The pull people is blocked")
        await pool.execute("UPDATE syncd.pull SET state = 'running', message = NULL")
        await asyncio.to_thread(screen.until, r"Ctrl-C ends it(?:\x1b\[[\d;]*m|\s)*acme: 3 changes failed")
        assert await asyncio.to_thread(screen.interrupt) == 0
    assert "Traceback" not in screen.seen
    assert screen.seen.rstrip().endswith(("\x1b[?1049l\x1b[?25h", "\x1b[?25h\x1b[?1049l", "\x1b[?1049l")), "the terminal is as it was"


async def test_a_database_that_goes_away_is_waited_for(yaml: Yaml, pool: asyncpg.Pool, postgres: EmbeddedPostgres) -> None:
    await pool.execute(TROUBLE)
    name = await pool.fetchval("SELECT current_database()")
    admin = await asyncpg.connect(postgres.dsn)
    with terminal("status", "-c", yaml.write(), "--watch") as screen:
        await asyncio.to_thread(screen.until, "is blocked")
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        await asyncio.to_thread(screen.until, "the database does not answer")
        await admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await asyncio.to_thread(screen.until, "is blocked")
        assert await asyncio.to_thread(screen.interrupt) == 0
    await admin.close()
