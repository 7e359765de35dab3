"""A house that follows the activity log: it reads changes, deletions and merges, and leads by their ids."""

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import orjson
from aiohttp import web

from syncd.core.settings import Limits, Pull, UpdatedSince
from syncd.core.windows import reached
from syncd.flows.census import CensusTaker
from syncd.flows.changes import Changes
from syncd.flows.deletions import Deletions
from syncd.flows.fetch import Fetcher
from syncd.flows.loop import Flow
from syncd.simulator import ActivityModel
from tests.flows.conftest import FIELDS, Build, House

START = datetime(2026, 3, 2, 12, tzinfo=UTC)
FOLLOW = Pull("people", "activities", UpdatedSince(START), FIELDS, every=timedelta(minutes=5))
WHOLE = ActivityModel(short_pages=0.0)
Side = dict[int, tuple[str | None, dict[str, str]]]


async def flows_of(home: House) -> list[Flow]:
    """As the daemon builds them, for each pull."""
    wire, lease, dictionaries = home.wire, home.lease, home.dictionaries
    assert wire is not None
    assert wire.activities is not None
    assert wire.leads is not None
    assert lease is not None
    assert dictionaries is not None
    common = dictionaries.vocabulary, lease, home.clock, home.metrics, random.Random(1)
    rest = lease, home.clock, home.metrics, random.Random(1), lambda: reached(home.clock.now(), None)
    flows: list[Flow] = [Deletions(home.instance, wire.activities, *rest)]
    if home.instance.census is not None:
        flows.append(CensusTaker(home.instance, wire.leads, *rest))
    for pull in home.instance.pulls:
        if pull.source in ("activities", "auto"):
            await home.pool.execute("UPDATE syncd.pull SET follows = 'activities' WHERE pull = $1", pull.name)
            flows.append(Changes(home.instance, pull, wire.activities, *common, lambda: reached(home.clock.now(), None)))
        flows.append(Fetcher(home.instance, pull, wire.leads, *common))
    return flows


async def follow(house: Build, pulls: Sequence[Pull] = (FOLLOW,), limits: Limits | None = None, **simulated: object) -> House:
    """A house whose flows follow the log, over a simulator that hands out whole pages unless told otherwise."""
    home = await house(pulls=pulls, limits=limits, **{"activities": WHOLE, "leads": 50, **simulated})  # type: ignore[arg-type]
    home.also = flows_of
    await home.restart()
    return home


def flow(home: House, name: str) -> Flow:
    """The flow whose name begins so."""
    return next(each for each in home.flows if each.name.startswith(name))


async def mirror(home: House) -> Side:
    rows = await home.pool.fetch("SELECT lead_id, email, attributes FROM syncd.lead WHERE deleted_at IS NULL")
    return {row["lead_id"]: (row["email"], {name: str(value) for name, value in orjson.loads(row["attributes"]).items()}) for row in rows}


def truth(home: House, *ids: int) -> Side:
    """What the simulator holds of the fields that the pull asks for, of these leads or of all."""
    return {lead_id: (email, fields) for lead_id, email, fields in home.simulator.world.truth(FIELDS) if not ids or lead_id in ids}


def calls(home: House, endpoint: str) -> int:
    return sum(call.count for call in home.simulator.report().calls if call.endpoint == endpoint)


def changed(pull: Pull = FOLLOW, **changes: object) -> Pull:
    return replace(pull, **changes)  # type: ignore[arg-type]


def refusal(code: str) -> bytes:
    """The envelope of an error."""
    message = {"603": "Access denied", "607": "Max daily quota reached"}.get(code, f"code {code} of a@example.com")
    return json.dumps({"requestId": "e42b#1", "success": False, "errors": [{"code": code, "message": message}]}).encode()


@asynccontextmanager
async def gateway(home: House, answer: Callable[[str], bytes | None]) -> AsyncIterator[None]:
    """Between the house and Marketo's REST: `answer` gives the body that comes instead, by the path that is asked for, if any."""
    upstream = home.simulator.rest_endpoint
    rest = home.instance.rest
    assert rest is not None

    async def handle(request: web.Request) -> web.StreamResponse:
        given = answer(request.path)
        if given is not None:
            return web.Response(body=given, content_type="application/json")
        headers = {name: request.headers[name] for name in ("Authorization", "Content-Type") if name in request.headers}
        async with client.request(request.method, upstream + request.raw_path, data=await request.read(), headers=headers) as reply:
            return web.Response(body=await reply.read(), status=reply.status, headers={"Date": reply.headers["Date"]})

    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{anything:.*}", handle)
    async with aiohttp.ClientSession() as client:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint = "http://{}:{}".format(*runner.addresses[0][:2])
        try:
            await home.restart(rest=replace(rest, endpoint=endpoint))
            yield
            await home.restart(rest=rest)
        finally:
            await runner.cleanup()
