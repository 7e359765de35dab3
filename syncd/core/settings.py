"""The frozen settings that flows and edges are given.

`config.py` makes them from the YAML; nothing here reads a file. Durations are `timedelta`, sizes are bytes, times are UTC.
Secrets are `Secret` values: their text never shows in a repr, a log line or an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

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
    urgent_reserve: int = 1_000  # of these, kept for what cannot wait
    import_slots: int = 10
    import_running: int = 2
    export_slots: int = 10
    export_running: int = 2
    export_daily_bytes: int = 500_000_000  # of files, per quota day (protocol 3.1)


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
class Push:
    name: str
    lookup_field: str = "email"
    format: Format = "csv"
    list_id: int | None = None
    partition: str | None = None
    max_body_bytes: int = 9_900_000
    flush_after: timedelta = timedelta(minutes=5)
    unconfirmed_after: timedelta = timedelta(hours=6)
    clear_with: ClearWith = "sync"  # by Sync Leads, or by a cell of a file: what that means is unknown (protocol 4)
    mend: Mend = Mend()
    poll: Poll = Poll()


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
