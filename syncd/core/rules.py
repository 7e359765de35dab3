"""What of a change may be sent by the rules of its push, and by what the mirror knows of its lead."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from syncd.core.settings import Push

Cells = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Known:
    """What the mirror knows of the leads of a key. `deleted`: there are some, and Marketo has none of them any more."""

    deleted: bool = False
    has: frozenset[str] = frozenset()
    """The fields of which one that lives has a value."""
    lead_id: int | None = None
    """One that lives; told where a push may only update."""
    several: bool = False


UNKNOWN = Known()


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a change is not sent."""

    state: Literal["noop", "rejected"]
    reason: str


ALL_DROPPED = Stopped("noop", "every field dropped by a rule")
DELETED = Stopped("noop", "its lead is deleted in Marketo, and would be created again (deleted_in_marketo: skip)")
NO_LEAD = Stopped("noop", "no lead with this key in the mirror (mode: update_only)")
SEVERAL = Stopped("rejected", "several leads have this key: which one to update, nobody can tell (mode: update_only)")


class Rules:
    """The rules of one push."""

    def __init__(self, push: Push) -> None:
        self.skips_deleted = push.deleted_in_marketo == "skip"
        self.only_updates = push.mode == "update_only"
        self.of_marketo = frozenset(name for name, rule in push.rules.items() if rule.owner == "marketo")
        """Fields whose values are left alone."""
        self._only_set = frozenset(name for name, rule in push.rules.items() if rule.only_set)
        self._never = {name: frozenset(map(_plain, rule.never)) for name, rule in push.rules.items() if rule.never}
        self._named = self.of_marketo | self._only_set | self._never.keys()

    def apply(self, cells: Cells, known: Known, cleared: Collection[str | None] = (None,)) -> Cells | Stopped:
        """The cells that are to be sent, or why none are. A cell that is one of `cleared` clears its field."""
        if known.deleted and self.skips_deleted:
            return DELETED
        if self.only_updates and (known.lead_id is None or known.several):
            return SEVERAL if known.several else NO_LEAD
        return self.narrow(cells, known, cleared) or ALL_DROPPED

    def narrow(self, cells: Cells, known: Known, cleared: Collection[str | None] = (None,)) -> Cells:
        """The cells that the fields' rules let pass."""
        if self._named.isdisjoint(cells):
            return cells
        return {name: cell for name, cell in cells.items() if self._lets_pass(name, cell, known, cleared)}

    def _lets_pass(self, name: str, cell: str | None, known: Known, cleared: Collection[str | None]) -> bool:
        if cell in cleared:
            return name not in self._only_set and name not in known.has & self.of_marketo
        return _plain(cell) not in self._never.get(name, ()) and name not in known.has & self.of_marketo


def _plain(cell: str | None) -> str:
    """A value in the form in which two spellings of it are one: a false that is written 0, or False, re-subscribes as well."""
    text = (cell or "").strip().lower()
    return {"0": "false", "1": "true"}.get(text, text)
