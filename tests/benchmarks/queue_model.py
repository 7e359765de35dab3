"""Marketo's import queue as a model in seconds of virtual time: one FIFO, two workers, ten slots, strangers who take some of them."""

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

RUNNING, SLOTS = 2, 10
STRANGER_RETRIES = 30.0
STRANGER_PAUSES = 15.0
"""What a stranger takes on average to notice that its job has ended, and to send the next."""


@dataclass(slots=True)
class Job:
    """One import. `number` is its place in our list, None for a stranger's."""

    duration: float
    number: int | None = None
    started_at: float = math.inf
    ended_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a list of jobs. `bound` is its makespan had no worker ever idled, beside no stranger."""

    bound: float
    makespan: float
    last_settled: float
    mean_job: float
    lag: float
    polls_a_job: float
    most_in_flight: int
    mean_in_flight: float
    idle_share: float
    strangers_refused: int
    ours_refused: int


def bound_of(durations: list[float]) -> float:
    """When the last of the jobs ends, in their order, on workers that never idle."""
    free = [0.0] * RUNNING
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


class Marketo:
    """The queue. `foreign` strangers keep one job each in it, as far as it lets them."""

    def __init__(self, foreign: int, median: float, sigma: float, chance: random.Random) -> None:
        self._median, self._sigma, self._chance = median, sigma, chance
        self._waiting: deque[Job] = deque()
        self._running: list[tuple[float, int, Job]] = []
        self._arrivals = [self._chance.uniform(0.0, STRANGER_RETRIES) for _ in range(foreign)]
        heapq.heapify(self._arrivals)
        self._count = 0
        self.now = 0.0
        self.strangers_refused = 0
        self.idle = 0.0  # worker-seconds, while something of ours was still to be sent
        self.ours_to_send = True

    def move_to(self, now: float) -> None:
        """Let jobs start and end and strangers come, in the order of time."""
        while (moment := min(self._running[0][0] if self._running else math.inf, self._arrivals[0] if self._arrivals else math.inf)) <= now:
            self._pass(moment)
            if self._running and self._running[0][0] == moment:
                self._end(heapq.heappop(self._running)[2], moment)
            else:
                heapq.heappop(self._arrivals)
                self._stranger_comes(moment)
        self._pass(now)

    def submit(self, job: Job) -> bool:
        """Whether there was a slot."""
        if len(self._running) + len(self._waiting) >= SLOTS:
            return False
        self._waiting.append(job)
        self._start()
        return True

    def _pass(self, moment: float) -> None:
        if self.ours_to_send:
            self.idle += (RUNNING - len(self._running)) * (moment - self.now)
        self.now = moment

    def _end(self, job: Job, moment: float) -> None:
        job.ended_at = moment
        if job.number is None:
            heapq.heappush(self._arrivals, moment + self._chance.expovariate(1 / STRANGER_PAUSES))
        self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < RUNNING:
            job = self._waiting.popleft()
            job.started_at = self.now
            self._count += 1
            heapq.heappush(self._running, (self.now + job.duration, self._count, job))

    def _stranger_comes(self, moment: float) -> None:
        if not self.submit(Job(self._chance.lognormvariate(0.0, self._sigma) * self._median)):
            self.strangers_refused += 1
            heapq.heappush(self._arrivals, moment + STRANGER_RETRIES)
