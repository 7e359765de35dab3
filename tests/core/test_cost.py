"""What a backfill costs: never less than the limits make it, and never less for more."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.cost import USUAL_CALL, cost
from syncd.core.settings import Limits

limits = st.builds(Limits, calls_per_20s=st.integers(1, 100), concurrency=st.integers(1, 10), daily_calls=st.integers(100, 50_000))
leads, windows = st.integers(0, 10**8), st.integers(0, 5_000)
page, streams = st.integers(1, 1_000), st.integers(1, 10)
call = st.timedeltas(timedelta(), timedelta(seconds=60))


def test_two_million_leads() -> None:
    found = cost(2_000_000, 122, 300, 4, Limits())
    assert (found.leads, found.calls, found.days) == (2_000_000, 122 + 6_667, 1)
    assert found.time == timedelta(seconds=6_789 * 20 / 50), "50 calls in 20 s are fewer than 4 streams of a call a second"
    assert found.share_of_day == pytest.approx(0.2263)


def test_a_day_s_calls_that_do_not_do() -> None:
    tight = Limits(daily_calls=100)
    assert cost(0, 100, 300, 4, tight).days == 1
    assert cost(0, 100, 300, 4, tight).time < timedelta(days=1)
    assert cost(0, 101, 300, 4, tight).days == 2
    assert cost(0, 101, 300, 4, tight).time > timedelta(days=1)
    assert cost(0, 200, 300, 4, tight).time < timedelta(days=2), "the second day's calls are just enough"


@given(leads, windows, page, streams, limits, call)
def test_it_is_never_below_what_the_limits_allow(
    leads: int, windows: int, page: int, streams: int, limits: Limits, call: timedelta
) -> None:
    found = cost(leads, windows, page, streams, limits, call)
    assert found.calls * page >= leads
    assert found.calls >= windows
    assert found.time >= found.calls * timedelta(seconds=20) / limits.calls_per_20s
    assert found.time >= found.calls * call / min(streams, limits.concurrency)
    assert found.time >= timedelta(days=found.days - 1)
    assert found.calls <= found.days * limits.daily_calls
    assert found.share_of_day == found.calls / limits.daily_calls


@given(leads, windows, page, streams, limits, call, st.integers(0, 10**6), st.integers(0, 100))
def test_more_never_costs_less(
    leads: int, windows: int, page: int, streams: int, limits: Limits, call: timedelta, further: int, other: int
) -> None:
    found = cost(leads, windows, page, streams, limits, call)
    with_more_leads = cost(leads + further, windows, page, streams, limits, call)
    assert (with_more_leads.calls, with_more_leads.time, with_more_leads.share_of_day) >= (found.calls, found.time, found.share_of_day)
    assert with_more_leads.time >= found.time
    with_more_windows = cost(leads, windows + other, page, streams, limits, call)
    assert with_more_windows.calls >= found.calls, "though it may take less time, as windows are walked beside each other"
    assert cost(leads, windows, page, streams, limits, call + USUAL_CALL).time >= found.time
    assert cost(leads, windows, page + 1, streams, limits, call).calls <= found.calls
    assert cost(leads, windows, page, streams + 1, limits, call).time <= found.time


@given(page, streams, limits, st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_the_calls_do_for_any_spread_of_the_leads(page: int, streams: int, limits: Limits, spread: list[int]) -> None:
    needed = sum(max(1, math.ceil(count / page)) for count in spread)
    assert cost(sum(spread), len(spread), page, streams, limits).calls >= needed
