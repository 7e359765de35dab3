"""A pull against a simulator that answers after half a second: how close it comes to what that latency allows."""

import asyncio
import json
import math
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from syncd.core.mirror import UNDESCRIBED, Vocabulary
from syncd.core.settings import Instance, Pull, Secret, Soap, UpdatedSince
from syncd.core.settings import Limits as OurLimits
from syncd.flows.loop import Idle
from syncd.flows.plan import register
from syncd.flows.pull import PullStream, streams_of
from syncd.marketo.wire import open_wire
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.simulator import Limits, ScaledClock, Simulator, SimulatorSettings
from syncd.store.leases import Lease
from syncd.store.usage import Ledger
from tests.benchmarks.cost import Cost, measured
from tests.benchmarks.pages import NARROW_FIELDS

LATENCY = 0.5  # seconds
PAGE = 1_000  # leads
WINDOWS = 4
SPAN = timedelta(days=7) * WINDOWS


@dataclass(frozen=True, slots=True)
class Share:
    """How much of what the latency allows was reached: the longest stream's pages, one after the other, over the time taken."""

    streams: int
    share: float
    cost: Cost


@asynccontextmanager
async def marketo(leads: int) -> AsyncIterator[str]:
    """The SOAP endpoint of a simulator in a process of its own, whose leads were updated evenly over the last SPAN."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.latency", str(leads), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()  # it serves until then
        await process.wait()


async def pull(endpoint: str, lease: Lease, streams: int) -> Share:
    """Walk one window with one stream, all WINDOWS with four."""
    clock, metrics = WallClock(), Metrics()
    credentials = SimulatorSettings().credentials
    soap = Soap(endpoint, credentials.soap_user_id, Secret(credentials.encryption_key))
    since = clock.now() - SPAN * streams / WINDOWS
    settings = Pull(
        f"with {streams}",
        "soap",
        UpdatedSince(since),
        NARROW_FIELDS,
        batch_size=PAGE,
        streams=streams,
        window=SPAN / WINDOWS,
        margin=timedelta(),
    )
    instance = Instance(
        lease.instance, soap=soap, limits=OurLimits(calls_per_20s=100_000, concurrency=20, daily_calls=1_000_000), pulls=(settings,)
    )
    async with lease.transaction() as connection:
        await connection.execute("DELETE FROM syncd.lead WHERE instance = $1", lease.instance)
        await connection.execute("DELETE FROM syncd.pull_window WHERE instance = $1", lease.instance)
        await connection.execute("DELETE FROM syncd.pull WHERE instance = $1", lease.instance)
        await register(connection, instance, clock.now())

    async def vocabulary() -> Vocabulary:
        return UNDESCRIBED

    async def walk(stream: PullStream) -> None:
        while not isinstance(await stream.step(), Idle):
            pass

    async with open_wire(instance, clock, Ledger(lease.instance, lease.pool), metrics, lambda: True) as wire:
        assert wire.soap is not None
        walks = streams_of(instance, settings, wire.soap, vocabulary, lease, clock, metrics, random.Random(1))
        assert await walks[0].step() is not None  # plans the windows
        with measured(1) as cost:
            await asyncio.gather(*map(walk, walks))
    windows = [row["leads"] for row in await lease.pool.fetch("SELECT leads FROM syncd.pull_window WHERE instance = $1", lease.instance)]
    cost.leads = sum(windows)
    return Share(streams, max(math.ceil(leads / PAGE) for leads in windows) * LATENCY / cost.wall, cost)


async def _serve(leads: int) -> None:
    settings = SimulatorSettings(
        leads=leads,
        updated_since=datetime.now(UTC) - SPAN,
        latency=LATENCY,
        soap_batch_limit=PAGE,
        limits=Limits(calls_per_20s=100_000, concurrent_calls=100, soap_calls_per_day=1_000_000),
    )
    async with Simulator(settings, ScaledClock(1.0, 0.0)) as simulator:
        print(json.dumps(simulator.soap_endpoint), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
