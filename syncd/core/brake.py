"""How far to slow down when Marketo says that calls come too fast or too many at once (protocol 1.6, 2), and when to speed up again.

The limits are shared with integrations that nobody tells us about: only the faults show how much of them is left for us.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

BrakeKind = Literal["pace", "concurrency"]

FLOOR = 0.1
EASES_IN = timedelta(seconds=150)  # from the floor to full
NEVER = datetime.min.replace(tzinfo=UTC)
ONE_BURST = timedelta(seconds=5)  # what was under way together is refused together, and says it only once


@dataclass(frozen=True, slots=True)
class Brake:
    """The share of a limit that is left to us, as of `since`; from then on it grows by itself."""

    left: float = 1.0
    since: datetime = NEVER

    def at(self, now: datetime) -> "Brake":
        """The brake to go on with: one of a time to come, as the clock was set back, begins to ease now."""
        return replace(self, since=now) if now < self.since else self

    def share(self, now: datetime) -> float:
        """The share allowed at `now`, from FLOOR to 1."""
        eased = (now - self.since) / EASES_IN
        return max(self.left, min(1.0, self.left + (1.0 - FLOOR) * eased))

    def pressed(self, now: datetime) -> "Brake":
        """After one more fault: half the share, once for all faults of ONE_BURST."""
        brake = self.at(now)
        if now - brake.since < ONE_BURST and brake.left < 1.0:
            return brake
        return Brake(max(FLOOR, brake.share(now) / 2), now)

    def allowed(self, limit: int, now: datetime) -> int:
        """What is left of `limit` at `now`: never more than it, never less than one."""
        return min(limit, max(1, int(limit * self.share(now))))
