"""The export queue: one FIFO, two workers, ten slots, shared with strangers. It moves only when somebody looks."""

import json
import math
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from syncd.simulator.clock import seeded
from syncd.simulator.exportfile import ExportFile, rendered
from syncd.simulator.fields import Field
from syncd.simulator.limits import quota_day
from syncd.simulator.report import Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.wire import MarketoFault
from syncd.simulator.world import Lead, World

# Clocks count in microseconds, floats a little off them.
_TICK = 1e-3


@dataclass(frozen=True)
class Order:
    """What an export is to hold: fields by REST name, and one filter."""

    fields: tuple[Field, ...]
    headers: Mapping[str, str]
    filter: Mapping[str, Any]
    leads: Callable[[World], Iterable[Lead]]
    """The leads that the filter lets through, as of the moment it is asked."""

    @property
    def filter_text(self) -> str:
        """The filter in one form, to tell equal ones by."""
        return json.dumps(self.filter, sort_keys=True)


@dataclass
class ExportJob:
    """One job; times are unix seconds, `order` is None for a stranger's."""

    id: str
    created_at: float
    order: Order | None = None
    duration: float = 0.0
    size: int = 0
    """A stranger's share of the quota."""
    fails: bool = False
    state: str = "Created"
    queued_at: float = math.inf
    started_at: float = math.inf
    finished_at: float = math.inf
    file: ExportFile | None = None
    error: str = ""

    @property
    def ours(self) -> bool:
        return self.order is not None

    @property
    def ends_at(self) -> float:
        return self.started_at + self.duration

    def told(self, now: float, age: float) -> str:
        """The state that Marketo tells: it is looked up only every `age` seconds after the job was queued."""
        if self.state in ("Created", "Cancelled") or age <= 0:
            return self.state
        ticks = math.floor((now - self.queued_at + _TICK) / age)
        moment = self.queued_at + ticks * age + _TICK
        if ticks < 1 or moment < self.started_at:
            return "Queued"
        return "Processing" if moment < self.finished_at else self.state


@dataclass(frozen=True)
class ExportView:
    """One export as it really is, whatever its status tells. `owner` is 'ours' or 'foreign'; the filter is JSON with sorted keys."""

    export_id: str
    owner: str
    state: str
    fields: tuple[str, ...] = ()
    filter: str = ""
    records: int = 0
    size: int = 0


@dataclass
class _Spent:
    """Bytes per quota day."""

    by_day: dict[str, int] = field(default_factory=dict)

    def on(self, now: float) -> int:
        return self.by_day.get(quota_day(now), 0)

    def add(self, now: float, size: int) -> None:
        self.by_day[quota_day(now)] = self.on(now) + size


class ExportQueue:
    """All export jobs of the instance."""

    def __init__(self, settings: SimulatorSettings, world: World, recorder: Recorder, oddities: Callable[[], frozenset[str]]) -> None:
        self._model, self._world, self._recorder = settings.exports, world, recorder
        self._oddities = oddities
        self._ids, self._durations = seeded(settings.seed, "export ids"), seeded(settings.seed, "export durations")
        self._waiting: list[ExportJob] = []
        self._running: list[ExportJob] = []
        self._jobs: dict[str, ExportJob] = {}
        self._planted: deque[ExportFile] = deque()
        self._spent = _Spent()

    @property
    def next(self) -> float:
        """When the next running job ends (unix seconds)."""
        return min((job.ends_at for job in self._running), default=math.inf)

    def step(self) -> None:
        """End the job that ends next and start others in its place; the world stands at its moment."""
        job = min(self._running, key=lambda each: each.ends_at)
        moment = job.ends_at
        self._running.remove(job)
        self._end(job, moment)
        self._start_next(moment)

    def create(self, order: Order, fails: bool, now: float) -> ExportJob:
        """A job that waits to be queued."""
        job = ExportJob(str(uuid.UUID(int=self._ids.getrandbits(128), version=4)), now, order, fails=fails)
        self._jobs = {each.id: each for each in self.known(now)} | {job.id: job}
        self._recorder.exports.created += 1
        return job

    def enqueue(self, job: ExportJob, fails: bool, now: float) -> None:
        """Put a job into the queue. Raises fault 1029 when it was before, when the queue is full or the day's quota is spent."""
        if job.state == "Cancelled":
            raise MarketoFault(1003, f"Export {job.id} was cancelled")
        if job.state != "Created":
            raise MarketoFault(1029, f"Export job {job.id} has already been queued")
        if len(self._live()) >= self._model.slots:
            raise MarketoFault(1029, f"Export job queue is full. Too many jobs ({len(self._live())}) in queue")
        if self._spent.on(now) >= self._model.daily_bytes:
            raise MarketoFault(1029, f"Export daily quota {self._model.daily_bytes // 1_000_000}MB exceeded")
        assert job.order is not None
        job.fails |= fails
        self._recorder.exports.enqueued += 1
        self._recorder.exports.by_filter[job.order.filter_text] += 1
        self._recorder.event(now, f"export {job.id} queued")
        self._add(job, now)

    def cancel(self, job: ExportJob, now: float) -> None:
        """Take a job out of the queue, or stop it. Raises fault 1003 for one that has ended; again is once."""
        if job.state in ("Completed", "Failed"):
            raise MarketoFault(1003, f"Export {job.id} cannot be cancelled: it is {job.state}")
        if job.state != "Cancelled":
            self._waiting = [each for each in self._waiting if each is not job]
            self._running = [each for each in self._running if each is not job]
            job.state, job.finished_at, job.file = "Cancelled", now, None
            self._recorder.exports.ended["Cancelled"] += 1
            self._start_next(now)

    def add_foreign(self, duration: float, size: int, now: float) -> None:
        """A stranger's job. Raises ValueError without a free slot."""
        if len(self._live()) >= self._model.slots:
            raise ValueError("all export slots are taken")
        self._add(ExportJob(f"foreign-{self._ids.getrandbits(32):08x}", now, duration=duration, size=size), now)

    def plant(self, file: ExportFile) -> None:
        """Let the next job of the client's that begins have this file."""
        self._planted.append(file)

    def find(self, export_id: str, now: float) -> ExportJob | None:
        """A job of the client's that is not older than its life."""
        job = self._jobs.get(export_id)
        return job if job is not None and now - job.created_at <= self._model.file_life else None

    def known(self, now: float) -> list[ExportJob]:
        """The client's jobs, the oldest first, but for those older than their life."""
        return [job for job in self._jobs.values() if now - job.created_at <= self._model.file_life]

    def views(self, now: float) -> tuple[ExportView, ...]:
        """The client's jobs as they are, then the strangers' in the queue."""
        strangers = [job for job in self._live() if not job.ours]
        return tuple(_view(job) for job in (*self.known(now), *strangers))

    def _live(self) -> list[ExportJob]:
        return [*self._running, *self._waiting]

    def _add(self, job: ExportJob, now: float) -> None:
        job.state, job.queued_at = "Queued", now
        self._waiting.append(job)
        self._start_next(now)

    def _start_next(self, now: float) -> None:
        while self._waiting and len(self._running) < self._model.running:
            job = self._waiting.pop(0)
            job.state, job.started_at = "Processing", now
            if job.order is not None:
                self._begin(job, job.order, now)
            self._running.append(job)
        live, running = self._live(), self._running
        self._recorder.exports.board(len(live), _ours(live), len(running), _ours(running))

    def _begin(self, job: ExportJob, order: Order, now: float) -> None:
        """Take the snapshot: what the file holds is what is true now."""
        missing = [each.key for each in order.fields if each.key not in self._world.catalogue.by_rest]
        if missing:
            job.fails, job.error = True, f"Field '{missing[0]}' not found"
        elif self._spent.on(now) >= self._model.daily_bytes:
            job.fails, job.error = True, "Export daily quota exceeded"
        else:
            job.file = self._planted.popleft() if self._planted else self._rendered(order)
        rows = job.file.records if job.file else 0
        factor = self._durations.lognormvariate(0.0, self._model.sigma)
        job.duration = (self._model.overhead_seconds + rows / self._model.rows_per_second) * factor

    def _rendered(self, order: Order) -> ExportFile:
        # A field may have another type by now.
        fields = [self._world.catalogue.by_key[field.key] for field in order.fields]
        return rendered(order.leads(self._world), fields, order.headers, self._oddities())

    def _end(self, job: ExportJob, now: float) -> None:
        job.finished_at = now
        size = job.file.size if job.file else job.size
        over = self._spent.on(now) + size > self._model.daily_bytes
        if job.ours and not job.fails and over and self._model.quota_overrun == "fails":
            job.fails, job.error = True, "Export daily quota exceeded"
        job.state = "Failed" if job.fails else "Completed"
        if job.fails:
            job.file, job.error = None, job.error or "Export failed: internal error"
        else:
            self._spent.add(now, size)
        if job.ours:
            self._recorder.exports.ended[job.state] += 1
            if not job.fails:
                self._recorder.exports.bytes_by_day[quota_day(now)] += size
            self._recorder.event(now, f"export {job.id} {job.state}, {job.file.records if job.file else 0} records")


def _ours(jobs: Iterable[ExportJob]) -> int:
    return sum(1 for job in jobs if job.ours)


def _view(job: ExportJob) -> ExportView:
    names = tuple(each.key for each in job.order.fields) if job.order else ()
    records, size = (job.file.records, job.file.size) if job.file else (0, job.size)
    return ExportView(
        job.id, "ours" if job.ours else "foreign", job.state, names, job.order.filter_text if job.order else "", records, size
    )
