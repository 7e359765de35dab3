"""The simulator: one Marketo instance behind real HTTP."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import hdrs, web

from syncd.simulator.clock import Clock, seeded
from syncd.simulator.delivery import REDIRECTED, deliver, whole
from syncd.simulator.exportfile import of_path, of_pieces
from syncd.simulator.exports import ExportQueue, ExportView
from syncd.simulator.fault_kinds import Fault
from syncd.simulator.faults import REDIRECT, FaultPlan, hides_the_answer, instead_of_processing, instead_of_the_answer
from syncd.simulator.fields import Field
from syncd.simulator.imports import ImportQueue, Slot
from syncd.simulator.limits import Limiter
from syncd.simulator.report import Recorder, Report
from syncd.simulator.rest import Identity, RestApi, rest_endpoint_of
from syncd.simulator.settings import SimulatorSettings
from syncd.simulator.soap import SoapApi, soap_fault
from syncd.simulator.wire import Call, MarketoFault, Reply, plain, rest_error
from syncd.simulator.world import World

_SOAP_PATH = "/soap/mktows/3_1"
_SHUTDOWN_SECONDS = 0.5
_LONGEST_LINE = 1 << 18
"""Addresses over the limit of the instance must still be read, to be answered with 414."""


class Simulator:
    """A Marketo to rehearse with. Nothing runs in the background: each request and each look first moves the world up to now."""

    def __init__(self, settings: SimulatorSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        now = clock.now().timestamp()
        self._recorder = Recorder()
        self._world = World(settings, now)
        self._queue = ImportQueue(settings, self._world, self._recorder, now)
        self._faults = FaultPlan(settings, self._recorder)
        self._exports = ExportQueue(settings, self._world, self._recorder, self._faults.for_the_next_file)
        self._identity = Identity(settings)
        self._limiter = Limiter(settings, self._recorder, now)
        self._soap = SoapApi(settings, self._world, self._recorder)
        self._rest = RestApi(settings, self._world, self._queue, self._exports, self._identity, self._limiter, self._recorder)
        self._request_ids = seeded(settings.seed, "request ids")
        self._runner: web.AppRunner | None = None
        self._base = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one. A stopped simulator can be started again, its state is kept. Raises OSError when it cannot."""
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._handle)
        app.on_response_prepare.append(self._tell_time)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, max_line_size=_LONGEST_LINE)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._base = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def rest_endpoint(self) -> str:
        """The base URL of REST; identity is below it, at `/identity`."""
        return self._base

    @property
    def soap_endpoint(self) -> str:
        """The URL that getMultipleLeads is posted to."""
        return self._base + _SOAP_PATH

    @property
    def world(self) -> World:
        """The lead database as of now."""
        self._move()
        return self._world

    def report(self) -> Report:
        """What the client did so far."""
        return self._recorder.report(self._move())

    def slots(self) -> tuple[Slot, ...]:
        """The import slots as of now: running ones first, then the queue in its order, then the free ones."""
        return self._queue.board(self._move())

    def add_foreign_job(self, duration: float, at_queue: int | None = None) -> None:
        """A stranger's import job of `duration` seconds, at a place in the queue (default: its end). Raises ValueError if none is free."""
        self._queue.add_foreign_job(duration, self._move(), at_queue)

    def exports(self) -> tuple[ExportView, ...]:
        """The client's exports as they really are now, whatever their status tells, and the strangers' that are live."""
        return self._exports.views(self._move())

    def add_foreign_export(self, duration: float, size: int = 0) -> None:
        """A stranger's export of `duration` seconds, and of so many bytes of the day's quota. Raises ValueError if no slot is free."""
        self._exports.add_foreign(duration, size, self._move())

    def plant_export(
        self, source: bytes | Path | Callable[[], Iterable[bytes]], records: int, size: int | None = None, sha256: str | None = None
    ) -> None:
        """Let the next export of the client's that begins have this file: bytes, a path, or what yields its pieces anew at each call.

        Size and checksum are found out by reading it once, unless both are given.
        """
        if isinstance(source, Path):
            self._exports.plant(of_path(source, records))
        else:
            pieces = source if callable(source) else (lambda: (source,))
            self._exports.plant(of_pieces(pieces, records, size, sha256))

    def add_foreign_calls(self, user_id: str, n: int) -> None:
        """A stranger's API user spends `n` REST calls of today's quota."""
        self._limiter.add_foreign_calls(user_id, n, self._move())

    def add_field(self, field: Field) -> None:
        """Let the instance have one more field from now on. Raises ValueError when its id or one of its names is taken."""
        self.world.catalogue.add(field)

    def remove_field(self, key: str) -> None:
        """Take a field out of the instance, by its REST name (SOAP name where there is no other); leads keep their values, unseen.

        Raises KeyError for an unknown one.
        """
        self.world.catalogue.remove(key)

    def retype_field(self, key: str, data_type: str) -> None:
        """Give a field another dataType from now on; the values stay as they are. Raises KeyError for an unknown one."""
        self.world.catalogue.retype(key, data_type)

    def script(self, endpoint: str, fault: Fault, times: int = 1) -> None:
        """Let the next `times` requests to `endpoint` meet `fault`; see `faults.ENDPOINTS`. Raises ValueError where it makes no sense."""
        self._faults.script(endpoint, fault, times)

    def expire_token(self) -> None:
        """Let the token expire now: its next use is answered with 602."""
        self._identity.expire()

    def _move(self) -> float:
        """Let everything happen up to now, in the order of time: an export's snapshot is of its own moment."""
        now = self._clock.now().timestamp()
        while (moment := self._exports.next) <= now:
            self._queue.move_to(moment)
            self._exports.step()
        self._queue.move_to(now)
        return now

    async def _tell_time(self, _: web.Request, response: web.StreamResponse) -> None:
        """Its own time, by which a client judges its clock; aiohttp would tell the machine's."""
        response.headers[hdrs.DATE] = format_datetime(self._clock.now() + timedelta(seconds=self._settings.clock_skew), usegmt=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if path.startswith("/_simulator/"):
            return self._side_door(path)
        if REDIRECTED in request.query:
            self._recorder.violation(self._move(), "redirect followed")
            return await deliver(request, REDIRECT)
        endpoint = "soap" if (request.method, path) == ("POST", _SOAP_PATH) else rest_endpoint_of(path, request.method, request.query)
        if endpoint is None:
            kind = "double slash in address" if "//" in path else "unknown address"
            self._recorder.violation(self._move(), kind)
            return whole(plain(404, "Not Found"))
        api = endpoint if endpoint in ("soap", "identity") else "rest"
        arrived = self._clock.now().timestamp()
        over = self._limiter.arrive(api, arrived) if api != "identity" else None
        code = "disconnected"
        try:
            reply = await self._answer(request, endpoint, over)
            code = reply.code
        except ConnectionError:
            # The client went away while it was sending: nothing was processed.
            reply = Reply(0, b"", "", "reset")
        finally:
            self._recorder.calls[api, endpoint, code] += 1
            if api != "identity":
                self._limiter.leave(api, arrived, code)
        return await deliver(request, reply)

    async def _answer(self, request: web.Request, endpoint: str, over: MarketoFault | None) -> Reply:
        body, size = await _read(request, self._settings.limits.import_body_bytes)
        if endpoint == "import":
            self._recorder.largest_import = max(self._recorder.largest_import, size)
        if self._settings.latency:
            await self._clock.sleep(self._settings.latency)
        now = self._move()
        faults = self._faults.draw(endpoint) if over is None else frozenset()
        request_id = f"{self._request_ids.getrandbits(16):04x}#{int(now * 1000):x}"
        oddities = frozenset(fault.value for fault in faults)
        accepted = self._recorder.imports_accepted, self._recorder.exports.enqueued
        path, uri_bytes = request.rel_url.raw_path, len(request.raw_path)
        call = Call(
            endpoint, path, request.query, request.headers, body, size, now, request_id, oddities, uri_bytes, hides_the_answer(faults)
        )
        try:
            if over is not None:
                raise over
            reply = instead_of_processing(faults) or instead_of_the_answer(faults, self._process(call))
        except MarketoFault as fault:
            reply = soap_fault(fault.code, fault.message) if endpoint == "soap" else rest_error(call, fault.code, fault.message)
        if (self._recorder.imports_accepted, self._recorder.exports.enqueued) == accepted:
            refused = {"import": self._recorder.imports_refused, "export_enqueue": self._recorder.exports.refused}.get(endpoint, Counter())
            refused[reply.code] += 1
        if reply.code != "ok":
            self._recorder.event(now, f"{endpoint} answered {reply.code}")
        return reply

    def _process(self, call: Call) -> Reply:
        if call.endpoint == "soap":
            return self._soap.answer(call)
        if call.endpoint == "identity":
            return self._identity.answer(call)
        return self._rest.answer(call)

    def _side_door(self, path: str) -> web.Response:
        if path == "/_simulator/report":
            return web.json_response(asdict(self.report()))
        if path == "/_simulator/slots":
            return web.json_response([asdict(slot) for slot in self.slots()])
        return web.json_response({"error": "try /_simulator/report or /_simulator/slots"}, status=404)


async def _read(request: web.Request, limit: int) -> tuple[bytes, int]:
    """The body up to a little over `limit` bytes, and its whole size: an oversized one is read to its end but not kept."""
    kept, size = bytearray(), 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if len(kept) <= limit:
            kept += piece
    return bytes(kept), size
