"""Leads in the order of their updates, so that a page costs what the page holds."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

UpdateKey = tuple[int, int]
"""(unix second of the update, lead id): unique, and the order in which a window is read."""

_FEW = 64
_AFTER_ANY_ID = 1 << 70


class UpdateIndex:
    """A sorted list of update keys."""

    def __init__(self, keys: Iterable[UpdateKey] = ()) -> None:
        self._keys = sorted(keys)

    def replace(self, old: list[UpdateKey], new: list[UpdateKey]) -> None:
        """Take out `old`, put in `new`; rebuilt at once where there are many, one by one where there are few."""
        if len(old) + len(new) <= _FEW:
            for key in old:
                del self._keys[bisect_left(self._keys, key)]
            for key in new:
                insort(self._keys, key)
            return
        gone = set(old)
        self._keys = [key for key in self._keys if key not in gone]
        self._keys.extend(new)
        self._keys.sort()

    def page(self, oldest: int, latest: int, after: UpdateKey | None, size: int) -> tuple[list[UpdateKey], int]:
        """The next `size` keys of [oldest, latest] (unix seconds, both inclusive) after `after`, and how many are left beyond them."""
        start = bisect_left(self._keys, (oldest, 0)) if after is None else bisect_right(self._keys, after)
        end = max(start, bisect_right(self._keys, (latest, _AFTER_ANY_ID)))
        page = self._keys[start : min(end, start + size)]
        return page, end - start - len(page)
