"""The instance's limits: calls in 20 s, concurrent calls, calls a day (protocol sections 1.6 and 2)."""

from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import MarketoFault

_WINDOW_SECONDS = 20.0
_QUOTA_ZONE = ZoneInfo("America/Chicago")
_UNCOUNTED = frozenset({"601", "602", "604", "605", "608", "611"})
OUR_USER = "syncd@api.example.com"
"""The API user that the client's own REST calls are put down to."""
# (SOAP's code, REST's code) of each limit.
_RATE, _CONCURRENCY, _QUOTA = (20023, 606), (20024, 615), (20015, 607)


def quota_day(now: float) -> str:
    """The day that `now` (unix seconds) belongs to where quotas are counted."""
    return datetime.fromtimestamp(now, UTC).astimezone(_QUOTA_ZONE).date().isoformat()


class Limiter:
    """Counts calls by their arrival. Identity never comes here: it does not count."""

    def __init__(self, settings: SimulatorSettings, recorder: Recorder, now: float) -> None:
        self._limits = settings.limits
        self._foreign_calls = settings.foreign.calls_per_20s
        self._recorder = recorder
        self._window: deque[float] = deque()
        self._in_flight = 0
        self._quota_day = ""
        self._today = {"soap": 0, "rest": 0}
        self._strangers: Counter[str] = Counter()
        self._turn_the_day(now)
        self._strangers.update(dict(settings.foreign.rest_calls_today))

    def arrive(self, api: str, now: float) -> MarketoFault | None:
        """Count a call that arrives at `now` (unix seconds); the fault to answer with when it is over a limit."""
        self._turn_the_day(now)
        while self._window and self._window[0] <= now - _WINDOW_SECONDS:
            self._window.popleft()
        self._window.append(now)
        self._recorder.arrivals.append(now)
        self._today[api] += 1
        self._in_flight += 1
        self._recorder.max_concurrency = max(self._recorder.max_concurrency, self._in_flight)
        return self._over(api)

    def leave(self, api: str, arrived: float, code: str) -> None:
        """The call of that arrival is answered with `code`; some codes take it back out of the counts."""
        self._in_flight -= 1
        if code not in _UNCOUNTED:
            return
        # It may have arrived before midnight, and been counted there.
        self._today[api] = max(0, self._today[api] - 1)
        self._recorder.arrivals.remove(arrived)
        if arrived in self._window:
            self._window.remove(arrived)

    def add_foreign_calls(self, user_id: str, calls: int, now: float) -> None:
        """A stranger spends so many REST calls of the quota of today."""
        self._turn_the_day(now)
        self._strangers[user_id] += calls

    def usage(self, now: float) -> dict[str, Any]:
        """The REST calls of today in all and per API user, ours first (protocol section 3.5)."""
        self._turn_the_day(now)
        users = [(OUR_USER, self._today["rest"]), *self._strangers.items()]
        return {
            "date": self._quota_day,
            "total": sum(calls for _, calls in users),
            "users": [{"userId": user_id, "count": calls} for user_id, calls in users if calls],
        }

    def _over(self, api: str) -> MarketoFault | None:
        soap = api == "soap"
        per_day = self._limits.soap_calls_per_day if soap else self._limits.rest_calls_per_day
        if self._today[api] + (0 if soap else self._strangers.total()) > per_day:
            return MarketoFault(_QUOTA[not soap], f"Maximum daily quota of {per_day} calls reached")
        if self._in_flight > self._limits.concurrent_calls:
            return MarketoFault(_CONCURRENCY[not soap], f"Concurrent access limit of {self._limits.concurrent_calls} calls reached")
        if len(self._window) + self._foreign_calls > self._limits.calls_per_20s:
            return MarketoFault(_RATE[not soap], f"Max rate limit of {self._limits.calls_per_20s} calls in 20 secs exceeded")
        return None

    def _turn_the_day(self, now: float) -> None:
        day = quota_day(now)
        if day != self._quota_day:
            self._quota_day = day
            self._today = dict.fromkeys(self._today, 0)
            self._strangers.clear()
