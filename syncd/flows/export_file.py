"""The file of an export on its way to Postgres: downloaded, checked and handed on in blocks, never held as a whole."""

import asyncio
from collections.abc import AsyncGenerator
from hashlib import sha256

import structlog

from syncd.core.csvfile import render_line
from syncd.core.extractfile import BOM, LenientReader, QuoteCheck, header_of
from syncd.core.faults import Fault, Nature
from syncd.marketo.exports import Exports
from syncd.store.exports import Export

log = structlog.get_logger()

BLOCK = 256 * 1024
BLOCKS_AHEAD = 2
LONGEST_HEADER = 1_000_000
MOST_STALLS = 2
"""Exchanges in a row that brought nothing new, before the file is left for later."""
MOST_RESUMES = 100


class Misread(Exception):  # noqa: N818 - a state of the file
    """The file is not well-formed: it must be read leniently."""


class Spoilt(Exception):  # noqa: N818 - a state of the file
    """The file is not what Marketo said of it."""


class Download:
    """One reading of an export's file. `nuls` counts what was cut out of it, `misshapen` the rows of another length that were left out."""

    def __init__(self, instance: str, api: Exports, job: Export, lenient: bool) -> None:
        assert job.export_id is not None
        self.nuls = 0
        self._api = api
        self._job = job
        self._export_id = job.export_id
        self._log = log.bind(instance=instance, pull=job.pull)
        self._received = 0
        self._digest = sha256()
        self._blocks: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(BLOCKS_AHEAD)
        self._block = bytearray()
        self._head: bytes | None = b""
        self._reader = LenientReader(len(job.fields)) if lenient else None
        self._quotes = QuoteCheck()

    @property
    def misshapen(self) -> int:
        """Rows that are not as long as the header; only a lenient reading knows them."""
        return self._reader.misshapen if self._reader is not None else 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The file as COPY is to have it. Raises Fault, Misread, or Spoilt at its end: nothing of it may then stay."""
        fetching = asyncio.ensure_future(self._fetch())
        try:
            while (block := await self._blocks.get()) is not None:
                if isinstance(block, BaseException):
                    raise block
                if refined := self._refined(block):
                    yield refined
            self._compare()
            if last := self._last():
                yield last
        finally:
            fetching.cancel()
            await asyncio.wait((fetching,))

    async def _fetch(self) -> None:
        try:
            await self._whole()
            if self._block:
                await self._blocks.put(bytes(self._block))
            await self._blocks.put(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the blocks are taken
            await self._blocks.put(error)

    async def _whole(self) -> None:
        """Every byte: a download that breaks off goes on behind the last byte that came."""
        size, stalls, resumes = self._job.size, 0, 0
        while True:
            before = self._received
            try:
                await self._api.download(self._export_id, before, size, self._take)
                fault = Fault(Nature.TRANSIENT, "file_ended", f"the file ended after {self._received} bytes", "export_file")
                if size is None or self._received >= size:
                    return
            except Fault as met:
                fault = met
            stalls = stalls + 1 if self._received == before else 0
            resumes += 1
            if fault.nature is not Nature.TRANSIENT or not self._received or stalls >= MOST_STALLS or resumes > MOST_RESUMES:
                raise fault
            self._log.info("download_resumed", export=self._job.id, export_id=self._export_id, at=self._received, fault=str(fault))

    async def _take(self, piece: bytes) -> None:
        self._received += len(piece)
        self._digest.update(piece)
        self._block += piece
        if len(self._block) >= BLOCK:
            block, self._block = bytes(self._block), bytearray()
            await self._blocks.put(block)

    def _refined(self, block: bytes) -> bytes:
        if b"\0" in block:
            self.nuls += block.count(b"\0")
            block = block.replace(b"\0", b"")
        if self._head is not None:
            self._head += block
            header = header_of(self._head, len(self._job.fields))
            if header is None and len(self._head) < LONGEST_HEADER:
                return b""
            block = self._behind_mark(header)
        return self._checked(block)

    def _behind_mark(self, header: list[str] | None) -> bytes:
        assert self._head is not None
        if header != list(self._job.fields):
            raise Spoilt("the header of its file names other fields than were asked for")
        block, self._head = self._head.removeprefix(BOM), None
        return block

    def _checked(self, block: bytes) -> bytes:
        if self._reader is not None:
            return _rendered(self._reader.feed(block))
        if not self._quotes.feed(block):
            raise Misread
        return block

    def _compare(self) -> None:
        """With what Marketo said; the number of records is Postgres' to count."""
        if self._job.size is not None and self._received != self._job.size:
            raise Spoilt(f"{self._received} bytes came of the {self._job.size} promised")
        if self._job.sha256 is not None and self._digest.digest() != self._job.sha256:
            raise Spoilt("the checksum of its file is not the one promised")

    def _last(self) -> bytes:
        block = b""
        if self._head is not None:  # nothing but a header without a line end
            block = self._behind_mark(header_of(self._head + b"\n", len(self._job.fields)))
        if self._reader is not None:
            return _rendered(self._reader.feed(block, final=True))
        if not (self._quotes.feed(block) and self._quotes.finish()):
            raise Misread
        return block


def _rendered(rows: list[list[str]]) -> bytes:
    return "".join(render_line(row, "csv") for row in rows).encode()
