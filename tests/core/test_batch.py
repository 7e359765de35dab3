"""The batch size grows while replies are quick and full, and halves once for calls that fail together."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.batch import LARGEST, QUICK, QUICK_IN_A_ROW, BatchSize

SECOND = timedelta(seconds=1)


def test_it_grows_after_some_quick_full_pages() -> None:
    batch = BatchSize(300)
    for _ in range(QUICK_IN_A_ROW - 1):
        batch = batch.answered(300, 300, SECOND)
        assert batch.size == 300
    assert batch.answered(300, 300, SECOND) == BatchSize(375)


def test_a_slow_page_or_one_that_was_not_full_begins_the_count_anew() -> None:
    batch = BatchSize(300, quick=QUICK_IN_A_ROW - 1)
    assert batch.answered(300, 300, QUICK + SECOND) == BatchSize(300)
    assert batch.answered(300, 100, SECOND) == BatchSize(300), "the server gives no more: asking for more is of no use"


def test_calls_that_fail_together_halve_it_once() -> None:
    batch = BatchSize(300)
    for _ in range(4):
        batch = batch.failed(300)
    assert batch.size == 150


def test_what_was_asked_for_before_it_shrank_tells_nothing_of_the_new_size() -> None:
    batch = BatchSize(150, quick=2)
    assert batch.answered(100, 100, SECOND) == batch
    assert batch.answered(300, 300, SECOND).size == 150


@given(
    start=st.integers(1, LARGEST),
    events=st.lists(st.tuples(st.booleans(), st.integers(1, LARGEST), st.timedeltas(timedelta(0), timedelta(seconds=9)))),
)
def test_it_stays_between_one_and_what_marketo_returns(start: int, events: list[tuple[bool, int, timedelta]]) -> None:
    batch = BatchSize(start)
    for failed, asked, took in events:
        batch = batch.failed(asked) if failed else batch.answered(asked, asked, took)
        assert 1 <= batch.size <= LARGEST
