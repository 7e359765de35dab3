"""The nouns that rooms hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Attribute = tuple[str, str, str]
"""One attribute of a lead as the wire gave it: its name, its type (protocol 1.4 attrType, 3.3 dataType), and its value as text."""


class LeadRecord(NamedTuple):
    """One lead of a reply, before it is brought into the mirror's form. Absent and nil are both None."""

    lead_id: int
    email: str | None
    attributes: Sequence[Attribute]


@dataclass(frozen=True, slots=True)
class LeadPage(Generic[T]):
    """One reply of a window's stream. `position` is None at the end (protocol 1.4); `asked_at` is when the request went out."""

    leads: Sequence[T]
    remaining: int
    position: str | None
    asked_at: datetime


@dataclass(frozen=True, slots=True)
class FieldName:
    """What a field is called on one side of describe's dictionary."""

    name: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the instance as describe gives it (protocol 3.3); either name may be absent, never both."""

    display_name: str
    data_type: str
    length: int | None
    rest: FieldName | None
    soap: FieldName | None


ImportState = Literal["queued", "importing", "complete", "failed"]


@dataclass(frozen=True, slots=True)
class ImportStatus:
    """What Marketo says of an import job (protocol 4), its spelling normalised. Counts are rows."""

    batch_id: int
    state: ImportState
    processed: int = 0
    failed: int = 0
    warned: int = 0
    message: str | None = None


ExportState = Literal["created", "queued", "processing", "completed", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """What Marketo says of an export job (protocol 3.1), its spelling normalised."""

    export_id: str
    state: ExportState
    records: int | None = None
    bytes: int | None = None
    sha256: str | None = None  # lower-case hex, without the prefix "sha256:"; None where it tells none
    created_at: datetime | None = None
    message: str | None = None  # presentable


@dataclass(frozen=True, slots=True)
class UpdatedBetween:
    """Leads last updated in a span of at most 31 days, both ends inclusive, UTC."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class CreatedBetween:
    """Leads created in a span of at most 31 days, both ends inclusive, UTC."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class InStaticList:
    """The members of a static list, by its name as `ProgramName.ListName` or by its id."""

    list: str | int


@dataclass(frozen=True, slots=True)
class InSmartList:
    """The members of a smart list, by its name or by its id."""

    list: str | int


ExportFilter = UpdatedBetween | CreatedBetween | InStaticList | InSmartList


@dataclass(frozen=True, slots=True)
class Activity:
    """One entry of the activity log (protocol 3.2)."""

    guid: str  # marketoGUID
    lead_id: int
    type_id: int
    at: datetime  # activityDate, UTC, to the second
    merged: tuple[int, ...] = ()  # of a merge (type 32): the ids that were merged into lead_id, as far as they can be read


@dataclass(frozen=True, slots=True)
class ActivityPage:
    """One page of the activity log, which may be empty and not the last one."""

    activities: Sequence[Activity]
    token: str  # nextPageToken: where the next page, or the next look, begins
    more: bool  # moreResult


@dataclass(frozen=True, slots=True)
class ReadLeads:
    """What leads.json answered for some ids; an id that is missing has no lead. `asked_at` is when the request went out."""

    leads: Sequence[LeadRecord]
    asked_at: datetime
