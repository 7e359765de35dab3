"""Pages of one window, the next ones asked for while this one is written (decisions.md, early next request)."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")

OnPosition = Callable[[str | None, int], None]

AHEAD = 2
"""Pages asked for before the current one has been read to its end; more was slower, and used more memory."""


class Pages(Generic[T]):
    """Hands out the pages of a stream in their order. After a fault it is of no more use: the ones behind are discarded."""

    def __init__(self, fetch: Callable[[str | None, OnPosition], Coroutine[Any, Any, T]], position: str | None) -> None:
        self._fetch = fetch
        self._under_way: deque[asyncio.Task[T]] = deque()
        self._next: str | None = None
        self._start(position)

    async def next(self) -> T:
        """The next page; raises the Fault that its request met. Not to be called after the last one."""
        page = await self._under_way[0]
        self._under_way.popleft()
        if self._next is not None:
            self._start(self._next)
        return page

    async def close(self) -> None:
        """Discard what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()

    def _start(self, position: str | None) -> None:
        self._next = None
        self._under_way.append(asyncio.create_task(self._fetch(position, self._known)))

    def _known(self, position: str | None, remaining: int) -> None:
        """The reply has told where the next page begins, before its records."""
        if not position or remaining == 0:
            return
        if len(self._under_way) <= AHEAD:
            self._start(position)
        else:
            self._next = position
