"""What a request is and what a reply is, apart from the web framework; the REST envelope."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

OK: Final = "ok"
JSON: Final = "application/json;charset=UTF-8"
FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Call:
    """One request as it arrived. `now` is its unix time when it is answered, after any latency."""

    endpoint: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    body_size: int
    now: float
    request_id: str
    oddities: frozenset[str] = frozenset()
    """Injected faults that shape the answer instead of replacing it."""
    uri_bytes: int = 0
    """How long its address is, with the query string as it was sent."""
    reply_lost: bool = False
    """Whether a fault is going to hide the answer."""


@dataclass(frozen=True)
class Stream:
    """A body that is sent in pieces: how many bytes, where they come from, and whom to tell how many are on their way."""

    size: int
    pieces: Callable[[], Iterator[bytes]]
    sent: Callable[[int], None]


@dataclass(frozen=True)
class Reply:
    """What goes back. `code` is Marketo's error code, 'http NNN', or 'ok'."""

    status: int
    body: bytes
    content_type: str
    code: str = OK
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    """The body, in place of `body`."""

    @property
    def size(self) -> int:
        return self.stream.size if self.stream else len(self.body)

    def pieces(self) -> Iterator[bytes]:
        """The body, whole or piece by piece."""
        yield from self.stream.pieces() if self.stream else (self.body,)


def parameters(call: Call) -> dict[str, str]:
    """What a read asks for: the query string, or the form body of a `POST …?_method=GET`. Raises fault 612 for a body of another kind."""
    given = {name: value for name, value in call.query.items() if name != "_method"}
    if "_method" not in call.query:
        return given
    if not call.headers.get("Content-Type", "").lower().startswith(FORM):
        raise MarketoFault(612, "Invalid Content Type")
    return given | dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def json_body(call: Call, number: Callable[[str], Any] | None = None) -> Any:
    """The body as JSON, its numbers made by `number` of their very digits. Raises fault 612 for another content type, 609 for no JSON."""
    if "json" not in call.headers.get("Content-Type", "").lower():
        raise MarketoFault(612, "Invalid Content Type")
    try:
        return json.loads(call.body, parse_int=number, parse_float=number, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MarketoFault(609, "Invalid JSON") from error


def rest_result(call: Call, result: list[dict[str, Any]], more: Mapping[str, Any] | None = None) -> Reply:
    """A success in the envelope of protocol section 2; `more` stands behind it."""
    body = {"requestId": call.request_id, "success": True, "result": result, **(more or {})}
    return Reply(200, json.dumps(body, ensure_ascii=False).encode(), JSON)


def rest_error(call: Call, code: int, message: str) -> Reply:
    """An error: HTTP 200 with the code as a string."""
    body = {"requestId": call.request_id, "success": False, "errors": [{"code": str(code), "message": message}]}
    return Reply(200, json.dumps(body, ensure_ascii=False).encode(), JSON, str(code))


def plain(status: int, text: str) -> Reply:
    """An answer at the level of HTTP alone."""
    return Reply(status, text.encode(), "text/plain;charset=UTF-8", f"http {status}")


def html(status: int, title: str) -> Reply:
    """A page for people, such as a maintenance notice or a gateway's error."""
    page = f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1><br></body></html>"
    return Reply(status, page.encode(), "text/html;charset=UTF-8", f"html {status}")


def moment(unix_seconds: float) -> datetime:
    """As an aware UTC datetime."""
    return datetime.fromtimestamp(unix_seconds, UTC)


class MarketoFault(Exception):  # noqa: N818 - the protocol calls it a fault
    """A documented error code, raised where it is found and put into SOAP's or REST's form by whoever answers."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} - {message}")
        self.code, self.message = code, message
