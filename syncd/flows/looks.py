"""The activity log, looked at time and again: each look begins a little before the last one ended, as entries are committed late."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from syncd.core.faults import Fault, Nature
from syncd.core.values import Activity, ActivityPage
from syncd.core.windows import floor_second
from syncd.store import activities
from syncd.store.activities import Start
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

ACTIVITY_PERMISSION = "Read-Only Activity"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a look that began at `began_at`, by Marketo's clock; what was dated after `read_at` is not in it."""

    activities: Sequence[Activity]
    token: str
    last: bool
    began_at: datetime
    read_at: datetime


class Looks:
    """One stream of entries. Where it goes on is in the database alone, moved with what the page tells, in one transaction."""

    def __init__(
        self,
        instance: str,
        stream: str,
        overlap: timedelta,
        token_since: Callable[[datetime], Awaitable[str]],
        lease: Lease,
        marketo_now: Callable[[], datetime],
    ) -> None:
        self._instance = instance
        self._stream = stream
        self._overlap = overlap
        self._token_since = token_since
        self._lease = lease
        self._marketo_now = marketo_now
        self._renewed = False
        self._log = log.bind(instance=instance, stream=stream)

    async def begin(self, since: datetime) -> None:
        """Let a new stream begin at `since`; one that has begun stays where it is. Raises Fault."""
        if await activities.last_look(self._lease.pool, self._instance, self._stream) is None:
            await self._begin(since)

    async def page(self, read: Callable[[str], Awaitable[ActivityPage]]) -> Page:
        """The next page of the look under way, or the first one of a new look; the stream must have begun. Raises Fault.

        A token may expire, or be refused for reasons of Marketo's: then the stream goes on by a new one, once.
        """
        now = floor_second(self._marketo_now())
        start = await self._start(now)
        try:
            page = await read(start.token)
        except Fault as fault:
            if fault.nature is not Nature.PERMANENT or self._renewed:
                self._renewed = False
                raise
            start = await self._renew(fault, now)
            page = await read(start.token)
        self._renewed = False
        return Page(page.activities, page.token, not page.more, start.began_at or now, self._marketo_now())

    async def write(self, connection: Connection, page: Page) -> list[Activity]:
        """Move the stream behind `page`; returns those of its entries that no look has seen before."""
        at = self._instance, self._stream
        fresh = await activities.unseen(connection, *at, page.activities, page.began_at, self._overlap)
        if page.last:
            await activities.finish(connection, *at, page.read_at, page.token, self._overlap)
        else:
            await activities.advance(connection, *at, page.began_at, page.token)
        return fresh

    async def _start(self, now: datetime) -> Start:
        """An overlap before the end of the last look, however long ago that was: it is what that look was too early for."""
        last = await activities.last_look(self._lease.pool, self._instance, self._stream)
        start = await activities.start(self._lease.pool, self._instance, self._stream, min(last or now, now) - self._overlap)
        assert start is not None, "the stream has begun"
        return start

    async def _begin(self, since: datetime) -> None:
        since = floor_second(since)
        token = await self._token_since(since)
        async with self._lease.transaction() as connection:
            await activities.begin(connection, self._instance, self._stream, since, token)

    async def _renew(self, fault: Fault, now: datetime) -> Start:
        last = await activities.last_look(self._lease.pool, self._instance, self._stream)
        since = min(last or now, now) - self._overlap
        self._log.warning("token_refused", fault=str(fault), since=since.isoformat(), remedy="the log is read once more from then on")
        await self._begin(since)
        self._renewed = True
        return await self._start(now)
