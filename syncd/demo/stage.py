"""The stage of a rehearsal: database, simulated Marketo, YAML and log, all in a temporary folder. Everything but the daemon."""

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import asyncpg
import structlog
from rich.console import Console

from syncd import config
from syncd.core.clock import Clock
from syncd.core.settings import Logging, Settings
from syncd.demo.traffic import INSTANCE, PULL, PUSH, Application, Others, addressable
from syncd.demo.view import Board, Events
from syncd.ops import logs
from syncd.ops.clock import WallClock
from syncd.simulator import ExportModel, FaultRates, ForeignLoad, ImportModel, ScaledClock, Simulator, SimulatorSettings
from syncd.store import migrate
from syncd.store.embedded import EmbeddedPostgres
from syncd.store.leases import Connection

Source = Literal["auto", "bulk_extract", "soap"]
"""The sources that fill a mirror."""

# What the pull asks for: all that SOAP, or REST, has of a lead; id and email come with every record.
SOAP_FIELDS = """
    Company FirstName LastName Title Phone Website Country LeadScore Unsubscribed DateofBirth Date_of_purchase
    Last_Webinar_At Lifetime_Value Account_Number Notes Customer_Number Legacy_Segment Lead_Rating
"""
REST_FIELDS = """
    company firstName lastName title phone website country leadScore unsubscribed dateOfBirth dateOfPurchase
    lastWebinarAt lifetimeValue accountNumber notes customerNumber memberLevel leadRating
"""
SOAP_SINCE = datetime(2016, 1, 1, tzinfo=UTC)
EXTRACTED = timedelta(days=25)
"""How far back the leads reach that come by extracts. An export is looked at once a minute, the first one is of a day, those that it
teaches the size of are of eight: so many days are there after two rounds."""

YAML = """\
# Written by `syncd demo`; the same daemon as that of `syncd run` reads it.
database: {{dsn: {{file: dsn}}}}
instances:
  {instance}:
    rest: {{endpoint: "{rest}", client_id: {{file: client_id}}, client_secret: {{file: client_secret}}}}
{soap}    limits: {{calls_per_20s: 50, concurrency: 5, import_slots: 10, import_running: 2}}
    pulls:
      {pull}:
        source: {source}
        select: {{updated_since: {since:%Y-%m-%dT%H:%M:%SZ}}}
        fields: [{fields}]
        every: 30s
        overlap: 10s
        margin: 2s
    pushes:
      {push}: {{max_body_bytes: 200kB, flush_after: 20s, unconfirmed_after: 4m, poll: {{min: 5s, max: 30s}}}}
http: {{listen: "127.0.0.1:0"}}
logging: {{format: logfmt}}
"""
SOAP = """\
    soap: {{endpoint: "{endpoint}", user_id: {{file: soap_user}}, encryption_key: {{file: soap_key}}}}
"""


@dataclass(frozen=True)
class DemoOptions:
    """`speed` is how many seconds of the rehearsal's clock pass in a real one."""

    source: Source = "auto"
    leads: int = 20_000
    changes: int = 60_000
    seed: int = 1
    speed: float = 10.0
    faults: bool = False
    keep: bool = False


@dataclass
class Rehearsal:
    """The parts of a running rehearsal."""

    options: DemoOptions
    console: Console
    postgres: EmbeddedPostgres
    simulator: Simulator
    settings: Settings
    clock: Clock
    application: Application
    others: Others
    board: Board
    connection: Connection
    log: Path


async def prepare(options: DemoOptions, console: Console, stack: AsyncExitStack) -> Rehearsal:
    """Start everything but the daemon; what is started ends with `stack`."""
    for line in _introduction(options):
        console.print(line, highlight=False)
    folder = stack.enter_context(_folder())
    origin = time.time()
    clock = WallClock(options.speed, origin)
    events = Events()
    stack.enter_context(_logging(folder / "syncd.log", clock, events))
    postgres = await stack.enter_async_context(EmbeddedPostgres(folder / "postgres"))
    await migrate.upgrade(postgres.dsn)
    since = SOAP_SINCE if options.source == "soap" else datetime.fromtimestamp(int(origin), UTC) - EXTRACTED
    simulator = await stack.enter_async_context(Simulator(_marketo(options, since), ScaledClock(options.speed, origin)))
    connection = await asyncpg.connect(postgres.dsn, server_settings={"application_name": "syncd demo"})
    stack.callback(connection.terminate)
    chance = random.Random(options.seed)  # noqa: S311 - a rehearsal must repeat, not be secret
    others = Others(simulator, random.Random(f"{options.seed}:others"))  # noqa: S311
    return Rehearsal(
        options=options,
        console=console,
        postgres=postgres,
        simulator=simulator,
        settings=_settings(folder, postgres.dsn, simulator, options.source, since),
        clock=clock,
        application=Application(options.changes, chance, addressable(simulator.world, others.spare)),
        others=others,
        board=Board(options.speed, events),
        connection=connection,
        log=folder / "syncd.log",
    )


def _introduction(options: DemoOptions) -> Iterator[str]:
    yield (
        f"syncd rehearsal: {options.leads:,} leads in through source: {options.source}, {options.changes:,} changes out, "
        f"clock x{options.speed:g}"
    )
    if options.source != "soap":
        yield f"Leads come by extracts first, whose jobs may be looked at once a minute ({60 / options.speed:.1f} s here)."
    if options.source == "auto":
        yield "The activity log tells who has changed since; those leads are read by their ids."


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder that the server's user may pass, should we be root."""
    with tempfile.TemporaryDirectory(prefix="syncd-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@contextmanager
def _logging(file: Path, clock: Clock, events: Events) -> Iterator[None]:
    """The daemon's log goes to a file; its last events to the view as well."""
    before = structlog.get_config() if structlog.is_configured() else None
    with file.open("w", encoding="utf-8") as out:
        logs.configure(Logging(format="logfmt"), clock, out)
        *processors, render = structlog.get_config()["processors"]
        structlog.configure(processors=[*processors, events, render])
        try:
            yield
        finally:
            structlog.reset_defaults()
            if before is not None:
                structlog.configure(**before)


def _marketo(options: DemoOptions, since: datetime) -> SimulatorSettings:
    """A Marketo that answers in half a second, exports within a minute, and that other integrations import into as well."""
    return SimulatorSettings(
        seed=options.seed,
        leads=options.leads,
        updated_since=since,
        latency=0.5,
        imports=ImportModel(overhead_seconds=4, rows_per_second=200),
        exports=ExportModel(overhead_seconds=10),
        foreign=ForeignLoad(jobs_per_hour=90, job_seconds=15),
        faults=FaultRates.rough() if options.faults else FaultRates(),
    )


def _settings(folder: Path, dsn: str, simulator: Simulator, source: Source, since: datetime) -> Settings:
    """Write the YAML and its secrets, and read them as `syncd run` would."""
    credentials = SimulatorSettings().credentials
    secrets = {
        "dsn": dsn,
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "soap_user": credentials.soap_user_id,
        "soap_key": credentials.encryption_key,
    }
    for name, text in secrets.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(text)
    file = folder / "syncd.yaml"
    file.write_text(
        YAML.format(
            instance=INSTANCE,
            pull=PULL,
            push=PUSH,
            rest=simulator.rest_endpoint,
            soap=SOAP.format(endpoint=simulator.soap_endpoint) if source == "soap" else "",
            source=source,
            since=since,
            fields=", ".join((SOAP_FIELDS if source == "soap" else REST_FIELDS).split()),
        )
    )
    return config.load(file, {})
