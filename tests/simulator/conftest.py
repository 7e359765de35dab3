"""Simulators over real HTTP in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from aiohttp import ClientSession

from syncd.simulator import Simulator, SimulatorSettings
from tests.simulator.client import Client, ManualClock

Rehearse = Callable[[SimulatorSettings], Awaitable[Client]]


@pytest.fixture
async def rehearse() -> AsyncIterator[Rehearse]:
    """Start a simulator of some settings and log in."""
    async with AsyncExitStack() as stack:

        async def start(settings: SimulatorSettings) -> Client:
            clock = ManualClock()
            sim = await stack.enter_async_context(Simulator(settings, clock))
            client = Client(sim, clock, await stack.enter_async_context(ClientSession()))
            await client.login()
            return client

        yield start
