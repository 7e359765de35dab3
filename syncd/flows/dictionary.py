"""Describe's dictionary, asked for once a day (protocol 3.3: fields come and go at any time)."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from syncd.core.clock import Clock
from syncd.core.faults import Fault
from syncd.core.mirror import Dictionary
from syncd.core.values import Field

FRESH_FOR = timedelta(days=1)
ASK_AGAIN_AFTER = timedelta(minutes=10)


class Dictionaries:
    """The dictionary of one instance. Without REST there is none, and fields keep the names of their source."""

    def __init__(self, describe: Callable[[], Awaitable[Sequence[Field]]] | None, clock: Clock) -> None:
        self._describe = describe
        self._clock = clock
        self._ask_at: datetime | None = None
        self._soap = Dictionary({})
        self._asking = asyncio.Lock()

    async def soap(self) -> Dictionary:
        """The dictionary for SOAP names; yesterday's will do for as long as Marketo gives no other. Raises Fault without any."""
        async with self._asking:
            now = self._clock.now()
            if self._describe is not None and (self._ask_at is None or self._ask_at <= now):
                try:
                    self._soap = Dictionary.of_soap(await self._describe())
                    self._ask_at = now + FRESH_FOR
                except Fault:
                    if self._ask_at is None:
                        raise
                    self._ask_at = now + ASK_AGAIN_AFTER
        return self._soap
