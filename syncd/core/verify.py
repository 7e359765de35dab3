"""What Marketo has of a lead, beside what the mirror has of it and what pushes applied last: where they drift apart, and why."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal, get_args

from syncd.core.merge import holds
from syncd.core.mirror import Dictionary, kept, mirror_row
from syncd.core.preflight import Preflight, Refusal
from syncd.core.rules import UNKNOWN, Rules
from syncd.core.values import LeadRecord

Cause = Literal["mirror_behind", "mirror_wrong", "push_overwritten", "push_not_arrived", "missing_in_marketo", "missing_in_mirror"]
CAUSES: tuple[Cause, ...] = get_args(Cause)

WHOLE_LEAD = ""
"""The field of what is about a lead as a whole."""

BESIDE = ("updatedAt", "createdAt")
"""Fields that are asked for beside those that are compared."""

LEAST_OF_A_CALL = 0.5
"""The share of a call that must be leads of the mirror for the ids between them to be asked for with them."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the mirror has of a lead. `namesakes` says that others have its address, too: which of them a push means, nobody knows."""

    values: Mapping[str, Any]
    changed_at: datetime
    pulls: frozenset[str]
    """Those that have told of it."""
    deleted: bool = False
    namesakes: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What Marketo has of it."""

    values: Mapping[str, Any]
    updated_at: datetime | None = None
    """The visible one, which not every field moves (protocol 3.1)."""
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A change that may have written to the lead. `fields` is its jsonb's text; of those `erased` the values are not kept any more."""

    id: int
    place: int
    push: str
    key: str
    fields: str
    state: str
    erased: Sequence[str] | None
    sent_at: datetime
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class Sender:
    """What is known of a push. `clears` says that an empty value is sure to clear its field."""

    lookup_field: str
    checks: Preflight
    rules: Rules
    clears: bool = True


@dataclass(frozen=True, slots=True)
class Owned:
    """What was applied last of a field; None cleared it."""

    cell: str | None
    kind: str
    sent_at: datetime
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class Coverage:
    """What pulls are to bring: their `fields`, and up to which update time (`brought_to`) they have brought it."""

    fields: Mapping[str, frozenset[str]]
    brought_to: Mapping[str, datetime] = field(default_factory=dict)
    since: Mapping[str, datetime] = field(default_factory=dict)
    """Of those that let in every lead that was updated since then."""

    def known(self, pulls: Iterable[str]) -> frozenset[str]:
        """The fields that the mirror tells of, for a lead that these pulls have told of; the address comes with every lead."""
        return frozenset({"email"}).union(*(self.fields.get(pull, frozenset()) for pull in pulls))

    def selecting(self, created_at: datetime | None) -> list[str]:
        """The pulls that must have a lead that was created then; one that began later may never have seen it updated."""
        return [] if created_at is None else [pull for pull, since in self.since.items() if since <= created_at]

    def has_brought(self, pulls: Iterable[str], moment: datetime) -> bool:
        """Whether one of the pulls has brought all that was updated before `moment`."""
        return any(pull in self.brought_to and self.brought_to[pull] >= moment for pull in pulls)

    def is_past(self, moment: datetime) -> bool:
        """Whether all pulls have."""
        return all(pull in self.brought_to and self.brought_to[pull] >= moment for pull in self.fields)


@dataclass(frozen=True, slots=True)
class Differences:
    """Of one lead: whether one side lacks it, the fields of which the mirror has another value, and those that pushes set otherwise."""

    lead: Literal["missing_in_marketo", "missing_in_mirror"] | None = None
    mirror: tuple[str, ...] = ()
    pushes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.lead is not None or bool(self.mirror or self.pushes)


def compare(held: Held | None, read: Read | None, owned: Mapping[str, Owned], coverage: Coverage) -> Differences:
    """How what is held and owned of a lead differs from what was read."""
    in_mirror = held is not None and not held.deleted
    if read is None:
        return Differences("missing_in_marketo") if in_mirror else Differences()
    if held is None or held.deleted:
        lacks = held is not None or bool(coverage.selecting(read.created_at))
        return Differences("missing_in_mirror") if lacks else Differences()
    known = coverage.known(held.pulls)
    return Differences(
        mirror=tuple(sorted(name for name in known if not _same(held.values.get(name), read.values.get(name)))),
        pushes=tuple(sorted(name for name, own in owned.items() if not _arrived(own, read.values.get(name)))),
    )


def causes(
    found: Differences,
    held: Held | None,
    read: Read | None,
    owned: Mapping[str, Owned],
    coverage: Coverage,
    seen_at: datetime,
    moved: bool,
    told: Mapping[str, datetime] | None,
) -> list[tuple[Cause, str]]:
    """Why, by cause and field, of a lead that differed when Marketo was asked for it at `seen_at`, and differs still.

    `moved` says that Marketo answered otherwise then. `told` is when the mirror's history last told of each field; None where none is kept.
    """
    if found.lead == "missing_in_mirror" and held is None:
        assert read is not None, "it is there at Marketo's"
        behind = moved or not coverage.has_brought(coverage.selecting(read.created_at), seen_at)
        return [("mirror_behind" if behind else "missing_in_mirror", WHOLE_LEAD)]
    if found.lead is not None:
        return [(found.lead, WHOLE_LEAD)]
    assert held is not None, "both sides have it"
    assert read is not None, "both sides have it"
    drift: list[tuple[Cause, str]] = []
    for name in found.mirror:
        bring = [pull for pull in held.pulls if name == "email" or name in coverage.fields.get(pull, ())]
        drift.append(("mirror_behind" if moved or not coverage.has_brought(bring, seen_at) else "mirror_wrong", name))
    for name in found.pushes:
        since = _changed_since(name, owned[name], held, read, coverage, told)
        drift.append(("push_overwritten" if since else "push_not_arrived", name))
    return drift


def _changed_since(name: str, own: Owned, held: Held, read: Read, coverage: Coverage, told: Mapping[str, datetime] | None) -> bool:
    """Whether the field was changed by somebody since we sent it.

    Where a pull brings it, the mirror says so: it has told of the field since, or has still another value than Marketo. Else only
    the lead's own time of update can.
    """
    if name not in coverage.known(held.pulls):
        return read.updated_at is not None and read.updated_at > own.settled_at
    if not _same(held.values.get(name), read.values.get(name)):
        return True
    last = held.changed_at if told is None else told.get(name)
    return last is not None and last > own.sent_at


def owned_of(changes: Iterable[Settled], senders: Mapping[str, Sender], on_the_way: Iterable[str]) -> dict[str, Owned]:
    """What the changes of one lead applied last, by field, as it was sent; without what nobody can tell, and what is on its way again."""
    owned: dict[str, Owned] = {}
    for change in sorted(changes, key=lambda change: (change.place, change.id)):
        sender = senders[change.push]
        names, cells = _sent(change, sender)
        for name in names:
            owned.pop(name, None)
        kinds = sender.checks.kinds
        for name, cell in cells.items():
            if cell is not None or sender.clears:
                owned[name] = Owned(cell, kinds.get(name, ""), change.sent_at, change.settled_at)
    for name in on_the_way:
        owned.pop(name, None)
    return owned


def _sent(change: Settled, sender: Sender) -> tuple[Iterable[str], Mapping[str, str | None]]:
    """The fields that a change set, and its cells as they were sent; none where that can't be told."""
    if change.erased is not None:
        return change.erased, {}
    fields: dict[str, Any] = json.loads(change.fields, parse_int=str, parse_float=str)
    mended = sender.checks.spelled(fields)
    cells = {mended.get(name, name): _cell(value) for name, value in fields.items()}
    cells.pop(sender.lookup_field, None)
    ruled = sender.rules.narrow(cells, UNKNOWN)
    judged = sender.checks.judge(change.key.strip(" \t\r\n"), ruled)
    if change.state == "unverified" or isinstance(judged, Refusal):
        return ruled, {}
    # what the mirror knew then, nobody can tell
    return ruled, {name: cell for name, cell in judged.items() if name not in sender.rules.of_marketo}


def _cell(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else str(value).lower()


def read_of(lead: LeadRecord, dictionary: Dictionary) -> Read:
    """A lead of leads.json, in the mirror's form."""
    row = mirror_row(lead, dictionary)
    values = values_of(row.email, row.attributes, row.misfits)
    updated_at, created_at = (_moment(values.get(name)) for name in BESIDE)
    return Read(values, updated_at, created_at)


def values_of(email: str | None, attributes: str, misfits: str | None) -> dict[str, Any]:
    """The values of a row of the mirror, numbers as Decimal."""
    values: dict[str, Any] = json.loads(attributes, parse_int=Decimal, parse_float=Decimal)
    values |= json.loads(misfits or "{}", parse_int=Decimal, parse_float=Decimal)
    return values if email is None else values | {"email": email}


def digest_of(read: Read | None, names: Iterable[str]) -> bytes:
    """By which a lead is known that Marketo tells otherwise the next time."""
    told = None if read is None else [[name, _text(read.values.get(name))] for name in sorted(names)]
    return blake2b(json.dumps(told).encode(), digest_size=16).digest()


def together(ids: Sequence[int], after: int, most: int) -> Sequence[int]:
    """What to ask for at once of the mirror's next `ids` behind `after`: with the ids between them where there are few. Their leads may
    be there at Marketo's, and missing here."""
    if not ids:
        return ()
    first = after + 1 if after else ids[0]
    reach = bisect_left(ids, first + most)
    if reach < len(ids) and reach < LEAST_OF_A_CALL * most:
        return ids[:most]
    return range(first, ids[reach - 1] + 1)


def _same(held: Any, read: Any) -> bool:
    """Where only a reply tells the type, SOAP may say "integer" and REST writes a text; and an extract writes `null` for nothing."""
    if held == read or (held in (None, "null") and read in (None, "null")):
        return True
    return type(held) is not type(read) and None not in (held, read) and _text(held) == _text(read)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value).lower()


def _arrived(own: Owned, value: Any) -> bool:
    """Of a value that only Marketo knows the form of, nobody can say that it has not."""
    return holds(value, own.cell, own.kind) or bool(own.cell and kept(own.cell, own.kind) is None)


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
