"""Before a slot is spent: a change's cells against describe. What Marketo would refuse or cut is rejected, or mended if the YAML says so.

A field that was never described is looked for once more before it is refused; for one that has vanished its changes wait.
"""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TypeVar

from syncd.core.drift import KnownField
from syncd.core.settings import Mend

Check = Callable[[str], str]
"""A value → the value as it is to be sent. Raises UnfitError."""

V = TypeVar("V", str, str | None)

LONGEST_NAME = 255
"""Characters: Marketo has no longer names."""

ASKED_ONCE_MORE = ": describe is asked once more before it is rejected"
"""What the reason of a change has more, as long as it waits for that."""

MOST_PLANS = 10_000
"""Column sets that are remembered; nullable columns make thousands."""

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,1000}").fullmatch
_DECIMAL = re.compile(r"[+-]?([0-9]{1,1000}(\.[0-9]{0,1000})?|\.[0-9]{1,1000})([eE][+-]?[0-9]{1,3})?").fullmatch
_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?(\.[0-9]{1,9})?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"
).fullmatch
_EXACT = Context(prec=3000)
_BOOLEANS = frozenset({"true", "false", "1", "0"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a change is not sent. `lacks` is the field that it waits for; None: it can only be rejected."""

    reason: str
    lacks: str | None = None


class UnfitError(Exception):
    """A value does not fit its field; the text says why, and never holds the value."""


class Preflight:
    """What describe's dictionary lets one push send. Made once for each answer of describe: what can be is worked out ahead."""

    def __init__(self, fields: Iterable[KnownField], lookup_field: str, mend: Mend) -> None:
        described = {field.rest_name: field for field in fields if field.rest_name is not None and field.data_type is not None}
        self._fields = {name: field for name, field in described.items() if not field.vanished}
        self.vanished = frozenset(described) - frozenset(self._fields)
        self.kinds: Mapping[str, str] = {name: str(field.data_type) for name, field in self._fields.items()}
        """REST name → dataType, as describe lists them now."""
        self._lookup_field = lookup_field
        self.mends_spelling = mend.spelling == "mend"
        self._by_case: dict[str, list[str]] = {}
        for name in self._fields:
            self._by_case.setdefault(name.casefold(), []).append(name)
        self._by_soap_name = {field.soap_name: name for name, field in self._fields.items()}
        self._checks = {name: _check_of(field, mend) for name, field in self._fields.items() if not field.read_only}
        key = self._fields.get(lookup_field)
        # A key is never mended: it would be another lead's.
        self._check_key = None if key is None else _check_of(key, Mend())
        self._plans: dict[tuple[str, ...], Sequence[Check] | Refusal] = {}

    def spelled(self, names: Collection[str]) -> dict[str, str]:
        """The names that are mended, with the spelling of describe; none where the YAML does not say so."""
        if not self.mends_spelling:
            return {}
        mended = {name: right for name in names if name not in self._fields and (right := self._but_for_case(name)) is not None}
        # Which of two spellings in one change is meant, nobody can tell.
        return {name: right for name, right in mended.items() if right not in names and list(mended.values()).count(right) == 1}

    def judge(self, key: str, cells: dict[str, V], asked_for: str | None = None) -> dict[str, V] | Refusal:
        """The cells as they are to be sent, or why they aren't. Cells without a value clear their field.

        `asked_for` is the field for which describe was asked anew since the change came: if it still is not there, there is none.
        """
        if self._lookup_field in self.vanished:
            return self._gone(self._lookup_field)
        names = tuple(cells)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan(names)
        if isinstance(plan, Refusal):
            return Refusal(plan.reason) if plan.lacks == asked_for and asked_for not in self.vanished else plan
        mended = cells
        name = self._lookup_field
        try:
            if self._check_key is not None:
                self._check_key(key)
            for name, check, value in zip(names, plan, cells.values(), strict=True):
                if value and (sent := check(value)) is not value:
                    mended = {**mended, name: sent}
        except UnfitError as error:
            return Refusal(f"{name} {error}")
        return mended

    def _plan(self, names: tuple[str, ...]) -> Sequence[Check] | Refusal:
        """What is to be done for a column set."""
        plan: Sequence[Check] | Refusal = [self._checks[name] for name in names if name in self._checks]
        refusals = [self._refusal(name) for name in names if name not in self._checks]
        if refusals:
            # What can never be sent goes first: there is nothing to wait for.
            plan = min(refusals, key=lambda refusal: refusal.lacks is not None)
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[names] = plan
        return plan

    def _refusal(self, name: str) -> Refusal:
        if name in self._fields:
            return Refusal(f"{name} is read-only in Marketo")
        if name in self.vanished:
            return self._gone(name)
        right = self._but_for_case(name)
        if right is not None:
            return Refusal(f"describe spells {name} as {right}")
        if len(name) > LONGEST_NAME:
            return Refusal(f"no field has a name as long as {name[:20]}…")
        near = self._by_soap_name.get(name) or next(iter(difflib.get_close_matches(name, self._fields, n=1)), None)
        return Refusal(f"describe does not know the field {name}" + (f"; did you mean {near}?" if near else ""), name)

    def _gone(self, name: str) -> Refusal:
        return Refusal(f"the field {name} has vanished from Marketo: it goes when the field is back", name)

    def _but_for_case(self, name: str) -> str | None:
        same = self._by_case.get(name.casefold(), ())
        return same[0] if len(same) == 1 and name not in self.vanished else None


def waiting_for(refusal: Refusal, vanished: Collection[str]) -> str:
    """What a change that is set aside is told."""
    if refusal.lacks in vanished:
        return refusal.reason
    return refusal.reason + ASKED_ONCE_MORE


def _check_of(field: KnownField, mend: Mend) -> Check:
    match field.data_type:
        case "integer" | "score":
            return _rounded if mend.decimals == "round" else _whole
        case "float" | "currency" | "percent":
            return _decimal
        case "boolean":
            return _boolean
        case "date":
            return _date
        case "datetime":
            return _datetime
        case "email":
            return _ascii_only(_text(field.length, mend))
        case _:
            return _text(field.length, mend)


def _whole(value: str) -> str:
    if _WHOLE(value.strip()):
        return value
    raise UnfitError("takes whole numbers only" if _DECIMAL(value.strip()) else "is no number")


def _rounded(value: str) -> str:
    text = value.strip()
    if _WHOLE(text):
        return value
    if not _DECIMAL(text):
        raise UnfitError("is no number")
    return f"{_EXACT.add(Decimal(text).quantize(Decimal(1), ROUND_HALF_UP, _EXACT), Decimal()):f}"  # without the sign of -0


def _decimal(value: str) -> str:
    if _DECIMAL(value.strip()):
        return value
    raise UnfitError("is no number")


def _boolean(value: str) -> str:
    if value in _BOOLEANS or value.strip().lower() in _BOOLEANS:
        return value
    raise UnfitError("is no boolean: true, false, 1 or 0")


def _date(value: str) -> str:
    text = value.strip()
    try:
        if _DATE(text) and date.fromisoformat(text):
            return value
    except ValueError:
        pass
    raise UnfitError("is no date: YYYY-MM-DD")


def _datetime(value: str) -> str:
    text = value.strip()
    try:
        if _MOMENT(text) and datetime.fromisoformat(text):
            return value
    except ValueError:
        pass
    raise UnfitError("is no time such as 2026-01-31T12:00:00Z")


def _ascii_only(check: Check) -> Check:
    def address(value: str) -> str:
        if not value.isascii():
            raise UnfitError("has characters outside ASCII")
        return check(value)

    return address


def _text(length: int | None, mend: Mend) -> Check:
    longest = length or 2**31
    strips, cuts = mend.astral == "strip", mend.length == "cut"

    def text(value: str) -> str:
        if value.isascii():
            if len(value) <= longest:
                return value
        elif _ASTRAL.search(value):
            if not strips:
                raise UnfitError("has characters outside the Basic Multilingual Plane, such as emoji: Marketo would cut it there")
            value = _ASTRAL.sub("", value)
            if not value.strip():
                raise UnfitError("has nothing but characters outside the Basic Multilingual Plane, such as emoji")
        if len(value) <= longest:
            return value
        if not cuts:
            raise UnfitError(f"has {len(value):,} characters: Marketo takes {longest:,}")
        return value[:longest]

    return text
