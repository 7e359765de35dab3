"""What we tell systemd (sd_notify): a datagram of our own, for want of a kept library (decisions.md)."""

import os
import socket


def notify(*lines: str) -> None:
    """Send state lines such as `READY=1` to the service manager; nothing happens when there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)
