"""Static and smart lists of the simulated instance."""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Person = TypeVar("Person")


@dataclass(slots=True)
class StaticList:
    """A named static list; the members' ids are kept sorted."""

    id: int
    name: str
    members: list[int] = field(default_factory=list)

    def add(self, lead_ids: Iterable[int]) -> None:
        known = set(self.members)
        for lead_id in lead_ids:
            if lead_id not in known:
                known.add(lead_id)
                insort(self.members, lead_id)

    def remove(self, lead_ids: Iterable[int]) -> None:
        gone = set(lead_ids)
        self.members = [member for member in self.members if member not in gone]

    def page(self, after: int, size: int) -> tuple[list[int], int]:
        """The next members with an id above `after`, and how many are left beyond them."""
        start = bisect_right(self.members, after)
        page = self.members[start : start + size]
        return page, len(self.members) - start - len(page)


@dataclass(frozen=True, slots=True)
class SmartList(Generic[Person]):
    """A named question to every lead: those that it holds for are on the list, at the moment somebody asks."""

    id: int
    name: str
    holds: Callable[[Person], bool]
