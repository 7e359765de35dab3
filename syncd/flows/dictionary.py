"""Describe's dictionary, asked for once a day (protocol 3.3: fields come and go at any time)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from syncd.core.clock import Clock
from syncd.core.mirror import Dictionary
from syncd.core.values import Field

FRESH_FOR = timedelta(days=1)


class Dictionaries:
    """The dictionary of one instance. Without REST there is none, and fields keep the names of their source."""

    def __init__(self, describe: Callable[[], Awaitable[Sequence[Field]]] | None, clock: Clock) -> None:
        self._describe = describe
        self._clock = clock
        self._asked_at: datetime | None = None
        self._soap = Dictionary({})
        self._asking = asyncio.Lock()

    async def soap(self) -> Dictionary:
        """The dictionary for SOAP names. Raises Fault when it must be asked for and can't be."""
        async with self._asking:
            now = self._clock.now()
            if self._describe is not None and (self._asked_at is None or now - self._asked_at > FRESH_FOR):
                self._soap = Dictionary.of_soap(await self._describe())
                self._asked_at = now
        return self._soap
