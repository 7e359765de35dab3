"""The way of a pull: what the instance offers first, what it costs next."""

from datetime import UTC, datetime, timedelta

import pytest

from syncd.core.route import NoWay, Offers, Route, route, wants_extract
from syncd.core.settings import Limits, Pull, Source, StaticList, UpdatedSince

SINCE = UpdatedSince(datetime(2016, 1, 1, tzinfo=UTC))
LIMITS = Limits(daily_calls=30_000, export_daily_bytes=500_000_000)


def way(source: Source, offers: Offers, leads: int = 1000, each: int = 100) -> tuple[bool, bool, str]:
    chosen = route(Pull("people", source, SINCE), offers, leads, each, 132, LIMITS)
    assert chosen.reason
    return chosen.by_creation, chosen.ids_only, chosen.follows


@pytest.mark.parametrize(
    ("source", "offers", "expected"),
    [
        ("auto", Offers(), (False, False, "activities")),
        ("auto", Offers(by_update=False), (True, False, "activities")),
        ("auto", Offers(activities=False), (False, False, "windows")),
        ("bulk_extract", Offers(), (False, False, "windows")),
        ("bulk_extract", Offers(by_update=False), (True, False, "activities")),
        ("bulk_extract", Offers(activities=False), (False, False, "windows")),
        ("activities", Offers(), (False, False, "activities")),
        ("activities", Offers(by_update=False), (False, False, "activities")),
    ],
)
def test_what_is_offered(source: Source, offers: Offers, expected: tuple[bool, bool, str]) -> None:
    assert way(source, offers) == expected


@pytest.mark.parametrize(
    ("source", "offers", "remedy"),
    [
        ("activities", Offers(activities=False), "Read-Only Activity"),
        ("bulk_extract", Offers(by_update=False, activities=False), "extract filter updatedAt"),
        ("auto", Offers(by_update=False, activities=False), "extract filter updatedAt"),
    ],
)
def test_no_way_says_what_to_ask_for(source: Source, offers: Offers, remedy: str) -> None:
    with pytest.raises(NoWay, match=remedy):
        way(source, offers)


def test_few_and_narrow_leads_come_in_files_many_and_wide_ones_by_their_ids() -> None:
    assert way("auto", Offers(), 100_000, 4_000) == (False, False, "activities"), "400 MB: all in one day"
    assert way("auto", Offers(), 3_000_000, 4_000) == (False, True, "activities"), "12 GB: 24 days, or 10,000 calls"
    assert way("auto", Offers(by_update=False), 3_000_000, 4_000) == (True, True, "activities")
    assert way("auto", Offers(activities=False), 3_000_000, 4_000) == (False, True, "windows")


def test_only_auto_goes_by_price() -> None:
    assert way("bulk_extract", Offers(), 3_000_000, 4_000) == (False, False, "windows")


def test_a_list_is_extracted_whole() -> None:
    chosen = route(Pull("guests", "auto", StaticList(7)), Offers(), 10**7, 4_000, 1, LIMITS)
    assert chosen == Route(False, False, "windows", chosen.reason)


@pytest.mark.parametrize(
    ("source", "offers", "behind", "wanted"),
    [
        ("auto", Offers(), timedelta(days=1, seconds=1), True),
        ("auto", Offers(), timedelta(days=1), False),
        ("auto", Offers(activities=False), timedelta(days=9), False),
        ("auto", Offers(by_update=False), timedelta(days=9), False),
        ("activities", Offers(), timedelta(days=9), False),
    ],
)
def test_large_catch_ups_of_auto_go_by_extracts(source: Source, offers: Offers, behind: timedelta, wanted: bool) -> None:
    pull = Pull("people", source, SINCE)
    assert wants_extract(pull, route(pull, offers, 1000, 100, 132, LIMITS), behind) is wanted
