"""What a plan counts of changes, files and calls."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Fate = Literal["created", "updated", "unknown"]
"""What a row does by the mirror; `unknown` where the mirror can't tell whether there is a lead."""


@dataclass(slots=True)
class Tally:
    """What becomes of changes. Each is carried, or ends or waits for one of the reasons; the rows are what Marketo gets."""

    changes: int = 0
    carried: int = 0
    rows: int = 0
    created: int = 0
    updated: int = 0
    unknown: int = 0
    superseded: int = 0
    noop: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    files: int = 0
    file_bytes: int = 0
    file_rows: int = 0
    calls: int = 0
    """Of Sync Leads; `cuts` more at most, where a batch does not wait for the next claim."""
    cuts: int = 0
    sync_bytes: int = 0
    rare: int = 0
    """Records that wait for a file in vain before they go."""
    unfilled: int = 0
    """Files that go as they are once `flush_after` has passed."""

    def add(self, other: "Tally") -> None:
        """Count the other's as well."""
        for name in self.__slots__:
            mine, more = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + more)

    def row(self, changes: int, fate: Fate) -> None:
        """Count a row that so many changes are carried by."""
        self.rows += 1
        self.carried += changes
        setattr(self, fate, getattr(self, fate) + 1)
