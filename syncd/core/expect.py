"""When something is expected to end, by what was seen of its like."""

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta

LOOKS_BACK = timedelta(hours=1)


def walk_end(now: datetime, left: int, done: int, took: timedelta) -> datetime | None:
    """When `left` more will be done, at the pace of `done` in `took`; None when there is nothing to tell it by."""
    if left <= 0 or done <= 0 or took <= timedelta():
        return None
    return now + took * (left / done)


def queue_ends(begun: Sequence[datetime | None], run: timedelta | None, running: int, now: datetime) -> list[datetime | None]:
    """When jobs of one queue will have ended, in its order; `begun` says when each was seen to run, None of those that wait.

    Each takes `run`, and as many as `running` go at a time. One that takes longer than that may end at any moment.
    """
    if run is None:
        return [None for _ in begun]
    workers = [now for _ in range(max(0, running - sum(at is not None for at in begun)))]
    ends: list[datetime | None] = [None if at is None else max(now, at + run) for at in begun]
    heapq.heapify(workers := [*workers, *(end for end in ends if end is not None)])
    for number, at in enumerate(begun):
        if at is None:
            ends[number] = end = max(now, heapq.heappop(workers)) + run
            heapq.heappush(workers, end)
    return ends
