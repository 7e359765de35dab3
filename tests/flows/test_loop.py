"""The loop around the steps: stop, backoff, cancellation."""

import asyncio
import random
from typing import NoReturn

import asyncpg
import pytest

from syncd.flows import loop
from syncd.flows.loop import Outcome
from syncd.ops.clock import WallClock


class Writing:
    """A flow whose write of state fails once it has been cancelled, as when the database restarts."""

    name = "writing"
    instance = "acme"

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.database_gone = asyncio.Event()
        self.steps = 0

    async def step(self) -> Outcome:
        self.steps += 1
        return await loop.shielded(self._write())

    async def close(self) -> None:
        pass

    async def _write(self) -> NoReturn:
        self.begun.set()
        await self.database_gone.wait()
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


async def test_a_cancelled_flow_ends_although_the_write_that_it_finishes_fails() -> None:
    flow = Writing()
    running = asyncio.ensure_future(loop.run(flow, WallClock(), asyncio.Event(), lambda *_: None, random.Random(1)))
    await flow.begun.wait()
    running.cancel()
    await asyncio.sleep(0)
    flow.database_gone.set()
    done, _ = await asyncio.wait((running,), timeout=1)
    running.cancel()
    assert done, "it went on by itself, whatever the others did"
    with pytest.raises(asyncio.CancelledError):
        await running
    assert flow.steps == 1
