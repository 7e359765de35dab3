"""The pages of docs/ say the truth: links lead somewhere, commands can be given, metrics exist, the reference is in step."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from syncd.cli.commands import app
from syncd.cli.failures import CONFIGURATION, FAILED, USAGE
from syncd.config.model import Document
from tests.docs import reference
from tests.ops.test_pictures import KNOWN

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def headings(page: Path) -> set[str]:
    """The anchors that a page has."""
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(text: str) -> list[str]:
    return [block for _, block in re.findall(r"^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)]


def invocations(text: str) -> Iterator[list[str]]:
    """The words after `syncd` of each command line in a block, and of each command with options in the text."""
    for line in "\n".join(blocks(text)).splitlines():
        for part in re.split(r"&&|[|;>]", re.sub(r"\s#.*", "", line)):
            program, _, rest = part.strip().removeprefix("sudo -u syncd ").partition(" ")
            if "=" not in program and Path(program).name == "syncd" and rest != "--version":
                yield shlex.split(rest)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        found = re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8"))
        assert found
        for target in found:
            file, _, anchor = target.partition("#")
            there = (page.parent / file).resolve() if file else page
            assert there.exists(), target
            assert not anchor or anchor in headings(there), target

    def test_commands_can_be_given(self, page: Path) -> None:
        for words in invocations(page.read_text("utf-8")):
            command, rest = COMMANDS[words[0]], list(words[1:])
            if hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            command.make_context(words[0], rest)  # parses without running: an unknown option or a missing one raises

    def test_commands_in_the_text_exist(self, page: Path) -> None:
        for words in re.findall(r"`syncd ((?:[a-z][a-z-]* ?)*)([^`]*)`", page.read_text("utf-8").replace("\n", " ")):
            if words[0]:
                command, *rest = words[0].split()
                found = COMMANDS[command]
                for name in rest if hasattr(found, "commands") else ():
                    found = found.commands[name]
                known = {option for parameter in found.params for option in parameter.opts}
                assert {word for word in words[1].split() if word.startswith("--")} <= known, words

    def test_metrics_exist(self, page: Path) -> None:
        families = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in KNOWN}
        named = set(re.findall(r"`(syncd_[a-z0-9_]+)", page.read_text("utf-8")))
        assert {name for name in named if name not in KNOWN and name not in families} == set()

    def test_lines_are_not_for_machines(self, page: Path) -> None:
        long = [line for line in page.read_text("utf-8").splitlines() if len(line) > 145 and not line.startswith("|")]
        assert long == [] or page == reference.PAGE


def test_the_reference_is_in_step_with_models_and_example() -> None:
    assert reference.PAGE.read_text("utf-8") == reference.page(), "run python -m tests.docs.reference"


def test_every_key_of_every_section_is_in_the_reference() -> None:
    text = reference.page()
    for path, kind in reference.sections(Document):
        for name in (field.alias or key for key, field in kind.model_fields.items()):
            assert f"| `{name}` |" in text or f"{'.'.join((*path, name))}" in text or name in ("defaults", "instances"), (path, name)


def test_the_exit_codes_are_those_of_the_commands() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    table = text.partition("| exit code |")[2].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == [0, USAGE, CONFIGURATION, FAILED]


@pytest.mark.parametrize("event", ["reload_refused", "reloaded", "reload_incomplete", "secret_exposed", "database_fault", "database_full"])
def test_the_events_that_it_names_are_logged(event: str) -> None:
    assert any(f'"{event}"' in file.read_text("utf-8") for file in (ROOT / "syncd").rglob("*.py"))
    assert any(f"event={event}" in page.read_text("utf-8") for page in PAGES)
