"""A model of Marketo's import queue, of Sync Leads and of the leads behind both: what it does is decided by the plan, never by chance.

It stands in for `marketo/imports.py` and `marketo/sync.py`, and reads files and records by itself, so that a misreading is not shared.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncd.core.batching import COMPANY_FIELDS, MOST_RECORDS
from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.settings import SEPARATORS, Format
from syncd.core.values import ImportState, ImportStatus
from syncd.marketo.errors import garbled, http_fault, rest_fault
from syncd.marketo.imports import Imports, Submitted, envelope_bytes
from syncd.marketo.sync import SyncAnswer, Synced, SyncLeads

RUNNING, QUEUE = 2, 10  # protocol 4
BAD, WARN, POISON = "!bad", "!warn", "!poison"
"""How values begin that fail their row, earn it a warning, or fail the whole job once their row is reached."""
NEVER_EXECUTED = ("1003", "1016", "1019", "413", "602", "603", "606", "607", "1999")
MAY_BE_EXECUTED = ("611", "999", "http_502", "garbled")
GIVES_UP_AFTER = timedelta(seconds=90)  # protocol 2
LATE = timedelta(seconds=85)
CLEARING_CELL = "NULL"
LEADS = {"a@x.io": 1_001, "b@x.io": 1_002}
"""The leads that Marketo has from the beginning."""


class Died(Exception):  # noqa: N818 - what a kill -9 looks like from within
    """The process ends here."""


Row = dict[str, str]
Values = dict[str, str | None]  # None: cleared
Lead = tuple[str, str]  # lookup field, key


@dataclass
class Job:
    """An import in the queue; a stranger's has no rows that matter."""

    batch_id: int
    lasts: timedelta
    ours: bool = False
    lookup_field: str = "email"
    list_id: int | None = None
    file_format: Format = "csv"
    header: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    fails_at: int = 0  # the row before which the job as a whole fails; behind the last: it doesn't
    doubtful: bool = False  # nobody tells us of it, or it goes again although it was imported in part
    started_at: datetime | None = None
    state: ImportState = "queued"
    failed: list[tuple[Row, str]] = field(default_factory=list)
    warned: list[tuple[Row, str]] = field(default_factory=list)

    @property
    def keys(self) -> set[Lead]:
        """The leads that it is about."""
        return {(self.lookup_field, folded(row[self.lookup_field])) for row in self.rows}

    def values(self, row: Row) -> Values:
        """What the row writes."""
        return {name: None if value == CLEARING_CELL else value for name, value in row.items() if name != self.lookup_field}


class Marketo(Imports, SyncLeads):
    """The queue: FIFO, two running, ten in all. `script` holds what becomes of the next submissions, `calls` of those of Sync Leads."""

    def __init__(self, clock: Clock, run: timedelta, slots: int, running: int, body_limit: int) -> None:
        self._clock = clock
        self._run = run
        self._ours_at_most = 1 if running == 1 else slots
        self._body_limit = body_limit
        self._at = clock.now()
        self.jobs: list[Job] = []
        self.leads: dict[Lead, Values] = {}
        self.written: dict[tuple[Lead, str, str | None], bool] = {}
        """(lead, field, value) → whether it was written by who doesn't tell us of it, or does so again."""
        self.sent: list[Job | set[tuple[Lead, str, str | None]]] = []
        """What came to us, in its order: jobs, and what calls have written."""
        self.called: set[tuple[Lead, str, str | None]] = set()
        """What Sync Leads has written, which gives no warnings."""
        self._by_call: list[tuple[datetime, set[Lead], bool]] = []  # the keys of calls that may be live, until then at most; by id or not
        self._late: list[tuple[datetime, Lead, Values]] = []  # what calls that have no answer will write
        self.script: deque[str] = deque()
        self.calls: deque[str] = deque()
        self.status_away = False
        self.results: str = "ok"
        self.during: Callable[[], Awaitable[None]] | None = None

    def live(self) -> list[Job]:
        """What is queued or running now, in order."""
        self.pass_time()
        return [job for job in self.jobs if job.state in ("queued", "importing")]

    def pass_time(self) -> None:
        """Let the queue do what it has done by now."""
        while running := [job for job in self.jobs if job.state in ("queued", "importing")][:RUNNING]:
            for job in running:
                if job.started_at is None:
                    job.started_at, job.state = self._at, "importing"
            first = min(running, key=_ends_at)
            if _ends_at(first) > self._clock.now():
                break
            self._at = _ends_at(first)
            self._write_late()
            self._finish(first)
        self._at = self._clock.now()
        self._write_late()

    def _write_late(self) -> None:
        for _, lead, values in [late for late in self._late if late[0] <= self._at]:
            self._write(lead, values, doubtful=True)
        self._late = [late for late in self._late if late[0] > self._at]

    def busy_for(self) -> float:
        """Seconds until the next job ends; none when the queue is empty."""
        running = [_ends_at(job) for job in self.live() if job.state == "importing"]
        return (min(running) - self._clock.now()).total_seconds() if running else 0.0

    def add_foreign(self, lasts: timedelta, list_id: int | None) -> None:
        """A stranger's import, when there is room for it."""
        if len(self.live()) < QUEUE:
            self.jobs.append(Job(len(self.jobs) + 1, lasts, list_id=list_id))

    def nobody_knows(self, since: int) -> None:
        """Whoever sent us that part of `sent` has not kept our answers, and does it again."""
        for sent in self.sent[since:]:
            if isinstance(sent, Job):
                sent.doubtful = True
                rows = [((sent.lookup_field, folded(row[sent.lookup_field])), sent.values(row)) for row in sent.rows]
                written = {(lead, name, value) for lead, values in rows for name, value in values.items()}
            else:
                written = sent
            self.written.update(dict.fromkeys(written & self.written.keys(), True))

    async def submit(
        self,
        file: Sequence[bytes],
        *,
        sha256: str,
        format: Format,  # noqa: A002 - Marketo's word
        lookup_field: str = "email",
        list_id: int | None = None,
        partition: str | None = None,
    ) -> Submitted:
        """As the script says; the queue's own refusals come first. What happens meanwhile happens before the answer is read."""
        assert (partition == "west") == (lookup_field == "externalId"), "the partition of the push"
        outcome = self.script.popleft() if self.script else "ok"
        if outcome == "dies before":
            raise Died
        body = b"".join(file)
        refusal = self._refusal(len(body) + envelope_bytes(format), list_id, outcome)
        job = None
        if refusal is None:
            job = self._accept(body, format, lookup_field, list_id, outcome)
        await self._meanwhile()
        if outcome == "dies after":
            raise Died
        if outcome in MAY_BE_EXECUTED or outcome == "lost":
            raise _fault("http_502" if outcome == "lost" else outcome, "import")
        if refusal is not None:
            raise refusal
        assert job is not None
        return Submitted(job.batch_id, "queued", f"r#{job.batch_id}")

    async def write(self, records: Sequence[str], *, lookup_field: str, partition: str | None, urgent: bool) -> SyncAnswer:
        """As `calls` says. What happens meanwhile happens before the answer is read."""
        assert (partition == "west") == (lookup_field == "externalId"), "the partition of the push"
        outcome = self.calls.popleft() if self.calls else "ok"
        if outcome == "dies before":
            raise Died
        refused = outcome in NEVER_EXECUTED or outcome in MAY_BE_EXECUTED
        answers = [] if refused else self._written_at_once(records, lookup_field, outcome)
        await self._meanwhile()
        if outcome == "dies after":
            raise Died
        if refused or outcome in ("lost", "late"):
            raise _fault("http_502" if outcome in ("lost", "late") else outcome, "sync_leads")
        self._by_call.pop()
        return SyncAnswer(answers, "r#sync")

    async def status(self, batch_id: int) -> ImportStatus:
        """How far the job is."""
        await self._meanwhile()
        job = self._job(batch_id)
        if self.status_away:
            raise _fault("611", "import_status")
        return ImportStatus(batch_id, job.state, 0, len(job.failed), len(job.warned))

    async def failures(self, batch_id: int) -> bytes:
        """The rows that were not imported; the last of them missing when results are short."""
        job = self._job(batch_id)
        return await self._file(job, job.failed, "Import Failure Reason")

    async def warnings(self, batch_id: int) -> bytes:
        """The rows that were imported with a warning."""
        job = self._job(batch_id)
        return await self._file(job, job.warned, "Import Warning Reason")

    def _job(self, batch_id: int) -> Job:
        self.pass_time()
        (job,) = [job for job in self.jobs if job.batch_id == batch_id]
        assert job.ours
        return job

    async def _file(self, job: Job, rows: list[tuple[Row, str]], reason: str) -> bytes:
        await self._meanwhile()
        if self.results == "away":
            raise Fault(Nature.TRANSIENT, "http_404", "not ready", "import_failures")
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=SEPARATORS[job.file_format])
        writer.writerow([*job.header, reason])
        writer.writerows([*row.values(), why] for row, why in (rows[:-1] if self.results == "short" else rows))
        return text.getvalue().encode()

    async def _meanwhile(self) -> None:
        during, self.during = self.during, None
        if during is not None:
            await during()
        self.pass_time()

    def _refusal(self, size: int, list_id: int | None, outcome: str) -> Fault | None:
        live = self.live()
        if size > self._body_limit:
            return _fault("413", "import")
        if outcome in NEVER_EXECUTED or outcome in MAY_BE_EXECUTED:
            return _fault(outcome, "import")
        if len(live) >= QUEUE:
            return _fault("1016", "import")
        if list_id is not None and any(job.list_id == list_id for job in live):
            return _fault("1019", "import")
        return None

    def _accept(self, body: bytes, file_format: Format, lookup_field: str, list_id: int | None, outcome: str) -> Job:
        header, *cells = csv.reader(io.StringIO(body.decode(), newline=""), delimiter=SEPARATORS[file_format])
        rows = [dict(zip(header, row, strict=True)) for row in cells]
        # Up to twice as long as the shortest: what `is_absent` allows for, and no more than that.
        lasts = self._run * (1 + len(self.jobs) % 3 / 2)
        job = Job(len(self.jobs) + 1, lasts, True, lookup_field, list_id, file_format, header, rows)
        poisoned = (number for number, row in enumerate(rows) if any(value.startswith(POISON) for value in row.values()))
        job.fails_at = min(next(poisoned, len(rows)), len(rows) // 2 if outcome == "fails" else len(rows))
        job.doubtful = job.fails_at < len(rows) or outcome in ("lost", "dies after")
        ours = [other for other in self.live() if other.ours]
        assert len(job.keys) == len(rows) > 0, "one row per key"
        assert all(job.keys.isdisjoint(other.keys) for other in ours), "no key in two live jobs"
        # A job may be passed before it is submitted, too.
        assert job.keys.isdisjoint(self._called_keys(by_id=False)), "no key in a job beside a call that may be live"
        assert len(ours) < self._ours_at_most, "no more slots than are ours"
        self.jobs.append(job)
        self.sent.append(job)
        return job

    def _finish(self, job: Job) -> None:
        job.state = "complete" if job.fails_at == len(job.rows) else "failed"
        for row in job.rows[: job.fails_at]:
            if any(value.startswith(BAD) for value in row.values()):
                job.failed.append((row, "a value is bad"))
                continue
            if any(value.startswith(WARN) for value in row.values()):
                job.warned.append((row, "a value is odd"))
            self._write((job.lookup_field, folded(row[job.lookup_field])), job.values(row), job.doubtful)

    def _write(self, lead: Lead, values: Values, doubtful: bool) -> None:
        self.leads.setdefault(lead, {}).update(values)
        for name, value in values.items():
            self.written[lead, name, value] = doubtful or self.written.get((lead, name, value), False)

    def _called_keys(self, *, by_id: bool = True) -> set[Lead]:
        return {key for until, keys, ids in self._by_call if self._clock.now() < until and (by_id or not ids) for key in keys}

    def _written_at_once(self, records: Sequence[str], lookup_field: str, outcome: str) -> list[Synced]:
        """What each record's answer would be. Who names leads by their ids may pass others."""
        parsed = [json.loads(record) for record in records]
        by_id = lookup_field == "id"
        found = {lead_id: email for email, lead_id in LEADS.items()}
        leads = [("email", found[one["id"]]) if by_id else (lookup_field, folded(one[lookup_field])) for one in parsed]
        assert len(set(leads)) == len(parsed), "one record per key"
        assert 0 < len(parsed) <= MOST_RECORDS
        keys = set(leads)
        if not by_id:
            assert keys.isdisjoint(self._called_keys()), "no key in two calls that may be live"
            assert all(keys.isdisjoint(job.keys) for job in self.live() if job.ours), "no key in a call beside a live job"
        self._by_call.append((self._clock.now() + GIVES_UP_AFTER, keys, by_id))
        answers = []
        written: set[tuple[Lead, str, str | None]] = set()
        self.sent.append(written)
        for number, (lead, one) in enumerate(zip(leads, parsed, strict=True)):
            values = {name: _text(value) for name, value in one.items() if name != lookup_field}
            answers.append(_answer(values, skips=outcome == "skips" and number % 2 == 0))
            if answers[-1].status == "written" and outcome == "late":
                self._late.append((self._clock.now() + LATE, lead, values))
                self.called.update((lead, name, value) for name, value in values.items())
            elif answers[-1].status == "written":
                # What has passed a job goes once more, and may come to another end then.
                self._write(lead, values, outcome in ("lost", "dies after") or by_id)
                written.update((lead, name, value) for name, value in values.items())
        self.called |= written
        return answers


def folded(key: str) -> str:
    """How Marketo is taken to compare keys."""
    return key.strip().lower()


def _answer(values: Values, skips: bool) -> Synced:
    if skips:
        return Synced("skipped", code="611", message="for a moment")
    if not COMPANY_FIELDS.isdisjoint(values):
        return Synced("skipped", code="1021", message="company update not allowed")
    if any(value is not None and value.startswith((BAD, POISON)) for value in values.values()):
        return Synced("skipped", code="1001", message="a value is bad")
    return Synced("written", 1)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) or value is None else str(value).lower()


def _ends_at(job: Job) -> datetime:
    assert job.started_at is not None
    return job.started_at + job.lasts


def _fault(code: str, endpoint: str) -> Fault:
    match code:
        case "413":
            return http_fault(413, "", endpoint)
        case "http_502":
            return http_fault(502, "bad gateway", endpoint)
        case "garbled":
            return garbled("half a reply", endpoint)
    return rest_fault(code, "scripted", endpoint, None)
