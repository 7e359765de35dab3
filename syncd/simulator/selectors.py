"""Which leads a getMultipleLeads asks for, and the opaque positions in such a stream."""

import base64
import hashlib
import hmac
import struct
from dataclasses import dataclass
from datetime import datetime

from syncd.simulator.wire import MarketoFault

_CURSOR = struct.Struct(">qqQ")
_SEAL_BYTES = 12


@dataclass(frozen=True)
class LastUpdateAt:
    """Leads updated in a span of time, both ends inclusive; `latest` absent means now."""

    oldest: datetime
    latest: datetime | None


@dataclass(frozen=True)
class StaticListMembers:
    """Members of a static list, by name or by id."""

    name: str | None
    id: int | None


@dataclass(frozen=True)
class LeadKeys:
    """Leads by keys of one type."""

    key_type: str
    values: tuple[str, ...]


Selector = LastUpdateAt | StaticListMembers | LeadKeys


class Positions:
    """Seals a cursor together with its selector: another selector, or anything we did not issue, is fault 20122."""

    def __init__(self, seed: int) -> None:
        self._secret = hashlib.sha256(f"stream positions of {seed}".encode()).digest()
        self._issued = 0

    def issue(self, selector: Selector, cursor: tuple[int, int]) -> str:
        """An opaque text for `cursor`; never the same twice."""
        self._issued += 1
        packed = _CURSOR.pack(*cursor, self._issued)
        return base64.b64encode(self._seal(selector, packed) + packed).decode()

    def open(self, selector: Selector, position: str) -> tuple[int, int]:
        """The cursor in a position. Raises fault 20122 unless it was issued for this selector."""
        try:
            raw = base64.b64decode(position, validate=True)
        except ValueError as error:
            raise _bad() from error
        seal, packed = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if len(packed) != _CURSOR.size or not hmac.compare_digest(seal, self._seal(selector, packed)):
            raise _bad()
        first, second, _ = _CURSOR.unpack(packed)
        return first, second

    def _seal(self, selector: Selector, packed: bytes) -> bytes:
        return hmac.digest(self._secret, repr(selector).encode() + packed, "sha256")[:_SEAL_BYTES]


def _bad() -> MarketoFault:
    return MarketoFault(20122, "Bad stream position")
