"""The README says the truth: its tables, commands, drawing and YAML keys are held against the product."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import typer
import yaml

from syncd.cli.commands import app
from syncd.config import load
from syncd.core import states
from syncd.ops.metrics import Metrics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLE = (ROOT / "config" / "syncd.example.yaml").read_text("utf-8")
CONTRACT = ("lead", "lead_history", "list_membership", "outbox", "change", "import_job", "pull_window", "export", "census")
STATES = {"change": states.CHANGE, "import_job": states.IMPORT_JOB, "pull_window": states.WINDOW, "export": states.EXPORT}
NAMES = re.compile(r"`([a-z0-9_]+)`")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def blocks(language: str) -> list[str]:
    """The code blocks of a language; those in lists without their indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", README, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def section(title: str) -> str:
    """What stands below a heading of the third level, up to the next heading."""
    found = re.search(rf"^### `{title}`\n(.*?)(?=^##)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no section `{title}`"
    return found[1]


def first_cells(title: str, column: str) -> set[str]:
    """The names in the first cells of a section's table whose first heading is `column`."""
    found = re.search(rf"^\| {column} \|.*\n\| ---.*\n((?:\|.*\n)+)", section(title), re.MULTILINE)
    assert found is not None, f"the section `{title}` has no table of {column}s"
    names = [name for row in found[1].splitlines() for name in NAMES.findall(row.split("|")[1])]
    assert len(names) == len(set(names)), f"a {column} of `{title}` is named twice"
    return set(names)


async def columns(pool: asyncpg.Pool, table: str) -> set[str]:
    rows = await pool.fetch(
        "SELECT column_name::text AS name FROM information_schema.columns WHERE table_schema = 'syncd' AND table_name = $1", table
    )
    return {row["name"] for row in rows}


async def test_the_tables_name_every_column(pool: asyncpg.Pool) -> None:
    assert {table: first_cells(table, "column") for table in CONTRACT} == {table: await columns(pool, table) for table in CONTRACT}


@pytest.mark.parametrize("table", ["change", "import_job", "export"])
def test_the_tables_name_every_state(table: str) -> None:
    assert first_cells(table, "state") == set(STATES[table])


def test_the_states_of_windows_are_named() -> None:
    row = next(line for line in section("pull_window").splitlines() if line.startswith("| `state`"))
    assert set(NAMES.findall(row)) - {"state", "message"} == set(states.WINDOW)


async def test_what_the_application_is_granted_suffices(pool: asyncpg.Pool) -> None:
    grants = next(block for block in blocks("sql") if "TO app" in block)
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute("CREATE ROLE app")
            await connection.execute(grants)
            await connection.execute("SET LOCAL ROLE app")
            enqueued = await connection.fetchval("SELECT syncd.enqueue('acme', 'contacts', 'a@example.com', '{\"firstName\": \"A\"}')")
            assert await connection.fetchval("SELECT id FROM syncd.change") == enqueued
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("DELETE FROM syncd.outbox")
        finally:
            await transaction.rollback()


def invocations() -> Iterator[list[str]]:
    """The words after `syncd` of each command line in a shell block, and of each `DEMO=…` and `SOURCE=…` in the text."""
    for line in "\n".join(blocks("sh")).splitlines():
        for part in re.split(r"&&|[|;>]", re.sub(r"\s#.*", "", line)):
            program, _, rest = part.strip().removeprefix("sudo -u syncd ").partition(" ")
            if "=" not in program and Path(program).name == "syncd":
                yield shlex.split(rest)
    for options in re.findall(r'DEMO="([^"]*)"', README):
        yield ["demo", *shlex.split(options)]
    for source in re.findall(r"SOURCE=(\w+)", README):
        yield ["demo", "--source", source]


def test_every_command_of_the_tour_and_of_production_can_be_given() -> None:
    found = list(invocations())
    assert {words[0] for words in found} == set(COMMANDS)
    for words in found:
        # parses as the command line would, without running it: an unknown option or a missing one raises
        COMMANDS[words[0]].make_context(words[0], list(words[1:]))


def test_commands_and_targets_in_the_text_exist() -> None:
    commands = re.findall(r"`syncd ([a-z-]+)([^`]*)`", README.replace("\n", " "))
    for command, rest in commands:
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert {word for word in rest.split() if word.startswith("-")} <= known, f"syncd {command}{rest}"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)[^`]*`", README)) <= targets
    assert re.findall(r"^make ([a-z]+)", blocks("sh")[0], re.MULTILINE) == ["demo", "test"]


def test_the_drawing_shows_the_layers_of_the_import_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    layers = [{room.strip().removeprefix("syncd.") for room in layer.split("|")} for layer in contract["layers"]]
    drawn = [{room.strip() for room in line[1:38].split("│")} for line in README.splitlines() if re.match(r"│.{37}│|│.{37}$", line)]
    assert drawn == layers


def test_the_yaml_of_the_tour_loads(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "syncd.yaml").write_text(text, "utf-8")
    assert [instance.name for instance in load(tmp_path / "syncd.yaml", {}).instances] == ["rehearsal"]


def keys(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key; names that the user chooses as NAME."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        here = (*path, "NAME" if path and path[-1] in ("instances", "pulls", "pushes") else str(key))
        yield here
        yield from keys(inner, here)


def test_keys_of_the_yaml_in_the_text_exist() -> None:
    known = {".".join(path).removeprefix("instances.NAME.") for path in keys(yaml.safe_load(EXAMPLE))}
    named = set(re.findall(r"`((?:rest|soap|network|limits|pulls|pushes|database|http|logging)\.[A-Za-z0-9_.]+)`", README))
    assert len(named) >= 4
    assert named <= known
    of_tour = {path[-1] for block in blocks("yaml") for path in keys(yaml.safe_load(block))}
    for key in of_tour - {"NAME"}:
        assert re.search(rf"^[ #]*{key}\b|{key}:", EXAMPLE, re.MULTILINE), f"{key} is not in the example"


def test_metrics_in_the_text_exist() -> None:
    known = {name for metric in Metrics().registry.collect() for name in (metric.name, f"{metric.name}_total")}
    named = set(re.findall(r"`(syncd_[a-z0-9_]+)", README))
    assert len(named) >= 9
    assert named <= known


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target[1:] in headings if target.startswith("#") else (ROOT / target.partition("#")[0]).exists(), target
