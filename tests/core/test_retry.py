"""What follows from a fault."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.retry import LONGEST_BACKOFF, SLOW_RETRY, UNKNOWN_TRIES, Again, Block, backoff, decide

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
BACKING_OFF = [Nature.TRANSIENT, Nature.TOKEN, Nature.RATE, Nature.NO_SLOT, Nature.LIST_BUSY, Nature.POSITION]


def fault(nature: Nature) -> Fault:
    return Fault(nature, "1", "message", "endpoint")


@given(attempt=st.integers(1, 10**6), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_has_full_jitter_under_a_doubling_bound(attempt: int, jitter: float) -> None:
    bound = min(LONGEST_BACKOFF, timedelta(seconds=2 ** min(attempt, 30)))
    assert backoff(attempt, 0.0) == timedelta(0)
    assert timedelta(0) <= backoff(attempt, jitter) <= bound
    assert abs(backoff(attempt, jitter) - bound * jitter) <= timedelta(microseconds=1)


@pytest.mark.parametrize("nature", BACKING_OFF)
@pytest.mark.parametrize("attempt", [1, 50])
def test_passing_trouble_backs_off_for_ever(nature: Nature, attempt: int) -> None:
    assert decide(fault(nature), attempt, NOW, 0.5) == Again(NOW + backoff(attempt, 0.5))


@pytest.mark.parametrize("nature", [Nature.CONFIGURATION, Nature.PERMANENT, Nature.TOO_LARGE])
def test_what_a_person_must_mend_blocks_and_is_looked_at_again_slowly(nature: Nature) -> None:
    assert decide(fault(nature), 1, NOW, 0.5) == Block(NOW + SLOW_RETRY)


def test_an_unknown_code_is_tried_a_bounded_number_of_times() -> None:
    decisions = [decide(fault(Nature.UNKNOWN), attempt, NOW, 0.5) for attempt in range(1, UNKNOWN_TRIES + 1)]
    assert [type(decision) for decision in decisions] == [Again] * (UNKNOWN_TRIES - 1) + [Block]


def test_an_old_signature_is_made_anew_at_once_and_then_backs_off() -> None:
    assert decide(fault(Nature.SIGNATURE), 1, NOW, 0.5) == Again(NOW)
    assert decide(fault(Nature.SIGNATURE), 2, NOW, 0.5) == Again(NOW + backoff(2, 0.5))


@pytest.mark.parametrize(
    ("now", "reset"),
    [
        ("2026-03-08 12:00", "2026-03-09 05:00"),
        ("2026-11-01 07:30", "2026-11-02 06:00"),
        ("2026-06-01 00:00", "2026-06-01 05:00"),
        ("2026-06-01 05:30", "2026-06-01 05:40"),  # it may not be midnight yet where it counts
    ],
)
def test_a_spent_quota_waits_for_midnight_us_central(now: str, reset: str) -> None:
    spent_at, again_at = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (now, reset))
    assert decide(fault(Nature.QUOTA), 9, spent_at, 0.5) == Again(again_at)


def test_every_nature_has_a_decision() -> None:
    assert all(isinstance(decide(fault(nature), 1, NOW, 0.0), Again | Block) for nature in Nature)
