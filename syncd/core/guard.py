"""What a push's guard lets go, and what it holds: the canary, the rate of changes, the leads that would be created.

All of it goes by when a change was made, never by when we come to see it: what an application has written over a weekend of pause is no
surge, and a statement that commits late, amid the ids of others, is one all the same.
"""

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

from syncd.core.settings import FromTable, Guard, Push
from syncd.core.words import moment

CanaryState = Literal["none", "under_way", "good", "bad"]
Why = Literal["first", "mapping", "surge"]

HOUR = timedelta(hours=1)
WITHOUT_MEANING = frozenset(("name", "max_body_bytes", "flush_after", "unconfirmed_after", "poll", "guard", "hours"))
"""Settings of a push that change when and how much is sent, but nothing of what it does to a lead."""


class Arrival(NamedTuple):
    """How many changes that wait were made at one moment; those of a statement have one. `first_id` is the lowest id of them."""

    made_at: datetime
    changes: int
    first_id: int = 0


class Waiting(NamedTuple):
    """A change that could be claimed. `admitted`: it, or an operator for it, has passed the guard before."""

    id: int
    made_at: datetime
    admitted: bool = False


@dataclass(frozen=True, slots=True)
class Surge:
    """Changes that are being held: made at `since` or later, up to the id `upto`; of ids up to `after` it is done."""

    since: datetime
    after: int
    upto: int

    def has(self, change: Waiting) -> bool:
        """Whether the change is to be held."""
        return not change.admitted and change.made_at >= self.since and change.id <= self.upto


@dataclass(frozen=True, slots=True)
class Known:
    """What a push's guard knows."""

    digest: str
    canary: CanaryState = "none"
    why: Why = "first"
    canary_ids: Sequence[int] = ()
    begun_at: datetime | None = None
    surge: Surge | None = None
    held_at: datetime | None = None


def digest_of(push: Push) -> str:
    """A digest of what a push does to leads: another one, another canary. What has its default does not count."""
    told = [
        f"{field.name}={_plain(getattr(push, field.name))!r}"
        for field in fields(push)
        if field.name not in WITHOUT_MEANING and getattr(push, field.name) not in (field.default, (), {})
    ]
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()


def _plain(value: object) -> object:
    """What is the same in another order, or is looked at more often, does the same to leads."""
    if isinstance(value, FromTable):
        return [(each.name, _plain(getattr(value, each.name))) for each in fields(value) if each.name != "every"]
    return sorted(value.items()) if isinstance(value, Mapping) else value


def surge_from(waiting: Iterable[Arrival], admitted: Iterable[tuple[datetime, int]], hold_above: int) -> datetime | None:
    """The moment from which on changes came beyond the rate: what was made then, and later, is the surge; None: there is none.

    `waiting` and `admitted`, what has gone already, are each in order of time. A moment is one statement's, or one transaction's: it is
    held as a whole, for the first half of a mistake is no better than the second.
    """
    gone = deque(admitted)
    window: deque[tuple[datetime, int]] = deque()
    came = 0
    for arrival in waiting:
        while gone and gone[0][0] <= arrival.made_at:
            window.append(gone.popleft())
            came += window[-1][1]
        window.append((arrival.made_at, arrival.changes))
        came += arrival.changes
        # in order but for what has gone, which is counted by the minute
        while window[0][0] <= arrival.made_at - HOUR:
            came -= window.popleft()[1]
        if came > hold_above:
            return arrival.made_at
    return None


def may_go(known: Known, waiting: Iterable[Waiting], since: datetime | None) -> list[int]:
    """Those of the waiting that may be packed now: the canary alone, else all but a surge, which began `since`."""
    if known.canary == "under_way":
        canary = frozenset(known.canary_ids)
        return [change.id for change in waiting if change.id in canary]
    return not_of_a_surge(known, waiting, since) if known.canary == "good" else []


def not_of_a_surge(known: Known, waiting: Iterable[Waiting], since: datetime | None) -> list[int]:
    """What is urgent needs no canary to go first; but a surge of urgent changes is one, too."""
    return [
        change.id
        for change in waiting
        if change.admitted or ((since is None or change.made_at < since) and (known.surge is None or not known.surge.has(change)))
    ]


def canary_is_due(known: Known, surges: bool, now: datetime) -> bool:
    """Whether a canary is to begin, with something waiting: before anything else, and for a surge, unless one has gone within the hour."""
    if known.canary == "none":
        return True
    return known.canary == "good" and surges and (known.begun_at is None or not known.begun_at <= now < known.begun_at + HOUR)


def verdict(size: int, under_way: int, failed: int, cancelled: int, most: Decimal) -> CanaryState:
    """How a canary of `size` changes stands. Bad as soon as it can't end well any more; none when nothing of it was tried."""
    if failed > most * (size - cancelled):
        return "bad"
    if under_way:
        return "under_way"
    return "none" if cancelled == size else "good"


def beyond_room(unknown: Iterable[tuple[int, str]], room: int) -> tuple[frozenset[int], int]:
    """Of changes of keys that nobody knows, those that would create more than `room` leads; and how many the others create.

    Changes of one key create one lead.
    """
    creating: set[str] = set()
    beyond: set[int] = set()
    for change, key in unknown:
        if key in creating or len(creating) < room:
            creating.add(key)
        else:
            beyond.add(change)
    return frozenset(beyond), len(creating)


def hold_reason(hold_above: int) -> str:
    """Why a change of a surge is held, for the change itself and for `syncd status`."""
    return f"the guard holds it: more than {hold_above:,} changes came within an hour (hold_above)"


def create_reason(max_created: int) -> str:
    """Why a change is held that would create one lead too many."""
    return f"the guard holds it: more than {max_created:,} leads would be created in a day (max_created)"


def bad_canary(size: int, failed: Collection[tuple[str, str, int]], cancelled: int, most: Decimal, commands: str) -> str:
    """What a push that is held says: in numbers, for which reasons the most, and how to go on. `failed`: state, reason, how many."""
    total = sum(count for _, _, count in failed)
    states: dict[str, int] = {}
    for state, _, count in failed:
        states[state] = states.get(state, 0) + count
    how = ", ".join(f"{state} {count:,}" for state, count in sorted(states.items()))
    often = sorted(failed, key=lambda each: (-each[2], each[1]))[:3]
    reasons = "; ".join(f"{count:,} times {reason[:200]}" for _, reason, count in often)
    return f"of a canary of {size - cancelled:,} changes {total:,} failed ({how}), of which {percent(most)} may: {reasons}. {commands}"


def guard_notes(
    guard: Guard,
    known: Known | None,
    digest: str,
    surge: tuple[datetime, int] | None,
    pending: int,
    creating: int,
    created: int,
    now: datetime,
) -> list[str]:
    """What the guard would do with what waits, for a plan. `surge`: since when more came than may, and how many at least."""
    notes = []
    before = known is not None and known.digest == digest
    if known is not None and before and known.canary in ("under_way", "bad"):
        what = "a canary is under way: nothing else goes before it has ended well"
        notes.append(f"the guard: {what if known.canary == 'under_way' else 'its canary was bad, and the push is held'}")
    elif known is None or not before or canary_is_due(known, surge is not None, now):
        first = min(guard.canary, pending)
        notes.append(f"the guard would send {first:,} first, and hold the rest until these have ended well: of them {_may_fail(guard)}")
    if surge is not None and guard.hold_above is not None:
        since, changes = surge
        notes.append(
            f"the guard would then hold {changes:,} at least, made since {moment(since)}: "
            f"more than {guard.hold_above:,} came within an hour (hold_above)"
        )
    if guard.max_created is not None and creating > max(0, guard.max_created - created):
        beyond = creating - max(0, guard.max_created - created)
        notes.append(
            f"the guard would hold what creates {beyond:,} of {creating:,} leads: {guard.max_created:,} a day may be (max_created)"
        )
    return notes


def _may_fail(guard: Guard) -> str:
    return f"{percent(guard.canary_max_failures)} may fail"


def percent(share: Decimal) -> str:
    """0.02 as `2%`."""
    return f"{(share * 100).normalize():f}%"
