"""REST: the Bearer header, and the envelope in which results and errors alike come with HTTP 200 (protocol 2)."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlencode

import orjson

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Rest
from syncd.marketo.errors import garbled, http_fault, presentable, rest_fault
from syncd.marketo.session import Call, Message, Reply, Session
from syncd.marketo.token import Token

T = TypeVar("T")

_CODE = re.compile("[0-9]{1,6}")
MAX_JSON = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful envelope: `result` as JSON has it."""

    result: Sequence[Any]
    request_id: str | None


class RestApi:
    """Calls to one instance's REST endpoint. Every failure is a Fault with `executed` set; nothing that acts is repeated.

    The one exception is a token found invalid or expired (601, 602): Marketo has then known not to have executed the call.
    """

    def __init__(self, session: Session, rest: Rest, token: Token) -> None:
        self._session = session
        self._base = rest.endpoint.rstrip("/")
        self._token = token

    async def get(self, endpoint: str, path: str, query: Mapping[str, str] | None = None, *, urgent: bool = False) -> Answer:
        """GET `path` (absolute, encoded) and read its envelope. `endpoint` names the call in Faults and metrics.

        An `urgent` call may use what the subscription's quota keeps for such.
        """
        return await self._authorised(endpoint, "GET", self._url(path, query), {}, (), read_envelope(endpoint), urgent)

    async def act(
        self,
        endpoint: str,
        path: str,
        query: Mapping[str, str],
        content_type: str,
        body: Sequence[bytes],
        *,
        urgent: bool = False,
    ) -> Answer:
        """POST `body` to an endpoint that changes something: sent once, following no redirect."""
        headers = {"Content-Type": content_type}
        return await self._authorised(endpoint, "POST", self._url(path, query), headers, body, read_envelope(endpoint), urgent)

    async def file(self, endpoint: str, path: str, limit: int) -> bytes:
        """GET a file of at most `limit` bytes. An envelope, an HTML page or nothing in its place is a Fault (protocol 3.1, 4)."""
        return await self._authorised(endpoint, "GET", self._url(path, None), {}, (), _read_file(endpoint, limit))

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return self._base + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    async def _authorised(
        self,
        endpoint: str,
        method: Literal["GET", "POST"],
        url: str,
        headers: Mapping[str, str],
        body: Sequence[bytes],
        read: Callable[[Reply], Awaitable[T]],
        urgent: bool = False,
    ) -> T:
        async def send(token: str) -> T:
            message = Message({**headers, "Authorization": f"Bearer {token}"}, body)
            return await self._session.send(Call("rest", endpoint, method, url, lambda: message, method == "POST", urgent), read)

        token = await self._token.current()
        try:
            return await send(token)
        except Fault as fault:
            if fault.nature is not Nature.TOKEN:
                raise
        return await send(await self._token.renew(token))


def read_envelope(endpoint: str) -> Callable[[Reply], Awaitable[Answer]]:
    """A reader of the JSON envelope. Raises the Fault that it holds, or "garbled" when it is none."""

    async def read(reply: Reply) -> Answer:
        body = await reply.body(MAX_JSON)
        if reply.status != 200:
            raise http_fault(reply.status, f"answered HTTP {reply.status}", endpoint)
        envelope = _parse(body)
        if envelope is None:
            raise garbled("the reply is not a JSON envelope", endpoint)
        return _open(envelope, endpoint)

    return read


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
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) and isinstance(parsed.get("success"), bool) else None


def _open(envelope: dict[str, Any], endpoint: str) -> Answer:
    request_id = envelope.get("requestId")
    request_id = presentable(request_id)[:100] if isinstance(request_id, str) else None
    if envelope.get("success"):
        result = envelope.get("result", [])
        if isinstance(result, list):
            return Answer(result, request_id)
    else:
        match envelope.get("errors"):
            case [{"code": str() | int() as code, "message": str(message)}, *_]:
                # It becomes a label and goes into the log: nothing but a number may.
                raise rest_fault(str(code) if _CODE.fullmatch(str(code)) else "rest_fault", message, endpoint, request_id)
    fault = garbled("the envelope holds neither a result nor an error", endpoint)
    fault.request_id = request_id
    raise fault
