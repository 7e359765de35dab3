"""Child processes that never outlive us, and how PostgreSQL's are told to end."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

FAST_SHUTDOWN_DEADLINE = 30.0  # seconds; a fast shutdown writes a checkpoint
IMMEDIATE_SHUTDOWN_DEADLINE = 10.0  # seconds
LOOK_EVERY = 0.005  # seconds between two looks at a child

# Runs in the child and becomes the program it is given: argv = parent's pid, uid, gid, program and its arguments.
# Imports come first: another user may not reach our Python. Credentials next: changing them clears the parent-death signal.
# The parent may have died before prctl: its pid tells.
_TRAMPOLINE = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    prctl = ctypes.CDLL(None).prctl
parent, uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if sys.platform == "linux" and prctl(1, signal.SIGINT, 0, 0, 0):  # 1: PR_SET_PDEATHSIG
    sys.exit("prctl(PR_SET_PDEATHSIG) failed")
if os.getppid() != int(parent):
    sys.exit("the parent has died")
os.execv(command[0], command)
"""


def spawn_child(command: list[str], *, uid: int, gid: int, directory: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start `command` in `directory`, as `uid` and `gid` when we are root, its output appended to `log`.

    On Linux it gets SIGINT when the calling *thread* ends. A program of our own stands between, not a preexec_fn: Python code
    between fork and exec can deadlock in a process with threads. It has its own session, so Ctrl-C at the terminal is ours alone.
    """
    trampoline = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), str(uid), str(gid)]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own words
            trampoline + command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # nothing of the caller's PG* variables
            cwd=directory,
            start_new_session=True,
        )


async def end_child(process: "subprocess.Popen[bytes]") -> None:
    """PostgreSQL's fast shutdown, then its immediate one, then the kernel's."""
    steps = [(signal.SIGINT, FAST_SHUTDOWN_DEADLINE), (signal.SIGQUIT, IMMEDIATE_SHUTDOWN_DEADLINE), (signal.SIGKILL, None)]
    for number, seconds in steps:
        process.send_signal(number)  # does nothing once the process has ended
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await until(lambda: process.poll() is not None)
            return


async def until(done: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    while not done():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(LOOK_EVERY)
