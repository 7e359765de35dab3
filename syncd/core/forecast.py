"""What a plan's files and calls take of the queue, of the day's calls and of time, from the least to the most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from syncd.core.batching import GATHER
from syncd.core.cost import SPAN, USUAL_CALL
from syncd.core.polling import gap, median, noticed_within
from syncd.core.settings import Limits, Push
from syncd.core.slots import wanted_in_flight
from syncd.core.tally import Tally

QUICK, SLOW = (timedelta(seconds=2), 1_000), (timedelta(seconds=60), 50)
"""How long a file takes at least and at most, and rows a second, as long as no import has shown it here."""
ASSUMED = "no import has ended here yet: files are assumed to take from 2 s and 1,000 rows a second to 60 s and 50 rows a second"
SLOW_CALL = 3 * USUAL_CALL
RESULTS = 2
"""Calls for a job's files of failures and warnings."""
STEPS = timedelta(seconds=10)
"""What the daemon's own looks, a second apart, add."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Ranges, each from the least to the most. `basis` says what the times go by."""

    import_calls: tuple[int, int]
    sync_calls: tuple[int, int]
    files: tuple[int, int]
    slots: int
    time: tuple[timedelta, timedelta]
    basis: str


def forecast(
    tally: Tally, rounds: int, push: Push, limits: Limits, lately: Sequence[tuple[timedelta, int]], ahead: int, opened: bool
) -> Forecast:
    """By how long the jobs ran `lately`, of how many rows each. `ahead` files go before; `opened`: some chunk has been filling already."""
    runs = [run for run, _ in lately]
    typical = median(runs)
    least, most = _run_of(tally, lately)
    notice = noticed_within(push.poll, typical)
    files = (tally.files, _files_at_most(tally, limits))
    looks = 2 + math.ceil(most / gap(push.poll, typical))
    sync = (tally.calls, tally.calls + tally.cuts)
    waits = push.flush_after if (tally.unfilled or tally.rare) and not opened else timedelta()
    importing = least * math.ceil(files[0] / limits.import_running)
    soonest = max(importing, waits + (least if tally.unfilled else timedelta()), sync[0] * SPAN / limits.calls_per_20s)
    settling = (most + notice) * (files[1] + (ahead if files[1] else 0))
    latest = settling + sync[1] * (SLOW_CALL + SPAN / limits.calls_per_20s) + rounds * (push.flush_after + GATHER + STEPS)
    slots = min(files[0], wanted_in_flight(limits.import_slots, limits.import_running, notice, runs))
    basis = f"by the {len(lately)} imports that ended last" if lately else ASSUMED
    calls = (2 * files[0], (1 + looks + RESULTS) * files[1])
    nothing = not (tally.files or tally.calls)
    return Forecast(calls, sync, files, slots, (timedelta(), timedelta()) if nothing else (soonest, max(soonest, latest)), basis)


def _run_of(tally: Tally, lately: Sequence[tuple[timedelta, int]]) -> tuple[timedelta, timedelta]:
    """How long a file of this plan runs, by what is known of larger and of smaller ones."""
    rows = tally.file_rows / tally.files if tally.files else 0.0
    if not lately:
        return QUICK[0] + timedelta(seconds=rows / QUICK[1]), SLOW[0] + timedelta(seconds=rows / SLOW[1])
    shares = [(run, rows / max(1, size)) for run, size in lately]
    return min(run * min(1.0, share) for run, share in shares), max(run * max(1.0, share) for run, share in shares)


def _files_at_most(tally: Tally, limits: Limits) -> int:
    """Packing pauses where that many are sealed ahead (flows/push.py); what is half full then goes as it is after `flush_after`."""
    return tally.files if tally.files <= 2 * limits.import_slots else 2 * tally.files
