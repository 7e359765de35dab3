"""The work for one instance: wait for its lease, hold it, and run its flows meanwhile."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import structlog

from syncd.core.clock import Clock
from syncd.core.settings import Instance
from syncd.daemon.flows import flows_of
from syncd.flows import attached, loop
from syncd.flows.plan import register
from syncd.marketo.wire import open_wire
from syncd.ops.metrics import Metrics
from syncd.ops.systemd import Pulse
from syncd.store import batches, imports, leases, pauses, pushes
from syncd.store.leases import Lease, LeaseLost
from syncd.store.usage import Ledger

log = structlog.get_logger()

HEARTBEAT = 3.0  # seconds, real
SILENCE = 15.0  # seconds, real: architecture.md, One daemon per instance
STANDBY_LOOK = 1.0  # seconds, real
DRAIN = 5.0  # seconds, real, that running steps have to end by themselves


@dataclass(frozen=True, slots=True)
class Means:
    """What the posts of a daemon share. `tell` is called when what one of them does has changed."""

    holder: UUID
    clock: Clock
    jitter: random.Random
    metrics: Metrics
    pulse: Pulse
    tell: Callable[[], None]


class Post:
    """Works for one instance until it is over. A reload has its flows end, and begin anew with `instance` as it is then."""

    def __init__(self, instance: Instance, means: Means) -> None:
        self.name = instance.name
        self.instance = instance
        self.standby = False
        self.away = False
        """Whether the session with the database was lost."""
        self._means = means
        self._halt = asyncio.Event()
        self._over = asyncio.Event()

    def begin_anew(self, instance: Instance) -> None:
        """Let the steps of the flows end, then go on with this."""
        self.instance = instance
        self._halt.set()

    def end(self) -> None:
        """Let the steps of the flows end, then end `work`."""
        self._over.set()
        self._halt.set()

    async def work(self, dsn: str, pool: leases.Pool) -> None:
        """Hold the instance's lease and run its flows; lose it, and stand by again."""
        while not self._over.is_set():
            try:
                await self._hold_lease(dsn, pool)
            except* LeaseLost:
                log.error("lease_lost", instance=self.name, remedy="another daemon works for this instance now; standing by")
            except* loop.DATABASE_FAULTS as group:
                self.away = True
                loop.tell_fault(_first(group), instance=self.name)
            self._means.metrics.lease(self.name, held=False)
            self._means.pulse.beat(self.name)  # a restart would not bring the database back
            self._means.tell()
            await pause(STANDBY_LOOK, self._over)
        self.standby = self.away = False

    async def _hold_lease(self, dsn: str, pool: leases.Pool) -> None:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": leases.application_name(self._means.holder)})
        if self.away:
            self.away = False
            self._means.metrics.reconnected(self.name)
        try:
            lease = await self._stand_by(connection, pool)
            if lease is None:
                return
            self._means.metrics.lease(self.name, held=True)
            log.info("lease_taken", instance=self.name, epoch=lease.epoch)
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(_heartbeat(lease, connection))
                flows = [tasks.create_task(self._keep_working(lease))]
                await asyncio.wait((beat, *flows), return_when=asyncio.FIRST_COMPLETED)
                beat.cancel()
        finally:
            connection.terminate()

    async def _stand_by(self, connection: leases.Connection, pool: leases.Pool) -> Lease | None:
        """Wait for the lease; None when stopped first."""
        while not self._over.is_set():
            lease = await leases.acquire(connection, pool, self.name, self._means.holder, SILENCE)
            if lease is not None:
                self.standby = False
                self._means.tell()
                return lease
            if not self.standby:
                holder = await leases.current_holder(connection, self.name)
                self.standby = True
                self._means.tell()
                log.info("standby", instance=self.name, holder=f"pid {holder.pid} on {holder.host}" if holder else "unknown")
            self._means.pulse.beat(self.name)
            await pause(STANDBY_LOOK, self._over)
        return None

    async def _keep_working(self, lease: Lease) -> None:
        """Run the flows; those that a reload halts, anew."""
        while not self._over.is_set():
            self._halt.clear()
            await self._run_flows(self.instance, lease)

    async def _run_flows(self, instance: Instance, lease: Lease) -> None:
        clock, metrics, jitter = self._means.clock, self._means.metrics, self._means.jitter
        await _write_down(instance, lease, clock)
        metrics.anew(instance.name, [pull.name for pull in instance.pulls])
        ledger = Ledger(instance.name, lease.pool)
        async with open_wire(instance, clock, ledger, metrics, lease.is_sure) as wire, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(loop.run(flow, clock, self._halt, self._note_progress, jitter))
                for flow in flows_of(instance, lease, wire, clock, metrics, jitter)
            ]
            await self._halt.wait()
            _, late = await asyncio.wait(running, timeout=DRAIN)
            for flow in late:
                flow.cancel()

    def _note_progress(self, instance: str, flow: str) -> None:
        self._means.pulse.beat(instance)
        self._means.metrics.progress(instance, flow, self._means.clock.now())


async def _heartbeat(lease: Lease, connection: leases.Connection) -> None:
    while True:
        await asyncio.wait_for(lease.heartbeat(connection), SILENCE)
        await asyncio.sleep(HEARTBEAT)


async def _write_down(instance: Instance, lease: Lease, clock: Clock) -> None:
    """Write down what the configuration asks for, and what a daemon before us left half done."""
    now = clock.now()
    async with lease.transaction() as connection:
        for job_id in await imports.orphaned(connection, instance.name):
            log.warning("import_unconfirmed", instance=instance.name, job=job_id, fault="the daemon before ended amid its submission")
        for batch_id in await batches.orphaned(connection, instance.name):
            log.warning("batch_unconfirmed", instance=instance.name, batch=batch_id, fault="the daemon before ended amid its call")
        await pushes.register(connection, instance.name, [push.name for push in instance.pushes])
        await register(connection, instance, now)
        await pauses.enforce(connection, instance.name, now)
    async with lease.pool.acquire() as connection:
        await attached.tell(connection, instance)


async def pause(seconds: float, until: asyncio.Event) -> None:
    """Wait in real time, or until it is set."""
    try:
        await asyncio.wait_for(until.wait(), seconds)
    except TimeoutError:
        return


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
