"""What a rehearsal can be told. Defaults follow the protocol; what the protocol leaves unknown is a setting here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Literal, Self


@dataclass(frozen=True)
class Credentials:
    """What the client must present. Obvious rehearsal values, never those of a real instance."""

    client_id: str = "rehearsal-client-id"
    client_secret: str = "rehearsal-client-secret"  # noqa: S105
    soap_user_id: str = "rehearsal_soap_user"
    encryption_key: str = "rehearsal-encryption-key"


@dataclass(frozen=True)
class Limits:
    """The limits of the instance (protocol sections 1.6, 2 and 4). SOAP and REST share the rate and the concurrency."""

    calls_per_20s: int = 100
    concurrent_calls: int = 10
    soap_calls_per_day: int = 10_000
    rest_calls_per_day: int = 50_000
    import_slots: int = 10
    import_running: int = 2
    import_body_bytes: int = 10_000_000
    sync_body_bytes: int = 1_000_000
    """Of a Sync Leads call; whether its 1 MB is 10^6 or 2^20 is not told."""
    uri_bytes: int = 8_000
    """Beyond it: HTTP 414. Whether the 8 KB are 8,000 or 8,192 is not told."""


@dataclass(frozen=True)
class ImportModel:
    """How long a job runs: (overhead + rows / rows_per_second) times a lognormal factor of this sigma. Seconds of the simulator's clock."""

    overhead_seconds: float = 5.0
    rows_per_second: float = 300.0
    sigma: float = 0.4
    blank_clears: bool = False
    """Whether a blank cell clears its field [unknown in the protocol]; by default it leaves it alone."""
    cut_at_emoji: bool = False
    """Whether a value is cut at its first character outside the BMP ("may", says the protocol)."""
    empty_results: Literal["header", "empty", "not_found"] = "header"
    """What a results file without rows is [unknown]: the header line, an empty body, or 404."""


@dataclass(frozen=True)
class ExportModel:
    """How exports run, (overhead + rows / rows_per_second) times a lognormal factor of this sigma, and what they may (section 3.1)."""

    overhead_seconds: float = 60.0
    rows_per_second: float = 5_000.0
    sigma: float = 0.4
    slots: int = 10
    """All that are queued or running."""
    running: int = 2
    daily_bytes: int = 500_000_000
    quota_overrun: Literal["completes", "fails"] = "completes"
    """What becomes of a job that begins under the quota of the day and would end above it [unknown]."""
    file_life: float = 7 * 86_400.0
    updated_at_filter: bool = True
    smart_lists: bool = True
    """Neither of the two is in every subscription; without it: fault 1035."""
    status_age: float = 60.0
    """How often the status that is told is looked up anew."""
    not_ready_seconds: float = 0.0
    """For so long after a job is Completed its file is still answered with 404."""
    field_list_chars: int = 7_300
    """A list of fields that is longer (with its commas) is silently cut."""


@dataclass(frozen=True)
class ForeignLoad:
    """What strangers do with the shared instance: import jobs (a Poisson process) and a steady share of the calls."""

    jobs_per_hour: float = 0.0
    job_seconds: float = 60.0
    job_sigma: float = 0.8
    calls_per_20s: int = 0
    rest_calls_today: Mapping[str, int] | tuple[tuple[str, int], ...] = ()
    """What each API user has spent of the first day's quota already (protocol section 3.5); of later days nothing."""


@dataclass(frozen=True)
class Movement:
    """How the lead database moves by itself, in events per second of the clock."""

    updates_per_second: float = 0.0
    creations_per_second: float = 0.0
    deletions_per_second: float = 0.0
    merges_per_second: float = 0.0
    """Of two leads each, by chance."""


@dataclass(frozen=True)
class ActivityModel:
    """How the activity log is kept and read (protocol section 3.2)."""

    late_share: float = 0.0
    """So many of the activities are committed late: dated right, but not to be seen until up to `late_seconds` after it."""
    late_seconds: float = 60.0
    short_pages: float = 0.1
    """How often a page holds fewer activities than there are, maybe none, and says that more are to come."""
    kept_days: float = 90.0
    deletions_kept_days: float = 14.0
    token_chars: int = 0
    """The least length of a paging token; a long one does not fit into an address."""


@dataclass(frozen=True)
class FaultRates:
    """The probability of each fault, per request to an endpoint where it makes sense. Named as in `faults.Fault`."""

    reset_before: float = 0.0
    reset_after: float = 0.0
    truncated: float = 0.0
    html_200: float = 0.0
    html_503: float = 0.0
    gateway_502: float = 0.0
    gateway_504: float = 0.0
    json_garbage: float = 0.0
    soap_10001: float = 0.0
    soap_20011: float = 0.0
    soap_20016: float = 0.0
    soap_20023: float = 0.0
    soap_20122: float = 0.0
    short_page: float = 0.0
    rest_602: float = 0.0
    rest_604: float = 0.0
    rest_606: float = 0.0
    rest_608: float = 0.0
    rest_611: float = 0.0
    rest_713: float = 0.0
    import_1016: float = 0.0
    job_failed: float = 0.0
    results_404: float = 0.0
    results_without_empty_column: float = 0.0
    results_short_row: float = 0.0
    soap_20024: float = 0.0
    rest_615: float = 0.0
    short_activity_page: float = 0.0
    rest_1029_queue: float = 0.0
    export_failed: float = 0.0
    file_404: float = 0.0
    file_json_200: float = 0.0
    file_broken_off: float = 0.0
    range_off_by_one: float = 0.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if not 0.0 <= getattr(self, each.name) <= 1.0:
                raise ValueError(f"the rate of {each.name} must lie between 0 and 1, not {getattr(self, each.name)}")

    @classmethod
    def rough(cls) -> Self:
        """A bad day: about one request in ten meets some trouble."""
        rates = {each.name: 0.005 for each in fields(cls)}
        rates |= {"soap_20122": 0.004, "short_page": 0.05, "import_1016": 0.03, "job_failed": 0.02}
        rates |= {"results_without_empty_column": 0.3, "results_short_row": 0.3}
        # Later comers stay out of it: what a seed has shown once it must show again.
        rates |= {"soap_20024": 0.0, "rest_615": 0.0}
        # These are of the endpoints that came later, where no seed has shown anything yet.
        rates |= {"short_activity_page": 0.05, "rest_1029_queue": 0.03, "export_failed": 0.02, "range_off_by_one": 0.02}
        rates |= {"file_404": 0.02, "file_json_200": 0.02, "file_broken_off": 0.05}
        return cls(**rates)


@dataclass(frozen=True)
class SimulatorSettings:
    """A whole rehearsal. Sizes in bytes, times in seconds of the simulator's clock."""

    seed: int = 1
    leads: int = 1_000
    updated_since: datetime = datetime(2016, 1, 1, tzinfo=UTC)
    """The generated leads' update times are spread from here to the start of the simulator."""
    burst_leads: int = 0
    """So many of them share one single second."""
    first_lead_id: int = 1_001
    static_lists: tuple[tuple[str, int], ...] = ()
    """Name and number of members of each generated static list; their ids count from 1001."""
    partitions: tuple[str, ...] = ("Default",)
    credentials: Credentials = field(default_factory=Credentials)
    limits: Limits = field(default_factory=Limits)
    imports: ImportModel = field(default_factory=ImportModel)
    foreign: ForeignLoad = field(default_factory=ForeignLoad)
    movement: Movement = field(default_factory=Movement)
    exports: ExportModel = field(default_factory=ExportModel)
    activities: ActivityModel = field(default_factory=ActivityModel)
    activities_allowed: bool = True
    """Whether the API user may read activities; if not, fault 603."""
    merges_are_deletions: bool = False
    """Whether a merge is logged as a deletion of each loser, too [unknown]."""
    faults: FaultRates = field(default_factory=FaultRates)
    latency: float = 0.0
    soap_batch_limit: int = 1_000
    """The most leads in a page; the documentation says both 100 and 1000."""
    signature_life: float = 300.0
    """How far a requestTimestamp may lie from now before 20016 [not documented]."""
    token_life: float = 3_600.0
    batch_life: float = 7 * 86_400.0
    clock_skew: float = 0.0
    """How far the instance's own clock is ahead (negative: behind): of the Date header and the age of signatures, not of the leads."""
