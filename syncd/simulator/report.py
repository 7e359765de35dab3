"""What the client did: counted while it happens, frozen on demand."""

from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, datetime

_EVENTS_KEPT = 200
_EXAMPLES_KEPT = 1_000
_WINDOW_SECONDS = 20.0


@dataclass(frozen=True)
class CallCount:
    """How often an endpoint was answered with a code. `api` is soap, rest or identity."""

    api: str
    endpoint: str
    code: str
    count: int


@dataclass(frozen=True)
class DuplicateLiveKey:
    """One normalised lookup key that stood in two of the client's jobs while both were queued or importing."""

    lookup_field: str
    key: str
    first_batch_id: int
    second_batch_id: int


@dataclass(frozen=True)
class SyncedLiveKey:
    """One normalised lookup key that Sync Leads was given (by that key, not by id) while an import job with it was queued or importing."""

    lookup_field: str
    key: str
    batch_id: int


@dataclass(frozen=True)
class Report:
    """What the client did. Sizes in bytes, spans in seconds of the simulator's clock; `leads_read` are records that leads.json answered."""

    calls: tuple[CallCount, ...]
    calls_counted: int
    calls_last_20s: int
    busiest_20s: int
    max_concurrency: int
    most_slots_held: int
    most_slots_held_ours: int
    most_running: int
    most_running_ours: int
    largest_import: int
    imports_accepted: int
    imports_refused: dict[str, int]
    jobs_complete: int
    jobs_failed: int
    polls: dict[int, int]
    rows: dict[str, int]
    row_failures: dict[str, int]
    row_warnings: dict[str, int]
    duplicate_live_keys: tuple[DuplicateLiveKey, ...]
    duplicate_live_key_count: int
    duplicate_leads_created: int
    sync_calls: int
    """Sync Leads calls that were processed, whatever became of the reply."""
    sync_records: int
    sync_statuses: dict[str, int]
    """Records by created, updated and skipped."""
    sync_skipped: dict[str, int]
    """Skipped records by code."""
    synced_live_keys: tuple[SyncedLiveKey, ...]
    synced_live_key_count: int
    leads_read: int
    activities_served: int
    exports_created: int
    exports_enqueued: int
    exports_refused: dict[str, int]
    """Enqueuings by the code that refused them."""
    exports_by_filter: dict[str, int]
    """Enqueuings by the filter, as JSON with sorted keys."""
    exports_completed: int
    exports_failed: int
    exports_cancelled: int
    export_bytes: dict[str, int]
    """The sizes of completed files by the quota day."""
    export_polls: dict[str, int]
    most_exports_held: int
    most_exports_held_ours: int
    most_exports_running: int
    most_exports_running_ours: int
    downloads: dict[str, int]
    """How often a file was sent, whole or from some byte on."""
    downloaded_bytes: int
    violations: dict[str, int]
    faults_injected: dict[str, int]
    events: tuple[str, ...]


class ExportTally:
    """What the recorder counts of exports."""

    def __init__(self) -> None:
        self.created = self.enqueued = self.downloaded_bytes = 0
        self.refused: Counter[str] = Counter()
        self.by_filter: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.bytes_by_day: Counter[str] = Counter()
        self.polls: Counter[str] = Counter()
        self.polled_at: dict[str, float] = {}
        self.downloads: Counter[str] = Counter()
        self.most = (0, 0, 0, 0)

    def board(self, held: int, ours: int, running: int, running_ours: int) -> None:
        """Remember the fullest the export queue has been."""
        self.most = tuple(map(max, self.most, (held, ours, running, running_ours)))  # type: ignore[assignment]

    def sent(self, size: int) -> None:
        """So many bytes of a file went out."""
        self.downloaded_bytes += size


class SyncTally:
    """What the recorder counts of Sync Leads."""

    def __init__(self) -> None:
        self.calls = self.live_key_count = 0
        self.statuses: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.live_keys: list[SyncedLiveKey] = []

    def live_key(self, found: SyncedLiveKey) -> None:
        """Count a key that passed a live job; the first thousand are kept by name."""
        self.live_key_count += 1
        if len(self.live_keys) < _EXAMPLES_KEPT:
            self.live_keys.append(found)


class Recorder:
    """Counts what happens. Emails never go into events."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str, str]] = Counter()
        self.arrivals: list[float] = []
        self.max_concurrency = 0
        self.most_slots_held = self.most_slots_held_ours = 0
        self.most_running = self.most_running_ours = 0
        self.largest_import = 0
        self.imports_accepted = 0
        self.imports_refused: Counter[str] = Counter()
        self.jobs: Counter[str] = Counter()
        self.polls: Counter[int] = Counter()
        self.rows = Counter(dict.fromkeys(("imported", "created", "updated", "warned", "failed", "unprocessed"), 0))
        self.row_failures: Counter[str] = Counter()
        self.row_warnings: Counter[str] = Counter()
        self.duplicate_live_keys: list[DuplicateLiveKey] = []
        self.duplicate_live_key_count = 0
        self.duplicate_leads_created = 0
        self.exports = ExportTally()
        self.sync = SyncTally()
        self.leads_read = self.activities_served = 0
        self.violations: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._events: deque[str] = deque(maxlen=_EVENTS_KEPT)

    def event(self, now: float, text: str) -> None:
        """Remember that something happened at `now` (unix seconds)."""
        self._events.append(f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ} {text}")

    def violation(self, now: float, kind: str, count: int = 1) -> None:
        """The client did something the protocol forbids or advises against."""
        self.violations[kind] += count
        self.event(now, f"violation: {kind}")

    def duplicate_live_key(self, found: DuplicateLiveKey) -> None:
        """Count a key in two live jobs; the first thousand are kept by name."""
        self.duplicate_live_key_count += 1
        if len(self.duplicate_live_keys) < _EXAMPLES_KEPT:
            self.duplicate_live_keys.append(found)

    def board(self, held: int, ours: int, running: int, running_ours: int) -> None:
        """Remember the fullest the import queue has been."""
        self.most_slots_held, self.most_slots_held_ours = max(self.most_slots_held, held), max(self.most_slots_held_ours, ours)
        self.most_running, self.most_running_ours = max(self.most_running, running), max(self.most_running_ours, running_ours)

    def report(self, now: float) -> Report:
        """All of it, frozen, as of `now` (unix seconds)."""
        return Report(
            calls=tuple(CallCount(*what, count) for what, count in sorted(self.calls.items())),
            calls_counted=len(self.arrivals),
            calls_last_20s=sum(1 for arrival in self.arrivals[-1_000:] if arrival > now - _WINDOW_SECONDS),
            busiest_20s=_busiest(self.arrivals),
            max_concurrency=self.max_concurrency,
            most_slots_held=self.most_slots_held,
            most_slots_held_ours=self.most_slots_held_ours,
            most_running=self.most_running,
            most_running_ours=self.most_running_ours,
            largest_import=self.largest_import,
            imports_accepted=self.imports_accepted,
            imports_refused=dict(self.imports_refused),
            jobs_complete=self.jobs["Complete"],
            jobs_failed=self.jobs["Failed"],
            polls=dict(self.polls),
            rows=dict(self.rows),
            row_failures=dict(self.row_failures),
            row_warnings=dict(self.row_warnings),
            duplicate_live_keys=tuple(self.duplicate_live_keys),
            duplicate_live_key_count=self.duplicate_live_key_count,
            duplicate_leads_created=self.duplicate_leads_created,
            sync_calls=self.sync.calls,
            sync_records=self.sync.statuses.total(),
            sync_statuses=dict(self.sync.statuses),
            sync_skipped=dict(self.sync.skipped),
            synced_live_keys=tuple(self.sync.live_keys),
            synced_live_key_count=self.sync.live_key_count,
            leads_read=self.leads_read,
            activities_served=self.activities_served,
            exports_created=self.exports.created,
            exports_enqueued=self.exports.enqueued,
            exports_refused=dict(self.exports.refused),
            exports_by_filter=dict(self.exports.by_filter),
            exports_completed=self.exports.ended["Completed"],
            exports_failed=self.exports.ended["Failed"],
            exports_cancelled=self.exports.ended["Cancelled"],
            export_bytes=dict(self.exports.bytes_by_day),
            export_polls=dict(self.exports.polls),
            most_exports_held=self.exports.most[0],
            most_exports_held_ours=self.exports.most[1],
            most_exports_running=self.exports.most[2],
            most_exports_running_ours=self.exports.most[3],
            downloads=dict(self.exports.downloads),
            downloaded_bytes=self.exports.downloaded_bytes,
            violations=dict(self.violations),
            faults_injected=dict(self.faults),
            events=tuple(self._events),
        )


def _busiest(arrivals: list[float]) -> int:
    most = first = 0
    for last, arrival in enumerate(arrivals):
        while arrivals[first] <= arrival - _WINDOW_SECONDS:
            first += 1
        most = max(most, last - first + 1)
    return most
