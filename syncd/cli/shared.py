"""What all commands share: options, the YAML, the clock, and how their work is run to its end."""

import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from syncd.core.settings import Settings
    from syncd.ops.clock import WallClock

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The YAML that says what to keep in step.")]
Only = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="Only this instance of the YAML.")]
One = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="The instance; needed where the YAML has several.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
T = TypeVar("T")
DEFAULT_CONFIG = Path("/etc/syncd/syncd.yaml")


def complain(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr)  # noqa: T201 - this is the output


def finish(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. From here on Ctrl-C unwinds what has begun; before, it just ends the process (see `main`)."""
    import asyncio
    import logging

    # asyncio tells of what an interruption leaves unanswered, which is no news to whoever pressed Ctrl-C
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return asyncio.run(work)


def load(file: Path) -> "Settings":
    """The YAML. Raises ConfigErrors."""
    from syncd.config import load as read

    return read(file, os.environ)


def wall_clock(text: str | None) -> "WallClock":
    """The wall's clock, or by `SPEED@ORIGIN` the one that a rehearsal shares."""
    from syncd.ops.clock import WallClock

    if text is None:
        return WallClock()
    with contextlib.suppress(ValueError):
        speed, origin = map(float, text.split("@"))
        if speed > 0:
            return WallClock(speed, origin)
    raise typer.BadParameter("needs SPEED@ORIGIN, such as 10@1760000000", param_hint="--clock")
