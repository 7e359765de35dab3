"""The import queue: one FIFO, two workers, ten slots, shared with strangers. It moves only when somebody looks."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from syncd.simulator.clock import seeded
from syncd.simulator.importfile import ImportFile
from syncd.simulator.report import DuplicateLiveKey, Recorder
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.upsert import Outcome, Upsert
from syncd.simulator.wire import MarketoFault
from syncd.simulator.world import World

_FIRST_BATCH_ID = 1_022


@dataclass
class ImportJob:
    """One job; times are unix seconds, `file` is None for a stranger's."""

    batch_id: int
    submitted_at: float
    duration: float
    file: ImportFile | None = None
    lookup_field: str = "email"
    list_id: int | None = None
    share: float = 1.0
    """How much of the file is processed; less than all of it when the job ends Failed."""
    status: str = "Queued"
    started_at: float = math.inf
    upsert: Upsert | None = None
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def ours(self) -> bool:
        return self.file is not None

    @property
    def rows(self) -> int:
        return len(self.file.rows) if self.file else 0

    @property
    def ends_at(self) -> float:
        return self.started_at + self.duration

    def progress(self, now: float) -> float:
        """The share of its run that lies behind it, 0 to 1."""
        return min(1.0, max(0.0, (now - self.started_at) / self.duration)) if self.status == "Importing" else 0.0


@dataclass(frozen=True)
class Slot:
    """One place on the board. `owner` is 'ours', 'foreign' or None; `state` 'running', 'queued' or 'free'; age and progress as of now."""

    state: str
    owner: str | None = None
    batch_id: int | None = None
    age_seconds: float = 0.0
    rows: int = 0
    progress: float = 0.0


class ImportQueue:
    """All import jobs of the instance."""

    def __init__(self, settings: SimulatorSettings, world: World, recorder: Recorder, now: float) -> None:
        self._settings, self._world, self._recorder = settings, world, recorder
        self._waiting: list[ImportJob] = []
        self._running: list[ImportJob] = []
        self._jobs: dict[int, ImportJob] = {}
        self._next_batch_id = _FIRST_BATCH_ID
        self._durations = seeded(settings.seed, "import durations")
        self._strangers = seeded(settings.seed, "foreign jobs")
        self._next_stranger = self._stranger_after(now)

    def move_to(self, now: float) -> None:
        """Let jobs start and end, strangers come and leads move, in the order of time, up to `now` (unix seconds)."""
        while (moment := min(self._next_stranger, *(job.ends_at for job in self._running), math.inf)) <= now:
            self._world.move_to(moment)
            if moment == self._next_stranger:
                self._stranger_comes(moment)
            else:
                self._end(min(self._running, key=lambda job: job.ends_at))
            self._start_next(moment)
        self._world.move_to(now)

    def submit(self, file: ImportFile, lookup_field: str, list_id: int | None, share: float, now: float) -> ImportJob:
        """Queue a job of the client's. Raises fault 1016 without a free slot, 1019 when the list is being imported to."""
        if len(self._live()) >= self._settings.limits.import_slots:
            raise MarketoFault(1016, "Too many imports")
        if list_id is not None and any(job.list_id == list_id for job in self._live()):
            raise MarketoFault(1019, "Import in progress for the target static list")
        model = self._settings.imports
        factor = self._durations.lognormvariate(0.0, model.sigma)
        duration = (model.overhead_seconds + len(file.rows) / model.rows_per_second) * factor
        job = ImportJob(self._take_batch_id(), now, duration, file, lookup_field, list_id, share)
        self._note_duplicate_keys(job, file)
        self._jobs[job.batch_id] = job
        self._recorder.imports_accepted += 1
        self._recorder.event(now, f"import {job.batch_id} queued, {job.rows} rows")
        self._add(job, len(self._waiting), now)
        return job

    def add_foreign_job(self, duration: float, now: float, at_queue: int | None = None) -> None:
        """A stranger's job of `duration` seconds at a place in the queue (default: its end). Raises ValueError without a free slot."""
        if len(self._live()) >= self._settings.limits.import_slots:
            raise ValueError("all import slots are taken")
        self._add(ImportJob(self._take_batch_id(), now, duration), len(self._waiting) if at_queue is None else at_queue, now)

    def find(self, batch_id: int, now: float) -> ImportJob:
        """A job of the client's. Raises fault 1003 for an unknown batchId or one older than its life."""
        job = self._jobs.get(batch_id)
        if job is None or now - job.submitted_at > self._settings.batch_life:
            raise MarketoFault(1003, f"Batch {batch_id} not found")
        return job

    def live_with(self, lookup_field: str, key: str) -> list[int]:
        """The batchIds of the client's jobs that are queued or importing and hold this normalised key."""
        return [job.batch_id for job in self._live() if job.file is not None and job.lookup_field == lookup_field and key in job.file.keys]

    def board(self, now: float) -> tuple[Slot, ...]:
        """All slots: the running ones, the queue in its order, the free ones."""
        taken = [
            Slot(
                "running" if job.status == "Importing" else "queued",
                "ours" if job.ours else "foreign",
                job.batch_id,
                now - job.submitted_at,
                job.rows,
                job.progress(now),
            )
            for job in self._live()
        ]
        return (*taken, *[Slot("free")] * (self._settings.limits.import_slots - len(taken)))

    def _live(self) -> list[ImportJob]:
        return [*self._running, *self._waiting]

    def _add(self, job: ImportJob, place: int, now: float) -> None:
        self._waiting.insert(place, job)
        self._start_next(now)

    def _start_next(self, now: float) -> None:
        while self._waiting and len(self._running) < self._settings.limits.import_running:
            job = self._waiting.pop(0)
            job.status, job.started_at = "Importing", now
            if job.file is not None:
                job.upsert = Upsert(self._world, job.file, job.lookup_field)
            self._running.append(job)
        self._recorder.board(len(self._live()), _ours(self._live()), len(self._running), _ours(self._running))

    def _end(self, job: ImportJob) -> None:
        self._running.remove(job)
        job.status = "Complete" if job.share == 1.0 else "Failed"
        if job.upsert is None:
            return
        job.outcome, lead_ids = job.upsert.apply(job.share, job.ends_at)
        job.upsert = None
        if job.list_id is not None:
            self._world.lists[job.list_id].add(lead_ids)
        self._record_outcome(job)

    def _record_outcome(self, job: ImportJob) -> None:
        outcome, recorder = job.outcome, self._recorder
        recorder.jobs[job.status] += 1
        recorder.rows.update(
            imported=outcome.imported,
            created=outcome.created,
            updated=outcome.updated,
            warned=len(outcome.warned),
            failed=len(outcome.failed),
            unprocessed=job.rows - outcome.imported - len(outcome.failed),
        )
        recorder.row_failures.update(reason for _, reason in outcome.failed)
        recorder.row_warnings.update(reason for _, reason in outcome.warned)
        recorder.duplicate_leads_created += outcome.duplicates_created
        if outcome.duplicates_created:
            recorder.violation(job.ends_at, "duplicate leads created by two live jobs", outcome.duplicates_created)
        recorder.event(job.ends_at, f"import {job.batch_id} {job.status}, {outcome.imported} imported, {len(outcome.failed)} failed")

    def _note_duplicate_keys(self, job: ImportJob, file: ImportFile) -> None:
        for live in self._live():
            if live.file is not None and live.lookup_field == job.lookup_field:
                shared = live.file.keys & file.keys
                for key in sorted(shared):
                    self._recorder.duplicate_live_key(DuplicateLiveKey(job.lookup_field, key, live.batch_id, job.batch_id))
                if shared:
                    self._recorder.violation(job.submitted_at, "key in two live jobs", len(shared))

    def _stranger_comes(self, now: float) -> None:
        load = self._settings.foreign
        duration = load.job_seconds * self._strangers.lognormvariate(0.0, load.job_sigma)
        if len(self._live()) < self._settings.limits.import_slots:
            self.add_foreign_job(duration, now)
        self._next_stranger = self._stranger_after(now)

    def _stranger_after(self, now: float) -> float:
        rate = self._settings.foreign.jobs_per_hour / 3_600
        return now + self._strangers.expovariate(rate) if rate > 0 else math.inf

    def _take_batch_id(self) -> int:
        self._next_batch_id += 1
        return self._next_batch_id - 1


def _ours(jobs: Iterable[ImportJob]) -> int:
    return sum(1 for job in jobs if job.ours)
