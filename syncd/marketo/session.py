"""One HTTP session per instance: every exchange with Marketo passes here, and every failure leaves as a Fault."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Literal, Self, TypeVar

import aiohttp
from yarl import URL

from syncd.core.clock import Clock
from syncd.core.faults import Fault, Nature
from syncd.core.observe import Observe, Service
from syncd.core.settings import Network
from syncd.core.windows import reached
from syncd.marketo.limiter import Limiter

T = TypeVar("T")

PIECE = 16 * 1024
MAX_REDIRECTS = 3
SLOWEST = 50_000  # bytes a second, on the average of a reply that may take long
TELLING_SKEW = 30.0  # seconds between the clocks from which on a refused signature is theirs


@dataclass(frozen=True, slots=True)
class Message:
    """What one attempt sends. The body is in pieces so that a large one is never copied into one block."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One exchange to be made. `compose` is asked at each attempt's sending, so that what is signed or dated is fresh."""

    service: Service
    endpoint: str  # the name for people and metrics, of which there are few
    method: Literal["GET", "POST"]
    url: str  # already encoded
    compose: Callable[[], Message]
    acts: bool = False  # changes something in Marketo, so that doing it twice is not doing it once
    urgent: bool = False  # may use what the subscription's quota keeps for such calls
    timeout: float | None = None  # seconds that Marketo may take, where network.timeout is shorter


class Reply:
    """A reply whose body has not been read."""

    def __init__(self, response: aiohttp.ClientResponse, endpoint: str, deadline: asyncio.Timeout, patience: float) -> None:
        self._response = response
        self._endpoint = endpoint
        self._deadline = deadline
        self._patience = patience
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def pieces(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The body, decompressed, in pieces of at most PIECE bytes. Raises Fault(UNKNOWN) past `limit` bytes."""
        size = 0
        async for piece in self._response.content.iter_chunked(PIECE):
            size += len(piece)
            if size > limit:
                message = f"the reply is longer than {limit} bytes"
                raise Fault(Nature.UNKNOWN, "reply_too_large", message, self._endpoint)
            yield piece

    async def body(self, limit: int) -> bytes:
        """The whole body, decompressed. Raises Fault(UNKNOWN) past `limit` bytes."""
        return b"".join([piece async for piece in self.pieces(limit)])

    async def paced(self) -> AsyncGenerator[bytes, None]:
        """The body in pieces like `pieces`, without a limit and whatever time it takes as a whole.

        No piece may take longer than the exchange's time-out, and the server no longer than that beside what it needs at SLOWEST:
        one that drips is left soon. What the caller does with a piece does not count.
        """
        loop = asyncio.get_running_loop()
        size, waited = 0, 0.0
        while True:
            began = loop.time()
            self._deadline.reschedule(began + self._patience + min(0.0, size / SLOWEST - waited))
            piece = await self._response.content.read(PIECE)
            waited += loop.time() - began
            self._deadline.reschedule(None)
            if not piece:
                return
            size += len(piece)
            yield piece


class _Moved(Exception):  # noqa: N818 - not an error yet
    def __init__(self, url: URL) -> None:
        self.url = url


class _Unanswered(Exception):  # noqa: N818 - not an error yet
    """The connection failed before any byte of a reply."""


class Session:
    """Owns the connections to one instance. Use as `async with`.

    `send` passes the limiter, makes the exchange and turns whatever goes wrong into a Fault whose `executed` is set. Only a call
    that does not act is repeated, once, and only when its connection failed before any byte of a reply.
    """

    def __init__(
        self, instance: str, network: Network, limiter: Limiter, clock: Clock, observe: Observe, may_call: Callable[[], bool]
    ) -> None:
        self._instance = instance
        self._network = network
        self._limiter = limiter
        self._clock = clock
        self._observe = observe
        self._may_call = may_call
        self.clock_skew: float | None = None
        """Seconds that Marketo's clock was ahead of ours at its last reply; None before."""
        self._reading: aiohttp.ClientSession | None = None
        self._acting: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._reading = self._client(keep=True)
        # On a kept connection that the server is just closing for idleness, an act would fail as if it may have been done.
        self._acting = self._client(keep=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for client in (self._reading, self._acting):
            if client is not None:
                await client.close()

    def marketo_now(self) -> datetime:
        """The time, by Marketo's clock where that is known to be behind ours."""
        return reached(self._clock.now(), self.clock_skew)

    def _client(self, *, keep: bool) -> aiohttp.ClientSession:
        ca_file = self._network.ca_file
        client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._limiter.concurrency + 1,  # identity passes beside the limiter
                ssl=ssl.create_default_context(cafile=str(ca_file)) if ca_file else True,
                force_close=not keep,
            ),
            timeout=aiohttp.ClientTimeout(),  # `_attempt` has one of its own
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "syncd", "Accept-Encoding": "gzip, deflate"},
            proxy=self._network.proxy,
        )
        client._retry_connection = False  # aiohttp would repeat a GET behind the limiter's back
        return client

    async def send(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        """Make the call and hand its reply to `read`, whose Faults count as the exchange's. Raises Fault."""
        repeated, redirects = False, 0
        while True:
            try:
                return await self._exchange(call, read)
            except _Unanswered as unanswered:
                if call.acts or repeated:
                    raise _transport_fault(unanswered.__cause__, call.endpoint) from unanswered.__cause__
                repeated = True
            except _Moved as moved:
                redirects += 1
                call = _followed(call, moved.url, redirects)

    async def _exchange(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        async with self._admission(call):
            loop = asyncio.get_running_loop()
            started, code = loop.time(), "cancelled"
            try:
                result = await self._attempt(call, read)
                code = "ok"
                return result
            except Fault as fault:
                code = fault.code
                if call.service != "identity":
                    self._limiter.met(call.service, fault)
                raise
            except _Moved:
                code = "redirect"
                raise
            except _Unanswered as unanswered:
                code = _transport_fault(unanswered.__cause__, call.endpoint).code
                raise
            finally:
                self._observe.exchange(self._instance, call.service, call.endpoint, code, loop.time() - started)

    def _admission(self, call: Call) -> AbstractAsyncContextManager[None]:
        return contextlib.nullcontext() if call.service == "identity" else self._limiter.call(call.service, call.urgent)

    async def _attempt(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        client = self._acting if call.acts else self._reading
        assert client is not None, "the session is not open"
        if not self._may_call():
            doubt = "not sent: this daemon can't be sure any more that it is the one to work for the instance"
            raise Fault(Nature.TRANSIENT, "lease", doubt, call.endpoint, executed=False)
        answered = False
        try:
            message = call.compose()
            url = URL(call.url, encoded=True)
            patience = max(self._network.timeout.total_seconds(), call.timeout or 0.0)
            async with (
                asyncio.timeout(patience) as deadline,
                client.request(call.method, url, headers=_headers(message), data=_data(message), allow_redirects=False) as response,
            ):
                answered = True
                skew = self._skew(response.headers.get("Date"))
                if 300 <= response.status < 400:
                    raise _Moved(_target(url, response.headers.get("Location", "")))
                try:
                    return await read(Reply(response, call.endpoint, deadline, patience))
                except Fault as fault:
                    fault.clock_skew = skew
                    if fault.nature is Nature.SIGNATURE and skew is not None and abs(skew) >= TELLING_SKEW:
                        fault.message += f"; the clocks differ by {abs(skew):.0f} s: set this host's clock, e.g. by NTP"
                    raise
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if not answered and isinstance(error, (aiohttp.ClientConnectionError, OSError)) and not _timed_out(error):
                raise _Unanswered from error
            raise _transport_fault(error, call.endpoint) from error

    def _skew(self, date: str | None) -> float | None:
        """Seconds that the server's clock is ahead of ours; its header has whole ones."""
        try:
            skew = (parsedate_to_datetime(date) - self._clock.now()).total_seconds() if date else None
        except (ValueError, TypeError, OverflowError):
            return None
        if skew is not None:
            self.clock_skew = skew
            self._observe.clock_skew(self._instance, skew)
        return skew


def _headers(message: Message) -> Mapping[str, str]:
    size = sum(map(len, message.body))
    return {**message.headers, "Content-Length": str(size)} if size else message.headers


def _data(message: Message) -> AsyncGenerator[bytes, None] | None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in message.body:
            yield piece

    return pieces() if message.body else None


def _target(url: URL, location: str) -> URL:
    try:
        return url.join(URL(location, encoded=True))
    except ValueError:
        return URL()


def _followed(call: Call, url: URL, redirects: int) -> Call:
    """The same read at the place it was sent on to: never a POST, never on another host, which must not see the token."""
    here = URL(call.url, encoded=True)
    if call.method == "GET" and redirects <= MAX_REDIRECTS and _origin(here) == _origin(url):
        return replace(call, url=str(url))
    message = f"{_origin(here)} redirects us to {_origin(url)}; if it has moved for good, change the endpoint in the configuration"
    raise Fault(Nature.TRANSIENT, "redirect", message, call.endpoint) from None


def _origin(url: URL) -> str:
    try:
        return str(url.origin())
    except ValueError:  # of a relative one, and of one whose port is none
        return "nowhere"


def _timed_out(error: BaseException | None) -> bool:
    return isinstance(error, TimeoutError)


def _transport_fault(error: BaseException | None, endpoint: str) -> Fault:
    """The Fault for a failure below HTTP. Only where no connection came about is it known that the body was never sent."""
    if _timed_out(error):
        return Fault(Nature.TRANSIENT, "timeout", "no complete reply in time (network.timeout)", endpoint)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        message = f"the server's certificate is not trusted ({error.certificate_error}); set network.ca_file if it is your own"
        return Fault(Nature.CONFIGURATION, "certificate", message, endpoint, executed=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Fault(Nature.TRANSIENT, "connect", str(error), endpoint, executed=False)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        nature = Nature.CONFIGURATION if error.status == 407 else Nature.TRANSIENT
        return Fault(nature, "proxy", f"the proxy refused with HTTP {error.status}", endpoint, executed=False)
    if isinstance(error, aiohttp.InvalidURL):
        return Fault(Nature.CONFIGURATION, "url", "the endpoint in the configuration is not a URL", endpoint, executed=False)
    return Fault(Nature.TRANSIENT, "connection", f"the connection failed: {type(error).__name__}", endpoint)
