"""What is in flight, limits, durations → how many imports, or exports, to submit now (architecture.md, Slots)."""

import math
from datetime import datetime, timedelta


def wanted_in_flight(slots: int, running: int, look_gap: timedelta, quick_run: timedelta | None) -> int:
    """How many jobs of ours should be in Marketo's queue: no more than keeps its workers busy until the next look.

    `slots` is how many may be ours, `running` how many of those Marketo works on at a time. `look_gap` is the longest time until a
    finished job is noticed, `quick_run` how long a short job of ours runs (None while none has been seen). Strangers need the rest
    of the 10 slots.
    """
    if running == 1:
        return 1
    waiting = running if quick_run is None else max(running, math.ceil(running * look_gap / max(quick_run, timedelta(seconds=1))))
    return min(slots, running + waiting)


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
