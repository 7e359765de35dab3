"""Reads what the page shows, however many look, and gives it to the listener."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import asyncpg

import syncd
from syncd.core.clock import Clock
from syncd.core.settings import Instance, Settings
from syncd.core.words import without_addresses
from syncd.ops.http import Shown
from syncd.ops.metrics import Metrics
from syncd.ops.paced import Paced
from syncd.ops.recent import Recent
from syncd.page import render
from syncd.page.assets import POLICY
from syncd.page.render import Look
from syncd.store import board, status
from syncd.store.board import InstanceBoard
from syncd.store.leases import Pool
from syncd.store.status import Counts

EVERY = 1.0  # seconds, real
PATIENCE = 10.0  # seconds, real: a database that hangs is one that does not answer
COUNTING = 2.0  # seconds, real, that a page waits for the leads and all that has ended to be counted
APIS = ("rest", "soap")
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class LivePages:
    """The pages of one daemon."""

    policy = POLICY

    def __init__(self, settings: Callable[[], Settings], pool: Pool, clock: Clock, metrics: Metrics, recent: Recent) -> None:
        self._settings = settings  # as of the last reload
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._recent = recent
        self._counts = Paced(lambda: status.count_all(pool), EVERY)
        self._counted: Mapping[str, Counts] | None = None
        self._boards = Paced(self._read, EVERY)

    async def status(self) -> Mapping[str, Any] | None:
        """As plain values; None while the database does not answer."""
        try:
            as_of, boards = await self._latest()
        except AWAY:
            return None
        plain: Mapping[str, Any] = _scrubbed(board.as_json(boards, as_of))
        return plain

    async def document(self) -> Shown:
        """The whole page."""
        try:
            return Shown(True, render.document(await self._look()))
        except AWAY as error:
            return Shown(False, render.unavailable(syncd.__version__, type(error).__name__))

    async def main(self) -> str:
        """The part of it that changes."""
        try:
            return render.main(await self._look())
        except AWAY as error:
            return render.away(type(error).__name__)

    def _instances(self) -> Mapping[str, Instance]:
        return {instance.name: instance for instance in self._settings().instances}

    async def _latest(self) -> tuple[datetime, list[InstanceBoard]]:
        with contextlib.suppress(TimeoutError):  # they are shown once they are there
            self._counted = await asyncio.wait_for(self._counts.get(), COUNTING)
        return await asyncio.wait_for(self._boards.get(), PATIENCE)

    async def _read(self) -> tuple[datetime, list[InstanceBoard]]:
        now = self._clock.now()
        counts = self._counted if self._counted is not None else await status.uncounted(self._pool)
        return now, await board.read(self._pool, self._instances(), now, counts)

    async def _look(self) -> Look:
        as_of, boards = await self._latest()
        names = [found.status.name for found in boards]
        return Look(
            as_of=as_of,
            version=syncd.__version__,
            boards=boards,
            limits={name: instance.limits for name, instance in self._instances().items()},
            brakes={name: brakes for name in names if (brakes := self._brakes(name)) is not None},
            paused_apis={name: [api for api in APIS if self._metrics.value("syncd_api_paused", instance=name, api=api)] for name in names},
            troubles={name: self._recent.of(name) for name in (*names, None)},
        )

    def _brakes(self, instance: str) -> tuple[float, float] | None:
        """The shares of pace and concurrency; None where this daemon does not work for the instance."""
        pace = self._metrics.value("syncd_brake", instance=instance, kind="pace")
        concurrency = self._metrics.value("syncd_brake", instance=instance, kind="concurrency")
        return None if pace is None or concurrency is None else (pace, concurrency)


def _scrubbed(value: Any) -> Any:
    """Without the addresses that messages may quote."""
    if isinstance(value, str):
        return without_addresses(value)
    if isinstance(value, Mapping):
        return {key: _scrubbed(inner) for key, inner in value.items()}
    return [_scrubbed(inner) for inner in value] if isinstance(value, list | tuple) else value
