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
    return web.Response(status=reply.status, body=_body(reply), headers=_headers(reply))


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


async def _plainly(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _sent(request, reply, reply.size, reply.size) if reply.stream else whole(reply)


def _body(reply: Reply) -> bytes:
    """The body in one, for those kinds of mischief that need it whole."""
    return b"".join(reply.pieces())


def _headers(reply: Reply) -> dict[str, str]:
    return {hdrs.CONTENT_TYPE: reply.content_type, **reply.headers}


async def _reset(request: web.Request, _: Reply) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        # Zero linger turns the close into a reset.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.StreamResponse()


async def _sent(request: web.Request, reply: Reply, length: int, size: int) -> web.StreamResponse:
    """Send the first `size` bytes of the body where `length` are promised; the connection ends where they are not the same."""
    response, left = _begun(reply), size
    response.content_length = length
    transport = request.transport
    try:
        await response.prepare(request)
        for piece in reply.pieces():
            await response.write(piece[:left])
            if reply.stream:
                reply.stream.sent(min(left, len(piece)))
            left -= len(piece)
            if left <= 0:
                break
    except ConnectionError:
        # The client has enough of it.
        return response
    if length != size and transport is not None:
        transport.close()
    return response


async def _truncated(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _sent(request, reply, reply.size, reply.size // 2)


async def _broken_off(request: web.Request, reply: Reply) -> web.StreamResponse:
    # Somewhere, but at the same place each time: the length decides.
    return await _sent(request, reply, reply.size, reply.size * (reply.size % 89) // 89)


async def _too_long(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _sent(request, reply, reply.size + _MISSING_BYTES, reply.size)


async def _cut(request: web.Request, reply: Reply) -> web.StreamResponse:
    return await _sent(request, reply, reply.size // 2, reply.size // 2)


async def _dripping(request: web.Request, reply: Reply) -> web.StreamResponse:
    """One byte after the other, then white space, until the client goes."""
    response, left = _begun(reply), iter(_body(reply))
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
    headers = {**_headers(reply), hdrs.CONTENT_ENCODING: "gzip"}
    return web.Response(status=reply.status, body=await asyncio.to_thread(bomb, _body(reply)), headers=headers)


def _begun(reply: Reply) -> web.StreamResponse:
    return web.StreamResponse(status=reply.status, headers=_headers(reply))


_MISCHIEF: dict[str, Callable[[web.Request, Reply], Awaitable[web.StreamResponse]]] = {
    "reset": _reset,
    "truncated": _truncated,
    "broken off": _broken_off,
    "wrong length": _too_long,
    "wrong length cut": _cut,
    "slow drip": _dripping,
    "redirect": _redirecting,
    "gzip bomb": _bomb,
}
