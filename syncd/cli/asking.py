"""Whether somebody wants what a command is about to do."""

import sys

from syncd.cli.failures import USAGE, Refused


def wanted(question: str, yes: bool, command: str, purpose: str = "") -> bool:
    """By --yes, or by whoever sits at the terminal. Raises Refused without either; `purpose` is what --yes would be given for."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise Refused(f"syncd {command}: nobody to ask: not on a terminal; give --yes{f' {purpose}' if purpose else ''}", USAGE)
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D leaves the line open
        print()  # noqa: T201 - this is the output
        return False
