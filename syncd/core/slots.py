"""What is in flight, limits, durations, refusals → how many imports, or exports, to submit now (architecture.md, Slots)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

PROBE_AFTER = timedelta(seconds=5)
PROBE_AT_MOST_AFTER = timedelta(seconds=30)
GROW_AFTER = timedelta(minutes=2)
GROW_AT_MOST_AFTER = timedelta(minutes=15)


def wanted_in_flight(slots: int, running: int, look_gap: timedelta, runs: Sequence[timedelta]) -> int:
    """How many jobs of ours should be in Marketo's queue: no more than keeps its workers busy until the next look.

    `slots` is how many may be ours, `running` how many of those Marketo works on at a time. `look_gap` is the longest time until a
    finished job is noticed, `runs` what the latest jobs of ours took, in their order. Strangers need the rest of the 10 slots.
    """
    if running == 1:
        return 1
    return min(slots, running + max(running, 1 + most_in(runs, running * look_gap)))


def most_in(runs: Sequence[timedelta], span: timedelta) -> int:
    """The most jobs that came one after the other and took no longer than `span` together."""
    most = first = 0
    together = timedelta()
    for last, run in enumerate(runs):
        together += run
        while together > span:
            together -= runs[first]
            first += 1
        most = max(most, last + 1 - first)
    return most


@dataclass(frozen=True, slots=True)
class Room:
    """How much of the queue strangers leave to us, by what Marketo answered: nothing else tells of them.

    `limit` is how many of ours fit beside them, None while they were not met; `refusals` are 1016s in a row. Nothing is sent before
    `not_before`, and one more than `limit` is not tried before `grow_at`, which comes later the more often that was in vain.
    """

    limit: int | None = None
    refusals: int = 0
    not_before: datetime | None = None
    grow_at: datetime | None = None
    grow_after: timedelta = GROW_AFTER

    @property
    def probing(self) -> bool:
        """Whether the next POST may well be refused: the smallest chunk finds out as well as any."""
        return self.refusals > 0

    def refused(self, in_flight: int, running: int, now: datetime, jitter: float) -> "Room":
        """1016: give way. Ours that are in flight keep their places; fewer follow, but as many as Marketo works on at a time."""
        refusals = self.refusals + 1
        wait = min(PROBE_AFTER * (1 << min(refusals - 1, 8)), PROBE_AT_MOST_AFTER) * (0.75 + jitter / 2)
        met = self.limit is not None and self.refusals == 0
        grow_after = min(self.grow_after * 2, GROW_AT_MOST_AFTER) if met else self.grow_after
        return Room(max(min(running, self.limit or running), in_flight - 1, 1), refusals, now + wait, now + grow_after, grow_after)

    def accepted(self) -> "Room":
        """There was a place."""
        return replace(self, refusals=0, not_before=None)

    def looked(self, wanted: int, in_flight: int, ours_running: int, running: int, now: datetime) -> "Room":
        """Learn from the queue: when all its workers work for us and nothing of ours waits, they would idle next but for strangers."""
        if self.limit is None:
            return self
        if self.limit >= wanted and not self.refusals:
            return Room()
        if in_flight <= running <= ours_running and self.limit <= running:
            return replace(self, limit=self.limit + running, not_before=None)
        if self.grow_at is not None and self.grow_at <= now:
            return replace(self, limit=self.limit + 1, grow_at=now + self.grow_after)
        return self

    def free(self, wanted: int, in_flight: int) -> int:
        """How many more to send now, of the `wanted` in flight."""
        return (wanted if self.limit is None else min(wanted, self.limit)) - in_flight


def is_absent(
    submitted_at: datetime, later_finished_at: datetime | None, longest_run: timedelta, now: datetime, give_up_after: timedelta
) -> bool:
    """Whether a job that got no answer never came to exist, as far as anybody can know.

    The queue is FIFO: when a job that was submitted after it has finished, and the longest run seen has passed since, it would
    have finished too. Without one, `give_up_after` its submission (architecture.md, unconfirmed → absent).
    """
    if later_finished_at is not None and later_finished_at + longest_run <= now:
        return True
    return submitted_at + give_up_after <= now
