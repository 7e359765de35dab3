"""Logs: one line an event in the chosen form, stamped by the daemon's clock, and nothing below the chosen level."""

import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import orjson
import pytest
import structlog

from syncd.core.settings import Logging
from syncd.ops import logs
from syncd.ops.clock import ManualClock

NOON = ManualClock(datetime(2026, 3, 2, 12, tzinfo=UTC))


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    structlog.reset_defaults()
    logging.basicConfig(handlers=handlers, force=True)


def written(log_format: Literal["json", "logfmt", "console"], level: Literal["info", "warning"] = "info") -> str:
    out = io.StringIO()
    logs.configure(Logging(level, log_format), NOON, out)
    structlog.get_logger().info("import_settled", instance="acme", job=7, at=datetime(2026, 3, 1, tzinfo=UTC), note='a "b"\nc')
    return out.getvalue()


def test_json_lines_hold_what_was_logged() -> None:
    assert orjson.loads(written("json")) == {
        "time": "2026-03-02T12:00:00.000Z",
        "level": "info",
        "event": "import_settled",
        "instance": "acme",
        "job": 7,
        "at": "2026-03-01T00:00:00+00:00",
        "note": 'a "b"\nc',
    }


def test_logfmt_is_one_line_too() -> None:
    line = written("logfmt")
    assert line.startswith("time=2026-03-02T12:00:00.000Z level=info event=import_settled ")
    assert line.count("\n") == 1


def test_the_console_form_is_for_people() -> None:
    assert "import_settled" in written("console")


def test_what_is_below_the_level_is_not_written() -> None:
    assert written("json", "warning") == ""


def test_what_libraries_say_is_one_line_of_ours() -> None:
    out = io.StringIO()
    logs.configure(Logging(format="json"), NOON, out)
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("asyncpg.pool").warning("Failed to restore %s", "it", exc_info=True)
    logging.getLogger("asyncpg.pool").info("of no interest")
    (line,) = out.getvalue().splitlines()
    assert orjson.loads(line) == {
        "time": "2026-03-02T12:00:00.000Z",
        "level": "warning",
        "event": "library",
        "logger": "asyncpg.pool",
        "message": "Failed to restore it",
        "error": "OSError('gone')",
    }
