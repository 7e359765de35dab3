"""The nouns that rooms hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Attribute = tuple[str, str, str]
"""One attribute of a lead as the wire gave it: its name, its type (protocol 1.4 attrType, 3.3 dataType), and its value as text."""


@dataclass(frozen=True, slots=True)
class LeadRecord:
    """One lead of a reply, before it is brought into the mirror's form. Absent and nil are both None."""

    lead_id: int
    email: str | None
    attributes: Sequence[Attribute]


@dataclass(frozen=True, slots=True)
class LeadPage:
    """One reply of a window's stream. `position` is None at the end (protocol 1.4); `asked_at` is when the request went out."""

    leads: Sequence[LeadRecord]
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
