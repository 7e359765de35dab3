"""A reading that many look at, taken no oftener than is good for who is asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

SHARE = 20
"""A reading takes one in so many seconds at most, however many look."""
WAITED_FOR = 1.0
"""Seconds, real: one that takes longer is not waited for, as long as there is an older one."""


class Paced(Generic[T]):
    """Looked up in memory while it is fresh. One that is asked for by nobody is not taken."""

    def __init__(self, read: Callable[[], Awaitable[T]], every: float, now: Callable[[], float] = time.monotonic) -> None:
        """`every`: seconds, real, that a reading counts as fresh; longer, where it takes long."""
        self._read = read
        self._every = every
        self._now = now
        self._value: tuple[T] | None = None
        self._taken = 0.0
        self._due = 0.0
        self._reading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The latest. Raises what the reading raises, when it is waited for."""
        if self._value is not None and self._now() < self._due:
            return self._value[0]
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._take())
            self._reading.add_done_callback(self._done)
        if self._value is not None and self._taken > WAITED_FOR:
            return self._value[0]
        return await asyncio.shield(self._reading)

    async def _take(self) -> T:
        began = self._now()
        value = await self._read()
        self._taken = self._now() - began
        self._value, self._due = (value,), self._now() + max(self._every, SHARE * self._taken)
        return value

    def _done(self, reading: "asyncio.Task[T]") -> None:
        self._reading = None
        if not reading.cancelled() and reading.exception() is not None:
            self._taken = 0.0  # the next one who asks is told what is wrong
