"""What went wrong lately, for the status page: the latest warnings and errors of this process, alike ones as one."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from structlog.typing import EventDict, WrappedLogger

from syncd.core.clock import Clock
from syncd.ops.events import remedy_of

KEPT = 100
SUBJECTS = ("pull", "push", "flow", "endpoint", "api", "field", "kind")
SAID_BY = ("fault", "reason", "error", "message")


@dataclass(frozen=True, slots=True)
class Trouble:
    """`about` says which pull, push or flow; `times` how often it was told since the start."""

    at: datetime
    level: str
    event: str
    instance: str | None
    about: str
    said: str
    remedy: str
    times: int = 1


class Recent:
    """A processor of structlog that passes on what it sees."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._troubles: OrderedDict[tuple[str, str | None, str], Trouble] = OrderedDict()

    def __call__(self, _: WrappedLogger, level: str, event: EventDict) -> EventDict:
        if level in ("warning", "error", "critical", "exception"):
            self._note(level, event)
        return event

    def of(self, instance: str | None) -> Sequence[Trouble]:
        """Those of an instance, or of none, the newest first."""
        return [each for each in reversed(self._troubles.values()) if each.instance == instance]

    def _note(self, level: str, event: EventDict) -> None:
        name, instance = str(event["event"]), event.get("instance")
        about = next((f"{subject} {event[subject]}" for subject in SUBJECTS if event.get(subject)), "")
        said = next((str(event[key]) for key in SAID_BY if event.get(key)), "")
        before = self._troubles.pop((name, instance, about), None)
        times = 1 if before is None else before.times + 1
        remedy = str(event.get("remedy") or remedy_of(name))
        self._troubles[name, instance, about] = Trouble(self._clock.now(), level, name, instance, about, said, remedy, times)
        while len(self._troubles) > KEPT:
            self._troubles.popitem(last=False)
