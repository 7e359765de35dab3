"""What the service manager hears."""

import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.ops import systemd
from syncd.ops.systemd import Pulse


@contextmanager
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(Path(folder) / "notify"))
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(Path(folder) / "notify"))
        yield listener


def heard(listener: socket.socket) -> list[bytes]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(1000))
        except BlockingIOError:
            return messages


def test_state_lines_go_out_as_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = str(Path(folder) / "notify")
        manager.bind(address)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        systemd.notify("READY=1", "STATUS=standby for acme")
        assert manager.recv(1000) == b"READY=1\nSTATUS=standby for acme"


def test_an_abstract_address_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0syncd-test-notify")
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@syncd-test-notify")
        systemd.notify("STOPPING=1")
        assert manager.recv(1000) == b"STOPPING=1"


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")


def test_a_reload_tells_when_it_began_by_the_clock_that_systemd_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    with manager(monkeypatch) as listener:
        systemd.reloading()
        (said,) = heard(listener)
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", said)
    assert found is not None
    assert before * 1e6 - 1 <= int(found[1]) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


class TestPulse:
    @pytest.fixture(autouse=True)
    def _listen(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.now = 100.0
        monkeypatch.setenv("WATCHDOG_USEC", "40000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        with manager(monkeypatch) as self.listener:
            yield

    def pulse(self, *instances: str) -> Pulse:
        return Pulse(instances, lambda: self.now)

    def later(self, pulse: Pulse, seconds: float, *instances: str) -> list[bytes]:
        self.now += seconds
        pulse.beat(*instances)
        return heard(self.listener)

    def test_progress_feeds_the_watchdog_four_times_an_interval(self) -> None:
        pulse = self.pulse("acme")
        assert [self.later(pulse, seconds, "acme") for seconds in (9, 1, 9, 1)] == [[], [b"WATCHDOG=1"], [], [b"WATCHDOG=1"]]

    def test_one_instance_that_hangs_starves_it(self) -> None:
        pulse = self.pulse("acme", "beta")
        assert [self.later(pulse, 30, "acme") for _ in range(3)] == [[], [], []]
        assert self.later(pulse, 0, "beta") == [b"WATCHDOG=1"]
        assert self.later(pulse, 30, "beta") == []

    def test_an_instance_that_is_gone_is_not_waited_for_and_a_new_one_is(self) -> None:
        pulse = self.pulse("acme", "beta")
        pulse.expect(["acme", "gamma"])
        assert self.later(pulse, 30, "acme", "beta") == []
        assert self.later(pulse, 0, "gamma") == [b"WATCHDOG=1"]

    def test_it_is_alive_as_long_as_all_are(self) -> None:
        pulse = self.pulse("acme", "beta")
        self.later(pulse, 50, "acme")
        assert pulse.alive(60)
        self.later(pulse, 20, "acme")
        assert not pulse.alive(60)

    @pytest.mark.parametrize(("name", "value"), [("WATCHDOG_USEC", ""), ("WATCHDOG_PID", "1")])
    def test_a_watchdog_that_is_not_ours_is_not_fed(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        assert self.later(self.pulse("acme"), 30, "acme") == []
