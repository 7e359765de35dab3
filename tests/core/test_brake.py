"""The brake: pressed by faults, eased by time alone."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from syncd.core.brake import EASES_IN, FLOOR, ONE_BURST, Brake

NOW = datetime(2026, 3, 8, 12, tzinfo=UTC)
STEPS = st.lists(st.tuples(st.floats(-3600, 3600), st.booleans()), max_size=40)


def after(steps: list[tuple[float, bool]]) -> tuple[Brake, datetime]:
    """The brake after time went on (or was set back) by so many seconds, each time followed by a fault or not."""
    brake, now = Brake(), NOW
    for seconds, fault in steps:
        now += timedelta(seconds=seconds)
        brake = brake.pressed(now) if fault else brake.at(now)
    return brake, now


@given(steps=STEPS, limit=st.integers(1, 1000))
def test_what_is_allowed_stays_between_one_and_the_limit(steps: list[tuple[float, bool]], limit: int) -> None:
    brake, now = after(steps)
    assert FLOOR <= brake.share(now) <= 1
    assert 1 <= brake.allowed(limit, now) <= limit


@given(steps=STEPS, looks=st.lists(st.floats(0, 60), min_size=2, max_size=20))
def test_it_eases_steadily_and_is_off_after_the_time(steps: list[tuple[float, bool]], looks: list[float]) -> None:
    brake, now = after(steps)
    moments = [now]
    for seconds in looks:
        moments.append(moments[-1] + timedelta(seconds=seconds))
    assert all(brake.share(one) <= brake.share(other) for one, other in pairwise(moments))
    assert brake.share(now + EASES_IN) == 1
    assert brake.allowed(50, now + EASES_IN) == 50


@given(steps=STEPS)
def test_a_fault_halves_the_share_once_for_a_burst(steps: list[tuple[float, bool]]) -> None:
    brake, now = after(steps)
    now += ONE_BURST
    pressed = brake.pressed(now)
    assert pressed.share(now) == max(FLOOR, brake.share(now) / 2)
    assert pressed.pressed(now + ONE_BURST / 2) == pressed
    assert pressed.pressed(now + ONE_BURST).share(now + ONE_BURST) < pressed.share(now + ONE_BURST)


def test_from_the_floor_it_eases_linearly() -> None:
    brake, now = Brake(), NOW
    for _ in range(10):
        brake, now = brake.pressed(now), now + ONE_BURST
    now -= ONE_BURST
    assert brake.share(now) == FLOOR
    assert [round(brake.share(now + EASES_IN * tenths / 10), 6) for tenths in (0, 5, 9, 10, 99)] == [0.1, 0.55, 0.91, 1, 1]


def test_a_clock_set_back_does_not_make_it_stick() -> None:
    brake = Brake().pressed(NOW)
    back = NOW - timedelta(days=1)
    brake = brake.at(back)
    assert brake.share(back) == 0.5
    assert brake.share(back + EASES_IN) == 1
