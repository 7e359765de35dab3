"""The file of an export over loopback HTTP: from any byte on, bounded in time, length and memory."""

import asyncio
import contextlib
import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from syncd.core.faults import Fault, Nature
from syncd.core.settings import Limits, Network
from syncd.marketo.exports import Exports
from tests.marketo.wire import FAST, Observed, Script, Wire, json, opened, reset, rest_api, token

FILE = b"id,name\r\n" + b"".join(b'%d,"a ""quoted"" name"\r\n' % number for number in range(5_000))
SIZE = len(FILE)
MIB = 2**20


class Got(bytearray):
    """A sink that keeps everything."""

    async def sink(self, piece: bytes) -> None:
        assert piece
        self.extend(piece)


@asynccontextmanager
async def ready(wire: Wire, seconds: float = 10, observed: Observed | None = None, limits: Limits = FAST) -> AsyncIterator[Exports]:
    wire.script = [token(), *wire.script]
    async with opened(observed, Network(timeout=timedelta(seconds=seconds)), limits) as session:
        yield Exports(rest_api(wire, session))


async def downloaded(wire: Wire, *script: Script, start: int = 0, size: int | None = SIZE, seconds: float = 10) -> bytes:
    got = Got()
    wire.script = list(script)
    async with ready(wire, seconds) as exports:
        await exports.download("e-1", start, size, got.sink)
    return bytes(got)


async def failure(
    wire: Wire, *script: Script, start: int = 0, size: int | None = SIZE, seconds: float = 10, got: Got | None = None
) -> Fault:
    got = got if got is not None else Got()
    wire.script = list(script)
    async with ready(wire, seconds) as exports:
        with pytest.raises(Fault) as failed:
            await exports.download("e-1", start, size, got.sink)
    assert failed.value.endpoint == "export_file"
    return failed.value


def file(content: bytes = FILE) -> web.Response:
    return web.Response(body=content, content_type="text/csv")


def part(start: int, told: str | None = None) -> web.Response:
    headers = {"Content-Range": told if told is not None else f"bytes {start}-{SIZE - 1}/{SIZE}"}
    return web.Response(status=206, body=FILE[start:], headers=headers)


def writing(write: Callable[[web.StreamResponse], Awaitable[None]], length: int | None = None) -> Script:
    """A script that writes the body by itself."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = length
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await write(response)
        return response

    return script


async def test_a_file_comes_whole(wire: Wire) -> None:
    assert await downloaded(wire, file()) == FILE
    request = wire.requests[1]
    assert (request.method, request.path) == ("GET", "/bulk/v1/leads/export/e-1/file.json")
    assert request.headers["accept-encoding"] == "identity"
    assert "range" not in request.headers


@pytest.mark.parametrize("start", [1, 20_000, SIZE - 1])
async def test_a_part_is_asked_for_by_range(wire: Wire, start: int) -> None:
    assert await downloaded(wire, part(start), start=start) == FILE[start:]
    assert wire.requests[1].headers["range"] == f"bytes={start}-"


@pytest.mark.parametrize("start", [1, 20_000, SIZE - 1])
async def test_a_range_that_was_not_heeded_is_skipped(wire: Wire, start: int) -> None:
    assert await downloaded(wire, file(), start=start) == FILE[start:]


async def test_a_part_may_begin_at_the_beginning(wire: Wire) -> None:
    assert await downloaded(wire, part(0)) == FILE


async def test_a_part_may_begin_like_an_envelope_or_a_page(wire: Wire) -> None:
    for content in (b'{"success": false}', b"<html>"):
        reply = web.Response(status=206, body=content, headers={"Content-Range": "Bytes 7-99/*"})
        assert await downloaded(wire, reply, start=7, size=100) == content


@pytest.mark.parametrize("told", ["bytes 8-99/100", "bytes 10-99/100", "bytes 0-99/100", "bytes */100", "bytes -9", "", "x", "lines 9-9/9"])
async def test_other_bytes_than_those_asked_for_are_refused(wire: Wire, told: str) -> None:
    got = Got()
    fault = await failure(wire, part(9, told), start=9, got=got)
    assert (fault.nature, fault.code, len(got)) == (Nature.TRANSIENT, "range", 0)


async def test_a_part_that_nobody_asked_for_is_refused(wire: Wire) -> None:
    assert (await failure(wire, part(9))).code == "range"


async def test_a_range_that_marketo_does_not_have_is_passing(wire: Wire) -> None:
    fault = await failure(wire, web.Response(status=416, headers={"Content-Range": f"bytes */{SIZE}"}), start=9)
    assert (fault.nature, fault.code) == (Nature.TRANSIENT, "range")


async def test_a_redirect_keeps_the_range(wire: Wire) -> None:
    moved = web.Response(status=302, headers={"Location": "/files/1"})
    assert await downloaded(wire, moved, part(9), start=9) == FILE[9:]
    assert [request.headers["range"] for request in wire.requests[1:]] == ["bytes=9-"] * 2


async def test_a_file_that_is_packed_against_our_word_is_unpacked(wire: Wire) -> None:
    packed = web.Response(body=gzip.compress(FILE), headers={"Content-Encoding": "gzip"})
    assert await downloaded(wire, packed) == FILE


@pytest.mark.parametrize("content_type", ["text/csv", "application/json"])
@pytest.mark.parametrize("before", ["", " \r\n", "\ufeff", "\ufeff\n"])
@pytest.mark.parametrize("start", [0, 9])
async def test_an_envelope_in_place_of_the_file_is_passing(wire: Wire, content_type: str, before: str, start: int) -> None:
    def reply(text: str) -> web.Response:
        return web.Response(body=(before + text).encode(), content_type=content_type)

    got = Got()
    for code in ("611", "1003", "610", "1234"):
        refused = reply(f'{{"requestId": "r", "success": false, "errors": [{{"code": "{code}", "message": "not yet"}}]}}')
        fault = await failure(wire, refused, start=start, got=got)
        assert (fault.nature, fault.code, fault.request_id) == (Nature.TRANSIENT, code, "r")
    fault = await failure(wire, reply('{"requestId": "r", "success": true, "result": []}'), start=start, got=got)
    assert (fault.nature, fault.code, fault.request_id) == (Nature.TRANSIENT, "no_file", "r")
    for text in ('{"requestId": "r", "succ', '{"a": 1}', "<!DOCTYPE html>", "<html>maintenance</html>"):
        fault = await failure(wire, reply(text), start=start, got=got)
        assert (fault.nature, fault.code) == (Nature.TRANSIENT, "garbled")
    assert not got


async def test_an_envelope_larger_than_the_file_is_still_read(wire: Wire) -> None:
    refused = json(f'{{"success": false, "errors": [{{"code": "603", "message": "{"x" * 100_000}"}}]}}')
    assert (await failure(wire, refused, size=5)).nature is Nature.CONFIGURATION


async def test_an_envelope_that_arrives_in_parts(wire: Wire) -> None:
    async def write(response: web.StreamResponse) -> None:
        for piece in (b" ", b"\n", b'{"success": false, ', b'"errors": [{"code": "611", "message": ""}]}'):
            await response.write(piece)
            await asyncio.sleep(0.02)

    assert (await failure(wire, writing(write))).code == "611"


@pytest.mark.parametrize("piece", [b'{"a": "', b" "])
async def test_something_endless_in_place_of_the_file_is_left(wire: Wire, piece: bytes) -> None:
    async def write(response: web.StreamResponse) -> None:
        await response.write(piece)
        while True:
            await response.write(b" " * 4096)

    assert (await failure(wire, writing(write))).code in ("garbled", "reply_too_large")


async def test_a_file_that_is_not_ready_is_passing(wire: Wire) -> None:
    fault = await failure(wire, web.Response(status=404, text="not found"))
    assert (fault.nature, fault.code) == (Nature.TRANSIENT, "http_404")


@pytest.mark.parametrize(
    ("status", "nature"), [(204, Nature.UNKNOWN), (403, Nature.UNKNOWN), (500, Nature.TRANSIENT), (503, Nature.TRANSIENT)]
)
async def test_other_statuses_are_no_file(wire: Wire, status: int, nature: Nature) -> None:
    fault = await failure(wire, web.Response(status=status))
    assert (fault.nature, fault.code) == (nature, f"http_{status}")


@pytest.mark.parametrize(("content", "start"), [(b"", 0), (b" \n", 0), (b"", 9), (b"id,name\r\n", 9), (b"id", 9)])
async def test_a_reply_that_brings_nothing_is_garbled(wire: Wire, content: bytes, start: int) -> None:
    assert (await failure(wire, file(content), start=start)).code == "garbled"


async def test_a_part_that_brings_nothing_is_garbled(wire: Wire) -> None:
    assert (await failure(wire, web.Response(status=206, headers={"Content-Range": "bytes 9-9/9"}), start=9)).code == "garbled"


async def test_a_file_may_be_empty_if_it_is_said_to_be(wire: Wire) -> None:
    assert await downloaded(wire, file(b""), size=0) == b""


@pytest.mark.parametrize("start", [0, 9])
async def test_a_file_one_byte_too_long_is_seen_to_be(wire: Wire, start: int) -> None:
    assert await downloaded(wire, file(FILE), start=start, size=SIZE - 1) == FILE[start:]


@pytest.mark.parametrize(("size", "start"), [(SIZE - 2, 0), (10, 9), (0, 0)])
@pytest.mark.parametrize("heeded", [True, False])
async def test_a_file_far_too_long_is_left(wire: Wire, size: int, start: int, heeded: bool) -> None:
    got = Got()
    fault = await failure(wire, part(start) if heeded else file(), start=start, size=size, got=got)
    assert (fault.nature, fault.code) == (Nature.UNKNOWN, "reply_too_large")
    assert len(got) <= size + 1 - start


async def test_a_file_of_unknown_size_comes_whole(wire: Wire) -> None:
    assert await downloaded(wire, file(), size=None) == FILE


async def test_what_broke_off_goes_on_by_range(wire: Wire) -> None:
    observed, got, arrived = Observed(), Got(), asyncio.Event()

    async def sink(piece: bytes) -> None:
        await got.sink(piece)
        arrived.set()

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = SIZE
        await response.prepare(request)
        await response.write(FILE[:30_000])
        await arrived.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    async def rest(request: web.Request) -> web.StreamResponse:
        return part(int(request.headers["Range"].removeprefix("bytes=").removesuffix("-")))

    wire.script = [broken, rest]
    async with ready(wire, observed=observed) as exports:
        with pytest.raises(Fault) as failed:
            await exports.download("e-1", 0, SIZE, sink)
        assert (failed.value.nature, failed.value.code) == (Nature.TRANSIENT, "connection")
        assert got
        assert FILE.startswith(got)
        assert len(got) < SIZE
        await exports.download("e-1", len(got), SIZE, sink)
    assert bytes(got) == FILE
    assert observed.exchanges[1:] == [("rest", "export_file", "connection"), ("rest", "export_file", "ok")]


async def test_a_reply_without_a_length_that_broke_off_ends_early(wire: Wire) -> None:
    async def broken(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 200 OK\r\n\r\n" + FILE[:1000])
        request.transport.close()
        return web.Response()

    assert await downloaded(wire, broken) == FILE[:1000]


async def test_a_connection_lost_before_the_reply_is_tried_once_more(wire: Wire) -> None:
    assert await downloaded(wire, reset, file()) == FILE


async def test_a_download_may_take_longer_than_the_time_out(wire: Wire) -> None:
    async def write(response: web.StreamResponse) -> None:
        for _ in range(40):
            await response.write(b"x" * 8_192)
            await asyncio.sleep(0.03)

    began = time.monotonic()
    assert await downloaded(wire, writing(write), size=None, seconds=0.5) == b"x" * 8_192 * 40
    assert time.monotonic() - began > 1


async def test_the_sink_may_take_longer_than_the_time_out(wire: Wire) -> None:
    got, calls = Got(), 0

    async def sink(piece: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls in (1, 4):
            await asyncio.sleep(0.5)
        await got.sink(piece)

    wire.script = [file()]
    async with ready(wire, 0.3) as exports:
        await exports.download("e-1", 0, SIZE, sink)
    assert bytes(got) == FILE


async def drip(response: web.StreamResponse) -> None:
    while True:
        await response.write(b"x" * 100)
        await asyncio.sleep(0.01)


async def stall(response: web.StreamResponse) -> None:
    await response.write(FILE[:30_000])
    await asyncio.sleep(5)


@pytest.mark.parametrize("write", [drip, stall])
async def test_a_server_that_drips_or_stalls_is_left(wire: Wire, write: Callable[[web.StreamResponse], Awaitable[None]]) -> None:
    got, began = Got(), time.monotonic()
    fault = await failure(wire, writing(write), size=500_000_000, seconds=0.3, got=got)
    assert (fault.nature, fault.code) == (Nature.TRANSIENT, "timeout")
    assert time.monotonic() - began < 3
    assert 0 < len(got) <= 100_000


async def test_a_server_that_never_answers_is_left(wire: Wire) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return file()

    began = time.monotonic()
    assert (await failure(wire, silent, seconds=0.2)).code == "timeout"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("error", [ConnectionResetError("of the database"), TimeoutError(), ValueError("mine")])
async def test_a_sink_that_fails_is_no_fault_of_the_wire(wire: Wire, error: Exception) -> None:
    async def sink(piece: bytes) -> None:
        raise error

    wire.script = [file(), file()]
    async with ready(wire) as exports:
        with pytest.raises(type(error)) as failed:
            await exports.download("e-1", 0, SIZE, sink)
        assert failed.value is error
        got = Got()
        await exports.download("e-1", 0, SIZE, got.sink)
    assert bytes(got) == FILE


async def test_the_memory_for_a_download_does_not_grow_with_the_file(wire: Wire) -> None:
    size, arrived = 48 * MIB, 0

    async def write(response: web.StreamResponse) -> None:
        piece = b"x" * 65_536
        for _ in range(size // len(piece)):
            await response.write(piece)

    async def sink(piece: bytes) -> None:
        nonlocal arrived
        arrived += len(piece)
        await asyncio.sleep(0)

    wire.script = [writing(write, size)]
    async with ready(wire, 60) as exports:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            await exports.download("e-1", 0, size, sink)
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert arrived == size
    assert peak < 4 * MIB


async def test_a_download_under_way_holds_one_place_of_the_limiter(wire: Wire) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def sink(piece: bytes) -> None:
        arrived.set()
        await go_on.wait()

    wire.script = [file(), json('{"success": true, "result": []}')]
    async with ready(wire, limits=Limits(calls_per_20s=1_000_000, concurrency=1)) as exports:
        download = asyncio.create_task(exports.download("e-1", 0, SIZE, sink))
        await arrived.wait()
        asked = asyncio.create_task(exports.jobs())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not asked.done()
        assert len(wire.requests) == 2
        go_on.set()
        await download
        assert await asked == []
