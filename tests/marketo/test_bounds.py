"""Whatever a server does, an exchange ends within network.timeout, after a bounded number of bytes and in bounded memory."""

import asyncio
import contextlib
import gzip
import time
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Network
from syncd.marketo.errors import soap_fault
from syncd.marketo.session import Call, Message, Reply
from tests.marketo.wire import Observed, Wire, opened

TIMEOUT = timedelta(seconds=0.4)
LIMIT = 100_000
MIB = 2**20

Answer = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that writes what `answer` writes, byte by byte as it likes."""

    serving = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            writer.close()
            await writer.wait_closed()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)


async def body(reply: Reply) -> bytes:
    return await reply.body(LIMIT)


async def met(answer: Answer) -> Fault:
    async with answering(answer) as url, opened(network=Network(timeout=TIMEOUT)) as session:
        began = time.monotonic()
        with pytest.raises(Fault) as fault:
            await session.send(Call("rest", "e", "GET", url, Message), body)
        assert time.monotonic() - began < TIMEOUT.total_seconds() * 5
        return fault.value


async def drip(writer: asyncio.StreamWriter, head: bytes, piece: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"e"),
    ],
)
async def test_a_reply_that_drips_is_left_at_the_time_out(head: bytes, piece: bytes) -> None:
    fault = await met(lambda writer: drip(writer, head, piece))
    assert fault.code in ("timeout", "connection")
    assert fault.nature is Nature.TRANSIENT


async def test_endless_headers_have_an_end() -> None:
    written = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"x" * 4000 + b"\r\n")
            written += 4000
            await writer.drain()

    assert (await met(answer)).nature is Nature.TRANSIENT
    assert written < 16 * MIB


@pytest.mark.parametrize("head", [b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999\r\n"])
async def test_an_endless_body_is_left_at_its_limit(head: bytes) -> None:
    written = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        piece = b"x" * 4096
        while True:
            writer.write(b"1000\r\n" + piece + b"\r\n" if b"chunked" in head else piece)
            written += 4096
            await writer.drain()

    assert (await met(answer)).code == "reply_too_large"
    assert written < 16 * MIB  # what the sockets hold, and not more


async def test_a_length_that_promises_too_much_is_a_fault() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    assert (await met(answer)).code == "connection"


async def test_a_length_that_promises_too_little_ends_the_reply_there() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine, and more of it\r\n\r\n")

    async with answering(answer) as url, opened(network=Network(timeout=TIMEOUT)) as session:
        for _ in range(2):  # and what was left over is no reply to the next call
            with contextlib.suppress(Fault):
                assert await session.send(Call("rest", "e", "GET", url, Message), body) == b"fine"


def bomb(encoding: str, size: int) -> bytes:
    if encoding == "gzip":
        return gzip.compress(bytes(size))
    return zlib.compress(bytes(size), 9)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_bomb_is_unpacked_no_further_than_the_limit(wire: Wire, encoding: str, chunked: bool) -> None:
    packed = bomb(encoding, 400 * MIB)
    assert len(packed) * 500 < 400 * MIB

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Encoding": encoding})
        if not chunked:
            response.content_length = len(packed)
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            await response.write(packed)
        return response

    wire.script = [reply]
    async with opened() as session:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises(Fault) as fault:
                await session.send(Call("rest", "e", "GET", wire.url, Message), body)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert (fault.value.code, fault.value.nature) == ("reply_too_large", Nature.UNKNOWN)
    assert peak < 6 * MIB


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_packed_reply_comes_whole(wire: Wire, encoding: str) -> None:
    text = bytes(range(256)) * 350
    packed = gzip.compress(text) if encoding == "gzip" else zlib.compress(text)
    wire.script = [web.Response(body=packed, headers={"Content-Encoding": encoding})]
    async with opened() as session:
        assert await session.send(Call("rest", "e", "GET", wire.url, Message), body) == text


async def expired(reply: Reply) -> bytes:
    raise soap_fault("20016", "Request expired", "getMultipleLeads")


@pytest.mark.parametrize(("seconds", "told"), [(412, True), (-412, True), (20, False)])
async def test_an_expired_signature_tells_how_far_the_clocks_differ(wire: Wire, seconds: int, told: bool) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 0.5))
    wire.script = [web.Response(status=500, headers={"Date": date})]
    observed = Observed()
    async with opened(observed) as session:
        with pytest.raises(Fault) as fault:
            await session.send(Call("soap", "e", "POST", wire.url, Message), expired)
    assert ("the clocks differ by 41" in fault.value.message) is told
    assert fault.value.message.endswith("s: set this host's clock, e.g. by NTP") is told
    assert observed.skews == [pytest.approx(seconds, abs=3)]


async def test_every_reply_tells_how_far_the_clocks_differ(wire: Wire) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    wire.script = [web.Response(headers={"Date": date}), web.Response(headers={"Date": "soon"}), web.Response(headers={"Date": ""})]
    observed = Observed()
    async with opened(observed) as session:
        for _ in range(3):
            await session.send(Call("rest", "e", "GET", wire.url, Message), body)
    assert observed.skews == [pytest.approx(3600, abs=10)]


@pytest.mark.parametrize(("code", "kind"), [("606", "pace"), ("20024", "concurrency")])
async def test_an_exchange_that_ends_in_such_a_fault_brakes(wire: Wire, code: str, kind: str) -> None:
    async def read(reply: Reply) -> bytes:
        raise Fault(Nature.RATE, code, "too much", "e")

    wire.script = [web.Response()]
    observed = Observed()
    async with opened(observed) as session:
        with pytest.raises(Fault):
            await session.send(Call("rest", "e", "GET", wire.url, Message), read)
    assert observed.shares[kind]() == pytest.approx(0.5, abs=0.05)


async def test_a_spent_quota_is_asked_about_once(wire: Wire) -> None:
    async def read(reply: Reply) -> bytes:
        raise Fault(Nature.QUOTA, "607", "spent", "e")

    wire.script = [web.Response()]
    async with opened() as session:
        for _ in range(3):
            with pytest.raises(Fault, match="607"):
                await session.send(Call("rest", "e", "GET", wire.url, Message), read)
    assert len(wire.requests) == 1
