"""`syncd run`: the daemon as a process, with its loop and its signals."""

import asyncio
import gc
import signal
from collections.abc import Callable

from syncd.core.settings import Settings
from syncd.daemon import Daemon
from syncd.ops import logs
from syncd.ops.clock import WallClock
from syncd.ops.recent import Recent

PATIENCE = 8.0  # seconds, real, after the first signal: by then the daemon has ended, or hangs
INSIST_EVERY = 1.0  # seconds, real


def run(settings: Settings, clock: WallClock) -> None:
    """Work until SIGTERM or SIGINT. Raises DatabaseUnavailable, SchemaMismatch, PortTaken, EmbeddedPostgresError when it can't begin."""
    recent = Recent(clock)
    logs.configure(settings.logging, clock, recent=recent)
    collect_rarely()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_until_signalled(Daemon(settings, clock, recent=recent)))


def collect_rarely() -> None:
    """Let the garbage collector take less time: a page makes some thousand objects, none of them in a cycle.

    What has been imported stays: full collections need not walk it, which would hold up the loop.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _until_signalled(daemon: Daemon) -> None:
    """The first signal lets running steps end; the second, or one during the start, cancels them: their transactions roll back."""
    working = asyncio.ensure_future(daemon.run())
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
    try:
        await working
    except asyncio.CancelledError:
        if not signalled:
            raise


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed: the extra `syncd[uvloop]`."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
