"""The listener on loopback: /metrics, /healthz (the loops are alive), /readyz (the database is in order), /status.json."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from syncd.core.settings import Http
from syncd.ops.metrics import Metrics


class PortTaken(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """The address to listen on cannot be had."""


@asynccontextmanager
async def serve(
    settings: Http,
    metrics: Metrics,
    alive: Callable[[], bool],
    ready: Callable[[], Awaitable[bool]],
    status: Callable[[], Awaitable[Mapping[str, Any]]],
) -> AsyncIterator[None]:
    """Listen while the body runs. Raises PortTaken."""

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(_: web.Request) -> web.Response:
        return _verdict(alive())

    async def show_readiness(_: web.Request) -> web.Response:
        return _verdict(await ready())

    async def show_status(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(await status(), default=str), content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", show_health)
    app.router.add_get("/readyz", show_readiness)
    app.router.add_get("/status.json", show_status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)  # second: the pool must close in time, too
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise PortTaken(
                f"http.listen: cannot listen on {settings.host}:{settings.port} ({reason}); choose another port, or end what has it"
            ) from error
        yield
    finally:
        await runner.cleanup()


def _verdict(good: bool) -> web.Response:
    return web.Response(status=200 if good else 503, text="ok\n" if good else "not ok\n")
