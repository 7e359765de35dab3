"""Starts that can't succeed, and disks that are full: one clear line each, and the exit code that says whether a restart helps."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg
import pytest

from syncd.cli.failures import explain
from tests.cli.conftest import Start, Yaml
from tests.overhearing import hear

MAY_MOUNT = os.geteuid() == 0 and shutil.which("unshare") is not None
SMALL_DISK = """
set -e
mount -t tmpfs -o size=10m,mode=755 none "$1"
exec "$2" -m syncd run -c "$3"
"""
FULL = """
CREATE FUNCTION public.no_space() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE 'could not extend file "base/1/2": No space left on device' USING ERRCODE = 'disk_full', DETAIL = 'a@example.com';
END $$;
CREATE TRIGGER no_space BEFORE INSERT ON syncd.lease EXECUTE FUNCTION public.no_space()
"""


async def test_a_database_that_is_away_is_1_for_it_may_come_back(start: Start, yaml: Yaml) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        yaml.dsn = f"postgresql://syncd:hidden@127.0.0.1:{bound.getsockname()[1]}/syncd"
        code, said = await (await start("run", "-c", yaml.write())).end()
    assert (code, said.count("\n")) == (1, 1), said
    assert "no server answers there" in said
    assert "hidden" not in said


async def test_a_schema_that_is_not_there_is_78_for_somebody_must_migrate(start: Start, yaml: Yaml, empty_database: str) -> None:
    yaml.dsn = empty_database
    code, said = await (await start("run", "-c", yaml.write())).end()
    assert (code, said.count("\n")) == (78, 1), said
    assert "syncd migrate" in said


async def test_a_wrong_yaml_is_78_and_a_line_for_each_mistake(start: Start, yaml: Yaml) -> None:
    yaml.file.write_text(yaml.write().read_text().replace("flush_after: 1s", "flush_after: soon, colour: red"))
    code, said = await (await start("run", "-c", yaml.file)).end()
    assert (code, said.count("\n")) == (78, 2), said
    assert all(line.startswith(f"{yaml.file}:") for line in said.splitlines())


async def test_a_wrong_command_line_is_2(start: Start) -> None:
    code, said = await (await start("run", "--colour", "red")).end()
    assert (code, said.count("\n")) == (2, 1), said


async def test_a_full_database_is_told_loudly_and_waited_for(start: Start, yaml: Yaml, pool: asyncpg.Pool) -> None:
    await pool.execute(FULL)
    daemon = await start("run", "-c", yaml.write())
    told = json.loads(await daemon.line('"event":"database_full"'))
    assert (told["level"], told["instance"]) == ("error", "acme")
    assert told["error"] == 'DiskFullError: could not extend file "base/1/2": No space left on device'
    assert told["remedy"].startswith("free space on the disk of the database")
    await pool.execute("DROP TRIGGER no_space ON syncd.lease")
    await daemon.line('"event":"lease_taken"')
    daemon.signal(signal.SIGTERM)
    assert (await daemon.end())[0] == 0


def test_a_command_that_meets_a_full_database_is_1() -> None:
    full = asyncpg.DiskFullError('could not extend file "base/1/2": No space left on device')
    assert explain(full) == (
        'the database\'s disk is full (could not extend file "base/1/2": No space left on device); free space there',
        1,
    )


@pytest.mark.skipif(not MAY_MOUNT, reason="only root can mount a small disk")
def test_a_full_state_directory_is_one_line_and_1(yaml: Yaml) -> None:
    text = yaml.write().read_text()
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as disk:
        Path(disk).chmod(0o755)  # as root, PostgreSQL runs as somebody else
        yaml.file.write_text(text.replace(f'dsn: "{yaml.dsn}"', f"embedded: {disk}/postgres"))
        command = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", disk, sys.executable, str(yaml.file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    hear("syncd run", done.stderr)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"{disk}/postgres: ")
    assert done.stderr.endswith("the disk is full; free space there\n")
