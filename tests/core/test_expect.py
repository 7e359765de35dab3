"""When something will have ended, by what was seen of its like."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.expect import queue_ends, walk_end

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_what_is_left_takes_what_as_much_took() -> None:
    assert walk_end(NOON, 30, 10, 5 * MINUTE) == NOON + 15 * MINUTE
    assert walk_end(NOON, 0, 10, MINUTE) is None
    assert walk_end(NOON, 30, 0, MINUTE) is None
    assert walk_end(NOON, 30, 10, timedelta()) is None


def test_the_queue_is_worked_on_two_at_a_time() -> None:
    begun = [NOON - MINUTE, NOON - 2 * MINUTE, None, None, None]
    at = [(end - NOON) / MINUTE for end in queue_ends(begun, 3 * MINUTE, 2, NOON) if end is not None]
    assert at == [2, 1, 4, 5, 7]


def test_one_that_takes_longer_than_its_like_may_end_at_any_moment() -> None:
    assert queue_ends([NOON - 9 * MINUTE, None], MINUTE, 1, NOON) == [NOON, NOON + MINUTE]


def test_without_history_nothing_is_told() -> None:
    assert queue_ends([None, NOON], None, 2, NOON) == [None, None]


@given(st.lists(st.one_of(st.none(), st.integers(0, 600)), max_size=10), st.integers(1, 600), st.integers(1, 2))
def test_no_end_is_past_and_those_that_wait_end_in_order(begun: list[int | None], run: int, running: int) -> None:
    started = [None if ago is None else NOON - timedelta(seconds=ago) for ago in begun]
    ends = queue_ends(started, timedelta(seconds=run), running, NOON)
    assert all(end is not None and end >= NOON for end in ends)
    waiting = [end for end, at in zip(ends, started, strict=True) if at is None and end is not None]
    assert waiting == sorted(waiting)
