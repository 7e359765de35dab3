"""Help that reads well, and bad usage: exit code 2 and one clear line."""

import subprocess
import sys
from pathlib import Path

import pytest

import syncd as package
from tests.cli.conftest import Run, Start

COMMANDS = ["run", "check", "migrate", "status", "enqueue", "demo", "simulate"]


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
        "import sys; from syncd.cli import run_command; run_command(['--help'])\n"
        "print({'asyncpg', 'aiohttp', 'sqlalchemy', 'lxml', 'asyncio', 'structlog'} & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stderr == "set()\n"


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
        (["demo", "--leads", "-1"], "syncd demo: invalid value for --leads: "),
    ],
)
async def test_bad_usage_is_one_line(syncd: Run, arguments: list[str], line: str) -> None:
    ran = await syncd(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(line)
    assert ran.err.count("\n") == 1


MISSING = ":1: cannot read the file: No such file or directory\n"


@pytest.mark.parametrize("command", [["check"], ["migrate"], ["status"], ["enqueue", "x.csv", "--push", "contacts"]])
async def test_a_missing_configuration_is_told_by_its_name(syncd: Run, command: list[str], tmp_path: Path) -> None:
    ran = await syncd(*command, "-c", tmp_path / "none.yaml")
    assert (ran.code, ran.out, ran.err) == (78, "", f"{tmp_path}/none.yaml{MISSING}")


async def test_a_missing_configuration_ends_run(start: Start, tmp_path: Path) -> None:
    code, said = await (await start("run", "-c", tmp_path / "none.yaml")).end()
    assert (code, said) == (78, f"{tmp_path}/none.yaml{MISSING}")
