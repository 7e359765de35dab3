"""The frozen settings that flows and edges are given.

`config.py` makes them from the YAML; nothing here reads a file. Durations are `timedelta`, sizes are bytes, times are UTC.
Secrets are `Secret` values: their text never shows in a repr, a log line or an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

Format = Literal["csv", "tsv", "ssv"]

ClearWith = Literal["sync", "blank", "NULL"]

SEPARATORS: dict[Format, str] = {"csv": ",", "tsv": "\t", "ssv": ";"}


class Secret:
    """A text that must not be shown. `read` is asked each time, so that a rotated file is seen without a restart."""

    __slots__ = ("_read",)

    def __init__(self, read: str | Callable[[], str]) -> None:
        self._read = read

    def reveal(self) -> str:
        """The secret itself; raises OSError when the file behind it can no longer be read."""
        return self._read if isinstance(self._read, str) else self._read()

    @property
    def reader(self) -> Callable[[], str] | None:
        """What it is read by; None where it is a text."""
        return None if isinstance(self._read, str) else self._read

    def __eq__(self, other: object) -> bool:
        """Whether both are written in the same way: the same text, or the same file, whatever it holds by now."""
        return isinstance(other, Secret) and self._read == other._read

    def __hash__(self) -> int:
        return hash(self._read)

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class Rest:
    endpoint: str
    identity: str
    client_id: Secret
    client_secret: Secret


@dataclass(frozen=True, slots=True)
class Soap:
    endpoint: str
    user_id: str
    encryption_key: Secret


@dataclass(frozen=True, slots=True)
class Network:
    # its URL may hold a password
    proxy: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    timeout: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Limits:
    """Our share of what the instance allows (protocol 1.6, 2 and 4); the rest is other integrations'."""

    calls_per_20s: int = 50
    concurrency: int = 5
    daily_calls: int = 30_000
    subscription_calls: int | None = None  # REST calls a day of all integrations together; None where nobody has told
    urgent_reserve: int = 1_000  # of these, and of our own, kept for what cannot wait
    import_slots: int = 10
    import_running: int = 2
    export_slots: int = 10
    export_running: int = 2
    export_daily_bytes: int = 500_000_000  # of files, per quota day (protocol 3.1)

    @property
    def urgent_calls(self) -> int:
        """Of `daily_calls`, those that are kept for what cannot wait: a tenth at most, however few there are."""
        return min(self.urgent_reserve, self.daily_calls // 10)


@dataclass(frozen=True, slots=True)
class UpdatedSince:
    """Leads updated at or after `since`, and from then on."""

    since: datetime


@dataclass(frozen=True, slots=True)
class StaticList:
    """The members of a static list, by its name as `ProgramName.ListName` or by its id."""

    list: str | int


@dataclass(frozen=True, slots=True)
class SmartList:
    """The members of a smart list, by its name or its id. Only extracts know them (protocol 3.1)."""

    list: str | int


KeyType = Literal[
    "IDNUM", "COOKIE", "EMAIL", "LEADOWNEREMAIL", "SFDCACCOUNTID", "SFDCCONTACTID", "SFDCLEADID", "SFDCLEADOWNERID", "SFDCOPPTYID"
]


@dataclass(frozen=True, slots=True)
class Keys:
    """Leads by key: `values`, or one a line of `file`, which is read again at each walk."""

    type: KeyType
    values: tuple[str, ...] = field(default=(), repr=False)  # may be email addresses
    file: Path | None = None


Select = UpdatedSince | StaticList | SmartList | Keys

Source = Literal["soap", "bulk_extract", "activities", "auto"]


@dataclass(frozen=True, slots=True)
class Pull:
    """`columns` names columns of the view (field → column); `where` keeps the leads whose field has one of the values."""

    name: str
    source: Source
    select: Select
    fields: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    every: timedelta = timedelta(minutes=5)
    batch_size: int = 300
    streams: int = 4
    window: timedelta = timedelta(days=30)
    overlap: timedelta = timedelta(minutes=15)
    margin: timedelta = timedelta(minutes=1)

    @property
    def since(self) -> datetime | None:
        """The first update time that it selects; None where it does not select by time."""
        return self.select.since if isinstance(self.select, UpdatedSince) else None


@dataclass(frozen=True, slots=True)
class Poll:
    min: timedelta = timedelta(seconds=5)
    max: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Mend:
    """What is done with a value that Marketo would refuse or cut: it is rejected, or changed so that it fits."""

    spelling: Literal["reject", "mend"] = "reject"  # of names that differ from describe's only in case
    decimals: Literal["reject", "round"] = "reject"  # in whole-number fields
    length: Literal["reject", "cut"] = "reject"
    astral: Literal["reject", "strip"] = "reject"  # characters outside the Basic Multilingual Plane


@dataclass(frozen=True, slots=True)
class FromColumn:
    """A field is set to what a column of the table holds."""

    column: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A field is set to the same text for every row."""

    text: str


@dataclass(frozen=True, slots=True)
class FromTable:
    """A push's changes are those of a table. `where` is an SQL condition on its columns; None takes all rows."""

    table: str
    key: str
    fields: Mapping[str, FromColumn | Constant]
    where: str | None = None
    every: timedelta = timedelta(minutes=15)  # how often a view is compared
    on_delete: Mapping[str, str | None] = field(default_factory=dict)  # what is set, or cleared, when a row is gone


@dataclass(frozen=True, slots=True)
class Guard:
    """What keeps one wrong statement from reaching everybody. None: without that limit."""

    canary: int = 200  # changes that go first and alone
    canary_max_failures: Decimal = Decimal("0.02")  # the share of them that may fail
    hold_above: int | None = 20_000  # changes an hour
    max_created: int | None = None  # leads a day, by the mirror


@dataclass(frozen=True, slots=True)
class Hours:
    """When a push may import, by the clock on the wall there; over midnight where it ends earlier than it begins."""

    begins: time
    ends: time
    zone: ZoneInfo


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What may be sent of one field. `owner: marketo` leaves it alone where the lead has a value by the mirror."""

    only_set: bool = False  # never cleared
    never: tuple[str, ...] = ()  # values that are never sent
    owner: Literal["us", "marketo"] = "us"


@dataclass(frozen=True, slots=True)
class Push:
    name: str
    lookup_field: str = "email"
    mode: Literal["upsert", "update_only"] = "upsert"
    format: Format = "csv"
    list_id: int | None = None
    partition: str | None = None
    max_body_bytes: int = 9_900_000
    flush_after: timedelta = timedelta(minutes=5)
    unconfirmed_after: timedelta = timedelta(hours=6)
    clear_with: ClearWith = "sync"  # by Sync Leads, or by a cell of a file: what that means is unknown (protocol 4)
    mend: Mend = Mend()
    deleted_in_marketo: Literal["skip", "recreate"] = (
        "skip"  # what becomes of changes of a lead that was deleted: an upsert creates it again
    )
    rules: Mapping[str, FieldRule] = field(default_factory=dict)  # by REST name
    poll: Poll = Poll()
    from_table: FromTable | None = None  # None: from the outbox, which applications fill
    guard: Guard | None = None
    hours: Hours | None = None

    @property
    def written_by(self) -> str:
        """The field by which Marketo is told which lead is meant: by its id it creates none."""
        return "id" if self.mode == "update_only" else self.lookup_field


@dataclass(frozen=True, slots=True)
class Keep:
    """How long settled changes are kept, and how long their values."""

    outcomes: timedelta = timedelta(days=400)
    payloads: timedelta = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Instance:
    name: str
    rest: Rest | None = None
    soap: Soap | None = None
    network: Network = Network()
    limits: Limits = Limits()
    history: timedelta | None = timedelta(days=90)  # how long changes of leads are kept; None keeps none
    census: timedelta | None = timedelta(days=7)  # how often all ids are compared with Marketo's, with `rest`; None never
    keep: Keep = Keep()
    pulls: tuple[Pull, ...] = ()
    pushes: tuple[Push, ...] = ()


@dataclass(frozen=True, slots=True)
class Database:
    """Where Postgres is: a DSN, or the directory of an embedded server that the daemon starts itself."""

    dsn: Secret | None = None
    embedded: Path | None = None


@dataclass(frozen=True, slots=True)
class Http:
    host: str = "127.0.0.1"
    port: int = 9464
    token: Secret | None = None  # what a reader has to show, where it is not None


@dataclass(frozen=True, slots=True)
class Logging:
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "logfmt", "console"] = "json"
    metrics_every: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Settings:
    database: Database
    instances: tuple[Instance, ...] = ()
    http: Http | None = field(default_factory=Http)
    logging: Logging = Logging()
