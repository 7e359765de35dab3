"""`syncd run`: the daemon as a process, with its loop and its signals."""

import asyncio
import faulthandler
import gc
import signal
import sys
from collections.abc import Callable

import structlog

from syncd.config import ConfigErrors, exposed
from syncd.core.settings import Settings
from syncd.daemon import Daemon
from syncd.ops import logs, systemd
from syncd.ops.clock import WallClock
from syncd.ops.recent import Recent

log = structlog.get_logger()

PATIENCE = 8.0  # seconds, real, after the first signal: by then the daemon has ended, or hangs
INSIST_EVERY = 1.0  # seconds, real


def run(settings: Settings, clock: WallClock, read: Callable[[], Settings]) -> None:
    """Work until SIGTERM or SIGINT, and `read` the configuration again at SIGHUP.

    Raises DatabaseUnavailable, SchemaMismatch, PortTaken, EmbeddedPostgresError when it can't begin.
    """
    faulthandler.enable()  # systemd's watchdog ends what hangs with SIGABRT: the journal shows where
    recent = Recent(clock)
    logs.configure(settings.logging, clock, recent=recent)
    _warn(settings)
    collect_rarely()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_until_signalled(Daemon(settings, clock, recent=recent), Reloader(settings, clock, read, recent)))


class Reloader:
    """Takes up the configuration as it is now, when `asked`; one that can't be used is refused, and the old one stays."""

    def __init__(self, settings: Settings, clock: WallClock, read: Callable[[], Settings], recent: Recent | None = None) -> None:
        self.asked = asyncio.Event()
        self._logging = settings.logging
        self._clock = clock
        self._read = read
        self._recent = recent

    async def serve(self, daemon: Daemon) -> None:
        """Reload `daemon` each time it is asked for."""
        while True:
            await self.asked.wait()
            self.asked.clear()
            if daemon.announced:
                systemd.reloading()
            try:
                settings = await asyncio.to_thread(self._read)
            except ConfigErrors as errors:
                for problem in errors.problems:
                    log.error("reload_refused", problem=str(problem), remedy="mend the file and reload; until then all goes on as before")
                outcome = f"refused the configuration: {errors.problems[0]}"
            else:
                outcome = self._take_up(daemon, settings)
            if daemon.announced:
                systemd.notify("READY=1", f"STATUS={daemon.doing()}; {outcome}")

    def _take_up(self, daemon: Daemon, settings: Settings) -> str:
        if settings.logging != self._logging:
            self._logging = settings.logging
            logs.configure(settings.logging, self._clock, recent=self._recent)
        _warn(settings)
        found = daemon.reload(settings)
        log.info("reloaded", changed=found.changed)
        if found.waiting:
            log.warning("reload_incomplete", waiting=found.waiting, remedy="restart syncd to take these up")
            return f"a restart is needed for {', '.join(found.waiting)}"
        return "configuration reloaded"


def _warn(settings: Settings) -> None:
    for file in exposed(settings):
        log.warning("secret_exposed", file=str(file), remedy="every user of this machine can read it: chmod o-r")


def collect_rarely() -> None:
    """Let the garbage collector take less time: a page makes some thousand objects, none of them in a cycle.

    What has been imported stays: full collections need not walk it, which would hold up the loop.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _until_signalled(daemon: Daemon, reloader: Reloader) -> None:
    """The first signal lets running steps end; the second, or one during the start, cancels them: their transactions roll back."""
    working = asyncio.ensure_future(daemon.run())
    reloading = asyncio.ensure_future(reloader.serve(daemon))
    signalled = False
    loop, here = asyncio.get_running_loop(), asyncio.current_task()

    def on_signal() -> None:
        nonlocal signalled
        loop.call_later(INSIST_EVERY if signalled else PATIENCE, insist)
        if signalled or not daemon.ready.is_set():
            working.cancel()
        signalled = True
        daemon.stop()

    def insist() -> None:
        # A cancellation can get lost: asyncio.wait_for of Python 3.11 swallows one that comes just as its work ends.
        for task in asyncio.all_tasks(loop):
            if task is not here:
                task.cancel()
        loop.call_later(INSIST_EVERY, insist)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    # the terminal that it was started from has gone; elsewhere it is what `systemctl reload` sends
    loop.add_signal_handler(signal.SIGHUP, on_signal if sys.stdin.isatty() else reloader.asked.set)
    try:
        await working
    except asyncio.CancelledError:
        if not signalled:
            raise
    finally:
        reloading.cancel()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed: the extra `syncd[uvloop]`."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
