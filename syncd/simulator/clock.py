"""The time a simulator lives in: a Protocol, and a clock that runs faster than the wall's."""

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the simulator asks of a clock."""

    def now(self) -> datetime:
        """The present, as an aware UTC datetime."""

    async def sleep(self, seconds: float) -> None:
        """Wait for so many seconds of this clock."""


class ScaledClock:
    """A clock that passes `speed` seconds for each real one, counted from `origin_unix_seconds`."""

    def __init__(self, speed: float, origin_unix_seconds: float) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be above 0, not {speed}")
        self._speed = speed
        self._origin = origin_unix_seconds

    def now(self) -> datetime:
        """The present of this clock, in UTC."""
        return datetime.fromtimestamp(self._origin + (time.time() - self._origin) * self._speed, UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of this clock: `seconds / speed` real ones."""
        await asyncio.sleep(seconds / self._speed)


def seeded(seed: int, purpose: str) -> random.Random:
    """A source of chance of its own for each purpose, so that one use never shifts another."""
    return random.Random(f"{seed}:{purpose}")  # noqa: S311 - a rehearsal must repeat, not be secret
