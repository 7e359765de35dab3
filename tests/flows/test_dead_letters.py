"""The README's dead-letter tour, its commands end to end: a bad row is seen, explained, exported, mended, retried."""

import asyncio
import re
import shlex
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest

from syncd.cli.commands import run_command
from tests.flows.conftest import PUSH, Build, House

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
TOUR = README[README.index("\n## Dead letters\n") :].split("\n## ")[1]
BLOCKS = re.findall(r"^```(sh|)\n(.*?)^```$", TOUR, re.MULTILINE | re.DOTALL)
Syncd = Callable[..., Awaitable[str]]


@pytest.fixture
def syncd(capfd: pytest.CaptureFixture[str], database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Syncd:
    """Run a command with a YAML of the house's instance; its output, when it ends well."""
    monkeypatch.chdir(tmp_path)
    pushes = "pushes: {contacts: {lookup_field: email}}"
    rest = '{endpoint: "http://127.0.0.1:9", client_id: nobody, client_secret: hidden}'
    (tmp_path / "syncd.yaml").write_text(f'database: {{dsn: "{database}"}}\ninstances: {{acme: {{rest: {rest}, {pushes}}}}}\nhttp: null\n')

    async def run(*arguments: str) -> str:
        capfd.readouterr()
        code = await asyncio.to_thread(run_command, list(arguments))
        captured = capfd.readouterr()
        assert code == 0, captured.err
        return captured.out + captured.err

    return run


async def states(pool: asyncpg.Pool) -> list[str]:
    """How what was enqueued has ended, in order."""
    return [row["state"] for row in await pool.fetch("SELECT state FROM syncd.change ORDER BY id")]


def timeless(text: str) -> list[str]:
    """The lines, with every time and Marketo's ids the same."""
    times = re.sub(r"2\d{3}-\d\d-\d\d[ T][\d:]{8}", "TIME", text)
    return re.sub(r"batch \d+", "batch N", times).splitlines()


def value_of(home: House, email: str, field: str) -> str | None:
    return next(lead.values.get(field) for lead in home.simulator.world if lead.email == email)


async def test_the_tour(house: Build, pool: asyncpg.Pool, syncd: Syncd) -> None:
    home = await house(pushes=[PUSH], checked=True)
    for language, block in BLOCKS:
        if language == "sh":
            said = ""
            for line in block.splitlines():
                command = re.sub(r"\s#.*", "", line)
                if command.startswith("syncd "):
                    said = await syncd(*shlex.split(command)[1:])
                else:
                    subprocess.run(["bash", "-c", command], check=True)  # noqa: ASYNC221 - the README's own, and short
                if command.startswith("syncd enqueue"):
                    await home.run(200, home.all_ended)
            said = Path("failed.csv").read_text() if " export " in command else said
        else:
            assert timeless(said) == timeless(block), "the README shows something else"
    await home.run(200, home.all_ended)
    assert await states(pool) == ["applied", "rejected", "rejected", "applied", "rejected"]
    assert value_of(home, "alan@example.com", "leadScore") == "70"
    assert "nothing: it went again as change 4" in await syncd("failures", "show", "2", "-c", "syncd.yaml")
    assert (await syncd("failures", "list", "-c", "syncd.yaml")).startswith("1 failures\n"), "what fails again is a failure again"


async def test_a_retry_does_not_undo_a_later_change_that_waits_beside_it(house: Build, pool: asyncpg.Pool, syncd: Syncd) -> None:
    home = await house(pushes=[PUSH])
    await home.enqueue(("a@example.com", '{"firstName": "old", "lastName": "old", "leadScore": "x"}'))
    await home.run(200, home.all_ended)
    await home.enqueue(("A@example.com", '{"firstName": "new", "leadScore": 5}'))
    await syncd("failures", "retry", "--yes", "-c", "syncd.yaml")
    await home.run(200, home.all_ended)
    assert await states(pool) == ["rejected", "applied", "applied"]
    assert [value_of(home, "a@example.com", name) for name in ("firstName", "lastName", "leadScore")] == ["new", "old", "5"]
