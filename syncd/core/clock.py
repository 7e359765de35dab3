"""The Protocol through which flows and edges are given time. The clocks themselves live in `ops/clock.py`."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """Time as syncd sees it. In a rehearsal it may run faster than the wall's (`--speed`)."""

    @property
    def speed(self) -> float:
        """How many seconds of this clock pass in one real second."""

    def now(self) -> datetime:
        """The time now, aware, UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of this clock."""
