"""The table of events is that of the code, and what the code logs keeps the rules of it."""

import ast

import pytest

from syncd.ops.events import EVENTS, remedy_of
from tests.ops.events import TABLE, _Scanner, document, scan

FOUND = scan()
OF_THE_PROCESS = {
    "database_cut_off",
    "library",
    "listening",
    "metrics",
    "not_listening",
    "reload_incomplete",
    "reload_refused",
    "reloaded",
    "secret_exposed",
    "standby",
    "started",
    "stopped",
    "write_failed",
}
PERSONAL = {"email", "key", "keys_shown", "lead", "name_of", "user", "user_id", "values"}


def test_the_table_is_in_step_with_the_code() -> None:
    assert TABLE.read_text("utf-8") == document(), "run python -m tests.ops.events"


def test_each_event_is_explained_and_none_that_is_not_there() -> None:
    assert FOUND.keys() == EVENTS.keys(), "syncd/ops/events.py says what each means"
    assert all(means for means, _ in EVENTS.values())


@pytest.mark.parametrize("name", [name for name, event in FOUND.items() if event.levels & {"warning", "error"}])
def test_what_is_wrong_comes_with_a_remedy(name: str) -> None:
    assert EVENTS[name][1]
    assert remedy_of(name) == EVENTS[name][1]


@pytest.mark.parametrize("name", sorted(FOUND))
def test_each_says_whose_it_is_and_names_nobody(name: str) -> None:
    event = FOUND[name]
    assert "instance" in (event.everywhere or ()) or name in OF_THE_PROCESS
    assert not PERSONAL & event.fields
    if name.startswith(("import_", "batch_")) and "not_written" not in name:
        assert event.fields & {"job", "batch"}


def calls(source: str) -> list[tuple[str | None, set[str], set[str]]]:
    return [(call.event, set(call.levels), set(call.fields)) for call in _Scanner(ast.parse(source), "x.py").calls()]


def test_the_scan_follows_what_a_logger_is_bound_to() -> None:
    source = """
class Flow:
    def __init__(self):
        self._log = log.bind(instance="acme")
    def step(self):
        bound = self._log.bind(pull="people")
        bound.warning("one", fault="f")
        level = bound.error if bad else self._log.info
        level("two" if bad else "three", **facts)
"""
    assert calls(source) == [
        ("one", {"warning"}, {"instance", "pull", "fault"}),
        ("two", {"error", "info"}, {"instance", "pull", "…"}),
        ("three", {"error", "info"}, {"instance", "pull", "…"}),
    ]


def test_the_scan_does_not_pass_over_a_name_that_it_cannot_read() -> None:
    assert calls("def f():\n    log.info(f'export_{state}')\n") == [(None, {"info"}, set())]
    assert calls("def f():\n    report.error('not a log')\n") == []
