"""How much to ask for, so that the day's bytes last."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.extract import LONGEST_LIST, PROBE, WIDEST, Ask, Seen, ask, days, in_order, in_parts, learn
from syncd.core.windows import SECOND, Window

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY, MB = timedelta(days=1), 1_000_000
spans = st.timedeltas(SECOND, 31 * DAY).map(lambda span: timedelta(seconds=span // SECOND))
seens = st.lists(st.builds(Seen, st.integers(0, 10**6), st.integers(0, 10**9), spans), max_size=5)


def window(span: timedelta) -> Window:
    return Window(START, START + span)


def dense(mb_a_day: float) -> list[Seen]:
    return [Seen(int(mb_a_day * 1_000), int(mb_a_day * MB), DAY)] * 4


@given(spans, seens, st.integers(-10, 600 * MB), st.integers(1, 500 * MB))
def test_what_is_asked_and_the_rest_are_the_window(span: timedelta, seen: list[Seen], left: int, daily: int) -> None:
    whole = window(span)
    asked = ask(whole, learn(seen), left, daily)
    if asked is None:
        assert left < 0.9 * daily
        return
    assert left > 0
    assert asked.window is not None
    assert asked.window.starts_at == whole.starts_at
    assert SECOND <= asked.window.ends_at - asked.window.starts_at <= WIDEST
    assert asked.rest == (None if asked.window == whole else Window(asked.window.ends_at, whole.ends_at))
    assert asked.estimate is None or asked.estimate <= left or left >= 0.9 * daily


@given(spans.filter(lambda span: span > timedelta(hours=1)), st.floats(0.001, 10**5), st.integers(1, 500))
def test_a_days_bytes_are_used_up_but_for_what_is_not_worth_an_export(span: timedelta, mb_a_day: float, megabytes: int) -> None:
    """With what was learned being true, the bytes of a day come to an end after a few windows, or the windows do."""
    daily = megabytes * MB
    learned, left, rest, asked_for = learn(dense(mb_a_day)), daily, window(span), 0
    assert learned is not None
    while asked := ask(rest, learned, left, daily):
        assert asked.window is not None
        left -= learned.bytes_of(asked.window.ends_at - asked.window.starts_at)
        asked_for += 1
        assert asked_for < 200
        if asked.rest is None:
            return
        rest = asked.rest
    assert left <= max(0.02 * daily, learned.bytes_of(SECOND))


@pytest.mark.parametrize(
    ("seen", "left", "expected"),
    [
        ([], 500 * MB, PROBE),
        ([], MB, None),
        (dense(1), 500 * MB, 8 * DAY),  # no more than eight times what was seen
        ([Seen(0, 200, 31 * DAY)], 500 * MB, WIDEST),
        (dense(1), 5 * MB, timedelta(days=2.5)),
        (dense(1), 20 * MB, 8 * DAY),
        ([Seen(0, 200, 31 * DAY)], 1, WIDEST),
        (dense(86_400), 10 * MB, 5 * SECOND),
        (dense(864_000), 11 * MB, SECOND),
        (dense(864_000), 10 * MB, None),  # a second may have more
        (dense(86_400_000), 500 * MB, SECOND),  # a second that has more than a day's bytes has a day of its own
        (dense(86_400_000), 400 * MB, None),
    ],
)
def test_windows_are_as_wide_as_the_bytes_allow(seen: list[Seen], left: int, expected: timedelta | None) -> None:
    asked = ask(window(31 * DAY), learn(seen), left, 500 * MB)
    if expected is None:
        assert asked is None
    else:
        assert asked is not None
        assert asked.window is not None
        assert asked.window.ends_at - asked.window.starts_at == expected


def test_a_list_is_asked_for_whole() -> None:
    learned = learn([Seen(10, 3 * MB, None), Seen(10, MB, None)])
    assert ask(None, None, MB, 5 * MB) == Ask(None, None, None)
    assert ask(None, learned, 4 * MB, 5 * MB) == Ask(None, None, 3 * MB)
    assert ask(None, learned, 2 * MB, 5 * MB) is None
    assert ask(None, learn([Seen(10, 9 * MB, None)]), 5 * MB, 5 * MB) == Ask(None, None, 9 * MB)


def test_what_came_lately_counts_when_it_is_more() -> None:
    lately = learn([Seen(100, 1000, DAY)] * 3 + [Seen(1, 10, DAY)] * 20)
    before = learn([Seen(1, 10, DAY)] * 3 + [Seen(100, 1000, DAY)] * 20)
    assert lately is not None
    assert before is not None
    assert lately.bytes_of(DAY) == 1200
    assert before.bytes_of(DAY) > 800


@pytest.mark.parametrize(("size", "expected"), [(0, 1), (5 * MB, 1), (5 * MB + 1, 2), (12 * MB, 3)])
def test_bytes_take_days(size: int, expected: int) -> None:
    assert days(size, 5 * MB) == expected


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), unique=True, max_size=60))
def test_parts_hold_all_fields_and_none_is_too_long(names: list[str]) -> None:
    parts = in_parts(names)
    assert [name for part in parts for name in part[2:]] == [name for name in names if name not in ("id", "email")]
    for part in parts:
        assert part[:2] == ["id", "email"]
        assert len(orjson.dumps(part).decode()) < LONGEST_LIST
    assert len(parts) == 1 or all(len(orjson.dumps(part).decode()) > LONGEST_LIST - 2000 for part in parts[:-1])


def test_each_export_has_an_order_of_its_own() -> None:
    fields = [f"field{number}" for number in range(6)]
    orders = {tuple(in_order(fields, export)) for export in range(200)}
    assert len(orders) > 150
    assert all(sorted(order) == fields for order in orders)
    assert in_order(fields, 7) == in_order(fields[::-1], 7)
