"""Values of REST's JSON, which Marketo spells in several ways: numbers, moments."""

from datetime import UTC, datetime
from typing import Any

LARGEST = 2**63 - 1


def whole(value: Any) -> int | None:
    """A count or an id, which may come as a number or as text; None for what is neither, or would not fit its column."""
    match value:
        case bool():
            return None
        case int() if 0 <= value <= LARGEST:
            return value
        case str() if value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= LARGEST:
            return int(value)
    return None


def moment(value: Any) -> datetime | None:
    """A moment, to the second and in UTC, from ISO 8601 with any offset, or Z; None for what has none."""
    try:
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        return at.astimezone(UTC).replace(microsecond=0) if at is not None and at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def iso(at: datetime) -> str:
    """ISO 8601 as Marketo takes it: in UTC, ending in Z, without fractions of a second (protocol 3.1)."""
    assert at.tzinfo is not None, "of a moment without a zone nobody knows which it is"
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"
