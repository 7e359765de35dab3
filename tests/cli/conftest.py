"""Commands as people run them: some in this process, some as processes of their own; Marketo is the simulator over loopback."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from syncd.cli.commands import run_command
from syncd.simulator import Credentials, ScaledClock, Simulator, SimulatorSettings
from tests.overhearing import hear

NOT_OF_TESTS = ("SYNCD_", "ACME_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")
LONGEST = 60.0  # seconds; generous, as machines of CI are slow


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ran]]


@pytest.fixture
def syncd(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in a thread with a loop of its own."""

    async def run(*arguments: str | Path) -> Ran:
        capfd.readouterr()
        code = await asyncio.to_thread(run_command, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        hear("stderr of a command", captured.err)
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
async def marketo() -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(leads=20), ScaledClock(1, time.time())) as simulator:
        yield simulator


@dataclass
class Yaml:
    """What stands in the YAML of a test; each part can be made wrong."""

    file: Path
    dsn: str
    rest: str
    soap: str
    client_id: str = Credentials.client_id
    client_secret: str = Credentials.client_secret
    user_id: str = Credentials.soap_user_id
    encryption_key: str = Credentials.encryption_key
    lookup_field: str = "email"
    fields: Sequence[str] = ("FirstName", "Company")
    instances: Sequence[str] = ("acme",)
    http: str = "null"
    logging: str = "{}"

    def write(self) -> Path:
        lines = [f'database: {{dsn: "{self.dsn}"}}', "instances:"]
        for instance in self.instances:
            lines += [
                f"  {instance}:",
                f'    rest: {{endpoint: "{self.rest}", client_id: {self.client_id}, client_secret: {self.client_secret}}}',
                f'    soap: {{endpoint: "{self.soap}", user_id: {self.user_id}, encryption_key: {self.encryption_key}}}',
                f"    pulls: {{people: {{source: soap, select: {{updated_since: 2026-01-01}}, fields: [{', '.join(self.fields)}]}}}}",
                f"    pushes: {{contacts: {{lookup_field: {self.lookup_field}, flush_after: 1s}}}}",
            ]
        self.file.write_text("\n".join([*lines, f"http: {self.http}", f"logging: {self.logging}"]))
        return self.file


@pytest.fixture
def yaml(tmp_path: Path, database: str, marketo: Simulator) -> Yaml:
    return Yaml(tmp_path / "syncd.yaml", database, marketo.rest_endpoint, marketo.soap_endpoint)


class Process:
    """`python -m syncd …` with its output as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, what: str) -> None:
        self._process = process
        self._what = what
        self._seen = ""

    async def line(self, pattern: str) -> str:
        """Wait for the first line of stdout or stderr that matches."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LONGEST):
            while line := (await self._process.stdout.readline()).decode():
                self._seen += line
                if re.search(pattern, line):
                    return line
        raise AssertionError(f"no line {pattern!r} in:\n{self._seen}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> tuple[int, str]:
        """Wait for its end; the exit code and all that it said."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LONGEST):
            self._seen += (await self._process.stdout.read()).decode()
            return await self._process.wait(), self._seen

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):  # a server that outlives it keeps it open
            async with asyncio.timeout(1):
                self._seen += (await self._process.stdout.read()).decode()
        hear(f"the process syncd {self._what}", self._seen)


Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start processes, with further variables; those that still run at the end of the test are killed."""
    processes: list[Process] = []

    async def begin(*arguments: str | Path, **further: str) -> Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OF_TESTS)}
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "syncd",
                *map(str, arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment | {"PYTHONUNBUFFERED": "1"} | further,
            ),
            str(arguments[0]),
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        await process.kill()
