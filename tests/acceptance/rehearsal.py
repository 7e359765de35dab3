"""The daemon as a process of its own, between a real Postgres and the simulator, to be killed, stopped and measured."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from syncd import config
from syncd.core.settings import Instance
from syncd.demo.proof import Proof, prove
from syncd.demo.traffic import INSTANCE, PULL, PUSH, Application, addressable
from syncd.ops.clock import WallClock
from syncd.simulator import Credentials, FaultRates, ForeignLoad, ImportModel, ScaledClock, Simulator, SimulatorSettings
from syncd.store.leases import Connection
from tests.overhearing import hear

YAML = """\
database: {{dsn: "{dsn}"}}
instances:
  {instance}:
    rest: {{endpoint: "{rest}", client_id: "{client_id}", client_secret: "{client_secret}"}}
    soap: {{endpoint: "{soap}", user_id: "{user_id}", encryption_key: "{encryption_key}"}}
    limits: {{calls_per_20s: 50, concurrency: 5, import_slots: 10, import_running: 2}}
    census: null # it would be at work long after the rest
    pulls:
      {pull}:
        source: soap
        select: {{updated_since: 2016-01-01T00:00:00Z}}
        fields: [Company, FirstName, LastName, Title, Website, LeadScore, Unsubscribed, Notes, Lifetime_Value]
        every: 30s
        overlap: 30s
        margin: 2s
    pushes:
      {push}: {{max_body_bytes: {max_body_bytes}, flush_after: 10s, unconfirmed_after: 4m}}
http: null
logging: {{format: logfmt, level: info}}
"""

AT_REST = """
SELECT NOT EXISTS (SELECT FROM syncd.outbox WHERE state <> 'parked')
   AND NOT EXISTS (SELECT FROM syncd.pull_window WHERE state IN ('open', 'blocked'))
   AND coalesce((SELECT bool_and(planned_until > $1) FROM syncd.pull), false)
"""
UNSETTLED = "SELECT EXISTS (SELECT FROM syncd.outbox WHERE state <> 'parked')"


@dataclass
class Rehearsal:
    """`speed` seconds of the rehearsal's clock pass in a real one, for the simulator and every daemon alike."""

    dsn: str
    folder: Path
    simulator: Simulator
    clock: WallClock
    origin: float
    connection: Connection
    application: Application
    max_body_bytes: int = 100_000
    yaml: str = YAML
    daemons: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def spawn(self) -> asyncio.subprocess.Process:
        """Start `syncd run`; its log is kept for the test's report."""
        settings = self.folder / "syncd.yaml"
        if not settings.exists():
            credentials = Credentials()
            settings.write_text(
                self.yaml.format(
                    dsn=self.dsn,
                    instance=INSTANCE,
                    pull=PULL,
                    push=PUSH,
                    rest=self.simulator.rest_endpoint,
                    soap=self.simulator.soap_endpoint,
                    client_id=credentials.client_id,
                    client_secret=credentials.client_secret,
                    user_id=credentials.soap_user_id,
                    encryption_key=credentials.encryption_key,
                    max_body_bytes=self.max_body_bytes,
                )
            )
        with (self.folder / f"daemon-{len(self.daemons)}.log").open("wb") as log:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "syncd", "run", "-c", str(settings), "--clock", f"{self.clock.speed}@{self.origin!r}"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.daemons.append(daemon)
        return daemon

    def log(self, number: int) -> str:
        return (self.folder / f"daemon-{number}.log").read_text()

    async def wait_for_log(self, number: int, text: str, seconds: float = 30) -> None:
        """Look until daemon `number` has logged `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.log(number):
            assert time.monotonic() < deadline, f"daemon {number} never logged {text!r}:\n{self.log(number)[-3000:]}"
            await asyncio.sleep(0.05)

    async def come_to_rest(self, seconds: float) -> None:
        """Look until every change has its end and a pull planned after that has been walked."""
        deadline = time.monotonic() + seconds
        settled_at = None
        while True:
            if not self.application.finished or await self.connection.fetchval(UNSETTLED):
                settled_at = None
            elif settled_at is None:
                settled_at = self.clock.now()
            elif await self.connection.fetchval(AT_REST, settled_at):
                return
            await self._look_again(deadline)

    async def wait_until(self, query: str, *arguments: object, seconds: float) -> None:
        """Look until `query` says true."""
        deadline = time.monotonic() + seconds
        while not await self.connection.fetchval(query, *arguments):
            await self._look_again(deadline)

    async def _look_again(self, deadline: float) -> None:
        assert time.monotonic() < deadline, await self.where_it_stands()
        assert self.daemons[-1].returncode is None, f"the daemon ended by itself:\n{self.log(len(self.daemons) - 1)[-3000:]}"
        await asyncio.sleep(0.2)

    async def where_it_stands(self) -> str:
        states = await self.connection.fetch("SELECT state, count(*) FROM syncd.change GROUP BY 1")
        jobs = await self.connection.fetch("SELECT state, count(*) FROM syncd.import_job GROUP BY 1")
        windows = await self.connection.fetch("SELECT state, count(*) FROM syncd.pull_window GROUP BY 1")
        tail = self.log(len(self.daemons) - 1)[-2000:]
        return f"not at rest: changes {states}, jobs {jobs}, windows {windows}; the daemon's last words:\n{tail}"

    def instance(self) -> Instance:
        """What the daemons are told of the instance."""
        (instance,) = config.load(self.folder / "syncd.yaml", {}).instances
        return instance

    async def prove(self, faultless: bool) -> Proof:
        return await prove(self.connection, self.simulator, self.instance(), self.application.enqueued, faultless)


@asynccontextmanager
async def rehearsal(
    dsn: str,
    folder: Path,
    *,
    leads: int,
    changes: int,
    speed: float,
    seed: int = 1,
    faults: FaultRates | None = None,
    max_body_bytes: int = 100_000,
    yaml: str = YAML,
    simulated: Mapping[str, Any] | None = None,
) -> AsyncIterator[Rehearsal]:
    """A simulator and an application that enqueues; every daemon that was spawned is ended at the end.

    `simulated` are settings of the simulator that are to be others than those of all rehearsals.
    """
    origin = time.time()
    clock = WallClock(speed, origin)
    settings = SimulatorSettings(
        seed=seed,
        leads=leads,
        latency=0.3,
        faults=faults or FaultRates(),
        foreign=ForeignLoad(jobs_per_hour=60, job_seconds=20),
        imports=ImportModel(overhead_seconds=5, rows_per_second=200),
    )
    settings = replace(settings, **(simulated or {}))
    async with Simulator(settings, ScaledClock(speed, origin)) as simulator:
        connection = await asyncpg.connect(dsn)
        chance = random.Random(seed)
        application = Application(changes, chance, addressable(simulator.world))
        enqueuing = asyncio.ensure_future(application.run(dsn, clock))
        one = Rehearsal(dsn, folder, simulator, clock, origin, connection, application, max_body_bytes, yaml)
        try:
            yield one
        finally:
            enqueuing.cancel()
            await asyncio.gather(enqueuing, return_exceptions=True)
            for daemon in one.daemons:
                if daemon.returncode is None:
                    daemon.send_signal(signal.SIGKILL)
                await daemon.wait()
            for number in range(len(one.daemons)):
                hear(f"the log of daemon {number}", one.log(number))
            await connection.close()


def assert_holds(proof: Proof) -> None:
    """Every point of the proof, with its detail."""
    broken = [f"{check.name}: {check.detail}" for check in proof.checks if not check.holds]
    assert not broken, broken
