"""What each way costs, on numbers that can be followed by hand."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.price import DAY, by_extract, by_ids, by_soap, bytes_per_lead
from syncd.core.settings import Limits

LIMITS = Limits(calls_per_20s=50, daily_calls=30_000, export_daily_bytes=500_000_000)


def test_a_row_weighs_its_id_its_address_and_half_filled_fields() -> None:
    assert bytes_per_lead([]) == 8 + 1 + 24 + 1
    assert bytes_per_lead(["date"]) == 34 + (10 + 4) // 2 + 1
    assert bytes_per_lead(["date", "string"]) == 34 + 8 + (14 + 4) // 2 + 1


def test_an_extract_waits_for_the_bytes_of_other_days() -> None:
    price = by_extract(3_000_000, 10, 400, LIMITS)
    assert (price.bytes, price.calls) == (1_200_000_000, 60)
    assert price.time == timedelta(minutes=15) + 2 * DAY, "500 MB today, 500 tomorrow, 200 the day after"


def test_ids_are_light_and_cost_a_call_per_300() -> None:
    price = by_ids(3_000_000, 10, LIMITS)
    assert (price.bytes, price.calls) == (27_000_000, 60 + 10_000)
    assert price.time == 10_060 * timedelta(seconds=20) / 50, "50 calls in 20 s, all of one day"


def test_soap_takes_a_call_per_300_and_window() -> None:
    price = by_soap(3_000_000, 132, LIMITS, 4)
    assert (price.bytes, price.calls) == (0, 10_132)
    assert price.time == 10_132 * timedelta(seconds=20) / 50 + 10_132 * timedelta(seconds=1) / 4


@given(st.integers(0, 10**9), st.integers(1, 500), st.integers(1, 10**5))
def test_no_way_is_free_and_more_never_costs_less(leads: int, windows: int, each: int) -> None:
    for less, more in (
        (by_extract(leads, windows, each, LIMITS), by_extract(leads + 1, windows, each, LIMITS)),
        (by_ids(leads, windows, LIMITS), by_ids(leads + 1, windows, LIMITS)),
        (by_soap(leads, windows, LIMITS, 4), by_soap(leads + 1, windows, LIMITS, 4)),
    ):
        assert less.calls > 0
        assert (less.bytes, less.calls, less.time) <= (more.bytes, more.calls, more.time)
