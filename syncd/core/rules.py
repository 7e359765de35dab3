"""What of a change may be sent by the rules of its push, and by what the mirror knows of its lead."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from syncd.core.settings import Push

ALL_DROPPED = "every field dropped by a rule"
DELETED = "its lead is deleted in Marketo, and would be created again (deleted_in_marketo: skip)"


@dataclass(frozen=True, slots=True)
class Known:
    """What the mirror knows of the leads of a key. `deleted`: there are some, and Marketo has none of them any more."""

    deleted: bool = False
    has: frozenset[str] = frozenset()
    """The fields of which one that lives has a value."""


UNKNOWN = Known()


class Rules:
    """The rules of one push."""

    def __init__(self, push: Push) -> None:
        self.skips_deleted = push.deleted_in_marketo == "skip"
        self.of_marketo = frozenset(name for name, rule in push.rules.items() if rule.owner == "marketo")
        """Fields whose values are left alone."""
        self._only_set = frozenset(name for name, rule in push.rules.items() if rule.only_set)
        self._never = {name: frozenset(map(_plain, rule.never)) for name, rule in push.rules.items() if rule.never}

    def apply(
        self, cells: Mapping[str, str | None], known: Known, cleared: Collection[str | None] = (None,)
    ) -> dict[str, str | None] | str:
        """The cells that are to be sent, or why the change comes to nothing. A cell that is one of `cleared` clears its field."""
        if known.deleted and self.skips_deleted:
            return DELETED
        left = {name: cell for name, cell in cells.items() if self._lets_pass(name, cell, known, cleared)}
        return left or ALL_DROPPED

    def _lets_pass(self, name: str, cell: str | None, known: Known, cleared: Collection[str | None]) -> bool:
        if cell in cleared:
            return name not in self._only_set and name not in known.has & self.of_marketo
        return _plain(cell) not in self._never.get(name, ()) and name not in known.has & self.of_marketo


def _plain(cell: str | None) -> str:
    """A value in the form in which two spellings of it are one: a false that is written 0, or False, re-subscribes as well."""
    text = (cell or "").strip().lower()
    return {"0": "false", "1": "true"}.get(text, text)
