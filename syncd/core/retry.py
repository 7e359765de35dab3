"""Fault, attempt, now, jitter → what to do. The flow obeys."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from syncd.core.faults import Fault, Nature
from syncd.core.quota import resume_at

FIRST_BACKOFF = timedelta(seconds=1)
LONGEST_BACKOFF = timedelta(minutes=5)
SLOW_RETRY = timedelta(minutes=10)
UNKNOWN_TRIES = 5


@dataclass(frozen=True, slots=True)
class Again:
    """Try again at `at`."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Block:
    """A person must act: stop this pull or push loudly, keep the rest running, and look again slowly, at `at`."""

    at: datetime


Decision = Again | Block


def backoff(attempt: int, jitter: float) -> timedelta:
    """Exponential backoff with full jitter: between nothing and twice as much as before, `attempt` from 1, `jitter` in [0, 1)."""
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * (1 << min(attempt, 20))) * jitter


def decide(fault: Fault, attempt: int, now: datetime, jitter: float) -> Decision:
    """What follows from the `attempt`-th fault in a row (from 1) of one pull or push."""
    match fault.nature:
        case Nature.QUOTA:
            return Again(resume_at(now))
        case Nature.CONFIGURATION | Nature.PERMANENT | Nature.TOO_LARGE | Nature.EMPTY:
            return Block(now + SLOW_RETRY)
        case Nature.UNKNOWN if attempt >= UNKNOWN_TRIES:
            return Block(now + SLOW_RETRY)
        case Nature.SIGNATURE if attempt == 1:
            return Again(now)
        case _:
            return Again(now + backoff(attempt, jitter))
