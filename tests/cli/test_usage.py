"""Help that reads well, and bad usage: exit code 2 and one clear line."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import syncd as package
from syncd.cli.commands import app
from tests.cli.conftest import Run, Start, Yaml

COMMANDS = ["run", "check", "migrate", "status", "enqueue", "backfill", "lead", "view", "demo", "simulate"]


async def test_help_names_every_command(syncd: Run) -> None:
    ran = await syncd("--help")
    assert ran.code == 0
    assert all(f" {command} " in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_has_help(syncd: Run, command: str) -> None:
    ran = await syncd(command, "--help")
    assert ran.code == 0
    assert f"Usage: syncd {command}" in ran.out
    assert "--clock" not in ran.out, "the rehearsal's option is not for users"
    assert "…" not in ran.out, "an option's name is cut off at 80 columns"


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from syncd.cli.commands import run_command; run_command(['--help'])\n"
        "print({'asyncpg', 'aiohttp', 'sqlalchemy', 'lxml', 'asyncio', 'structlog'} & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == "set()\n"


@pytest.mark.parametrize(
    ("words", "offered"),
    [("syncd fail", {"failures"}), ("syncd failures re", {"retry"}), ("syncd status --j", {"--json"}), ("syncd run --cl", set())],
)
def test_the_shell_completes(words: str, offered: set[str]) -> None:
    environment = {**os.environ, "_SYNCD_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ran = subprocess.run([sys.executable, "-m", "syncd"], capture_output=True, text=True, env=environment, check=False)
    assert (set(ran.stdout.split()), ran.stderr) == (offered, "")


def test_completion_is_installed_for_the_shell_at_hand(tmp_path: Path) -> None:
    shell = shutil.which("bash")
    assert shell is not None
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "syncd", "--install-completion", "bash"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "_SYNCD_COMPLETE" in (tmp_path / ".bash_completions" / "syncd.sh").read_text()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_what_shows_something_shows_it_to_programs_too() -> None:
    showing = {path for path, command in commands(typer.main.get_command(app)) if "--json" in {o for p in command.params for o in p.opts}}
    assert showing >= {
        *(("check",), ("status",), ("jobs",), ("plan",), ("verify",)),
        *(("failures", "list"), ("failures", "show"), ("lead", "show")),
    }


async def test_version(syncd: Run) -> None:
    ran = await syncd("--version")
    assert (ran.code, ran.out) == (0, f"syncd {package.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "syncd: missing command; see syncd --help"),
        (["stats"], "syncd: no such command 'stats'. Did you mean 'status'?; see syncd --help"),
        (["enqueue", "leads.csv"], "syncd enqueue: missing option --push; see syncd enqueue --help"),
        (["enqueue", "--push", "contacts"], "syncd enqueue: missing argument 'LEADS.CSV'; see syncd enqueue --help"),
        (["run", "--fast"], "syncd run: no such option: --fast; see syncd run --help"),
        (["run", "now"], "syncd run: got unexpected extra argument(s) (now); see syncd run --help"),
        (["run", "--clock", "9"], "syncd run: invalid value for --clock: needs SPEED@ORIGIN, such as 10@1760000000; see syncd run --help"),
        (["demo", "--speed", "inf"], "syncd demo: invalid value for --speed: "),
        (["simulate", "--foreign-jobs-per-hour", "inf"], "syncd simulate: invalid value for --foreign-jobs-per-hour: "),
        (["demo", "--leads", "-1"], "syncd demo: invalid value for --leads: "),
    ],
)
async def test_bad_usage_is_one_line(syncd: Run, arguments: list[str], line: str) -> None:
    ran = await syncd(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(line)
    assert ran.err.count("\n") == 1


MISSING = ": cannot read the file: No such file or directory\n"


@pytest.mark.parametrize("command", [["check"], ["migrate"], ["status"], ["enqueue", "x.csv", "--push", "contacts"]])
async def test_a_missing_configuration_is_told_by_its_name(syncd: Run, command: list[str], tmp_path: Path) -> None:
    ran = await syncd(*command, "-c", tmp_path / "none.yaml")
    assert (ran.code, ran.out, ran.err) == (78, "", f"{tmp_path}/none.yaml{MISSING}")


async def test_a_missing_configuration_ends_run(start: Start, tmp_path: Path) -> None:
    code, said = await (await start("run", "-c", tmp_path / "none.yaml")).end()
    assert (code, said) == (78, f"{tmp_path}/none.yaml{MISSING}")


@pytest.fixture
def heeding_ctrl_c() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.parametrize("amid", ["typer", "pydantic"])
def test_ctrl_c_amid_the_imports_just_ends_it(amid: str) -> None:
    arguments = [sys.executable, "-X", "importtime", "-m", "syncd", "demo", "--leads", "0", "--changes", "0"]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while f" {amid}." not in (line := process.stderr.readline()):
            assert line, "it ended first"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in said


@pytest.mark.usefixtures("heeding_ctrl_c")
async def test_ctrl_c_of_a_command_that_waits_is_130(start: Start, yaml: Yaml) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yaml.dsn = f"postgresql://syncd:x@127.0.0.1:{mute.getsockname()[1]}/syncd"
        command = await start("status", "-c", yaml.write())
        connection, _ = await asyncio.wait_for(asyncio.to_thread(mute.accept), 60)
        command.signal(signal.SIGINT)
        assert await command.end() == (130, "")
        connection.close()


def test_a_reader_that_leaves_ends_it_quietly(yaml: Yaml) -> None:
    """`syncd check | head -1`, with an embedded database that has to be stopped."""
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as name:
        Path(name).chmod(0o711)  # as root the server runs as `nobody`
        file = yaml.write()
        file.write_text(file.read_text().replace(f'dsn: "{yaml.dsn}"', f"embedded: {name}/postgres"))
        arguments = [sys.executable, "-m", "syncd", "check", "-c", str(file)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert (process.wait(60), said) == (1, b"")
