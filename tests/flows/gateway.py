"""What stands between a daemon and Marketo, as a proxy of somebody's may: it answers some requests itself, in any way at all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Given:
    """An answer, as it is to go onto the wire."""

    body: bytes
    status: int = 200
    headers: Headers = (("Content-Type", "text/xml;charset=utf-8"),)


class Gateway:
    """Passes SOAP requests on to `upstream`; those that ask for the attribute `marker` get what `answer` gives instead, if anything.

    `asked` counts the marked requests; `last` is the body of the last answer of `upstream` to one of them. Use as `async with`.
    """

    def __init__(self, upstream: str, marker: str) -> None:
        self._upstream = upstream
        self._marker = f"<stringItem>{marker}</stringItem>".encode()
        self.answer: Callable[[bytes], Given | None] = lambda _: None
        self.asked = 0
        self.last = b""
        self.endpoint = ""

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession()
        app = web.Application()
        app.router.add_post("/{anything:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.endpoint = "http://{}:{}/soap".format(*self._runner.addresses[0][:2])
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self._marker in body:
            self.asked += 1
            given = self.answer(body)
            if given is None:
                given = await self._passed_on(request, body)
                self.last = given.body
        else:
            given = await self._passed_on(request, body)
        return web.Response(status=given.status, body=given.body, headers=CIMultiDict(given.headers))

    async def _passed_on(self, request: web.Request, body: bytes) -> Given:
        headers = {name: request.headers[name] for name in ("Content-Type", "SOAPAction") if name in request.headers}
        async with self._client.post(self._upstream, data=body, headers=headers) as reply:
            kept = [(name, reply.headers[name]) for name in ("Content-Type", "Date")]
            return Given(await reply.read(), reply.status, kept)
