"""The Protocol through which the wire reports its exchanges; the metrics behind it live in `ops/`."""

from collections.abc import Callable
from typing import Literal, Protocol

from syncd.core.brake import BrakeKind
from syncd.core.quota import Api

Service = Api | Literal["identity"]


class Observe(Protocol):
    """Told once of each exchange with Marketo, a transport's repetition being an exchange of its own; and where to look up the limits."""

    def exchange(self, instance: str, service: Service, endpoint: str, code: str, seconds: float) -> None:
        """One exchange ended: `code` is "ok", a Fault's code or "cancelled"; `seconds` are real, up to the last byte."""

    def clock_skew(self, instance: str, seconds: float) -> None:
        """A reply's Date header was `seconds` ahead of our clock."""

    def brake(self, instance: str, kind: BrakeKind, share: Callable[[], float]) -> None:
        """`share` tells at any time which share of the configured limit is allowed (1 = all of it)."""

    def paused(self, instance: str, api: Api, paused: Callable[[], bool]) -> None:
        """`paused` tells at any time whether `api` waits for its quota to be reset."""

    def waited(self, instance: str, api: Api, seconds: float) -> None:
        """A call waited `seconds`, real, for the limits until it got its turn."""
