"""What a pending change sets, cell by cell, or why it goes into no row: numbers keep their digits, null and '' clear."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from syncd.core.batching import COMPANY_FIELDS, Number, Truth
from syncd.core.preflight import Preflight, Refusal, waiting_for
from syncd.core.rules import UNKNOWN, Known, Rules, Stopped
from syncd.core.settings import ClearWith, Format

_EXACT = json.JSONDecoder(parse_int=Number, parse_float=Number)  # no number loses a digit
_TRUE, _FALSE = Truth("true"), Truth("false")

Cells = dict[str, str | None]
"""What a change, or the row of a key, sets; None clears."""


class PendingChange(NamedTuple):
    """A claimed row of the outbox. `fields` is the jsonb's text, so that no number loses a digit."""

    id: int
    key: str
    key_norm: str
    fields: str
    overwritten: frozenset[str] = frozenset()
    """Fields that a later change has set already; they are not set again."""
    place: int | None = None
    """Its place among the changes of its key: a retry has the one of the change that it retries; None: its id."""
    lacks: str | None = None
    """The field that it was parked for: describe has been asked for it anew since."""


def place_of(change: PendingChange) -> int:
    """Which of two changes of a key comes later."""
    return change.id if change.place is None else change.place


@dataclass(frozen=True, slots=True)
class Target:
    """What a push packs for. `envelope_bytes` is what multipart adds around the file.

    `list_id` says that files add to a list. `by_sync`: nothing goes into files, but all into sync batches.
    """

    lookup_field: str
    format: Format
    max_body_bytes: int
    envelope_bytes: int
    clear_with: ClearWith = "sync"
    list_id: int | None = None
    by_sync: bool = False
    ids: Mapping[str, int] = field(default_factory=dict)
    """Keys → the leads that records and rows are to name by their ids instead."""
    checks: Preflight | None = None
    """None: nothing is checked against describe."""
    rules: Rules | None = None
    known: Mapping[str, Known] = field(default_factory=dict)
    """What the mirror knows of the leads of the keys, as far as rules need it."""

    @property
    def max_file_bytes(self) -> int:
        return self.max_body_bytes - self.envelope_bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a change goes into no row."""

    state: Literal["superseded", "rejected", "parked", "noop"]
    reason: str
    lacks: str | None = None


def trimmed(key: str) -> str:
    """The key as it is sent: without the blanks that the outbox's `key_norm` leaves out, and no others."""
    return key.strip(" \t\r\n")


def cells_of(change: PendingChange, target: Target) -> Cells | Verdict:
    """What it sets, checked and mended, or why it goes into no row."""
    if not change.key_norm:
        return Verdict("rejected", f"the key is empty: it must be a value of {target.lookup_field}")
    try:
        fields = _decoded(change.fields)
    except RecursionError:
        return Verdict("rejected", "its values are nested deeper than any field's")
    overwritten, checks = change.overwritten, target.checks
    if checks is not None and checks.mends_spelling:
        fields = _spelled(fields, checks)
        overwritten = frozenset(_spelled(dict.fromkeys(overwritten), checks))
    cleared = None if target.by_sync else _CLEARS[target.clear_with]
    cells: Cells = {}
    for name, value in fields.items():
        if overwritten and name in overwritten and name != target.lookup_field:
            continue
        kind = type(value)
        if kind is str:
            cells[name] = value or cleared
        elif kind is int:
            cells[name] = Number(value)
        elif kind is bool:
            cells[name] = _TRUE if value else _FALSE
        elif value is None:
            cells[name] = cleared
        elif kind is Number:
            cells[name] = value
        else:
            return Verdict("rejected", f"the value of {name} is no text, number or boolean")
    own_key = cells.pop(target.lookup_field, None)
    if own_key is not None and trimmed(own_key).lower() != trimmed(change.key).lower():
        return Verdict("rejected", f"its {target.lookup_field} differs from its key, by which the lead is looked up")
    if cells and target.rules is not None:
        ruled = target.rules.apply(cells, target.known.get(change.key_norm, UNKNOWN), (None, _CLEARS[target.clear_with]))
        if isinstance(ruled, Stopped):
            return Verdict(ruled.state, ruled.reason)
        cells = ruled
    if None in cells.values() and target.clear_with == "sync" and (reason := _not_to_be_cleared(cells, target)) is not None:
        return Verdict("parked", reason)
    if cells:
        return cells if checks is None else _judged(change, cells, checks)
    if change.overwritten:
        return Verdict("superseded", "later changes set its fields again")
    return Verdict("rejected", "it sets no field")


def _decoded(text: str) -> dict[str, Any]:
    """The fields of a change; numbers are `int`, or `Number` where there are any that floats or 64 bits can't tell by their digits."""
    try:
        fields: dict[str, Any] = orjson.loads(text)
    except orjson.JSONDecodeError:  # nested too deep for it, maybe
        fields = _EXACT.decode(text)
    else:
        if float in map(type, fields.values()):
            fields = _EXACT.decode(text)
    return fields


def _spelled(fields: dict[str, Any], checks: Preflight) -> dict[str, Any]:
    mended = checks.spelled(fields)
    return {mended.get(name, name): value for name, value in fields.items()} if mended else fields


def _judged(change: PendingChange, cells: Cells, checks: Preflight) -> Cells | Verdict:
    judged = checks.judge(trimmed(change.key), cells, change.lacks)
    if not isinstance(judged, Refusal):
        return judged
    if judged.lacks is None:
        return Verdict("rejected", judged.reason)
    return Verdict("parked", waiting_for(judged, checks.vanished), judged.lacks)


_CLEARS: Mapping[ClearWith, str | None] = {"sync": None, "blank": "", "NULL": "NULL"}


def _not_to_be_cleared(cells: Cells, target: Target) -> str | None:
    """Why a change that clears can't go by Sync Leads (protocol 4)."""
    cleared = ", ".join(sorted(name for name, value in cells.items() if value is None))
    company = ", ".join(sorted(COMPANY_FIELDS & cells.keys()))
    way = "set clear_with, if you know how this instance reads the cells of a file,"
    if target.list_id is not None:
        return f"it clears {cleared} by Sync Leads, which does not add to a list: {way} or clear by a push without list_id"
    if company:
        return f"it clears {cleared} by Sync Leads, which does not write fields of companies ({company}): {way} or enqueue these apart"
    return None
