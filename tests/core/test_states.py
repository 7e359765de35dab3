"""The table of edges says what architecture.md draws."""

import pytest

from syncd.core import states
from syncd.core.states import Edges

# Copied by hand from the drawing, in its order; an edge is written as there.
DRAWN: dict[str, str] = {
    "CHANGE": """
        pending → in_chunk | in_batch | superseded | noop | rejected | cancelled | held | parked
        held → pending | cancelled
        parked → pending | cancelled
        in_chunk → applied | warned | rejected | unverified
        in_chunk → pending
        in_batch → applied | rejected | unverified | pending | in_batch
    """,
    "CHUNK": """
        open → sealed
        sealed → in_job
        in_job → done
        in_job → sealed
        in_job → split
        open → dissolved
        sealed → dissolved
    """,
    "IMPORT_JOB": """
        submitting → queued | importing | complete | failed
        submitting → refused
        submitting → unconfirmed
        unconfirmed → queued
        unconfirmed → absent
        queued → importing | complete | failed | lost
        importing → complete | failed | lost
        complete → settled
        failed → settled
        complete → lost
        failed → lost
    """,
    "EXPORT": """
        creating → created | unconfirmed | absent
        unconfirmed → created | absent
        created → queued | processing | completed | failed | cancelled
        queued → processing | completed | failed | cancelled
        processing → completed | failed | cancelled
        completed → loaded | expired
    """,
    "WINDOW": """
        open → open | done | split | abandoned
        open → blocked
        blocked → open
    """,
    "PUSH": """
        running → paused | held | blocked
        paused → running
        held → running
        blocked → running
    """,
    "PULL": """
        running → paused | blocked
        paused → running
        blocked → running
    """,
}


def pairs(drawing: str) -> set[tuple[str, str]]:
    edges = set()
    for line in filter(str.strip, drawing.splitlines()):
        state, targets = line.split("→")
        edges |= {(state.strip(), target.strip()) for target in targets.split("|")}
    return edges


def edges_of(table: Edges) -> set[tuple[str, str]]:
    return {(state, target) for state, targets in table.items() for target in targets}


@pytest.mark.parametrize("name", DRAWN)
def test_the_table_is_the_drawing(name: str) -> None:
    assert edges_of(getattr(states, name)) == pairs(DRAWN[name])


def test_changes_end_in_one_of_the_promised_states() -> None:
    final = {state for state in states.CHANGE if states.is_final(states.CHANGE, state)}
    assert final == {"applied", "warned", "rejected", "superseded", "noop", "cancelled", "unverified"}


def test_live_jobs_are_those_that_have_an_edge_left() -> None:
    assert {state for state in states.IMPORT_JOB if not states.is_final(states.IMPORT_JOB, state)} == states.LIVE_JOB
    assert states.IN_QUEUE < states.LIVE_JOB


def test_unfinished_exports_are_those_that_have_an_edge_left() -> None:
    assert {state for state in states.EXPORT if not states.is_final(states.EXPORT, state)} == states.UNFINISHED_EXPORT
    assert states.IN_EXPORT_QUEUE < states.UNFINISHED_EXPORT
