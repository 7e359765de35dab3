"""The command line. This module is light, so that Ctrl-C is in good hands before anything heavy is imported."""

import signal
import sys


def main() -> None:
    """The entry point. Exits 0, 1 (failed), 2 (bad usage), 78 (the configuration is wrong) or 130 (Ctrl-C)."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Amid imports a KeyboardInterrupt is a traceback, or lost where a library catches all: until a command has begun, just end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a ✓ must not end the command on a terminal that has none
    from syncd.cli.commands import run_command

    sys.exit(run_command(sys.argv[1:]))
