"""systemd's journal: each event with its fields, as its native protocol has them."""

import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
import structlog

from syncd.core.settings import Logging
from syncd.ops import logs
from syncd.ops.journal import Journal
from tests.ops.test_logs import NOON


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd would be; its path is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"{folder}/socket")
        listening.settimeout(2)
        yield listening


@pytest.fixture
def out(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+") as file:
        yield file


def leads_to(out: TextIO) -> dict[str, str]:
    stat = os.fstat(out.fileno())
    return {"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}


def fields_of(datagram: bytes) -> dict[str, str]:
    fields = {}
    while datagram:
        name, mark, rest = datagram.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            datagram = rest
        else:
            size = struct.unpack("<Q", rest[:8])[0]
            key, value, datagram = name, rest[8 : 8 + size], rest[8 + size + 1 :]
        assert mark
        fields[key.decode()] = value.decode()
    return fields


def test_the_journal_gets_the_fields_and_stderr_nothing(server: socket.socket, out: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Journal.behind(out, leads_to(out), server.getsockname())
    assert found is not None
    monkeypatch.setattr(Journal, "behind", lambda *_: found)
    try:
        logs.configure(Logging(format="logfmt"), NOON, out)
        structlog.get_logger().warning("import_unconfirmed", instance="acme", job=7, fault="a\nb", batch=None)
    finally:
        structlog.reset_defaults()
        found.close()
    fields = fields_of(server.recv(65_536))
    assert fields.pop("MESSAGE").startswith("time=2026-03-02T12:00:00.000Z level=warning event=import_unconfirmed ")
    assert fields == {
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "syncd",
        "SYNCD_EVENT": "import_unconfirmed",
        "SYNCD_LEVEL": "warning",
        "SYNCD_TIME": "2026-03-02T12:00:00.000Z",
        "SYNCD_INSTANCE": "acme",
        "SYNCD_JOB": "7",
        "SYNCD_FAULT": "a\nb",
    }
    out.seek(0)
    assert out.read() == ""


def test_what_the_journal_will_not_take_is_written(server: socket.socket, out: TextIO) -> None:
    found = Journal.behind(out, leads_to(out), server.getsockname())
    assert found is not None
    assert found.send({"event": "short"}, "short")
    assert not found.send({"event": "long"}, "x" * 10_000_000)
    server.close()
    assert not found.send({"event": "short"}, "short")
    found.close()


def test_a_log_that_leads_elsewhere_is_no_journal(server: socket.socket, out: TextIO) -> None:
    assert Journal.behind(out, {}, server.getsockname()) is None
    assert Journal.behind(out, {"JOURNAL_STREAM": "8:1"}, server.getsockname()) is None
    assert Journal.behind(out, leads_to(out), "/nowhere/at/all") is None


@pytest.mark.parametrize(
    ("key", "name"), [("request_id", "SYNCD_REQUEST_ID"), ("in-some parts", "SYNCD_IN_SOME_PARTS"), ("x" * 99, "SYNCD_" + "X" * 58)]
)
def test_names_are_those_that_the_journal_allows(server: socket.socket, out: TextIO, key: str, name: str) -> None:
    found = Journal.behind(out, leads_to(out), server.getsockname())
    assert found is not None
    assert found.send({key: 1}, "line")
    assert fields_of(server.recv(65_536))[name] == "1"
    found.close()
