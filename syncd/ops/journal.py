"""systemd's journal, given the fields of each event as its own (its native protocol): `journalctl SYNCD_INSTANCE=acme`."""

import os
import re
import socket
import struct
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


class Journal:
    """A connection to it. What it won't take, the caller writes as a line, which the journal gets through stderr."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    @classmethod
    def behind(cls, out: TextIO, env: Mapping[str, str], path: str | None = None) -> "Journal | None":
        """The journal that `out` leads to; None when it leads elsewhere."""
        try:
            stat = os.fstat(out.fileno())
        except OSError:
            return None
        if env.get("JOURNAL_STREAM") != f"{stat.st_dev}:{stat.st_ino}":
            return None
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.setblocking(False)
        try:
            channel.connect(path or SOCKET)
        except OSError:
            channel.close()
            return None
        return cls(channel)

    def close(self) -> None:
        """Let go of it."""
        self._channel.close()

    def send(self, event: Mapping[str, object], line: str) -> bool:
        """Whether it took the event, with `line` as its text: one that is too long for a datagram it does not take."""
        fields = {"MESSAGE": line, "PRIORITY": str(PRIORITIES.get(str(event.get("level")), 6)), "SYSLOG_IDENTIFIER": "syncd"}
        fields |= {_name(key): str(value) for key, value in event.items() if value is not None}
        try:
            self._channel.send(b"".join(_field(name, value) for name, value in fields.items()))
        except OSError:
            return False
        return True


def _name(key: str) -> str:
    return f"SYNCD_{_NOT_IN_NAMES.sub('_', key.upper())}"[:64]


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
