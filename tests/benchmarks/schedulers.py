"""Who gives jobs to the model of Marketo's queue and looks at them: syncd's own functions, a fixed beat, and whoever holds ten slots."""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from syncd.core.polling import Finished, QueuedJob, median, next_looks, noticed_within, runs_of
from syncd.core.settings import Poll
from syncd.core.slots import Room, wanted_in_flight
from tests.benchmarks.queue_model import RUNNING, SLOTS, Job, Marketo, Run, bound_of

UPLOAD = 2.0
CALL = 0.2
STEP = 0.5
"""Seconds that a POST, a look, and noticing what another flow has written take."""

RECENT = 25
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
POLL = Poll()


@dataclass(slots=True)
class Ours:
    """A job of ours as far as was seen of it, in seconds."""

    job: Job
    submitted_at: float
    looked_at: float | None = None
    running_since: float | None = None
    polls: int = 0
    settled_at: float = math.inf


@dataclass(slots=True)
class Desk:
    """What a policy knows: jobs in flight in the order of the queue, and those that have ended."""

    in_flight: list[Ours] = field(default_factory=list)
    settled: list[Ours] = field(default_factory=list)
    free_since: float | None = None  # the last look but one at the job that ended last


class Policy(Protocol):
    """When to look, and when to send."""

    def next_look(self, desk: Desk) -> tuple[float, Ours] | None:
        """The next look and its moment."""

    def next_send(self, desk: Desk, now: float) -> float:
        """When another job may be sent, as things are; infinite while none may."""

    def answered(self, desk: Desk, now: float, accepted: bool) -> None:
        """A POST was answered."""


class Beat:
    """Holds ten, and looks at each of them on a fixed beat, as whoever writes a loop does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._not_before = 0.0

    def next_look(self, desk: Desk) -> tuple[float, Ours] | None:
        looks = ((self._seconds + (ours.submitted_at if ours.looked_at is None else ours.looked_at), ours) for ours in desk.in_flight)
        return min(looks, key=lambda look: look[0], default=None)

    def next_send(self, desk: Desk, now: float) -> float:
        return max(now, self._not_before) if len(desk.in_flight) < SLOTS else math.inf

    def answered(self, desk: Desk, now: float, accepted: bool) -> None:
        if not accepted:
            self._not_before = now + self._seconds


class Syncd:
    """The functions of core, called as the flows call them."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._room = Room()
        self._settled = 0
        self._runs: list[timedelta] = []
        self._median: timedelta | None = None

    def next_look(self, desk: Desk) -> tuple[float, Ours] | None:
        if not desk.in_flight:
            return None
        queue = [_queued(number, ours) for number, ours in enumerate(desk.in_flight)]
        self._learn(desk)
        at, job = next_looks(queue, RUNNING, self._median, None if desk.free_since is None else _moment(desk.free_since))[0]
        return _seconds(at), desk.in_flight[job.id]

    def next_send(self, desk: Desk, now: float) -> float:
        wanted = self._wanted(desk)
        running = sum(ours.running_since is not None for ours in desk.in_flight)
        self._room = self._room.looked(wanted, len(desk.in_flight), running, RUNNING, _moment(now))
        if self._room.free(wanted, len(desk.in_flight)) > 0:
            return now if self._room.not_before is None else max(now, _seconds(self._room.not_before))
        if self._room.limit is not None and self._room.grow_at is not None and self._room.grow_at > _moment(now):
            return -_seconds(self._room.grow_at)  # look again then
        return math.inf

    def answered(self, desk: Desk, now: float, accepted: bool) -> None:
        self._room = (
            self._room.accepted() if accepted else self._room.refused(len(desk.in_flight), RUNNING, _moment(now), self._chance.random())
        )

    def _wanted(self, desk: Desk) -> int:
        self._learn(desk)
        return wanted_in_flight(SLOTS, RUNNING, noticed_within(POLL, self._median), self._runs)

    def _learn(self, desk: Desk) -> None:
        # Those before them say when the first of them could begin.
        if self._settled != len(desk.settled):
            self._settled = len(desk.settled)
            self._runs = runs_of([_finished(ours) for ours in desk.settled[-RECENT - RUNNING :]], RUNNING)[-RECENT:]
            self._median = median(self._runs)


class Holder(Syncd):
    """Looks as syncd does, and holds ten slots whoever else wants them."""

    def __init__(self) -> None:
        super().__init__(random.Random(0))
        self._not_before = 0.0

    def next_send(self, desk: Desk, now: float) -> float:
        return max(now, self._not_before) if len(desk.in_flight) < SLOTS else math.inf

    def answered(self, desk: Desk, now: float, accepted: bool) -> None:
        if not accepted:
            self._not_before = now + 5.0


def drive(policy: Policy, marketo: Marketo, durations: Sequence[float]) -> Run:
    """The jobs in their order, by the policy, until the last is settled."""
    todo = deque(Job(duration, number) for number, duration in enumerate(durations))
    desk, totals = Desk(), Totals()
    clock = wake = 0.0
    sending: tuple[float, Job] | None = None
    while len(desk.settled) < len(durations):
        look = policy.next_look(desk)
        look_at = max(look[0], clock) if look else math.inf
        send_at = sending[0] if sending else (policy.next_send(desk, max(clock, wake)) if todo else math.inf)
        moment = min(look_at, abs(send_at))
        totals.pass_to(moment, len(desk.in_flight))
        marketo.move_to(moment)
        if look and look_at <= abs(send_at):
            clock = moment + CALL
            if _look(desk, look[1], moment):
                wake = clock + STEP
        elif sending:
            sending = None
            _send(policy, marketo, desk, todo, totals, moment)
            wake = moment
            marketo.ours_to_send = bool(todo)
        elif send_at >= 0:
            sending = (moment + UPLOAD, todo[0])
        else:
            wake = moment + 0.001
    return totals.run(durations, desk, marketo)


def _look(desk: Desk, ours: Ours, now: float) -> bool:
    """Ask for the job's status; whether it has ended."""
    ours.polls += 1
    looked_at, ours.looked_at = ours.looked_at, now
    if ours.job.ended_at <= now:
        ours.settled_at = now
        desk.free_since = ours.submitted_at if looked_at is None else looked_at
        desk.in_flight.remove(ours)
        desk.settled.append(ours)
        return True
    if ours.job.started_at <= now and ours.running_since is None:
        ours.running_since = now
    return False


def _send(policy: Policy, marketo: Marketo, desk: Desk, todo: "deque[Job]", totals: "Totals", now: float) -> None:
    accepted = marketo.submit(todo[0])
    if accepted:
        desk.in_flight.append(Ours(todo.popleft(), now))
        totals.most = max(totals.most, len(desk.in_flight))
    else:
        totals.refused += 1
    policy.answered(desk, now, accepted)


@dataclass(slots=True)
class Totals:
    """What is counted on the way."""

    now: float = 0.0
    held: float = 0.0
    most: int = 0
    refused: int = 0

    def pass_to(self, moment: float, in_flight: int) -> None:
        """Slots are held for a while."""
        self.held += in_flight * (moment - self.now)
        self.now = moment

    def run(self, durations: Sequence[float], desk: Desk, marketo: Marketo) -> Run:
        """The figures of the whole."""
        ends = [ours.job.ended_at for ours in desk.settled]
        last = max(ours.settled_at for ours in desk.settled)
        return Run(
            bound=bound_of(list(durations)),
            makespan=max(ends),
            last_settled=last,
            mean_job=sum(durations) / len(durations),
            lag=sum(ours.settled_at - ours.job.ended_at for ours in desk.settled) / len(ends),
            polls_a_job=sum(ours.polls for ours in desk.settled) / len(ends),
            most_in_flight=self.most,
            mean_in_flight=self.held / last,
            idle_share=marketo.idle / (RUNNING * max(ends)),
            strangers_refused=marketo.strangers_refused,
            ours_refused=self.refused,
        )


def _queued(number: int, ours: Ours) -> QueuedJob:
    return QueuedJob(
        number,
        _moment(ours.submitted_at),
        None if ours.looked_at is None else _moment(ours.looked_at),
        POLL,
        None if ours.running_since is None else _moment(ours.running_since),
        waits=ours.looked_at is not None and ours.running_since is None,
    )


def _finished(ours: Ours) -> Finished:
    started = None if ours.running_since is None else _moment(ours.running_since)
    return Finished(_moment(ours.submitted_at), started, _moment(ours.settled_at))


def _moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def _seconds(moment: datetime) -> float:
    return (moment - EPOCH).total_seconds()
