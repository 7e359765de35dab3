"""Plans: what may happen, as plain values. A plan's repr is Python, to be pasted as an `@example`."""

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import strategies as st

from syncd.core.settings import Poll, Push
from tests.flows.machine.marketo import MAY_BE_EXECUTED, NEVER_EXECUTED

PUSHES = {
    "contacts": Push("contacts", max_body_bytes=700, flush_after=timedelta(seconds=10), poll=Poll(timedelta(seconds=5))),
    "members": Push("members", list_id=7, format="tsv", max_body_bytes=600, flush_after=timedelta(), clear_with="NULL"),
    "crm": Push("crm", lookup_field="externalId", partition="west", format="ssv", max_body_bytes=900, flush_after=timedelta(seconds=60)),
}
"""Two share their keys; the third has the same texts as keys of other leads."""
EMAILS = ("a@x.io", "A@X.io", " a@x.io\t", "b@x.io", "B@x.io", "c@x.io", "d@x.io")
IDENTIFIERS = ("k1", "K1", "k2", "a@x.io")
FIELDS = ("company", "firstName", "lastName")
"""The first is of those that Sync Leads doesn't write."""
KINDS = ("plain", "odd", "number", "long", "bad", "warn", "poison", "null", "null", "own key", "wrong key")
KIND = st.sampled_from(("plain",) * 6 + KINDS)
SECONDS = (1, 5, 11, 35, 400, 4_000, 30_000)


@dataclass(frozen=True)
class New:
    """A change to come; `fields` says what kind of value each gets."""

    push: str
    key: str
    fields: dict[str, str]
    urgent: bool = False


@dataclass(frozen=True)
class Enqueue:
    changes: tuple[New, ...]


@dataclass(frozen=True)
class Fill:
    """Many keys at once, so that chunks become full."""

    push: str
    count: int
    first: int
    field: str


@dataclass(frozen=True)
class Begin:
    """An application's transaction, whose ids are taken now. It commits, or doesn't, at some later `End`."""

    slot: int
    changes: tuple[New, ...]


@dataclass(frozen=True)
class End:
    slot: int
    commits: bool


@dataclass(frozen=True)
class Pack:
    pass


@dataclass(frozen=True)
class Sweep:
    pass


@dataclass(frozen=True)
class Submit:
    """One step; `outcome` is what becomes of its POST, or of the next one, `during` what happens before the answer is read."""

    outcome: str = "ok"
    during: tuple["Action", ...] = ()


@dataclass(frozen=True)
class Sync:
    """One step; `outcome` is what becomes of its call, or of the next one."""

    outcome: str = "ok"
    during: tuple["Action", ...] = ()


@dataclass(frozen=True)
class Settle:
    during: tuple["Action", ...] = ()


@dataclass(frozen=True)
class Wait:
    seconds: int


@dataclass(frozen=True)
class Run:
    """All flows step, again and again, as they do in the daemon."""

    rounds: int


@dataclass(frozen=True)
class Foreign:
    count: int
    seconds: int
    list_id: int | None


@dataclass(frozen=True)
class Weather:
    """How Marketo answers looks from now on."""

    status_away: bool
    results: str


@dataclass(frozen=True)
class Pause:
    name: str


@dataclass(frozen=True)
class Resume:
    name: str


@dataclass(frozen=True)
class Discard:
    push: str
    key: str | None


@dataclass(frozen=True)
class Retry:
    limit: int | None


@dataclass(frozen=True)
class Fuse:
    """The transaction after `after` more of them goes wrong: before or after its commit, for the flow alone or for the process."""

    after: int
    committed: bool
    fatal: bool


@dataclass(frozen=True)
class Restart:
    """Another process takes over, with those pushes, and another format and list where `other`."""

    pushes: tuple[str, ...]
    other: bool
    graceful: bool


Change = Enqueue | Fill | Begin | End
Step = Pack | Sweep | Submit | Sync | Settle
Operator = Pause | Resume | Discard | Retry
Action = Change | Step | Operator | Wait | Run | Foreign | Weather | Fuse | Restart


@dataclass(frozen=True)
class Plan:
    """`run_seconds` is how long the shortest import takes."""

    actions: tuple[Action, ...]
    run_seconds: int = 8
    import_slots: int = 10
    import_running: int = 2
    body_limit: int = 10_000


def _new() -> st.SearchStrategy[New]:
    fields = st.dictionaries(st.sampled_from(FIELDS), KIND, min_size=1)
    urgent = st.sampled_from((False, False, False, True))
    by_email = st.builds(New, st.sampled_from(("contacts", "members")), st.sampled_from(EMAILS), fields, urgent)
    return by_email | st.builds(New, st.just("crm"), st.sampled_from(IDENTIFIERS), fields, urgent)


def _chase(key: str, name: str, kind: str, outcome: str) -> list[Action]:
    """A change is sent by a file, and an urgent one follows: chance would hardly make any that pass."""
    first = New("contacts", key, {"company": "plain", name: "plain"})
    return [Enqueue((first,)), Run(2), Wait(11), Run(2), Enqueue((New("contacts", key, {name: kind}, urgent=True),)), Sync(outcome)]


def plans() -> st.SearchStrategy[Plan]:
    """Plans of some thirty actions."""
    names = st.sampled_from(sorted(PUSHES))
    changes = st.lists(_new(), min_size=1, max_size=5).map(tuple)
    outcomes = st.sampled_from(("ok",) * 8 + ("lost", "fails", "dies before", "dies after") * 3 + NEVER_EXECUTED + MAY_BE_EXECUTED)
    doubts = ("lost", "late", "skips", "dies before", "dies after")
    of_calls = st.sampled_from(("ok",) * 4 + doubts * 2 + ("603", "606", "607", "611", "http_502"))
    restart = st.builds(Restart, st.sets(names, min_size=1).map(lambda some: tuple(sorted(some))), st.booleans(), st.booleans())
    quick: list[st.SearchStrategy[Action]] = [
        st.builds(Enqueue, changes),
        st.builds(Wait, st.sampled_from(SECONDS)),
        st.just(Pack()),
        st.builds(Fill, names, st.integers(1, 25), st.integers(0, 30), st.sampled_from(FIELDS)),
        st.builds(Begin, st.integers(0, 1), changes),
        st.builds(End, st.integers(0, 1), st.sampled_from((True, True, True, False))),
        st.just(Sweep()),
        st.builds(Discard, names, st.none() | st.sampled_from(("a@x.io", "k1"))),
        st.builds(Retry, st.none() | st.integers(1, 2)),
        st.builds(Fuse, st.integers(0, 4), st.booleans(), st.booleans()),
        st.builds(Pause, names),
        st.builds(Resume, names),
        restart,
    ]
    during = st.lists(st.one_of(*quick), max_size=3).map(tuple)
    steps: list[st.SearchStrategy[Action]] = [
        st.builds(Submit, outcomes, during),
        st.builds(Submit, outcomes),
        st.builds(Sync, of_calls, during),
        st.builds(Sync, of_calls),
        st.builds(Settle, during),
        st.builds(Settle),
        st.builds(Run, st.integers(1, 6)),
        st.builds(Run, st.integers(1, 6)),
        st.builds(Foreign, st.integers(1, 9), st.sampled_from((5, 60, 900)), st.sampled_from((None, 7))),
        st.builds(Weather, st.booleans(), st.sampled_from(("ok", "short", "away"))),
    ]
    episode = st.lists(st.one_of(*quick, *steps), max_size=12)
    chase = st.builds(_chase, st.sampled_from(("a@x.io", "b@x.io", "c@x.io")), st.sampled_from(FIELDS[1:]), KIND, of_calls)
    # A list of lists: long enough on the average, and yet shrunk piece by piece.
    pieces = st.lists(episode | episode | episode | chase, max_size=12)
    actions = pieces.map(lambda parts: tuple(action for part in parts for action in part))
    return st.builds(
        Plan,
        actions,
        st.sampled_from((8, 1, 90, 600)),
        st.sampled_from((10, 3, 1)),
        st.sampled_from((2, 1)),
        st.sampled_from((10_000, 480)),
    )
