"""REST: the Bearer header, and the envelope in which results and errors alike come with HTTP 200 (protocol 2)."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar
from urllib.parse import quote, urlencode

import orjson

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Rest
from syncd.marketo.errors import garbled, http_fault, presentable, rest_fault, storable
from syncd.marketo.session import Call, Message, Reply, Session
from syncd.marketo.token import Token

T = TypeVar("T")

_CODE = re.compile("[0-9]{1,6}")
MAX_JSON = 32 * 1024 * 1024
LONGEST_URI = 8_000  # bytes: 8 KB, whichever KB is meant

Compose = Callable[[], Message]


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful envelope: `result` as JSON has it."""

    result: Sequence[Any]
    request_id: str | None
    page_token: str | None = None  # nextPageToken
    more: bool = False  # moreResult


class RestApi:
    """Calls to one instance's REST endpoint. Every failure is a Fault with `executed` set; nothing that acts is repeated.

    The one exception is a token found invalid or expired (601, 602): Marketo has then known not to have executed the call.
    """

    def __init__(self, session: Session, rest: Rest, token: Token) -> None:
        self._session = session
        self._base = rest.endpoint.rstrip("/")
        self._token = token

    async def get(
        self,
        endpoint: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        urgent: bool = False,
        timeout: float | None = None,
        exact: bool = False,
    ) -> Answer:
        """GET `path` (absolute, encoded) and read its envelope. `endpoint` names the call in Faults and metrics.

        An `urgent` call may use what the subscription's quota keeps for such; one with a `timeout` waits for so many seconds where
        network.timeout is shorter. A query too long for a URI goes as a form.
        """
        url = self._url(path, query)
        if query and len(url) > LONGEST_URI:
            return await self.ask(endpoint, path, query, urgent=urgent, timeout=timeout, exact=exact)
        call = Call("rest", endpoint, "GET", url, Message, urgent=urgent, timeout=timeout)
        try:
            return await self._authorised(call, read_envelope(endpoint, exact))
        except Fault as fault:
            if fault.code != "http_414" or not query:
                raise
        return await self.ask(endpoint, path, query, urgent=urgent, timeout=timeout, exact=exact)

    async def ask(
        self,
        endpoint: str,
        path: str,
        query: Mapping[str, str],
        *,
        urgent: bool = False,
        timeout: float | None = None,
        exact: bool = False,
        on_sending: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Like `get`, with the query as a form: a read, though by POST, so that no redirect of it is followed.

        `on_sending` is called as each attempt goes out.
        """
        form = urlencode(query, quote_via=quote).encode()

        def compose() -> Message:
            on_sending()
            return Message({"Content-Type": "application/x-www-form-urlencoded"}, (form,))

        url = self._url(path, {"_method": "GET"})
        call = Call("rest", endpoint, "POST", url, compose, urgent=urgent, timeout=timeout)
        return await self._authorised(call, read_envelope(endpoint, exact))

    async def act(
        self,
        endpoint: str,
        path: str,
        query: Mapping[str, str],
        content_type: str,
        body: Sequence[bytes],
        *,
        urgent: bool = False,
        timeout: float | None = None,
    ) -> Answer:
        """POST `body` to an endpoint that changes something: sent once, following no redirect."""
        message = Message({"Content-Type": content_type}, body)
        call = Call("rest", endpoint, "POST", self._url(path, query), lambda: message, acts=True, urgent=urgent, timeout=timeout)
        return await self._authorised(call, read_envelope(endpoint))

    async def file(self, endpoint: str, path: str, limit: int) -> bytes:
        """GET a file of at most `limit` bytes. An envelope, an HTML page or nothing in its place is a Fault (protocol 3.1, 4)."""
        return await self._authorised(Call("rest", endpoint, "GET", self._url(path, None), Message), _read_file(endpoint, limit))

    async def stream(self, endpoint: str, path: str, headers: Mapping[str, str], read: Callable[[Reply], Awaitable[T]]) -> T:
        """GET `path` and hand the reply to `read`, with whatever status it comes."""
        message = Message(headers)
        return await self._authorised(Call("rest", endpoint, "GET", self._url(path, None), lambda: message), read)

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return self._base + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    async def _authorised(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        """Make `call`, whose messages get a token."""

        async def send(token: str) -> T:
            def compose() -> Message:
                message = call.compose()
                return replace(message, headers={**message.headers, "Authorization": f"Bearer {token}"})

            return await self._session.send(replace(call, compose=compose), read)

        token = await self._token.current()
        try:
            return await send(token)
        except Fault as fault:
            if fault.nature is not Nature.TOKEN:
                raise
        return await send(await self._token.renew(token))


def read_envelope(endpoint: str, exact: bool = False) -> Callable[[Reply], Awaitable[Answer]]:
    """A reader of the JSON envelope. Raises the Fault that it holds, or "garbled" when it is none.

    An `exact` one leaves every number the text that it came as, and takes texts that hold half of a character.
    """

    async def read(reply: Reply) -> Answer:
        body = await reply.body(MAX_JSON)
        if reply.status != 200:
            raise http_fault(reply.status, f"answered HTTP {reply.status}", endpoint)
        return open_envelope(body, endpoint, exact)

    return read


def open_envelope(body: bytes, endpoint: str, exact: bool = False) -> Answer:
    """What `read_envelope` reads from the body of a reply."""
    envelope = _parse_exactly(body) if exact else _parse(body)
    if envelope is None:
        raise garbled("the reply is not a JSON envelope", endpoint)
    return _open(envelope, endpoint)


def _read_file(endpoint: str, limit: int) -> Callable[[Reply], Awaitable[bytes]]:
    async def read(reply: Reply) -> bytes:
        body = await reply.body(limit)
        if reply.status == 404:
            raise Fault(Nature.TRANSIENT, "http_404", "the file is not ready, or its batch unknown", endpoint)
        if reply.status != 200:
            raise http_fault(reply.status, f"answered HTTP {reply.status}", endpoint)
        start = body[:256].lstrip()
        if start.startswith(b"{"):  # as no field's name does, nor then a file's header
            _open(_parse(body) or {}, endpoint)
            raise garbled("a JSON envelope came in place of the file", endpoint)
        if not start or start.startswith(b"<"):
            raise garbled("an empty reply or a page came in place of the file", endpoint)
        return body

    return read


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        return _envelope(orjson.loads(body))
    except orjson.JSONDecodeError:
        return _parse_leniently(body)


def _parse_leniently(body: bytes) -> dict[str, Any] | None:
    """Half of a character, as of a text that was cut amid an emoji, becomes "?": what was done is told all the same."""
    try:
        whole = json.dumps(json.loads(body), ensure_ascii=False).encode("utf-8", "replace")
        return _envelope(orjson.loads(whole))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or nested without end
        return None


def _parse_exactly(body: bytes) -> dict[str, Any] | None:
    try:
        return _envelope(json.loads(body, parse_int=str, parse_float=str, parse_constant=_refuse))
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or nested without end
        return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"JSON has no {constant}")


def _envelope(parsed: Any) -> dict[str, Any] | None:
    return parsed if isinstance(parsed, dict) and isinstance(parsed.get("success"), bool) else None


def _open(envelope: dict[str, Any], endpoint: str) -> Answer:
    request_id = envelope.get("requestId")
    request_id = presentable(request_id)[:100] if isinstance(request_id, str) else None
    if envelope.get("success"):
        result = envelope.get("result", [])
        if isinstance(result, list):
            return Answer(result, request_id, _page_token(envelope.get("nextPageToken")), envelope.get("moreResult") is True)
    else:
        match envelope.get("errors"):
            case [{"code": str() | int() as code, "message": str(message)}, *_]:
                # It becomes a label and goes into the log: nothing but a number may.
                raise rest_fault(str(code) if _CODE.fullmatch(str(code)) else "rest_fault", message, endpoint, request_id)
    raise garbled("the envelope holds neither a result nor an error", endpoint, request_id)


def _page_token(token: Any) -> str | None:
    """An opaque text that can be kept and sent back as it is; None where there is none."""
    return token if isinstance(token, str) and token and token == storable(token) else None
