"""What pulling leads once more costs: calls, time, and how much of the day's calls."""

import math
from dataclasses import dataclass
from datetime import timedelta

from syncd.core.settings import Limits

SPAN = timedelta(seconds=20)
USUAL_CALL = timedelta(seconds=1)
"""How long Marketo takes for a page, as long as nobody has measured it here."""


@dataclass(frozen=True, slots=True)
class Cost:
    """`time` is what the limits and Marketo's speed make of `calls`, and what it waits for resets where a day's calls don't do."""

    leads: int
    calls: int
    time: timedelta
    share_of_day: float
    """Of `limits.daily_calls`; above 1 it takes several days."""
    bytes: int = 0
    """Of extracts."""
    share_of_bytes: float = 0.0
    """Of `limits.export_daily_bytes`."""

    @property
    def days(self) -> int:
        """On how many quota days it makes calls, at least."""
        return max(1, math.ceil(self.share_of_day), math.ceil(self.share_of_bytes))


def cost(leads: int, windows: int, page: int, streams: int, limits: Limits, call: timedelta = USUAL_CALL) -> Cost:
    """What `leads` in `windows` cost in pages of `page` leads, when each call takes `call` and nobody else calls."""
    calls = max(windows, 1) + -(-leads // page)  # a window's last page may hold few leads, or none
    parallel = max(1, min(streams, limits.concurrency, windows))
    time = max(calls * SPAN / limits.calls_per_20s, calls * call / parallel)
    resets = (calls - 1) // limits.daily_calls
    return Cost(leads, calls, time + timedelta(days=resets), calls / limits.daily_calls)
