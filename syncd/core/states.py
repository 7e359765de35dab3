"""The states and the allowed edges (architecture.md, States). What is not listed stays as it is.

`store/` has one function per edge; a test holds this table, the CHECKs of the schema and those functions against each other.
"""

from collections.abc import Mapping

Edges = Mapping[str, frozenset[str]]


def _edges(**table: str) -> Edges:
    edges = {state: frozenset(targets.split()) for state, targets in table.items()}
    for target in frozenset().union(*edges.values()):
        edges.setdefault(target, frozenset())
    return edges


CHANGE = _edges(
    pending="in_chunk in_batch superseded noop rejected cancelled held parked",
    held="pending cancelled",
    parked="pending cancelled",
    in_chunk="applied warned rejected unverified pending",
    in_batch="applied rejected unverified pending in_batch",
)
CHUNK = _edges(
    open="sealed dissolved",
    sealed="in_job dissolved",
    in_job="done sealed split",
)
IMPORT_JOB = _edges(
    submitting="queued importing complete failed refused unconfirmed",
    unconfirmed="queued absent",
    queued="importing complete failed lost",
    importing="complete failed lost",
    complete="settled lost",
    failed="settled lost",
)
SYNC_BATCH = _edges(
    open="submitting",
    submitting="settled refused unconfirmed",
    unconfirmed="absent",
)
EXPORT = _edges(
    creating="created unconfirmed absent",
    unconfirmed="created absent",
    created="queued processing completed failed cancelled",
    queued="processing completed failed cancelled",
    processing="completed failed cancelled",
    completed="loaded expired",
)
WINDOW = _edges(
    open="open done split abandoned blocked",
    blocked="open",
)
PUSH = _edges(
    running="paused held blocked",
    paused="running",
    held="running",
    blocked="running",
)
PULL = _edges(
    running="paused blocked",
    paused="running",
    blocked="running",
)


def is_final(edges: Edges, state: str) -> bool:
    """Whether nothing leads out of `state`."""
    return not edges[state]


LIVE_JOB = frozenset({"submitting", "queued", "importing", "complete", "failed", "unconfirmed"})
"""Jobs that may still act on Marketo's leads, or whose outcome has not been written yet."""

IN_QUEUE = frozenset({"submitting", "queued", "importing", "unconfirmed"})
"""Jobs that hold a slot of Marketo's import queue, as far as we can know."""

UNFINISHED_EXPORT = frozenset({"creating", "unconfirmed", "created", "queued", "processing", "completed"})
"""Exports of which something is still to come: a window with one is not to be asked for again."""

IN_EXPORT_QUEUE = frozenset({"queued", "processing"})
"""Exports that hold a slot of Marketo's export queue."""
