"""What the whole suite logs, shows and complains, read for secrets and for addresses of people: a test that lets one out fails.

Heard are every event of structlog and of the libraries' loggers, every page and every /metrics that is made in this process, the error
lines of commands, and what processes of syncd write beside their output. Not heard is what commands print to stdout: `syncd lead show` and
`syncd failures show` are for telling keys and values, to who asked for them by name.
"""

import logging
import re
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from structlog._base import BoundLoggerBase

from syncd.cli import shared
from syncd.ops import http
from syncd.page import render
from syncd.simulator import Credentials

SECRETS = {Credentials.client_secret, Credentials.encryption_key, "hunter2", "open sesame"}
"""Of the tests; those that are made by chance are added by whoever makes them."""
ADDRESS = re.compile(r"[\w.+'-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
TOKEN = re.compile(r"[0-9a-f]{32}:rehearsal")  # as the simulator makes them
SHOWN = 120  # characters around a find

TRUE_EXCEPTIONS = {
    "tests/cli/test_others.py::test_simulate_prints_a_configuration_that_loads": "syncd simulate prints the credentials that it takes",
    "tests/cli/test_others.py::test_all_that_simulate_prints_is_there": "syncd simulate prints the credentials that it takes",
}
"""The beginning of a test's name → why it may."""

_finds: list[str] = []


def hear(what: str, text: str) -> None:
    """Note what of `text` nobody may read there."""
    if "@" in text:
        _finds.extend(f"{what} has an address: {_around(text, found.start())}" for found in ADDRESS.finditer(text))
    _finds.extend(f"{what} has a secret: {_around(text, text.find(secret))}" for secret in SECRETS if secret in text)
    if ":rehearsal" in text and (token := TOKEN.search(text)):
        _finds.append(f"{what} has a token: {_around(text, token.start())}")


def take_finds() -> list[str]:
    """Those since the last call."""
    finds = _finds[:]
    _finds.clear()
    return finds


def let_out(test: str, finds: list[str]) -> str | None:
    """What is to be said of what a test has let out."""
    if not finds or any(test.startswith(name) for name in TRUE_EXCEPTIONS):
        return None
    return "\n".join([f"{len(finds)} times something was let out that nobody may read there:", *finds[:5]])


def listen() -> None:
    """From now on, in this process."""
    events, records = BoundLoggerBase._proxy_to_logger, logging.Logger.callHandlers

    def event(self: BoundLoggerBase, method: str, name: str | None = None, /, **fields: Any) -> Any:
        hear(f"the event {name}", f"{name} {self._context} {fields}")
        if error := fields.get("exc_info"):
            hear(f"the event {name}", str(error if isinstance(error, BaseException) else sys.exc_info()[1]))
        return events(self, method, name, **fields)

    def record(self: logging.Logger, record: logging.LogRecord) -> None:
        hear(f"the logger {record.name}", f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}")
        records(self, record)

    BoundLoggerBase._proxy_to_logger = event  # type: ignore[method-assign, assignment]
    logging.Logger.callHandlers = record  # type: ignore[method-assign]
    for what, module, name in (("/metrics", http, "generate_latest"), ("a page", render, "document"), ("a page", render, "main")):
        setattr(module, name, _heard(what, getattr(module, name)))
    complain = shared.complain

    def complained(text: str) -> None:
        hear("a command's error", text)
        complain(text)

    shared.complain = complained


def _heard(what: str, made: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(made)
    def make(*given: Any, **named: Any) -> Any:
        text = made(*given, **named)
        hear(what, text.decode() if isinstance(text, bytes) else text)
        return text

    return make


def _around(text: str, at: int) -> str:
    return text[max(0, at - SHOWN) : at + SHOWN].replace("\n", " ")
