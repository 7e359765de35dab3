"""`syncd run` as a process: signals, exit codes, the standby."""

import asyncio
import json
import signal
import socket
import time

import pytest

from syncd.simulator import ScaledClock, Simulator, SimulatorSettings
from tests.cli.conftest import Start, Yaml


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_one_signal_ends_it_in_time(start: Start, yaml: Yaml, number: signal.Signals) -> None:
    daemon = await start("run", "-c", yaml.write())
    await daemon.line('"event":"lease_taken"')
    daemon.signal(number)
    before = time.monotonic()
    code, said = await daemon.end()
    assert time.monotonic() - before < 10
    assert code == 0, said
    assert json.loads(said.splitlines()[-1])["event"] == "stopped"


async def test_a_second_signal_does_not_wait_for_running_steps(start: Start, yaml: Yaml) -> None:
    slow = SimulatorSettings(leads=1, latency=60.0)
    async with Simulator(slow, ScaledClock(1, time.time())) as marketo:
        yaml.rest, yaml.soap = marketo.rest_endpoint, marketo.soap_endpoint
        daemon = await start("run", "-c", yaml.write())
        await daemon.line('"event":"lease_taken"')
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGINT)
        code, said = await daemon.end()
    assert code == 0
    assert '"event":"stopped"' not in said, "it waited for the steps"
    assert "Traceback" not in said


async def test_a_signal_during_the_start_ends_it(start: Start, yaml: Yaml) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        yaml.dsn = f"postgresql://syncd:x@127.0.0.1:{mute.getsockname()[1]}/syncd"
        daemon = await start("run", "-c", yaml.write())
        connection = await _accepted(mute)
        daemon.signal(signal.SIGTERM)
        assert await daemon.end() == (0, "")
        connection.close()


async def _accepted(server: socket.socket) -> socket.socket:
    connection, _ = await asyncio.wait_for(asyncio.to_thread(server.accept), 60)
    return connection


async def test_a_second_daemon_stands_by_and_takes_over(start: Start, yaml: Yaml) -> None:
    first = await start("run", "-c", yaml.write())
    await first.line('"event":"lease_taken"')
    second = await start("run", "-c", yaml.file)
    standby = json.loads(await second.line('"event":"standby"'))
    assert standby["instance"] == "acme"
    assert standby["holder"].startswith("pid ")
    first.signal(signal.SIGTERM)
    taken = json.loads(await second.line('"event":"lease_taken"'))
    assert taken["epoch"] == 2
    second.signal(signal.SIGTERM)
    assert (await second.end())[0] == 0
    assert (await first.end())[0] == 0


async def test_a_wrong_password_is_one_line_and_78(start: Start, yaml: Yaml) -> None:
    user_and_password, _, rest = yaml.dsn.rpartition("@")
    yaml.dsn = f"{user_and_password.rpartition(':')[0]}:hidden@{rest}"
    code, said = await (await start("run", "-c", yaml.write())).end()
    assert code == 78
    assert said.endswith(": the server refuses the user or the password; check both in the DSN\n")
    assert said.count("\n") == 1
    assert "hidden" not in said


async def test_a_taken_port_is_1(start: Start, yaml: Yaml) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yaml.http = f"{{listen: 127.0.0.1:{taken.getsockname()[1]}}}"
        code, said = await (await start("run", "-c", yaml.write())).end()
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("http.listen: cannot listen on 127.0.0.1:")


async def test_the_rehearsals_clock(start: Start, yaml: Yaml) -> None:
    daemon = await start("run", "-c", yaml.write(), "--clock", f"1@{time.time() - 10:.0f}")
    await daemon.line('"event":"started"')
    daemon.signal(signal.SIGTERM)
    assert (await daemon.end())[0] == 0
