"""What bringing leads in costs by each way that there is: bytes, calls, days."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from syncd.core.cost import SPAN, USUAL_CALL, Cost
from syncd.core.settings import Limits

Way = Literal["soap", "extract", "extract of ids", "ids"]

IDS_PER_CALL = 300  # protocol 3.2
SOAP_PAGE = 300  # protocol 1.3, Adobe's advice
DAY = timedelta(days=1)

# A value of each type as a file has it; half of all are empty, which it says in four characters. Guesses, as long as no extract of
# the pull has shown what its leads weigh.
_USUAL_BYTES = {
    "boolean": 5, "integer": 4, "score": 3, "percent": 3, "float": 6, "currency": 7,
    "date": 10, "datetime": 20, "email": 24, "phone": 14, "url": 28, "text": 60, "reference": 8,
}  # fmt: skip
_OTHER_BYTES = 14
_EMPTY_BYTES = 4
_ID_BYTES = 8
USUAL_EXPORT = timedelta(minutes=3)
"""From its queueing to its end, as long as none has shown how long one takes."""
CALLS_OF_EXPORT = 6
"""To create and queue one, to look at it, to fetch it."""
CALLS_OF_LOOK = 2
"""For changes of values, and for those of scores."""


@dataclass(frozen=True, slots=True)
class Price:
    """`time` is what the limits and the day's shares make of it when nobody else needs them."""

    way: Way
    leads: int
    bytes: int
    calls: int
    time: timedelta

    @property
    def days(self) -> float:
        """Of 24 hours."""
        return self.time / DAY

    def as_cost(self, limits: Limits) -> Cost:
        """The same, beside what a day has."""
        bytes_share = self.bytes / limits.export_daily_bytes
        return Cost(self.leads, self.calls, self.time, self.calls / limits.daily_calls, self.bytes, bytes_share)


def bytes_per_lead(kinds: Iterable[str]) -> int:
    """About what a lead's row of fields of these dataTypes weighs in an extract, its id and email included."""
    values = sum((_USUAL_BYTES.get(kind, _OTHER_BYTES) + _EMPTY_BYTES) / 2 + 1 for kind in kinds)
    return math.ceil(_ID_BYTES + 1 + _USUAL_BYTES["email"] + 1 + values)


def by_soap(leads: int, windows: int, limits: Limits, streams: int) -> Price:
    """Page by page, by stream positions."""
    calls = max(windows, 1) + -(-leads // SOAP_PAGE)
    parallel = max(1, min(streams, limits.concurrency, windows))
    return Price("soap", leads, 0, calls, _paced(calls, limits) + calls * USUAL_CALL / parallel + _resets(calls, limits.daily_calls))


def by_extract(leads: int, windows: int, each: int, limits: Limits) -> Price:
    """In files with all fields, `each` bytes a lead."""
    size, calls = leads * each, windows * CALLS_OF_EXPORT
    queue = windows * USUAL_EXPORT / limits.export_running
    time = max(queue, _paced(calls, limits)) + max(_resets(size, limits.export_daily_bytes), _resets(calls, limits.daily_calls))
    return Price("extract", leads, size, calls, time)


def by_ids(leads: int, windows: int, limits: Limits) -> Price:
    """In files with ids alone, and the leads one by one behind them."""
    size, calls = leads * (_ID_BYTES + 1), windows * CALLS_OF_EXPORT + -(-leads // IDS_PER_CALL)
    queue = windows * USUAL_EXPORT / limits.export_running
    time = max(queue, _paced(calls, limits)) + max(_resets(size, limits.export_daily_bytes), _resets(calls, limits.daily_calls))
    return Price("extract of ids", leads, size, calls, time)


def _paced(calls: int, limits: Limits) -> timedelta:
    return calls * SPAN / limits.calls_per_20s


def _resets(amount: int, daily: int) -> timedelta:
    """How long one waits for resets when a day has `daily` of what `amount` is needed."""
    return DAY * max(0, -(-amount // daily) - 1)


def by_id(leads: int, limits: Limits) -> Price:
    """One by one, when their ids are known."""
    calls = -(-leads // IDS_PER_CALL)
    return Price("ids", leads, 0, calls, _paced(calls, limits) + _resets(calls, limits.daily_calls))


def looks_of(every: timedelta, calls_a_look: int) -> int:
    """Calls a day of looking for news, as long as there are none."""
    return math.ceil(DAY / every) * calls_a_look
