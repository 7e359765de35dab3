"""Logs: one line an event, with fixed names; json, logfmt or console."""

import logging
import os
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from syncd.core.clock import Clock
from syncd.core.settings import Logging
from syncd.ops.journal import Journal
from syncd.ops.recent import Recent


def configure(settings: Logging, clock: Clock, out: TextIO = sys.stderr, recent: Recent | None = None) -> None:
    """Send the process's events to `out`, stamped by `clock` (UTC); `recent` sees them, too."""

    def stamp(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["time"] = clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return event

    seen_by: list[Processor] = [] if recent is None else [recent]
    journal = Journal.behind(out, os.environ)
    render = _renderer(settings, out)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            stamp,
            *seen_by,
            structlog.processors.format_exc_info,
            _through(journal, render) if journal else render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)


def _through(journal: Journal, render: Processor) -> Processor:
    """The journal gets the event itself, and nothing is left to write; unless it won't have it."""

    def send(logger: WrappedLogger, name: str, event: EventDict) -> Any:
        line = render(logger, name, dict(event))
        if journal.send(event, str(line)):
            raise structlog.DropEvent
        return line

    return send


class _Libraries(logging.Handler):
    """What libraries have to say, as events of ours: one line each, and no traceback of what the daemon goes on from anyway."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=record.getMessage(), error=repr(error) if error else None
        )


def _renderer(settings: Logging, out: TextIO) -> Processor:
    match settings.format:
        case "json":
            return structlog.processors.JSONRenderer(serializer=lambda event, **_: orjson.dumps(event, default=str).decode())
        case "logfmt":
            return structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], sort_keys=True)
        case "console":
            return structlog.dev.ConsoleRenderer(colors=out.isatty(), timestamp_key="time")
