"""Inbound against outbound: a change that tells Marketo what it has told us is an echo, and is not sent (architecture.md, Noop)."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

import orjson

from syncd.core.mirror import kept

ECHO = "Marketo has these values already: it was asked after the last change of this key had settled"


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What the mirror has of the one lead that a key finds."""

    key_norm: str
    lead_id: int
    asked_at: datetime
    pulls: tuple[str, ...]
    """Those that have told of the lead."""
    values: Mapping[str, Any]
    """Of the fields that the key's changes set: numbers as Decimal, None where there is no value."""


class Waiting(Protocol):
    """A change that waits to be packed (core/pack.py)."""

    @property
    def key_norm(self) -> str: ...
    @property
    def fields(self) -> str: ...
    @property
    def place(self) -> int | None: ...


class Mirror:
    """The mirror as far as a claim asks it."""

    def __init__(self, leads: Iterable[Mirrored], owned: Mapping[str, frozenset[str]], kinds: Mapping[str, str]) -> None:
        """`owned` says which fields each pull asks for, `kinds` of which dataType they are."""
        self.leads = {lead.key_norm: lead for lead in leads}
        self._owned = owned
        self._kinds = kinds
        self._common: dict[tuple[str, ...], frozenset[str]] = {}

    def has(self, key_norm: str, cells: Mapping[str, str | None]) -> bool:
        """Whether the lead of that key has all these values; a cell without one asks that there be none."""
        lead = self.leads.get(key_norm)
        if lead is None:
            return False
        asked, values, kinds = self._asked_by_all(lead.pulls), lead.values, self._kinds
        return all(name in asked and name in values and holds(values[name], cell, kinds.get(name, "")) for name, cell in cells.items())

    def candidates(self, changes: Iterable[Waiting], lookup_field: str) -> list[Mirrored]:
        """The leads whose changes, taken together, seem to be echoes: only of these is it worth asking when they were last changed."""
        waiting: defaultdict[str, list[Waiting]] = defaultdict(list)
        for change in changes:
            if change.key_norm in self.leads:
                waiting[change.key_norm].append(change)
        return [self.leads[key] for key, own in waiting.items() if self.has(key, _cells_of(own, lookup_field))]

    def only(self, keys: Iterable[str]) -> "Mirror":
        """The same of fewer keys."""
        return Mirror((self.leads[key] for key in keys), self._owned, self._kinds)

    def _asked_by_all(self, pulls: tuple[str, ...]) -> frozenset[str]:
        """The row says when the last of them asked, not which: what each of them asks for was told then."""
        common = self._common.get(pulls)
        if common is None:
            owned = [self._owned.get(pull, frozenset()) for pull in pulls]
            common = self._common[pulls] = frozenset.intersection(*owned) if owned else frozenset()
        return common


def _cells_of(changes: Sequence[Waiting], lookup_field: str) -> dict[str, str | None]:
    fields: dict[str, Any] = {}
    try:
        for change in sorted(changes, key=lambda change: change.place or 0):
            fields.update(json.loads(change.fields, parse_int=str, parse_float=str))
    except RecursionError:
        return {"": None}  # a field that there is not
    fields.pop(lookup_field, None)
    return {name: value if value is None or isinstance(value, str) else str(value).lower() for name, value in fields.items()}


def holds(value: Any, cell: str | None, data_type: str) -> bool:
    """Whether a value of the mirror's form is what the cell sets; a cell without a value asks that there be none."""
    if not cell or value is None:
        return not cell and value is None
    sent = kept(cell, data_type)
    if isinstance(sent, orjson.Fragment):
        return isinstance(value, Decimal) and Decimal(cell.strip()) == value
    return type(sent) is type(value) and sent == value
