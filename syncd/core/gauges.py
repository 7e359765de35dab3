"""What the database says of an instance at a moment, as gauges show it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

SLOTS = 10
"""Marketo's import queue, for all integrations together (protocol 4)."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Slots that others held when Marketo last told of them: `seen_at`, by a full queue or by a place that we got since."""

    slots: int
    seen_at: datetime


def strangers(ours_when_full: int, full_at: datetime, ours_when_taken: int | None, taken_at: datetime | None) -> Strangers:
    """What a 1016 with so many of ours in the queue says, and a place that we got after it, when so many were ours with it."""
    then = max(0, SLOTS - ours_when_full)
    if ours_when_taken is None or taken_at is None:
        return Strangers(then, full_at)
    return Strangers(max(0, min(then, SLOTS - ours_when_taken)), taken_at)


@dataclass(frozen=True, slots=True)
class Gauges:
    """States and times by pull and push; `live` and `failures` are changes by push and state."""

    pulls: Mapping[str, str] = field(default_factory=dict)
    watermarks: Mapping[str, datetime] = field(default_factory=dict)
    windows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    pushes: Mapping[str, str] = field(default_factory=dict)
    live: Mapping[tuple[str, str], int] = field(default_factory=dict)
    oldest_pending: Mapping[str, datetime] = field(default_factory=dict)
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    """Changes that errors of triggers have lost, by each push that follows a table."""
    slots: Mapping[str, int] = field(default_factory=dict)
    """Of ours, by the job's state."""
    strangers: int = 0
    calls: Mapping[str, int] = field(default_factory=dict)
    """Of the quota day, by API, as charged."""
