"""The activity log: what happened to leads, in the order of its dates, and committed now and then too late (protocol section 3.2)."""

import heapq
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from syncd.simulator.clock import seeded
from syncd.simulator.settings import ActivityModel

NEW_LEAD: Final = 12
VALUE_CHANGE: Final = 13
SCORE_CHANGE: Final = 22
MERGE: Final = 32
DELETION: Final = 37
SCORE: Final = "leadScore"
"""The one field whose changes are activities of their own."""
_DAY = 86_400

Place = tuple[int, int]
"""(unix second of the activity's date, its id): unique, and the order in which the log is read."""
Change = tuple[str, str | None, str | None]
"""A field's key, its old and its new value; None for none."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One entry. `at` is its date in unix seconds; it shows from the moment `committed` on."""

    id: int
    type: int
    lead_id: int
    at: int
    committed: float
    name: str = ""
    """The lead's name, where the entry tells of the lead as a whole."""
    changes: tuple[Change, ...] = ()
    merged: tuple[int, ...] = ()

    @property
    def place(self) -> Place:
        return self.at, self.id


class ActivityLog:
    """Everything since the simulator's start. What was written to a lead waits here until the lead is touched: that dates it."""

    def __init__(self, model: ActivityModel, seed: int) -> None:
        self._model = model
        self._chance = seeded(seed, "late activities")
        self._by_type: dict[int, list[Activity]] = {}
        self._last_id = 0
        self._born: set[int] = set()
        self._waiting: dict[int, dict[str, tuple[str | None, str | None]]] = {}

    def born(self, lead_id: int) -> None:
        """A lead is there; the values it is born with are no changes."""
        self._born.add(lead_id)

    def wrote(self, lead_id: int, key: str, old: str | None, new: str | None) -> None:
        """A field of a lead got another value."""
        if lead_id not in self._born:
            waiting = self._waiting.setdefault(lead_id, {})
            waiting[key] = (waiting[key][0] if key in waiting else old, new)

    def touched(self, lead_id: int, at: int, now: float) -> None:
        """The lead's update time moved to `at`: log its birth, or what was written to it since the last time."""
        if lead_id in self._born:
            self._born.discard(lead_id)
            self._add(NEW_LEAD, lead_id, at, now)
        written = self._waiting.pop(lead_id, {})
        changes = [(key, old, new) for key, (old, new) in written.items() if old != new]
        if others := tuple(change for change in changes if change[0] != SCORE):
            self._add(VALUE_CHANGE, lead_id, at, now, changes=others)
        if score := tuple(change for change in changes if change[0] == SCORE):
            self._add(SCORE_CHANGE, lead_id, at, now, changes=score)

    def deleted(self, lead_id: int, name: str, now: float) -> None:
        """A lead is gone."""
        self.forget(lead_id)
        self._add(DELETION, lead_id, int(now), now, name=name)

    def merged(self, winner_id: int, name: str, loser_ids: Iterable[int], now: float) -> None:
        """The losers are gone into the winner."""
        self._add(MERGE, winner_id, int(now), now, name=name, merged=tuple(loser_ids))

    def forget(self, lead_id: int) -> None:
        """Drop what waits to be dated for a lead that is gone."""
        self._born.discard(lead_id)
        self._waiting.pop(lead_id, None)

    def after(self, place: Place, types: Iterable[int], now: float) -> Iterator[Activity]:
        """The committed entries of these types behind a place, as of `now` (unix seconds); those too old are pruned."""
        return heapq.merge(*(self._of_type(each, place, now) for each in set(types)), key=lambda entry: entry.place)

    def end(self, now: float) -> Place:
        """The place behind everything dated until now, be it committed or not: who goes on from here never sees what comes late."""
        return int(now), self._last_id

    def __len__(self) -> int:
        return sum(map(len, self._by_type.values()))

    def _of_type(self, kind: int, place: Place, now: float) -> Iterator[Activity]:
        entries = self._by_type.get(kind, [])
        kept_days = self._model.deletions_kept_days if kind == DELETION else self._model.kept_days
        oldest = (int(now - kept_days * _DAY), 0)
        if entries and entries[0].place < oldest:
            del entries[: bisect_right(entries, oldest, key=lambda entry: entry.place)]
        start = bisect_right(entries, place, key=lambda entry: entry.place)
        return (entries[each] for each in range(start, len(entries)) if entries[each].committed <= now)

    def _add(
        self,
        kind: int,
        lead_id: int,
        at: int,
        now: float,
        *,
        name: str = "",
        changes: tuple[Change, ...] = (),
        merged: tuple[int, ...] = (),
    ) -> None:
        self._last_id += 1
        late = self._chance.uniform(0.0, self._model.late_seconds) if self._chance.random() < self._model.late_share else 0.0
        entry = Activity(self._last_id, kind, lead_id, at, max(now, at) + late, name, changes, merged)
        entries = self._by_type.setdefault(kind, [])
        if not entries or entries[-1].place < entry.place:
            entries.append(entry)
        else:
            insort(entries, entry, key=lambda each: each.place)
