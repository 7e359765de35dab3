"""A pull against a server that answers after half a second: how close it comes to what that latency allows.

The replies are the simulator's, made beforehand: what it costs to make them is not to be taken for latency.
"""

import asyncio
import json
import math
import random
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from aiohttp import web

from syncd.core.mirror import UNDESCRIBED, Vocabulary
from syncd.core.settings import Instance, Pull, Secret, Soap, UpdatedSince
from syncd.core.settings import Limits as OurLimits
from syncd.flows.loop import Idle
from syncd.flows.plan import register
from syncd.flows.pull import PullStream, streams_of
from syncd.marketo.wire import open_wire
from syncd.ops.clock import WallClock
from syncd.ops.metrics import Metrics
from syncd.simulator import SimulatorSettings, soap
from syncd.store.leases import Lease
from syncd.store.usage import Ledger
from tests.benchmarks.cost import Cost, measured
from tests.benchmarks.pages import NARROW_FIELDS, invented, pages_of

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
    """The SOAP endpoint of a server in a process of its own, which has `leads` for each of WINDOWS windows."""
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
    ours = Soap(endpoint, credentials.soap_user_id, Secret(credentials.encryption_key))
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
        lease.instance, soap=ours, limits=OurLimits(calls_per_20s=100_000, concurrency=20, daily_calls=1_000_000), pulls=(settings,)
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
    """Answer until the input ends, each window that is asked for with other leads."""
    pages = [pages_of(invented(number * leads, leads, wide=False), PAGE, wide=False) for number in range(WINDOWS)]
    replies = [{page.position: page.body for page in each} for each in pages]
    nothing = soap._rendered([], 0, "", NARROW_FIELDS).encode()
    windows: dict[str, int] = {}

    async def answer(request: web.Request) -> web.Response:
        arrived = asyncio.get_running_loop().time()
        text = (await request.read()).decode()
        oldest, latest, position = (_told(name, text) for name in ("oldestUpdatedAt", "latestUpdatedAt", "streamPosition"))
        number = windows.setdefault(oldest, len(windows)) % WINDOWS
        whole = datetime.fromisoformat(latest) - datetime.fromisoformat(oldest) > SPAN / WINDOWS / 2
        await asyncio.sleep(arrived + LATENCY - asyncio.get_running_loop().time())
        return web.Response(body=replies[number][position] if whole else nothing, content_type="text/xml")

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps("http://{}:{}/soap/mktows/3_1".format(*runner.addresses[0][:2])), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def _told(name: str, text: str) -> str:
    told = re.search(f"<{name}>([^<]*)<", text)
    return told[1] if told else ""


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
