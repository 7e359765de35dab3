"""`syncd run` as systemd sees it: READY, STATUS, the watchdog, and SIGHUP, which reloads the YAML or refuses it."""

import asyncio
import json
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.cli.conftest import LONGEST, Process, Start, Yaml


class Manager:
    """What systemd would hear, message by message."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)

    async def message(self, part: str) -> str:
        """Wait for the first message that holds `part`; those before it are passed over."""
        async with asyncio.timeout(LONGEST):
            while part not in (said := (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()):
                pass
        return said

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def manager() -> AsyncIterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="syncd-test-") as folder:
        listener = Manager(Path(folder))
        yield listener
        listener.close()


async def asked_to_stop(daemon: Process) -> int:
    daemon.signal(signal.SIGTERM)
    code, _ = await daemon.end()
    return code


async def test_systemd_hears_what_it_does(start: Start, yaml: Yaml, manager: Manager) -> None:
    daemon = await start("run", "-c", yaml.write(), NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="4000000")
    assert await manager.message("STATUS") == "STATUS=starting"
    assert await manager.message("READY=1") == "READY=1\nSTATUS=starting"
    assert await manager.message("STATUS") == "STATUS=working for acme"
    for _ in range(2):
        await manager.message("WATCHDOG=1")
    daemon.signal(signal.SIGTERM)
    assert await manager.message("STOPPING=1") == "STOPPING=1\nSTATUS=stopping"
    assert (await daemon.end())[0] == 0


async def test_nothing_is_ready_without_the_schema(start: Start, yaml: Yaml, manager: Manager, empty_database: str) -> None:
    yaml.dsn = empty_database
    code, said = await (await start("run", "-c", yaml.write(), NOTIFY_SOCKET=manager.address)).end()
    assert (code, said.count("\n")) == (78, 1), said
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await manager.message("READY=1")


async def test_a_reload_takes_up_what_can_change_and_names_what_cannot(
    start: Start, yaml: Yaml, manager: Manager, pool: asyncpg.Pool
) -> None:
    daemon = await start("run", "-c", yaml.write(), NOTIFY_SOCKET=manager.address)
    await daemon.line('"event":"lease_taken"')
    yaml.fields, yaml.http, yaml.logging, yaml.instances = ("FirstName",), "{listen: 127.0.0.1:0}", "{level: debug}", ("acme", "beta")
    guests = "pulls: {guests: {source: soap, select: {static_list: Events.Guests}}, "
    yaml.file.write_text(yaml.write().read_text().replace("pulls: {", guests, 1))
    daemon.signal(signal.SIGHUP)
    assert (await manager.message("RELOADING=1")).startswith("RELOADING=1\nMONOTONIC_USEC=")
    told = await manager.message("READY=1")
    changed = json.loads(await daemon.line('"event":"reloaded"'))["changed"]
    assert changed == [
        "logging.level",
        "instances.acme.pulls.guests (new)",
        "instances.acme.pulls.people.fields",
        "instances.beta (new)",
    ]
    assert json.loads(await daemon.line('"event":"reload_incomplete"'))["waiting"] == ["http (it is opened at the start)"]
    assert told.endswith("; a restart is needed for http (it is opened at the start)")
    assert json.loads(await daemon.line('"event":"lease_taken"'))["instance"] == "beta"
    async with asyncio.timeout(LONGEST):
        while not await pool.fetchval("SELECT EXISTS (SELECT FROM syncd.pull WHERE instance = 'acme' AND pull = 'guests' AND configured)"):
            await asyncio.sleep(0.05)
    yaml.instances = ("beta",)
    yaml.write()
    daemon.signal(signal.SIGHUP)
    assert json.loads(await daemon.line('"event":"reloaded"'))["changed"] == ["instances.acme (gone)"]
    await manager.message("STATUS=working for beta")
    assert await asked_to_stop(daemon) == 0


async def test_a_yaml_that_cannot_be_used_is_refused_and_the_old_one_stays(start: Start, yaml: Yaml, manager: Manager) -> None:
    good = yaml.write().read_text()
    daemon = await start("run", "-c", yaml.file, NOTIFY_SOCKET=manager.address)
    await daemon.line('"event":"lease_taken"')
    yaml.file.write_text(good.replace("flush_after: 1s", "flush_after: soon, colour: red"))
    daemon.signal(signal.SIGHUP)
    refused = [json.loads(await daemon.line('"event":"reload_refused"')) for _ in range(2)]
    assert [problem["level"] for problem in refused] == ["error", "error"]
    assert [problem["problem"].split(": ")[1] for problem in refused] == [
        "instances.acme.pushes.contacts.flush_after",
        "instances.acme.pushes.contacts.colour",
    ]
    told = await manager.message("READY=1\nSTATUS=working for acme; refused the configuration: ")
    assert "flush_after" in told
    yaml.file.write_text(good)
    daemon.signal(signal.SIGHUP)
    assert json.loads(await daemon.line('"event":"reloaded"'))["changed"] == []
    assert await asked_to_stop(daemon) == 0
