"""`syncd simulate`: the simulator alone, for rehearsing against."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta

from syncd.cli.failures import Refused
from syncd.simulator import FaultRates, ForeignLoad, Report, ScaledClock, Simulator, SimulatorSettings

SNIPPET = """\
# A syncd.yaml for this rehearsal; the folder of the embedded PostgreSQL is made beside it.
database: {{embedded: rehearsal-postgres}}
instances:
  rehearsal:
    rest: {{endpoint: "{rest}", client_id: {client_id}, client_secret: {client_secret}}}
    soap: {{endpoint: "{soap}", user_id: {user_id}, encryption_key: {encryption_key}}}
    pulls:
      people: {{source: auto, select: {{updated_since: {since:%Y-%m-%dT%H:%M:%SZ}}}, \
fields: [firstName, lastName, company, leadScore], every: 1m}}
      guests: {{source: auto, select: {{static_list: Events.Guests}}, fields: [title], every: 10m}}
    pushes:
      contacts: {{lookup_field: email, flush_after: 30s}}
"""

GUESTS = "Events.Guests", 40
"""The static list that the snippet pulls, and how many leads are in it at most."""

UPDATED_WITHIN = timedelta(days=7)
"""Before the start: two extracts bring them all."""


async def simulate(port: int, leads: int, seed: int, speed: float, faults: bool, foreign_jobs_per_hour: float) -> None:
    """Serve until SIGINT or SIGTERM; then say what the client did. Raises Refused when the port can't be had."""
    origin = float(int(time.time()))
    settings = SimulatorSettings(
        seed=seed,
        leads=leads,
        updated_since=_since(origin),
        static_lists=(GUESTS,),  # of fewer leads, all are in it
        faults=FaultRates.rough() if faults else FaultRates(),
        foreign=ForeignLoad(jobs_per_hour=foreign_jobs_per_hour),
    )
    simulator = Simulator(settings, ScaledClock(speed, origin))
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await simulator.start(port=port)
    except OSError as error:
        await simulator.stop()
        raise Refused(f"cannot listen on 127.0.0.1:{port} ({os.strerror(error.errno or 0)}); choose another --port") from None
    try:
        _print(_yaml(simulator, settings, _since(origin)))
        clock = "" if speed == 1 else f" --clock {speed:g}@{origin:.0f}"
        _print(f"# Its Marketo runs here until Ctrl-C. With the lines above in syncd.yaml: syncd run -c syncd.yaml{clock}")
        await stop.wait()
    finally:
        await simulator.stop()
    _print(_summary(simulator.report()))


def _since(origin: float) -> datetime:
    """When the earliest lead may have been updated: at a midnight."""
    began = datetime.fromtimestamp(origin, UTC) - UPDATED_WITHIN
    return began.replace(hour=0, minute=0, second=0, microsecond=0)


def _yaml(simulator: Simulator, settings: SimulatorSettings, since: datetime) -> str:
    credentials = settings.credentials
    return SNIPPET.format(
        rest=simulator.rest_endpoint,
        soap=simulator.soap_endpoint,
        since=since,
        client_id=credentials.client_id,
        client_secret=credentials.client_secret,
        user_id=credentials.soap_user_id,
        encryption_key=credentials.encryption_key,
    )


def _summary(report: Report) -> str:
    rows = ", ".join(f"{what} {count:,}" for what, count in report.rows.items() if count) or "none"
    lines = [
        f"calls            {report.calls_counted:,}, {report.busiest_20s} in the busiest 20 s, {report.max_concurrency} at once",
        f"imports          {report.imports_accepted:,} accepted, {sum(report.imports_refused.values()):,} refused, "
        f"{report.jobs_complete:,} complete, {report.jobs_failed:,} failed",
        f"slots            {report.most_slots_held} held at most, {report.most_running} running",
        f"rows             {rows}",
        f"faults injected  {sum(report.faults_injected.values()):,}",
        f"violations       {', '.join(f'{kind} {count}' for kind, count in report.violations.items()) or 'none'}",
    ]
    return "\n".join(f"# {line}" for line in lines)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - this is the output
