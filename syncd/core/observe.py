"""The Protocol through which the wire reports its exchanges; the metrics behind it live in `ops/`."""

from typing import Literal, Protocol

from syncd.core.quota import Api

Service = Api | Literal["identity"]


class Observe(Protocol):
    """Told once of each exchange with Marketo, a transport's repetition being an exchange of its own."""

    def exchange(self, instance: str, service: Service, endpoint: str, code: str, seconds: float) -> None:
        """One exchange ended: `code` is "ok", a Fault's code or "cancelled"; `seconds` are real, up to the last byte."""
