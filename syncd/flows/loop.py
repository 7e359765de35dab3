"""The one loop: tests call `step()`, the loop adds stop, backoff and progress, nothing else."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

import asyncpg
import structlog

from syncd.core.clock import Clock
from syncd.core.retry import backoff

log = structlog.get_logger()

T = TypeVar("T")

DATABASE_FAULTS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What comes of a database that is away, or ends our sessions: asyncpg's internal error is how some of its reads notice."""


@dataclass(frozen=True, slots=True)
class Worked:
    """The step did something: take the next one at once."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Idle:
    """There is nothing to do before `until`."""

    until: datetime


Outcome = Worked | Idle


class Flow(Protocol):
    """A story told in steps. `name` says which, for logs and metrics; `instance` whose."""

    name: str
    instance: str

    async def step(self) -> Outcome:
        """Do one whole thing; raises LeaseLost, or what the database says when it is away."""

    async def close(self) -> None:
        """Let go of what is under way and not written yet."""


async def run(flow: Flow, clock: Clock, stop: asyncio.Event, progress: Callable[[str, str], None], jitter: random.Random) -> None:
    """Take steps until `stop`. Trouble with the database backs off, whatever else goes wrong is a bug and ends the daemon."""
    failures = 0
    try:
        while not stop.is_set():
            try:
                outcome = await flow.step()
                failures = 0
            except DATABASE_FAULTS as error:
                failures += 1
                wait = backoff(failures, jitter.random())
                outcome = Idle(clock.now() + wait)
                tell_fault(error, instance=flow.instance, flow=flow.name, attempt=failures)
            progress(flow.instance, flow.name)
            if isinstance(outcome, Idle):
                await _until(outcome.until, clock, stop)
            else:
                await asyncio.sleep(0)
    finally:
        await flow.close()


def tell_fault(error: BaseException, *, instance: str, **where: object) -> None:
    """Log what the database said. One that is away comes back by itself; one that is full waits for a person."""
    if isinstance(error, asyncpg.DiskFullError):
        remedy = "free space on the disk of the database; nothing is lost, and all goes on by itself"
        log.error("database_full", error=describe_error(error), remedy=remedy, instance=instance, **where)
    else:
        log.warning("database_fault", error=describe_error(error), instance=instance, **where)


def describe_error(error: BaseException) -> str:
    """An error of the database in one line, without the row it was about (DETAIL may hold personal data)."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


async def _until(moment: datetime, clock: Clock, stop: asyncio.Event) -> None:
    seconds = (moment - clock.now()).total_seconds()
    sleeping = asyncio.ensure_future(clock.sleep(max(0.0, seconds)))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((sleeping, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        stopping.cancel()


async def shielded(write: Coroutine[Any, Any, T]) -> T:
    """Finish a write of state even when cancelled, and only then be cancelled: what Marketo said must not be forgotten.

    Whatever the write then comes to, even when it fails: the cancellation stands, as it is told only once.
    """
    task = asyncio.ensure_future(write)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("write_failed", error=describe_error(error))
        raise


class LastWrite:
    """What became of the last POST. Should the database be away, it is written by a later step: nobody else knows it."""

    def __init__(self, event: str, logger: Any) -> None:
        """`event` is logged when it could not be written before the end."""
        self._event = event
        self._log = logger
        self._write: Callable[[], Coroutine[Any, Any, Outcome]] | None = None

    async def again(self) -> Outcome | None:
        """Write what could not be written before; None when there is nothing such."""
        return None if self._write is None else await self.write(self._write)

    async def write(self, write: Callable[[], Coroutine[Any, Any, Outcome]]) -> Outcome:
        """Write it, even when cancelled."""
        self._write = write

        async def until_written() -> Outcome:
            outcome = await write()
            self._write = None
            return outcome

        return await shielded(until_written())

    async def close(self) -> None:
        """Once more at the end: a restart could only call what was sent unconfirmed."""
        try:
            await self.again()
        except DATABASE_FAULTS as error:
            self._log.warning(self._event, error=describe_error(error))


SECOND = timedelta(seconds=1)
"""How often a flow that waits for others' rows looks for them: NOTIFY would halve the writers' commits (decisions.md)."""
