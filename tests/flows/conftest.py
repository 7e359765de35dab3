"""A daemon's flows taken apart: real Postgres, the simulator over real HTTP, and time that passes only when a test says so."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import uuid4

import asyncpg
import pytest

from syncd.core.settings import Instance, Limits, Poll, Pull, Push, Rest, Secret, Soap, UpdatedSince
from syncd.flows.dictionary import Dictionaries
from syncd.flows.guard import Guard
from syncd.flows.loop import Flow, Idle
from syncd.flows.plan import register
from syncd.flows.preflight import Checks
from syncd.flows.pull import streams_of
from syncd.flows.push import Packer, Submitter
from syncd.flows.settle import Settler
from syncd.flows.sweep import Sweep
from syncd.flows.sync import Syncer
from syncd.marketo.describe import describe
from syncd.marketo.wire import Wire, open_wire
from syncd.ops.clock import ManualClock
from syncd.ops.metrics import Metrics
from syncd.simulator import Credentials, Simulator, SimulatorSettings
from syncd.simulator import Limits as MarketoLimits
from syncd.store import batches, imports, leases, pauses, pushes
from syncd.store.leases import Lease
from syncd.store.usage import Ledger

FIELDS = ("FirstName", "LastName", "Email", "Company", "LeadScore")
PULL = Pull(
    "people",
    "soap",
    UpdatedSince(datetime(2026, 2, 1, tzinfo=UTC)),
    FIELDS,
    every=timedelta(minutes=5),
    batch_size=50,
    streams=1,
    window=timedelta(days=10),
)
PUSH = Push("contacts", flush_after=timedelta(seconds=10), poll=Poll(timedelta(seconds=5), timedelta(seconds=30)))


@dataclass
class House:
    """One instance's flows, as the daemon builds them. `restart` forgets all that a process would forget."""

    pool: asyncpg.Pool
    clock: ManualClock
    simulator: Simulator
    instance: Instance
    metrics: Metrics = field(default_factory=Metrics)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    flows: list[Flow] = field(default_factory=list)
    sure: bool = True  # of the lease, which nobody keeps alive here
    wire: Wire | None = None
    lease: Lease | None = None
    dictionaries: Dictionaries | None = None
    checked: bool = False  # changes against describe and the mirror; else Marketo is to say what it refuses
    also: Callable[["House"], Awaitable[list[Flow]]] | None = None  # further flows, to be built at each start

    async def start(self) -> None:
        self.stack = AsyncExitStack()
        connection = await self.pool.acquire()
        self.stack.push_async_callback(self.pool.release, connection)
        lease = await leases.acquire(connection, self.pool, self.instance.name, uuid4(), 15)
        assert lease is not None
        self.stack.push_async_callback(leases.release, connection, self.instance.name)
        wire = await self.stack.enter_async_context(
            open_wire(self.instance, self.clock, Ledger(self.instance.name, self.pool), self.metrics, lambda: self.sure)
        )
        self.wire, self.lease = wire, lease
        await self._register(lease)
        name, limits, jitter = self.instance.name, self.instance.limits, random.Random(1)
        self.flows = [Sweep(self.instance, lease, self.clock)]
        rest = wire.rest
        assert rest is not None
        assert wire.imports is not None
        assert wire.soap is not None
        dictionaries = Dictionaries(self.instance, lambda: describe(rest), lease, self.clock, self.metrics)
        self.dictionaries = dictionaries
        for pull in (pull for pull in self.instance.pulls if pull.source == "soap"):
            self.flows += streams_of(self.instance, pull, wire.soap, dictionaries.vocabulary, lease, self.clock, self.metrics, jitter)
        if self.instance.pulls:
            self.flows.append(dictionaries)
        if self.instance.pushes:
            settings = self.instance.pushes
            checks = Checks(self.instance, dictionaries, lease, self.clock, self.metrics) if self.checked else None
            self.flows += [
                Packer(name, settings, limits, lease, self.clock, self.metrics, checks),
                Submitter(name, settings, limits, wire.imports, lease, self.clock, self.metrics, jitter),
                Settler(name, settings, limits, wire.imports, lease, self.clock, self.metrics, jitter),
            ]
            assert wire.sync is not None
            if any(push.guard is not None for push in settings):
                self.flows.append(Guard(name, settings, lease, self.clock))
            self.flows.append(Syncer(name, settings, wire.sync, lease, self.clock, self.metrics, jitter, checks))
        if self.also is not None:
            self.flows += await self.also(self)

    async def _register(self, lease: Lease) -> None:
        now = self.clock.now()
        async with lease.transaction() as connection:
            await imports.orphaned(connection, self.instance.name)
            await batches.orphaned(connection, self.instance.name)
            await pushes.register(connection, self.instance.name, [push.name for push in self.instance.pushes])
            await register(connection, self.instance, now)
            await pauses.enforce(connection, self.instance.name, now)

    async def stop(self) -> None:
        for flow in self.flows:
            await flow.close()
        self.flows = []
        await self.stack.aclose()

    async def restart(self, **changes: object) -> None:
        """End as a crash would, as far as the database can see, and start anew, with other settings where told."""
        await self.stop()
        self.instance = replace(self.instance, **changes)  # type: ignore[arg-type]
        await self.start()

    async def run(self, seconds: float, until: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Let `seconds` of virtual time pass: each flow steps until it is idle, then time moves to what is due next."""
        end = self.clock.now() + timedelta(seconds=seconds)
        wake: dict[int, datetime] = {}
        while self.clock.now() < end:
            for number, flow in enumerate(self.flows):
                if wake.get(number, self.clock.now()) > self.clock.now():
                    continue
                outcome = await flow.step()
                self.clock.advance(0.3)  # never more calls in 20 s than the limiter lets through without waiting
                if isinstance(outcome, Idle):
                    wake[number] = outcome.until
                else:
                    wake.pop(number, None)
                if until and await until():
                    return
            if len(wake) == len(self.flows):
                pause = (min(*wake.values(), end) - self.clock.now()).total_seconds()
                self.clock.advance(max(pause, 0.0))

    async def all_ended(self) -> bool:
        return await self.pool.fetchval("SELECT NOT EXISTS (SELECT FROM syncd.outbox)") is True

    async def a_chunk_is_sealed(self) -> bool:
        return await self.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.chunk WHERE state = 'sealed')") is True

    async def a_job_exists(self) -> bool:
        return await self.pool.fetchval("SELECT EXISTS (SELECT FROM syncd.import_job)") is True

    async def enqueue_urgent(self, key: str, fields: str) -> int:
        change: int = await self.pool.fetchval("SELECT syncd.enqueue('acme', 'contacts', $1, $2, priority => 'urgent')", key, fields)
        return change

    async def enqueue(self, *changes: tuple[str, str]) -> list[int]:
        return [await self.pool.fetchval("SELECT syncd.enqueue('acme', 'contacts', $1, $2)", *change) for change in changes]

    async def states(self) -> dict[str, int]:
        rows = await self.pool.fetch("SELECT state, count(*) AS n FROM syncd.change GROUP BY 1")
        return {row["state"]: row["n"] for row in rows}

    async def row(self, query: str, *values: object) -> asyncpg.Record:
        row = await self.pool.fetchrow(query, *values)
        assert row is not None
        return row

    async def fate(self, change_id: int) -> tuple[str, str | None]:
        row = await self.row("SELECT state, reason FROM syncd.change WHERE id = $1", change_id)
        return row["state"], row["reason"]

    async def job_states(self) -> list[str]:
        return [row["state"] for row in await self.pool.fetch("SELECT state FROM syncd.import_job ORDER BY id")]

    async def batch_states(self) -> list[str]:
        return [row["state"] for row in await self.pool.fetch("SELECT state FROM syncd.sync_batch ORDER BY id")]

    async def one_is_open_after(self, refused: int) -> bool:
        """Whether that many sync batches were refused, and the next one is packed, and waits to be sent."""
        return await self.batch_states() == [*["refused"] * refused, "open"]


class Build(Protocol):
    async def __call__(
        self,
        pulls: Sequence[Pull] = (),
        pushes: Sequence[Push] = (),
        limits: Limits | None = None,
        marketo: MarketoLimits | None = None,
        checked: bool = False,
        **simulated: object,
    ) -> House:
        """Build a house for a simulator of those settings, and start it."""


@pytest.fixture
async def house(pool: asyncpg.Pool, manual_clock: ManualClock) -> AsyncIterator[Build]:
    """What builds houses, and takes them down at the end of the test."""
    manual_clock.speed = 1e6  # aiolimiter counts real seconds: let it pass what virtual time has room for
    built: list[tuple[House, Simulator]] = []

    async def build(
        pulls: Sequence[Pull] = (),
        pushes: Sequence[Push] = (),
        limits: Limits | None = None,
        marketo: MarketoLimits | None = None,
        checked: bool = False,
        **simulated: object,
    ) -> House:
        simulated["limits"] = marketo or MarketoLimits()
        settings = SimulatorSettings(**{"leads": 300, "updated_since": datetime(2026, 2, 1, tzinfo=UTC), **simulated})  # type: ignore[arg-type]
        simulator = Simulator(settings, manual_clock)
        await simulator.start()
        instance = instance_of(simulator, settings.credentials, pulls, pushes, limits or Limits(calls_per_20s=100))
        house = House(pool, manual_clock, simulator, instance, checked=checked)
        built.append((house, simulator))
        await house.start()
        return house

    yield build
    for house, simulator in built:
        await house.stop()
        await simulator.stop()


def instance_of(simulator: Simulator, credentials: Credentials, pulls: Sequence[Pull], pushes: Sequence[Push], limits: Limits) -> Instance:
    endpoint = simulator.rest_endpoint
    return Instance(
        "acme",
        Rest(endpoint, f"{endpoint}/identity", Secret(credentials.client_id), Secret(credentials.client_secret)),
        Soap(simulator.soap_endpoint, credentials.soap_user_id, Secret(credentials.encryption_key)),
        limits=limits,
        pulls=tuple(pulls),
        pushes=tuple(pushes),
    )
