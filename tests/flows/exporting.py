"""Extracts in a house of flows, as the daemon will build them."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from syncd.core.route import Route
from syncd.core.settings import Limits, Pull, UpdatedSince
from syncd.core.windows import Window
from syncd.flows.export import ExportStarter
from syncd.flows.export_load import ExportLoader
from syncd.flows.export_poll import ExportPoller
from syncd.flows.exporters import exporters_of
from syncd.flows.exporting import Reach
from syncd.flows.loop import Flow
from syncd.simulator import ExportModel
from syncd.store import routes
from syncd.store.leases import Connection
from tests.flows.conftest import Build, House

SINCE = datetime(2026, 2, 1, tzinfo=UTC)
FIELDS = (
    "firstName",
    "lastName",
    "email",
    "company",
    "leadScore",
    "unsubscribed",
    "dateOfBirth",
    "lastWebinarAt",
    "lifetimeValue",
    "notes",
)
PULL = Pull("people", "bulk_extract", UpdatedSince(SINCE), FIELDS, every=timedelta(hours=1), window=timedelta(days=10))
LIMITS = Limits(calls_per_20s=100)
BY_UPDATE = Route(False, False, "windows", "a test")
QUICK = ExportModel(overhead_seconds=90, sigma=0.0)


@dataclass
class Hooks:
    """What the flows are given, and what they told."""

    route: Route = BY_UPDATE
    rerouted: list[tuple[str, str]] = field(default_factory=list)
    reroutes: bool = False
    listed: list[tuple[Window, list[int]]] = field(default_factory=list)
    census: bool = False
    may_fill: bool = True

    async def on_no_updated_at(self, connection: Connection, pull: str, message: str) -> bool:
        self.rerouted.append((pull, message))
        if self.reroutes:
            await connection.execute("UPDATE syncd.pull_window SET state = 'abandoned', finished_at = now() WHERE state = 'open'")
            await routes.choose(connection, "acme", pull, Route(True, False, "activities", "1035"), datetime.now(UTC))
            await connection.execute("UPDATE syncd.pull SET planned_at = NULL")
        return self.reroutes

    async def on_census(self, connection: Connection, window: Window, ids: Sequence[int], asked_at: datetime, now: datetime) -> None:
        assert connection.is_in_transaction()
        self.listed.append((window, list(ids)))

    async def ready(self) -> bool:
        return self.may_fill


def with_exports(hooks: Hooks) -> Any:
    """What a house builds at each start."""

    async def also(house: House) -> list[Flow]:
        assert house.wire is not None
        assert house.wire.exports is not None
        assert house.lease is not None
        assert house.dictionaries is not None
        for pull in house.instance.pulls:
            async with house.lease.transaction() as connection:
                if (await routes.read(house.pool, "acme", pull.name)).route is None:
                    await routes.choose(connection, "acme", pull.name, hooks.route, house.clock.now())
        reach = Reach(house.wire.exports, house.lease, house.clock, house.metrics, random.Random(1))
        return list(
            exporters_of(
                house.instance,
                reach,
                house.dictionaries.vocabulary,
                house.wire.now,
                {pull.name: hooks.ready for pull in house.instance.pulls},
                hooks.on_no_updated_at,
                hooks.on_census if hooks.census else None,
            )
        )

    return also


async def built(house: Build, *pulls: Pull, hooks: Hooks | None = None, limits: Limits = LIMITS, **simulated: Any) -> House:
    """A house whose pulls go by extracts; nothing else moves in it but the dictionary."""
    simulated.setdefault("exports", QUICK)
    one = await house(limits=limits, **simulated)
    one.also = with_exports(hooks or Hooks())
    await one.restart(pulls=pulls or (PULL,))
    return one


def kind_of(house: House, kind: type) -> Any:
    """The first flow of a kind."""
    return next(flow for flow in house.flows if isinstance(flow, kind))


def starter(house: House) -> ExportStarter:
    return kind_of(house, ExportStarter)  # type: ignore[no-any-return]


def poller(house: House) -> ExportPoller:
    return kind_of(house, ExportPoller)  # type: ignore[no-any-return]


def loader(house: House) -> ExportLoader:
    return kind_of(house, ExportLoader)  # type: ignore[no-any-return]


NOTHING_OPEN = """
SELECT count(*) FILTER (WHERE state = 'done') > 0 AND count(*) FILTER (WHERE state IN ('open', 'blocked')) = 0 FROM syncd.pull_window
"""


async def nothing_is_open(house: House) -> bool:
    """All that is planned is loaded."""
    return await house.pool.fetchval(NOTHING_OPEN) is True


async def filled(house: House, seconds: float = 86_400) -> None:
    """Let it run until all that is planned is loaded, and fail when it takes longer."""

    async def done() -> bool:
        return await nothing_is_open(house)

    await house.run(seconds, done)
    assert await done(), await house.pool.fetch("SELECT id, state, message FROM syncd.export ORDER BY id")


async def exports_of(house: House, columns: str = "state") -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await house.pool.fetch(f"SELECT {columns} FROM syncd.export ORDER BY id")]


async def mirror(house: House) -> dict[int, tuple[str | None, dict[str, Any]]]:
    rows = await house.pool.fetch("SELECT lead_id, email, attributes || coalesce(misfits, '{}') AS attributes FROM syncd.lead ORDER BY 1")
    return {row["lead_id"]: (row["email"], json.loads(row["attributes"], parse_float=str, parse_int=str)) for row in rows}


def truth(house: House, fields: Sequence[str] = FIELDS) -> dict[int, tuple[str | None, dict[str, Any]]]:
    """What the world holds, as the mirror must."""
    leads = {}
    for lead_id, email, values in house.simulator.world.rest_truth(fields):
        leads[lead_id] = (email, {name: _as_mirrored(name, text) for name, text in values.items() if text != "null"})
    return leads


def _as_mirrored(name: str, text: str) -> object:
    if name == "unsubscribed":
        return text == "true"
    if name == "lastWebinarAt":
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return text
