"""What a field had before our imports: by what we sent, by what the mirror saw come, and by what it has now.

A value goes back only where the last that we sent is what stands, and the mirror saw it come. Whatever anybody has set since stays.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

from syncd.core.batching import COMPANY_FIELDS
from syncd.core.merge import holds
from syncd.core.mirror import kept
from syncd.core.preflight import Refusal
from syncd.core.rules import UNKNOWN, Known
from syncd.core.settings import Push
from syncd.core.verify import Coverage, Sender, Settled

Reason = Literal[
    "changed", "set_since", "on_the_way", "not_seen", "same", "created", "no_lead", "deleted", "several", "not_pulled", "pruned",
    "erased", "unclear", "ruled", "unfit",
]  # fmt: skip
REASONS: Mapping[Reason, str] = {
    "changed": "have another value by now: somebody has changed them since, or ours never arrived",
    "set_since": "were set again since by another change of ours",
    "on_the_way": "are set by a change of ours that still waits, is held, or is on its way",
    "not_seen": "no pull has come past the import yet: revert again after the next one",
    "same": "had that value before, or have it back already",
    "created": "the lead was first seen after our import, which most likely created it: deleting is not reverting",
    "no_lead": "the mirror has no lead with this key",
    "deleted": "the lead is deleted in Marketo",
    "several": "several leads have this key: whose value it was, nobody can tell",
    "not_pulled": "no pull brings the field, so that nobody knows what it had",
    "pruned": "they were sent before the history of the mirror begins (history)",
    "erased": "the values that we sent are no longer kept (keep.payloads), or were about a person who is forgotten",
    "unclear": "another change of ours went just before, and no pull saw its value",
    "ruled": "a rule of the push forbids the value of before",
    "unfit": "Marketo would not take the value of before from this push",
}
"""Why a value is left as it is."""


NOOP, ECHO = "noop", "echo"
"""How a change ends that is not sent; by an echo Marketo had its values already."""
NOT_SENT = (NOOP, ECHO)
_SaidBy = dict[str, tuple[str | None, bool, bool]]
"""By field: the cell, whether it is known, and whether it went."""
_NO_SAY = (None, False, False)
MOST_SAID = 10_000
_AS_WRITTEN = json.JSONDecoder(parse_int=str, parse_float=str)
_AS_KEPT = json.JSONDecoder(parse_int=Decimal, parse_float=Decimal)


@dataclass(frozen=True, slots=True)
class Sent(Settled):
    """A change as it is known once it has ended. It was sent for the last time at `sent_at`, and before `first_at` it was not."""

    first_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """The mirror saw a field change; JSON texts, None for no value."""

    seen_at: datetime
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What the mirror has of the one lead that a key finds: JSON texts of the fields that it has, and how they changed lately."""

    lead_id: int
    values: Mapping[str, str]
    first_seen_at: datetime
    asked_at: datetime
    pulls: frozenset[str]
    lines: Mapping[str, Sequence[Line]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frame:
    """What is to be reverted: what a push sent from `since` and before `until`, of the `fields` (None: all)."""

    push: Push
    since: datetime
    until: datetime
    fields: frozenset[str] | None
    history_from: datetime
    senders: Mapping[str, Sender]
    coverage: Coverage
    said: dict[tuple[object, ...], "_SaidBy"] = field(default_factory=dict, compare=False, repr=False)
    """What changes with the same fields say, which most of an import have."""

    def covers(self, change: Sent) -> bool:
        """Whether the change is one of those."""
        return change.push == self.push.name and self.since <= change.sent_at < self.until

    @property
    def sender(self) -> Sender:
        """What is known of the push itself."""
        return self.senders[self.push.name]


@dataclass(frozen=True, slots=True)
class Before:
    """The value to be put back (a JSON text; None clears), in the place of the change that is reverted."""

    place: int
    value: str | None


@dataclass(frozen=True, slots=True)
class _Said:
    """What one change said of one field: `went`, it was sent; `known`, as this cell. What is neither has no say, but a place."""

    place: int
    id: int
    first_at: datetime
    sent_at: datetime
    settled_at: datetime
    cell: str | None
    known: bool
    went: bool


def revert(
    frame: Frame, changes: Sequence[Sent], lead: Found | Reason, on_the_way: Collection[str]
) -> tuple[dict[str, Before], dict[str, Reason]]:
    """Of one key, by field: what is to be put back, and why the rest is left. `changes` are all of ours that are about its lead."""
    ours, others = _by_field(frame, filter(frame.covers, changes)), _by_field(frame, (c for c in changes if not frame.covers(c)))
    sent = {name: said for name, said in ours.items() if any(each.went for each in said)}
    first_at = min((each.first_at for said in sent.values() for each in said if each.went), default=frame.until)
    known = frozenset() if isinstance(lead, str) else frame.coverage.known(lead.pulls)
    before: dict[str, Before] = {}
    left: dict[str, Reason] = {}
    for name, said in sent.items():
        if isinstance(lead, str):
            left[name] = lead
        elif name in on_the_way:
            left[name] = "on_the_way"
        elif name not in known:
            left[name] = "not_pulled"
        elif name in frame.sender.rules.of_marketo:
            left[name] = "ruled"
        elif isinstance(frame.sender.checks.judge(_any_key(frame.sender), {name: None}), Refusal):
            left[name] = "unfit"
        elif lead.first_seen_at >= first_at:
            left[name] = "created"
        else:
            found = _of_field(frame, name, said, others.get(name, ()), lead)
            if isinstance(found, Before):
                before[name] = found
            else:
                left[name] = found
    return before, left


def fields_of(before: Mapping[str, Before]) -> list[tuple[int, str]]:
    """The changes that put values back: their places, and their fields as JSON texts.

    A change has one place, so that of each field what came after it stays. Sync Leads, which clears, writes no fields of companies.
    """
    groups: dict[tuple[int, bool], dict[str, str]] = {}
    for name, each in sorted(before.items()):
        groups.setdefault((each.place, name in COMPANY_FIELDS), {})[name] = each.value or "null"
    for place, _ in list(groups):
        own, company = groups.get((place, False)), groups.get((place, True))
        if own is not None and company is not None and "null" not in own.values():
            own.update(groups.pop((place, True)))
    return [
        (place, f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in own.items())}}}")
        for (place, _), own in sorted(groups.items())
    ]


def names_of(frame: Frame, change: Sent) -> set[str]:
    """The fields that a change sets or clears, so far as they are meant."""
    return set(_said_by(frame, change))


def _of_field(frame: Frame, name: str, ours: Sequence[_Said], others: Sequence[_Said], lead: Found) -> Before | Reason:
    sends = sorted((each for each in ours if each.went or each.known), key=lambda each: (each.place, each.id))
    place, last = max(each.place for each in ours), sends[-1]
    if any(each.place > place or ((each.went or each.known) and each.sent_at > last.sent_at) for each in others):
        return "set_since"
    if not all(each.known for each in sends):
        return "erased"
    if min(each.first_at for each in sends) < frame.history_from:
        return "pruned"
    kind = frame.sender.checks.kinds.get(name, "")
    if not _stands(_parsed(lead.values.get(name)), last.cell, kind):
        return "changed" if _seen(frame, name, last, lead) else "not_seen"
    back = _walked_back(lead.lines.get(name, ()), sends, kind)
    if not isinstance(back, tuple):
        return back
    line, latest = back
    if _parsed(line.old) == _parsed(lead.values.get(name)):
        return "same"
    if _unclear(line, latest, others, lead.lines.get(name, ()), kind):
        return "unclear"
    return _sendable(frame, name, line.old, lead) or Before(place, line.old)


def _walked_back(lines: Sequence[Line], sends: Sequence[_Said], kind: str) -> tuple[Line, _Said] | Reason:
    """The line by which the first of our values came that have stood without a break, and the last change that this may have been."""
    came: list[_Said | None] = []
    done = -1
    lines = [line for line in lines if line.seen_at >= min(each.first_at for each in sends)]
    for line in lines:
        new = _parsed(line.new)
        hits = [
            number
            for number, each in enumerate(sends)
            if number > done and each.went and each.first_at <= line.seen_at and _stands(new, each.cell, kind)
        ]
        done = max(hits, default=done)
        came.append(sends[done] if hits else None)
    if not lines:
        return "same"
    at = len(lines) - 1
    latest = came[at]
    if latest is None:
        return "changed"
    while at > 0 and (earlier := came[at - 1]) is not None and lines[at].old == lines[at - 1].new:
        at, latest = at - 1, earlier
    return lines[at], latest


def _unclear(line: Line, latest: _Said, others: Sequence[_Said], lines: Sequence[Line], kind: str) -> bool:
    """Whether what the mirror had before may have been overtaken by another change of ours that it never saw."""
    before = [each for each in others if (each.went or each.known) and each.sent_at <= latest.sent_at]
    if not before:
        return False
    other = max(before, key=lambda each: (each.sent_at, each.place))
    if other.known and _stands(_parsed(line.old), other.cell, kind):
        return False
    return not any(other.sent_at <= each.seen_at < line.seen_at for each in lines)


def _sendable(frame: Frame, name: str, value: str | None, lead: Found) -> Reason | None:
    """Why the value of before can't be sent; None when it can."""
    cell, sender, push = _cell(_parsed(value)), frame.sender, frame.push
    if not sender.rules.narrow({name: cell}, Known(has=frozenset({name} & lead.values.keys()))):
        return "ruled"
    if cell is None and push.clear_with == "sync" and (push.list_id is not None or name in COMPANY_FIELDS):
        return "unfit"
    return "unfit" if isinstance(sender.checks.judge(_any_key(sender), {name: cell}), Refusal) else None


def _seen(frame: Frame, name: str, last: _Said, lead: Found) -> bool:
    """Whether the pulls have come past the change: then the mirror has what became of it."""
    bring = [pull for pull in lead.pulls if name == "email" or name in frame.coverage.fields.get(pull, ())]
    return frame.coverage.has_brought(bring, last.settled_at) or (len(bring) == len(lead.pulls) and lead.asked_at >= last.settled_at)


def _by_field(frame: Frame, changes: Iterable[Sent]) -> dict[str, list[_Said]]:
    found: dict[str, list[_Said]] = {}
    for change in changes:
        for name, (cell, known, went) in _said_by(frame, change).items():
            found.setdefault(name, []).append(
                _Said(change.place, change.id, change.first_at, change.sent_at, change.settled_at, cell, known, went)
            )
    return found


def _said_by(frame: Frame, change: Sent) -> _SaidBy:
    key = (change.push, change.state, change.fields, *(change.erased or ()))
    said = frame.said.get(key)
    if said is None:
        if len(frame.said) >= MOST_SAID:
            frame.said.clear()
        said = frame.said[key] = _read(frame, change)
    return said


def _read(frame: Frame, change: Sent) -> _SaidBy:
    went, sender = change.state not in NOT_SENT, frame.senders.get(change.push)
    if change.erased is not None or sender is None:
        names = change.erased if change.erased is not None else json.loads(change.fields)
        return {name: (None, False, went) for name in names if _is_meant(frame, name)}
    fields: dict[str, Any] = _AS_WRITTEN.decode(change.fields)
    mended = sender.checks.spelled(fields)
    cells = {mended.get(name, name): _cell(value) for name, value in fields.items()}
    cells = {name: cell for name, cell in cells.items() if _is_meant(frame, name)}
    said: _SaidBy = dict.fromkeys(cells, _NO_SAY)
    if change.state == NOOP:
        return said
    for name, cell in sender.rules.narrow(cells, UNKNOWN).items():
        judged = sender.checks.judge(_any_key(sender), {name: cell})
        said[name] = (None, False, went) if isinstance(judged, Refusal) else (judged[name], True, went)
    return said


def _is_meant(frame: Frame, name: str) -> bool:
    return name not in ("id", frame.push.lookup_field) and (frame.fields is None or name in frame.fields)


def _any_key(sender: Sender) -> str:
    """The keys have been sent before: they are not judged again."""
    return "1" if sender.lookup_field == "id" else "a@example.com"


def _stands(value: Any, cell: str | None, kind: str) -> bool:
    """Whether a value of the mirror is what the cell set; where only a reply tells the form, by its text."""
    if holds(value, cell, kind):
        return True
    return bool(cell) and value is not None and kept(cell or "", kind) is None and _cell(value) == cell


@lru_cache(maxsize=MOST_SAID)
def _parsed(text: str | None) -> Any:
    return None if text is None else _AS_KEPT.decode(text)


def _cell(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value).lower()
