"""Follows a view: compares it with its snapshot each time it is due, and writes what differs into the outbox, a page a step."""

import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Instance, Push
from syncd.flows.loop import DATABASE_FAULTS, Idle, Outcome, Worked
from syncd.store import attaching, comparing, pauses
from syncd.store.comparing import Followed, Found, NotComparable, Tally
from syncd.store.leases import Connection, Lease

log = structlog.get_logger()

LOOK = timedelta(seconds=5)
"""How soon a view that was attached meanwhile, or is to be compared at once, is seen."""


@dataclass(slots=True)
class _Comparison:
    """One that has read the view; the session of `connection` has what differs, and the push's lock."""

    view: Followed
    connection: Connection
    found: Found
    began: datetime
    tally: Tally = field(default_factory=Tally)


class Follower:
    """Of one push that follows a table or a view; a table's triggers do it all."""

    def __init__(self, instance: Instance, push: Push, lease: Lease, clock: Clock, logger: Any = log) -> None:
        assert push.from_table is not None
        self.name = f"follow {push.name}"
        self.instance = instance.name
        self._push = push
        self._every = push.from_table.every
        self._lease = lease
        self._clock = clock
        self._session = AsyncExitStack()
        self._comparison: _Comparison | None = None
        self._log = logger.bind(instance=instance.name, push=push.name)

    async def step(self) -> Outcome:
        """Read the view when it is due, or write a page of what was found."""
        try:
            return await (self._write(self._comparison) if self._comparison is not None else self._begin())
        except BaseException:
            await self.close()  # what was written stands; the rest is found by the next one
            raise

    async def close(self) -> None:
        """End the session, and with it what it has read."""
        self._comparison = None
        session, self._session = self._session, AsyncExitStack()
        with contextlib.suppress(*DATABASE_FAULTS):
            await session.aclose()

    async def _begin(self) -> Outcome:
        now = self._clock.now()
        view = await comparing.of_push(self._lease.pool, self.instance, self._push.name)
        if view is None or view.based_at is None:
            return Idle(now + LOOK)
        due_at = min(view.due_at, view.last_at + self._every) if view.last_at is not None else view.due_at  # it may be more often by now
        if now < due_at:
            return Idle(min(due_at, now + LOOK))
        if await self._paused():
            return Idle(now + LOOK)
        connection = await self._session.enter_async_context(self._lease.pool.acquire())
        self._session.callback(connection.terminate)  # a lock and a table of the session's are not to come back to the pool
        if not await self._session.enter_async_context(attaching.alone(connection, self.instance, self._push.name)):
            await self.close()
            return Idle(now + LOOK)
        view = await comparing.of_push(connection, self.instance, self._push.name)
        if view is None or view.based_at is None:
            await self.close()
            return Idle(now + LOOK)
        try:
            found = await comparing.read(connection, view)
        except NotComparable as error:
            await self._failed(connection, view, str(error))
            return Worked(0)
        self._comparison = _Comparison(view, connection, found, now)
        return Worked(0)

    async def _paused(self) -> bool:
        return bool(pauses.over(await pauses.read(self._lease.pool, self.instance), "out", self._push.name))

    async def _failed(self, connection: Connection, view: Followed, message: str) -> None:
        """The whole comparison is for nothing: not a change of it was made."""
        now = self._clock.now()
        async with self._lease.transaction_on(connection):
            await comparing.failed(connection, view, message, now, self._every)
        await self.close()
        retry_at = (now + self._every).isoformat()
        self._log.warning("view_not_compared", view=view.relation, reason=message, attempt=view.failures + 1, retry_at=retry_at)

    async def _write(self, comparison: _Comparison) -> Outcome:
        connection, view, found, tally = comparison.connection, comparison.view, comparison.found, comparison.tally
        now = self._clock.now()
        async with self._lease.transaction_on(connection):
            more = await comparing.write(connection, self.instance, self._push, view, found, tally, sends=True)
            if not more:
                await comparing.done(connection, view, found, tally, now, self._every)
        if more:
            return Worked(tally.changes)
        await self.close()
        if tally.changes or tally.gone or view.failures:
            seconds = round((now - comparison.began).total_seconds(), 1)
            self._log.info("view_compared", view=view.relation, changes=tally.changes, gone=tally.gone, seconds=seconds)
        return Worked(tally.changes)
