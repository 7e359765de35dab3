"""A server on loopback that replies by script, and the small parts that the wire's tests share."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from syncd.core.brake import BrakeKind
from syncd.core.clock import Clock
from syncd.core.observe import Service
from syncd.core.quota import Api, CallLedger
from syncd.core.settings import Limits, Network, Rest, Secret, Soap
from syncd.marketo.activities import Activities
from syncd.marketo.exports import Exports
from syncd.marketo.leads import Leads
from syncd.marketo.limiter import Limiter
from syncd.marketo.rest import RestApi
from syncd.marketo.session import Call, Reply, Session
from syncd.marketo.token import Token
from syncd.ops.clock import WallClock

T = TypeVar("T")

SAMPLES = Path(__file__).parent.parent / "samples"
FAST = Limits(calls_per_20s=1_000_000)

Script = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]


class MemoryLedger:
    """A call ledger without a database, which counts its own uses."""

    def __init__(self) -> None:
        self.calls: Counter[date] = Counter()
        self.reservations = 0

    async def reserve(self, api: Api, day: date, wanted: int, limit: int) -> int:
        self.reservations += 1
        granted = max(0, min(wanted, limit - self.calls[day]))
        self.calls[day] += granted
        return granted

    async def give_back(self, api: Api, day: date, unused: int) -> None:
        self.calls[day] -= unused


@dataclass
class Observed:
    """Remembers what the session reported."""

    exchanges: list[tuple[Service, str, str]] = field(default_factory=list)
    skews: list[float] = field(default_factory=list)
    shares: dict[str, Callable[[], float]] = field(default_factory=dict)
    pauses: dict[str, Callable[[], bool]] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def exchange(self, instance: str, service: Service, endpoint: str, code: str, seconds: float) -> None:
        assert instance == "acme"
        assert seconds >= 0
        self.exchanges.append((service, endpoint, code))

    def clock_skew(self, instance: str, seconds: float) -> None:
        self.skews.append(seconds)

    def brake(self, instance: str, kind: BrakeKind, share: Callable[[], float]) -> None:
        self.shares[kind] = share

    def paused(self, instance: str, api: Api, paused: Callable[[], bool]) -> None:
        self.pauses[api] = paused

    def waited(self, instance: str, api: Api, seconds: float) -> None:
        self.waits.append(seconds)


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    port: int  # the client's: one for each connection


class Wire:
    """The scripted server: gives its replies in order and keeps the requests."""

    def __init__(self) -> None:
        self.script: list[Script] = []
        self.requests: list[Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        # Named before the body is read: a script may want to reply without reading it.
        following = self.script.pop(0)
        if not isinstance(following, web.StreamResponse) and getattr(following, "unread", False):
            return await following(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        self.requests.append(Request(request.method, request.raw_path, headers, await request.read(), port))
        return following if isinstance(following, web.StreamResponse) else await following(request)

    @property
    def rest(self) -> Rest:
        return Rest(self.url, f"{self.url}/identity", Secret("the-id"), Secret("the-secret"))

    @property
    def soap(self) -> Soap:
        return Soap(f"{self.url}/soap/mktows/3_1", "user_1", Secret("key"))


@asynccontextmanager
async def serving() -> AsyncIterator[Wire]:
    wire = Wire()
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_route("*", "/{path:.*}", wire.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        wire.url = str(server.make_url("/")).rstrip("/")
        yield wire


def limiter_of(limits: Limits, clock: Clock, ledger: CallLedger | None = None, observed: Observed | None = None) -> Limiter:
    return Limiter("acme", limits, clock, ledger or MemoryLedger(), observed or Observed())


@asynccontextmanager
async def opened(
    observed: Observed | None = None,
    network: Network | None = None,
    limits: Limits = FAST,
    clock: Clock | None = None,
    may_call: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Session]:
    clock = clock or WallClock()
    observed = observed or Observed()
    limiter = limiter_of(limits, clock, observed=observed)
    network = network or Network(timeout=timedelta(seconds=10))
    async with Session("acme", network, limiter, clock, observed, may_call) as session:
        yield session


@dataclass(frozen=True)
class Sources:
    """The REST lead sources of one instance."""

    exports: Exports
    activities: Activities
    leads: Leads


def sources(rest: RestApi, clock: Clock | None = None) -> Sources:
    return Sources(Exports(rest), Activities(rest), Leads(rest, clock or WallClock()))


def rest_api(wire: Wire, session: Session) -> RestApi:
    return RestApi(session, wire.rest, Token(session, wire.rest, WallClock()))


class Given:
    """A reply that is already here."""

    def __init__(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = headers or {}
        self._content = content

    async def body(self, limit: int) -> bytes:
        return self._content

    async def paced(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self._content), 7):
            yield self._content[at : at + 7]


class Answering:
    """A session, and a token, without a server: every call gets the same reply."""

    def __init__(self, reply: Given) -> None:
        self.calls: list[Call] = []
        self._reply = reply

    async def send(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        self.calls.append(call)
        return await read(self._reply)  # type: ignore[arg-type]

    async def current(self) -> str:
        return "tok"

    async def renew(self, refused: str) -> str:
        return refused

    @property
    def rest(self) -> RestApi:
        return RestApi(self, Rest("http://x", "http://x", Secret(""), Secret("")), self)  # type: ignore[arg-type]


async def reset(request: web.Request) -> web.StreamResponse:
    """A script: the connection dies before any byte of a reply."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def truncated(body: bytes, content_type: str = "text/xml") -> Script:
    """A script: the reply ends before its Content-Length says so."""

    async def script(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body) + 100}\r\n\r\n"
        request.transport.write(head.encode() + body)
        request.transport.close()
        return web.Response()

    return script


def json(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="application/json")


def token(value: str = "tok", seconds: int = 3599) -> web.Response:
    return json(f'{{"access_token": "{value}", "token_type": "bearer", "expires_in": {seconds}, "scope": "x@y"}}')
