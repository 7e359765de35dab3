"""How a reply gets onto the wire, whole or by mischief. Pauses are real: a client's time-outs for a socket are real too."""

import asyncio
import re
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from functools import lru_cache

from aiohttp import hdrs, web

from syncd.simulator.wire import Reply

DRIP_SECONDS = 0.2
"""The real pause before each byte of a slow reply."""
BOMB_BYTES = 1 << 30
"""How much white space a bomb holds."""
REDIRECTED = "redirected"
"""The query parameter by which an address is known that redirects to itself for ever."""
_MISSING_BYTES = 100
_BLOCK_BYTES = 1 << 20
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
_TRAILER = struct.Struct("<LL")
# Where white space may stand without changing what the reply says: inside a page of leads, inside an object, before a root.
_SEAM = re.compile(rb"(?:.*?<result>|\{|<\?xml[^>]*\?>)", re.DOTALL)


async def deliver(request: web.Request, reply: Reply) -> web.StreamResponse:
    """Answer with `reply`, in the way that its code names."""
    return await _MISCHIEF.get(reply.code, _plainly)(request, reply)


def whole(reply: Reply) -> web.Response:
    """The reply as a response of the web framework."""
    return web.Response(status=reply.status, body=reply.body, headers={"Content-Type": reply.content_type})


def bomb(body: bytes, size: int = BOMB_BYTES) -> bytes:
    """`body` with `size` bytes of white space in it, gzipped; only a thousandth of it is ever in memory."""
    seam = _SEAM.match(body)
    head, tail = (body[: seam.end()], body[seam.end() :]) if seam else (b"", body)
    blown, checksum = _blown(head, size)
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    end = packer.compress(tail) + packer.flush()
    return _GZIP_HEAD + blown + end + _TRAILER.pack(zlib.crc32(tail, checksum), (len(body) + size) & 0xFFFF_FFFF)


@lru_cache(maxsize=4)
def _blown(head: bytes, size: int) -> tuple[bytes, int]:
    """`head` and `size` bytes of white space, deflated, and their checksum."""
    blocks, rest = divmod(size, _BLOCK_BYTES)
    block = b" " * _BLOCK_BYTES
    checksum = zlib.crc32(head)
    for _ in range(blocks):
        checksum = zlib.crc32(block, checksum)
    # Nothing refers back over a full flush: one deflated block can stand many times.
    return _flushed(head) + _flushed(block) * blocks + _flushed(block[:rest]), zlib.crc32(block[:rest], checksum)


def _flushed(data: bytes) -> bytes:
    packer = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


async def _plainly(_: web.Request, reply: Reply) -> web.StreamResponse:
    return whole(reply)


async def _reset(request: web.Request, _: Reply) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        # Zero linger turns the close into a reset.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.StreamResponse()


async def _broken_off(request: web.Request, reply: Reply, length: int, sent: bytes) -> web.StreamResponse:
    response = _begun(reply)
    response.content_length = length
    transport = request.transport
    await response.prepare(request)
    await response.write(sent)
    if transport is not None:
        transport.close()
    return response


async def _truncated(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _broken_off(request, reply, len(reply.body), reply.body[: len(reply.body) // 2])


async def _too_long(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _broken_off(request, reply, len(reply.body) + _MISSING_BYTES, reply.body)


async def _cut(_: web.Request, reply: Reply) -> web.StreamResponse:
    return web.Response(status=reply.status, body=reply.body[: len(reply.body) // 2], headers={"Content-Type": reply.content_type})


async def _dripping(request: web.Request, reply: Reply) -> web.StreamResponse:
    """One byte after the other, then white space, until the client goes."""
    response, left = _begun(reply), iter(reply.body)
    try:
        await response.prepare(request)
        while True:
            await asyncio.sleep(DRIP_SECONDS)
            await response.write(bytes([next(left, ord(" "))]))
    except ConnectionError:
        return response


async def _redirecting(request: web.Request, _: Reply) -> web.StreamResponse:
    return web.Response(status=302, headers={hdrs.LOCATION: f"{request.rel_url.raw_path}?{REDIRECTED}"})


async def _bomb(_: web.Request, reply: Reply) -> web.StreamResponse:
    headers = {hdrs.CONTENT_TYPE: reply.content_type, hdrs.CONTENT_ENCODING: "gzip"}
    return web.Response(status=reply.status, body=await asyncio.to_thread(bomb, reply.body), headers=headers)


def _begun(reply: Reply) -> web.StreamResponse:
    return web.StreamResponse(status=reply.status, headers={"Content-Type": reply.content_type})


_MISCHIEF: dict[str, Callable[[web.Request, Reply], Awaitable[web.StreamResponse]]] = {
    "reset": _reset,
    "truncated": _truncated,
    "wrong length": _too_long,
    "wrong length cut": _cut,
    "slow drip": _dripping,
    "redirect": _redirecting,
    "gzip bomb": _bomb,
}
