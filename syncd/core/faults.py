"""What can go wrong on the wire, as values: `marketo/errors.py` names a Fault, `core/retry.py` decides, the flow obeys."""

import enum
from dataclasses import dataclass


class Nature(enum.Enum):
    """What kind of trouble a fault is (the tables of protocol 1.5 and 2)."""

    TRANSIENT = "transient"  # it may heal by itself: back off and try again
    TOKEN = "token"  # noqa: S105 - 601, 602: renew the token once and repeat at once
    SIGNATURE = "signature"  # 20016: sign anew; when it repeats, the clocks differ
    RATE = "rate"  # 606, 615, 20023, 20024: slow down
    QUOTA = "quota"  # 607, 20015, 1029 of export bytes: wait until midnight US Central
    NO_SLOT = "no_slot"  # 1016, 1029: the queue of imports or of exports is full
    LIST_BUSY = "list_busy"  # 1019: the target list is being imported to
    TOO_LARGE = "too_large"  # 413
    POSITION = "position"  # 20122: restart that window
    EMPTY = "empty"  # 702, 20103, 20123: nothing there, a normal end
    CONFIGURATION = "configuration"  # access, rights, lists: a person must act
    PERMANENT = "permanent"  # the request is wrong and stays wrong
    UNKNOWN = "unknown"  # a code nobody documents: a bounded number of tries


@dataclass(eq=False)
class Fault(Exception):  # noqa: N818 - the word of the house
    """One failed exchange with Marketo.

    `executed` is what is known of a POST's effect: False when Marketo certainly did not act on it (architecture.md, import job
    `refused`), None when nobody can know (`unconfirmed`). For reads it does not matter.
    """

    nature: Nature
    code: str
    message: str
    endpoint: str
    request_id: str | None = None
    executed: bool | None = None
    clock_skew: float | None = None  # seconds the server's clock is ahead of ours, where its Date header told

    def __str__(self) -> str:
        request = f", requestId {self.request_id}" if self.request_id else ""
        return f"{self.endpoint}: {self.code} {self.message}{request}"
