"""The file of an export job as it arrives (protocol 3.1): from any byte on, handed over in pieces, never held as a whole."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from syncd.core.faults import Fault, Nature
from syncd.marketo.errors import garbled, http_fault
from syncd.marketo.rest import open_envelope
from syncd.marketo.session import Reply

Sink = Callable[[bytes], Awaitable[None]]
Pieces = AsyncGenerator[bytes, None]

LARGEST_FILE = 4 * 2**30  # where nobody has told its size
MAX_ENVELOPE = 2**20
_LONGEST_BLANK = 4096  # what goes on longer is no envelope's beginning
_BOM = b"\xef\xbb\xbf"
_RANGE = re.compile("bytes ([0-9]{1,18})-", re.IGNORECASE)
# Of a file these say that it is not to be had now, as HTTP 404 does: there is nothing in the request that could be wrong.
_NOT_YET = frozenset((Nature.PERMANENT, Nature.UNKNOWN, Nature.EMPTY))


class SinkError(Exception):
    """The sink failed: its reason must not pass for a failure of the connection."""

    def __init__(self, reason: OSError) -> None:
        super().__init__()
        self.reason = reason


def read_file(endpoint: str, start: int, size: int | None, sink: Sink) -> Callable[[Reply], Awaitable[None]]:
    """A reader that hands `sink` the file from byte `start` on, up to one byte more than `size`. Raises Fault or SinkError."""
    most = (LARGEST_FILE if size is None else size) + 1

    async def read(reply: Reply) -> None:
        at = _begins_at(reply, start, endpoint)
        arrived = at
        async with aclosing(reply.paced()) as raw, aclosing(_of_file(raw, endpoint) if at == 0 else raw) as pieces:
            async for piece in pieces:
                if arrived + len(piece) > most:
                    raise Fault(Nature.UNKNOWN, "reply_too_large", f"the file is longer than {most - 1} bytes", endpoint)
                fresh = piece[max(0, start - arrived) :]
                arrived += len(piece)
                if fresh:
                    await _hand(sink, fresh)
        if arrived < start or arrived == start != size:
            raise garbled(f"the reply ended at byte {arrived} and brought nothing new", endpoint)

    return read


def _begins_at(reply: Reply, start: int, endpoint: str) -> int:
    """Which byte of the file the body begins with."""
    match reply.status:
        case 200:  # a Range that was not heeded
            return 0
        case 206:
            told = _RANGE.match(reply.headers.get("Content-Range", "").strip())
            if told is None or int(told[1]) != start:
                raise Fault(Nature.TRANSIENT, "range", f"other bytes came than those from {start} on", endpoint)
            return start
        case 404:
            raise Fault(Nature.TRANSIENT, "http_404", "the file is not ready, or its export unknown", endpoint)
        case 416:
            raise Fault(Nature.TRANSIENT, "range", f"the file is said to have no bytes from {start} on", endpoint)
    raise http_fault(reply.status, f"answered HTTP {reply.status}", endpoint)


async def _of_file(pieces: Pieces, endpoint: str) -> Pieces:
    """`pieces` as they are, once they are seen to be neither an envelope nor a page: no field's name begins like these."""
    beginning = b""
    async for piece in pieces:
        beginning += piece
        text = beginning.removeprefix(_BOM).lstrip()
        if text or len(beginning) > _LONGEST_BLANK:
            break
    else:
        text = b""
    if text.startswith(b"{"):
        raise await _envelopes_fault(text, pieces, endpoint)
    if text.startswith(b"<"):
        raise garbled("a page came in place of the file", endpoint)
    if text or len(beginning) > _LONGEST_BLANK:
        yield beginning
    async for piece in pieces:
        yield piece


async def _envelopes_fault(beginning: bytes, pieces: Pieces, endpoint: str) -> Fault:
    body = bytearray(beginning)
    async for piece in pieces:
        body += piece
        if len(body) > MAX_ENVELOPE:
            return garbled("something endless came in place of the file", endpoint)
    try:
        answer = open_envelope(bytes(body), endpoint)
    except Fault as fault:
        if fault.nature in _NOT_YET:
            fault.nature = Nature.TRANSIENT
        return fault
    return Fault(Nature.TRANSIENT, "no_file", "an envelope came in place of the file", endpoint, answer.request_id)


async def _hand(sink: Sink, piece: bytes) -> None:
    try:
        await sink(piece)
    except OSError as error:
        raise SinkError(error) from error
