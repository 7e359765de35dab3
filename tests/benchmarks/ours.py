"""syncd's own sides: the whole path of a pull from a reply's bytes to rows and position, its steps alone, and COPY as the limit."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar, cast
from uuid import uuid4

import asyncpg

from syncd.core.mirror import Dictionary, MirrorRow, Vocabulary, mirror_row
from syncd.core.settings import Instance, Pull, Secret, Soap, UpdatedSince
from syncd.core.values import LeadRecord
from syncd.core.windows import Window
from syncd.flows.loop import Worked
from syncd.flows.plan import register
from syncd.flows.pull import PullStream, streams_of
from syncd.marketo.session import PIECE, Call, Reply, Session
from syncd.marketo.soap import SoapApi, as_it_came
from syncd.marketo.soap_reply import ReplyParser
from syncd.marketo.soap_request import w3c
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.simulator import soap
from syncd.store import leads, leases, planning
from syncd.store.leads import Asker
from syncd.store.leases import Connection, Lease, Pool
from tests.benchmarks.pages import Page

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
DICTIONARY = Dictionary({name: key for name, (key, _) in soap._ATTRIBUTES.items()})
PULL = Pull("people", "soap", UpdatedSince(EPOCH), tuple(soap._ATTRIBUTES))


class _Kept:
    """A reply from memory, in pieces as the network gives them."""

    status = 200

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def pieces(self, limit: int) -> Any:
        for start in range(0, len(self._body), PIECE):
            yield self._body[start : start + PIECE]


class _Replaying:
    """Stands where the session stands: composes and signs each request, and answers it from memory."""

    first: Mapping[str, bytes]
    """By the window that is asked for."""
    further: Mapping[str, bytes]
    """By the stream position."""

    async def send(self, call: Call, read: Callable[[Reply], Awaitable[T]]) -> T:
        request = b"".join(call.compose().body)
        if (position := re.search(rb"<streamPosition>([^<]*)<", request)) is not None:
            return await read(cast("Reply", _Kept(self.further[position[1].decode()])))
        since = re.search(rb"<oldestUpdatedAt>([^<]*)<", request)
        assert since is not None
        return await read(cast("Reply", _Kept(self.first[since[1].decode()])))


class WholePath:
    """A pull's streams as the daemon builds them, but for the network."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._session = _Replaying()
        self._windows = 0
        clock = WallClock()
        api = SoapApi(cast("Session", self._session), Soap("http://localhost", "u", Secret("k")), clock)

        async def vocabulary() -> Vocabulary:
            return Vocabulary(DICTIONARY, Dictionary({}))

        # Without a history, which the other side has not; the write step alone is measured with it.
        self._instance = Instance(lease.instance, pulls=(PULL,), history=None)
        self._streams = streams_of(self._instance, PULL, api, vocabulary, lease, clock, Metrics(), random.Random(1))

    async def prepare(self) -> None:
        """Make the pull known, with nothing left to plan by itself."""
        now = datetime.now(UTC)
        async with self._lease.transaction() as connection:
            await register(connection, self._instance, now)
            await planning.plan(connection, self._lease.instance, PULL.name, "soap", [], now, now)

    async def walk(self, shares: Sequence[Sequence[Page]]) -> None:
        """A window of each share's pages, one for each stream; the shares are equal."""
        days, now = [EPOCH + timedelta(days=self._windows + number) for number in range(len(shares))], datetime.now(UTC)
        windows = [Window(day, day + timedelta(days=1)) for day in days]
        self._windows += len(windows)
        self._session.first = {w3c(window.asked()[0]): pages[0].body for window, pages in zip(windows, shares, strict=True)}
        self._session.further = {page.position: page.body for pages in shares for page in pages[1:]}
        async with self._lease.transaction() as connection:
            await planning.plan(connection, self._lease.instance, PULL.name, "soap", windows, now, now)

        async def walked(stream: PullStream, left: int) -> None:
            while left:
                outcome = await stream.step()
                assert isinstance(outcome, Worked), "the walk met a fault"
                left -= outcome.count

        share = sum(page.leads for page in shares[0])
        await asyncio.gather(*(walked(stream, share) for stream in self._streams))


async def lease_of(dsn: str, pool: Pool, instance: str) -> tuple[Lease, "asyncpg.Connection[asyncpg.Record]"]:
    """The right to write for `instance`, and the connection that holds it."""
    connection = await asyncpg.connect(dsn)
    lease = await leases.acquire(connection, pool, instance, uuid4(), 15.0)
    assert lease is not None
    return lease, connection


def parsed(page: Page) -> list[LeadRecord]:
    """The parse step alone."""
    parser = ReplyParser("getMultipleLeads", None, as_it_came)
    for start in range(0, len(page.body), PIECE):
        parser.feed(page.body[start : start + PIECE])
    return parser.finish()[0]


def longest_stall(page: Page) -> tuple[float, float]:
    """Seconds, by the clock and of CPU, that the loop was held up at most while the page was parsed: a piece at a time."""
    parser = ReplyParser("getMultipleLeads", None, as_it_came)
    walls, cpus = [time.perf_counter()], [time.thread_time()]
    for start in range(0, len(page.body), PIECE):
        parser.feed(page.body[start : start + PIECE])
        walls.append(time.perf_counter())
        cpus.append(time.thread_time())
    parser.finish()
    walls.append(time.perf_counter())
    cpus.append(time.thread_time())
    return max(after - before for before, after in pairwise(walls)), max(after - before for before, after in pairwise(cpus))


def mirrored(records: Sequence[LeadRecord]) -> list[MirrorRow]:
    """The mirror step alone."""
    return [mirror_row(record, DICTIONARY) for record in records]


async def write(pool: Pool, instance: str, pages: Sequence[Sequence[MirrorRow]], writers: int) -> None:
    """The write step alone, on that many connections."""
    asker = Asker(PULL.name, "123abc", DICTIONARY.owned(PULL.fields))
    async with pool.acquire() as connection:
        await leads.ensure_history(connection, instance, datetime.now(UTC).date())

    async def writer(mine: Sequence[Sequence[MirrorRow]]) -> None:
        async with pool.acquire() as connection:
            all_new = False
            for rows in mine:
                now = datetime.now(UTC)
                written = await (leads.insert if all_new else leads.upsert)(connection, instance, asker, rows, now, now)
                all_new = written.created == len(rows)

    await asyncio.gather(*(writer(pages[number::writers]) for number in range(writers)))


def copy_lines(instance: str, rows: Sequence[MirrorRow]) -> bytes:
    """Rows in COPY's text form, made before the clock starts."""
    now = datetime.now(UTC).isoformat()
    lines = []
    for row in rows:
        columns = (instance, str(row.lead_id), row.email, row.attributes, f'{{"{PULL.name}": "{row.digest}"}}', now, now, now)
        lines.append("\t".join("\\N" if text is None else text.replace("\\", "\\\\") for text in columns) + "\n")
    return "".join(lines).encode()


async def copy(pool: Pool, writers: Sequence[Sequence[bytes]]) -> None:
    """COPY into the table of the leads: for each writer a connection of its own, for each of its parts a COPY and a commit."""

    async def writer(parts: Sequence[bytes]) -> None:
        async with pool.acquire() as connection:
            for part in parts:
                await _copy(connection, part)

    await asyncio.gather(*map(writer, writers))


async def _copy(connection: Connection, part: bytes) -> None:
    async def pieces() -> Any:
        for start in range(0, len(part), 256 * 1024):
            yield part[start : start + 256 * 1024]

    columns = ("instance", "lead_id", "email", "attributes", "digests", "first_seen_at", "changed_at", "asked_at")
    await connection.copy_to_table("lead", schema_name="syncd", source=pieces(), columns=columns)
