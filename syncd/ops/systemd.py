"""What we tell systemd (sd_notify): a datagram of our own, for want of a kept library (decisions.md)."""

import os
import socket
import time
from collections.abc import Callable, Iterable


def notify(*lines: str) -> None:
    """Send state lines such as `READY=1` to the service manager; nothing happens when there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto("\n".join(lines).encode(), "\0" + address[1:] if address.startswith("@") else address)


def reloading() -> None:
    """Say that a reload has begun; it ends with the next READY=1. The time tells systemd that the signal it sent was meant."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


class Pulse:
    """When each instance last made progress. systemd's watchdog is fed by that, and by no timer: what hangs is not kept alive."""

    def __init__(self, instances: Iterable[str], now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = dict.fromkeys(instances, now())
        self._fed_at = now()
        self._interval = _watchdog_seconds()

    def expect(self, instances: Iterable[str]) -> None:
        """From now on these are to make progress, and no others."""
        self._last = {name: self._last.get(name, self._now()) for name in instances}

    def beat(self, *instances: str) -> None:
        """Progress was made. Feeds once all have made some since the last time, four times an interval at the most."""
        now = self._now()
        self._last.update((name, now) for name in instances if name in self._last)
        if self._interval and now - self._fed_at >= self._interval / 4 and min(self._last.values(), default=now) > self._fed_at:
            self._fed_at = now
            notify("WATCHDOG=1")

    def alive(self, within: float) -> bool:
        """Whether each instance has made progress in the last so many seconds."""
        return self._now() - min(self._last.values(), default=self._now()) < within


def _watchdog_seconds() -> float | None:
    """WatchdogSec of the unit, where it is meant for this process."""
    microseconds, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    return int(microseconds) / 1e6 if microseconds.isdigit() and pid in (None, str(os.getpid())) else None
