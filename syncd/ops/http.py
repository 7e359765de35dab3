"""The listener: the status page at /, live by /events; /status.json, /metrics, /healthz (the loops are alive), /readyz (the database)."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from syncd.core.settings import Http
from syncd.ops.metrics import Metrics
from syncd.ops.token import guarded

LIVE_EVERY = 2.0  # seconds, real
STREAMS = 50
"""Open pages that are kept live at a time; one more still works by being loaded anew."""


class PortTaken(Exception):  # noqa: N818 - a state of the world, not a mistake of ours
    """The address to listen on cannot be had."""


class Shown(NamedTuple):
    """A page; `ok` is false where it can only say why there is nothing to show."""

    ok: bool
    html: str


class Pages(Protocol):
    """What is shown, as it is now."""

    policy: str
    """Content-Security-Policy."""

    async def status(self) -> Mapping[str, Any] | None:
        """As plain values; None while the database does not answer."""

    async def document(self) -> Shown:
        """The whole page."""

    async def main(self) -> str:
        """The part of it that changes."""


@asynccontextmanager
async def serve(
    settings: Http, metrics: Metrics, alive: Callable[[], bool], ready: Callable[[], Awaitable[bool]], pages: Pages
) -> AsyncIterator[None]:
    """Listen while the body runs. Raises PortTaken."""
    app = web.Application(middlewares=[guarded(settings.token)] if settings.token is not None else [])
    app.on_response_prepare.append(_protected)
    live = _Live(pages)
    app.router.add_get("/", _page(pages))
    app.router.add_get("/events", live.show)
    app.router.add_get("/status.json", _status(pages))
    app.router.add_get("/metrics", _metrics(metrics))
    app.router.add_get("/healthz", _verdict(alive))
    app.router.add_get("/readyz", _awaited_verdict(ready))
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
        live.ended.set()
        await runner.cleanup()


async def _protected(_: web.Request, response: web.StreamResponse) -> None:
    """What is shown is for who asked alone, and is what we say it is."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"


def _page(pages: Pages) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        shown = await pages.document()
        headers = {"Content-Security-Policy": pages.policy}
        return web.Response(status=200 if shown.ok else 503, text=shown.html, content_type="text/html", charset="utf-8", headers=headers)

    return show


def _status(pages: Pages) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        found = await pages.status()
        if found is None:
            return web.json_response({"error": "the database does not answer"}, status=503)
        return web.Response(body=orjson.dumps(found, default=str, option=orjson.OPT_NON_STR_KEYS), content_type="application/json")

    return show


def _metrics(metrics: Metrics) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return show


def _verdict(good: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        return _word(good())

    return show


def _awaited_verdict(good: Callable[[], Awaitable[bool]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def show(_: web.Request) -> web.Response:
        return _word(await good())

    return show


def _word(good: bool) -> web.Response:
    return web.Response(status=200 if good else 503, text="ok\n" if good else "not ok\n")


class _Live:
    """Keeps open pages up to date (server-sent events)."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._open = 0
        self.ended = asyncio.Event()

    async def show(self, request: web.Request) -> web.StreamResponse:
        if self._open >= STREAMS:
            return web.Response(status=503, text=f"{STREAMS} pages are kept live already; this one is to be loaded anew\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        self._open += 1
        try:
            while not self.ended.is_set():
                await response.write(_event(await self._pages.main()))
                await self._until_ended(LIVE_EVERY)
        except ConnectionResetError:
            pass  # the reader has gone
        finally:
            self._open -= 1
        return response

    async def _until_ended(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            return


def _event(html: str) -> bytes:
    """One message; each of its lines is a line of data."""
    return "".join(f"data: {line}\n" for line in html.splitlines() or [""]).encode() + b"\n"
