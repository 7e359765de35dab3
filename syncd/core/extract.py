"""How much to ask for by one extract, so that the day's bytes last (protocol 3.1), and which fields in which order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import orjson

from syncd.core.windows import SECOND, Window, floor_second

WIDEST = timedelta(days=31) - SECOND
"""Both ends are inclusive, and above 31 days Marketo refuses."""

BEGINNING = datetime(2006, 1, 1, tzinfo=UTC)
"""No lead of Marketo's is older."""

LONGEST_LIST = 7_000
"""Characters of the JSON text of `fields`: somewhat longer ones have been cut [seen]."""

PROBE = timedelta(days=1)
"""The window of a pull of whose leads nothing is known yet."""

GROWTH = 8
"""How many times as wide as any before a window may be: how dense leads lie there is a guess."""

LATEST = 3
WHOLE, PIECE = 0.8, 0.5
"""Of the bytes left, as much as the whole window may be thought to have, and what else to cut it to: windows come out larger than
thought, and what they leave the next ones get."""

WORTH = 100
"""A piece of less than a hundredth of the day's bytes is not worth an export."""

TELLING_FIELDS = 5
"""With fewer fields, too many exports have the same order of them for it to tell whose a file is."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a window came out as; `span` is None for a list."""

    leads: int
    bytes: int
    span: timedelta | None


@dataclass(frozen=True, slots=True)
class Learned:
    """What to expect of a pull's windows. `widest` is the widest that was seen; of a list, `typical` is how many bytes it has."""

    bytes_per_lead: float
    leads_per_second: float
    widest: timedelta
    typical: int

    def bytes_of(self, span: timedelta | None) -> int:
        """How many bytes a window of that width probably has, or somewhat less: few leads may as well be twice as many."""
        if span is None:
            return self.typical
        leads = span.total_seconds() * self.leads_per_second
        return math.ceil((leads + 2 * math.sqrt(leads)) * self.bytes_per_lead)

    def span_of(self, size: float) -> timedelta:
        """How wide a window of so many bytes probably is, a second at least."""
        per_second = self.leads_per_second * self.bytes_per_lead
        if per_second <= 0:
            return WIDEST
        return timedelta(seconds=max(1, int(min(size / per_second, WIDEST.total_seconds()))))


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for `window`, of `rest` later; `estimate` is None while nothing is known."""

    window: Window | None
    rest: Window | None
    estimate: int | None


def learn(seen: Sequence[Seen]) -> Learned | None:
    """What windows, the latest first, tell about those to come: on the average or lately, whichever is more. None of none."""
    if not seen:
        return None
    leads, size = sum(one.leads for one in seen), sum(one.bytes for one in seen)
    spans = [(one.leads, one.span.total_seconds()) for one in seen if one.span is not None]
    densities = [sum(n for n, _ in some) / max(1.0, sum(s for _, s in some)) for some in (spans, spans[:LATEST]) if some]
    return Learned(
        bytes_per_lead=size / max(1, leads),
        leads_per_second=max(densities, default=0.0),
        widest=max((one.span for one in seen if one.span is not None), default=timedelta()),
        typical=max(one.bytes for one in seen[:LATEST]),
    )


def ask(window: Window | None, learned: Learned | None, left: int, daily: int) -> Ask | None:
    """How much of an open window to ask for now, with `left` of the day's bytes; None when nothing of it is worth it before the reset.

    A list can't be shared, nor can a second: what is larger than a day's bytes has a day of its own.
    """
    if left <= 0:
        return None
    fresh = left >= 0.9 * daily
    if window is None:
        estimate = learned.typical if learned is not None else None
        return Ask(None, None, estimate) if fresh or estimate is None or estimate <= left else None
    span = window.ends_at - window.starts_at
    if learned is None:
        return _cut(window, min(span, PROBE), None) if left * WORTH >= daily else None
    width = min(span, WIDEST, max(PROBE, GROWTH * learned.widest))
    if learned.bytes_of(width) > WHOLE * left:
        if left * WORTH < daily:
            return None
        width = min(width, learned.span_of(PIECE * left))
        if learned.bytes_of(width) > left and not fresh:
            return None
    return _cut(window, width, learned)


def _cut(window: Window, width: timedelta, learned: Learned | None) -> Ask:
    middle = floor_second(window.starts_at + max(SECOND, width))
    if middle >= window.ends_at:
        return Ask(window, None, learned.bytes_of(window.ends_at - window.starts_at) if learned else None)
    cut = Window(window.starts_at, middle)
    return Ask(cut, Window(middle, window.ends_at), learned.bytes_of(middle - window.starts_at) if learned else None)


def days(size: float, daily: int) -> int:
    """On how many quota days so many bytes can be had."""
    return max(1, math.ceil(size / max(1, daily)))


def in_order(fields: Sequence[str], export: int) -> list[str]:
    """The fields in an order of this export's own: the header of its file tells whose it is."""
    return sorted(fields, key=lambda name: blake2b(f"{export} {name}".encode(), digest_size=8).digest())


def in_parts(fields: Sequence[str], always: Sequence[str] = ("id", "email")) -> list[list[str]]:
    """The fields as single exports may ask for them, each with those `always` wanted."""
    shortest = sum(map(_length, always)) + 1
    parts, left = [list(always)], LONGEST_LIST - shortest
    for name in fields:
        if name in always:
            continue
        if _length(name) >= left and len(parts[-1]) > len(always):
            parts.append(list(always))
            left = LONGEST_LIST - shortest
        parts[-1].append(name)
        left -= _length(name)
    return parts


def _length(name: str) -> int:
    return len(orjson.dumps(name).decode()) + 1
