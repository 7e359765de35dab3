import asyncio
import contextlib
import gzip
import socket
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Literal

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.core.faults import Fault, Nature
from syncd.core.observe import Service
from syncd.core.settings import Limits, Network
from syncd.marketo.errors import http_fault
from syncd.marketo.session import Call, Message, Reply
from tests.marketo.wire import Observed, Wire, opened, reset, truncated


async def text(reply: Reply) -> str:
    body = await reply.body(100_000)
    if reply.status != 200:
        raise http_fault(reply.status, "refused", "e")
    return body.decode(errors="replace")


def reading(url: str, method: Literal["GET", "POST"] = "GET", service: Service = "rest") -> Call:
    return Call(service, "e", method, url, Message)


def acting(url: str, size: int = 10) -> Call:
    return Call("rest", "e", "POST", url, lambda: Message({"Content-Type": "text/plain"}, (b"x" * size, b"end")), acts=True)


async def test_a_body_in_pieces_goes_out_with_its_length(wire: Wire) -> None:
    wire.script = [web.Response(text="fine")]
    async with opened() as session:
        assert await session.send(acting(f"{wire.url}/a?b=%2F"), text) == "fine"
    (request,) = wire.requests
    assert (request.path, request.body) == ("/a?b=%2F", b"x" * 10 + b"end")
    assert request.headers["content-length"] == "13"
    assert "transfer-encoding" not in request.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_read_is_repeated_once_when_the_connection_failed_before_a_reply(wire: Wire, method: Literal["GET", "POST"]) -> None:
    observed = Observed()
    wire.script = [reset, web.Response(text="fine"), reset, reset]
    async with opened(observed) as session:
        assert await session.send(reading(wire.url, method), text) == "fine"
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url, method), text)
    assert (failed.value.code, failed.value.nature) == ("connection", Nature.TRANSIENT)
    assert [code for _, _, code in observed.exchanges] == ["connection", "ok", "connection", "connection"]
    assert len(wire.requests) == 4


async def test_a_stale_connection_is_not_repeated_behind_the_limiter(wire: Wire) -> None:
    observed = Observed()
    wire.script = [web.Response(text="fine"), reset, reset]
    async with opened(observed) as session:
        await session.send(reading(wire.url), text)
        with pytest.raises(Fault):
            await session.send(reading(wire.url), text)
    assert len(wire.requests) == len(observed.exchanges) == 3


async def test_an_act_is_never_repeated_and_a_reset_leaves_it_open(wire: Wire) -> None:
    wire.script = [reset]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(acting(wire.url), text)
    assert (failed.value.code, failed.value.executed, len(wire.requests)) == ("connection", None, 1)


async def test_an_act_has_a_connection_of_its_own_and_reads_share_one(wire: Wire) -> None:
    wire.script = [web.Response() for _ in range(4)]
    async with opened() as session:
        for call in (reading(wire.url), reading(wire.url), acting(wire.url), acting(wire.url)):
            await session.send(call, text)
    first, second, *acts = [request.port for request in wire.requests]
    assert first == second
    assert len({first, *acts}) == 3


async def test_a_reply_cut_short_is_not_repeated(wire: Wire) -> None:
    wire.script = [truncated(b"half")]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url), text)
    assert (failed.value.code, failed.value.nature, failed.value.executed) == ("connection", Nature.TRANSIENT, None)


async def test_a_refused_connection_is_known_not_executed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        async with opened() as session:
            with pytest.raises(Fault) as failed:
                await session.send(acting(f"http://127.0.0.1:{taken.getsockname()[1]}"), text)
    assert (failed.value.code, failed.value.nature, failed.value.executed) == ("connect", Nature.TRANSIENT, False)


async def test_a_time_out_leaves_an_act_open() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with opened(network=Network(timeout=timedelta(seconds=0.05))) as session:
            with pytest.raises(Fault) as failed:
                await session.send(acting(f"http://127.0.0.1:{silent.getsockname()[1]}"), text)
    assert (failed.value.code, failed.value.nature, failed.value.executed) == ("timeout", Nature.TRANSIENT, None)


@pytest.mark.parametrize(
    ("timeout", "ours", "expected"), [(5.0, 0.1, "ok"), (0.1, 5.0, "ok"), (None, 0.1, "timeout"), (0.2, 0.1, "timeout")]
)
async def test_a_call_may_lengthen_the_time_out_and_never_shorten_it(wire: Wire, timeout: float | None, ours: float, expected: str) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return web.Response(text="fine")

    observed = Observed()
    wire.script = [late]
    async with opened(observed, Network(timeout=timedelta(seconds=ours))) as session:
        with contextlib.suppress(Fault):
            await session.send(Call("rest", "e", "GET", wire.url, Message, timeout=timeout), text)
    assert [code for _, _, code in observed.exchanges] == [expected]


async def test_garbage_in_place_of_http_leaves_an_act_open(wire: Wire) -> None:
    async def garbage(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        return web.Response()

    wire.script = [garbage]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(acting(wire.url), text)
    assert (failed.value.code, failed.value.executed) == ("connection", None)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_gateways_trouble_leaves_an_act_open(wire: Wire, status: int) -> None:
    wire.script = [web.Response(status=status, text="<html>")]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(acting(wire.url), text)
    assert (failed.value.nature, failed.value.executed, len(wire.requests)) == (Nature.TRANSIENT, None, 1)


async def test_a_large_body_refused_before_it_was_read_is_too_large(wire: Wire) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        return web.Response(status=413)

    refuse.unread = True  # type: ignore[attr-defined]
    wire.script = [refuse]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(acting(wire.url, 12_000_000), text)
    assert (failed.value.nature, failed.value.executed) == (Nature.TOO_LARGE, False)


async def test_a_get_follows_redirects_on_its_own_host(wire: Wire) -> None:
    observed = Observed()
    wire.script = [web.Response(status=302, headers={"Location": "/there?a=%2F"}), web.Response(text="fine")]
    async with opened(observed) as session:
        assert await session.send(reading(f"{wire.url}/here"), text) == "fine"
    assert [request.path for request in wire.requests] == ["/here", "/there?a=%2F"]
    assert [code for _, _, code in observed.exchanges] == ["redirect", "ok"]


async def test_redirects_have_an_end(wire: Wire) -> None:
    wire.script = [web.Response(status=302, headers={"Location": "/again"}) for _ in range(9)]
    async with opened() as session:
        with pytest.raises(Fault, match="redirect"):
            await session.send(reading(wire.url), text)
    assert len(wire.requests) == 4


@pytest.mark.parametrize("location", ["http://localhost:1/", "https://elsewhere.invalid/x", "http://[bad", "", "mailto:x"])
async def test_a_redirect_to_another_host_is_refused(wire: Wire, location: str) -> None:
    wire.script = [web.Response(status=302, headers={"Location": location}) for _ in range(9)]
    async with opened() as session:
        with pytest.raises(Fault, match="redirect"):
            await session.send(reading(wire.url), text)


async def test_no_post_follows_a_redirect(wire: Wire) -> None:
    wire.script = [web.Response(status=307, headers={"Location": "/there"}) for _ in range(2)]
    async with opened() as session:
        for call in (acting(wire.url), reading(wire.url, "POST")):
            with pytest.raises(Fault) as failed:
                await session.send(call, text)
            assert (failed.value.code, failed.value.executed) == ("redirect", None)
    assert len(wire.requests) == 2


async def test_a_reply_that_unpacks_too_large_is_left(wire: Wire) -> None:
    packed = gzip.compress(bytes(50_000_000))
    wire.script = [web.Response(body=packed, headers={"Content-Encoding": "gzip"})]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url), text)
    assert (failed.value.code, failed.value.nature) == ("reply_too_large", Nature.UNKNOWN)


async def test_a_packed_reply_is_unpacked_and_a_broken_one_is_a_fault(wire: Wire) -> None:
    packed = gzip.compress(b"fine" * 100)
    headers = {"Content-Encoding": "gzip"}
    wire.script = [web.Response(body=packed, headers=headers), web.Response(body=b"not gzip", headers=headers)]
    async with opened() as session:
        assert await session.send(reading(wire.url), text) == "fine" * 100
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url), text)
    assert failed.value.nature is Nature.TRANSIENT


async def test_cookies_are_not_kept(wire: Wire) -> None:
    first = web.Response()
    first.set_cookie("a", "b")
    wire.script = [first, web.Response()]
    async with opened() as session:
        await session.send(reading(wire.url), text)
        await session.send(reading(wire.url), text)
    assert "cookie" not in wire.requests[1].headers


async def test_a_fault_tells_how_far_the_servers_clock_is_off(wire: Wire) -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    wire.script = [web.Response(status=500, headers={"Date": ahead}), web.Response(status=500, headers={"Date": "soon"})]
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url), text)
        assert failed.value.clock_skew == pytest.approx(3600, abs=10)
        with pytest.raises(Fault) as failed:
            await session.send(reading(wire.url), text)
        assert failed.value.clock_skew is None


async def test_identity_passes_beside_limiter_and_quota(wire: Wire) -> None:
    observed = Observed()
    wire.script = [web.Response(), web.Response()]
    async with opened(observed, limits=Limits(daily_calls=0)) as session:
        await session.send(reading(wire.url, service="identity"), text)
        with pytest.raises(Fault, match="daily_calls"):
            await session.send(reading(wire.url), text)
    assert observed.exchanges == [("identity", "e", "ok")]


async def test_a_proxy_is_asked(wire: Wire) -> None:
    wire.script = [web.Response(text="through the proxy")]
    async with opened(network=Network(proxy=wire.url)) as session:
        assert await session.send(reading("http://marketo.invalid/x"), text) == "through the proxy"
    assert wire.requests[0].headers["host"] == "marketo.invalid"


@pytest.mark.parametrize(("status", "nature"), [(407, Nature.CONFIGURATION), (502, Nature.TRANSIENT)])
async def test_a_proxy_that_refuses_the_tunnel_is_known_not_executed(status: int, nature: Nature) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as proxy:
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with opened(network=Network(proxy=url)) as session:
            with pytest.raises(Fault) as failed:
                await session.send(acting("https://marketo.invalid/x"), text)
    assert (failed.value.code, failed.value.nature, failed.value.executed) == ("proxy", nature, False)


async def test_an_endpoint_without_tls_is_known_not_executed(wire: Wire) -> None:
    async with opened() as session:
        with pytest.raises(Fault) as failed:
            await session.send(acting(wire.url.replace("http", "https")), text)
    assert failed.value.executed is False


HEADERS = st.sampled_from(
    [
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 99",
        b"Transfer-Encoding: chunked",
        b"Content-Encoding: gzip",
        b"Content-Encoding: deflate",
        b"Content-Encoding: br",
        b"Connection: upgrade",
        b"Location: //[",
        b"Date: x",
        b"\x00: \xff",
        b"no colon",
    ]
)
STATUS = st.sampled_from([b"200 OK", b"100 Continue", b"101 Switch", b"204 No", b"302 Found", b"500 Oh", b"999", b"x"])
STREAMS = st.binary(max_size=80) | st.builds(
    lambda status, headers, body: b"HTTP/1.1 " + b"\r\n".join([status, *headers]) + b"\r\n\r\n" + body,
    STATUS,
    st.lists(HEADERS, max_size=3),
    st.binary(max_size=40) | st.sampled_from([b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx"]),
)


@settings(max_examples=150, deadline=None)
@given(STREAMS)
def test_any_bytes_from_the_server_are_a_reply_or_a_fault(stream: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def scenario() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, opened() as session:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with contextlib.suppress(Fault):
                await session.send(Call("identity", "e", "GET", url, Message), text)

    asyncio.run(scenario())
