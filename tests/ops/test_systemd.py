"""What the service manager hears."""

import socket
import tempfile
from pathlib import Path

import pytest

from syncd.ops import systemd


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
