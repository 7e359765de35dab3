"""Ranges of calls and time: by what the queue did lately, else by what is assumed, and said so."""

from datetime import timedelta

import pytest

from syncd.core.forecast import ASSUMED, forecast
from syncd.core.settings import Limits, Push
from syncd.core.tally import Tally

PUSH = Push("contacts", flush_after=timedelta(minutes=5))
LATELY = [(timedelta(seconds=60), 10_000), (timedelta(seconds=90), 10_000)]


def files(count: int, rows: int, unfilled: int = 0) -> Tally:
    return Tally(files=count, file_rows=count * rows, rows=count * rows, unfilled=unfilled)


def test_nothing_takes_no_time() -> None:
    found = forecast(Tally(), 1, PUSH, Limits(), LATELY, 3, False)
    assert (found.import_calls, found.sync_calls, found.slots, found.time) == ((0, 0), (0, 0), 0, (timedelta(), timedelta()))


def test_files_like_the_last_ones_take_as_long_two_at_a_time_or_one() -> None:
    found = forecast(files(10, 10_000), 1, PUSH, Limits(), LATELY, 0, False)
    assert found.time[0] == 5 * timedelta(seconds=60)
    assert found.time[1] >= 10 * timedelta(seconds=90) + PUSH.flush_after
    assert found.basis == "by the 2 imports that ended last"
    assert 2 <= found.slots <= 10
    assert found.import_calls[0] == 20
    assert found.import_calls[1] > 50


def test_smaller_files_take_less_at_least_and_larger_ones_more_at_most() -> None:
    small, large = (forecast(files(2, rows), 1, PUSH, Limits(), LATELY, 0, False) for rows in (1_000, 100_000))
    assert small.time[0] == timedelta(seconds=6)
    assert large.time[1] >= 2 * timedelta(seconds=900)


def test_what_is_not_full_waits_unless_it_has_waited_already() -> None:
    assert forecast(files(1, 100, 1), 1, PUSH, Limits(), LATELY, 0, False).time[0] > PUSH.flush_after
    assert forecast(files(1, 100, 1), 1, PUSH, Limits(), LATELY, 0, True).time[0] < PUSH.flush_after


def test_without_imports_it_says_what_it_assumes() -> None:
    found = forecast(files(1, 30_000), 1, PUSH, Limits(), [], 0, False)
    assert found.basis == ASSUMED
    assert found.time[0] == timedelta(seconds=32)
    assert found.time[1] >= timedelta(seconds=660)


def test_others_files_go_first() -> None:
    alone, behind = (forecast(files(2, 10_000), 1, PUSH, Limits(), LATELY, ahead, False) for ahead in (0, 8))
    assert behind.time[1] - alone.time[1] >= 8 * timedelta(seconds=90)
    assert behind.time[0] == alone.time[0]


@pytest.mark.parametrize(("count", "most"), [(20, 20), (21, 42)])
def test_packing_pauses_far_ahead(count: int, most: int) -> None:
    assert forecast(files(count, 100_000), 1, PUSH, Limits(), LATELY, 0, False).files == (count, most)


def test_calls_of_sync_leads_are_bound_by_the_rate() -> None:
    found = forecast(Tally(rows=30_000, calls=100, cuts=3), 1, PUSH, Limits(calls_per_20s=50), [], 0, False)
    assert found.sync_calls == (100, 103)
    assert found.time[0] == timedelta(seconds=40)
