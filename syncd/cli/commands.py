"""The commands; thin: parse, call, print. What a command needs is imported when it runs, so that `--help` is quick."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.exceptions import TyperException

import syncd

if TYPE_CHECKING:
    from syncd.core.settings import Settings
    from syncd.ops.clock import WallClock

app = typer.Typer(
    name="syncd",
    add_completion=False,
    pretty_exceptions_enable=False,  # they show local variables, and with them secrets
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The YAML that says what to keep in step.")]
Only = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="Only this instance of the YAML.")]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed makes the same leads, changes and faults.")]
T = TypeVar("T")
DEFAULT_CONFIG = Path("/etc/syncd/syncd.yaml")


def run_command(arguments: Sequence[str]) -> int:
    """Run `syncd` with `arguments`; returns the exit code."""
    try:
        code = app(arguments, prog_name="syncd", standalone_mode=False)
    except TyperException as error:
        _complain(_usage_line(error))
        return 2
    except Exception as error:
        from syncd.cli.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        _complain(explained[0])
        return explained[1]
    return int(code or 0)


def _usage_line(error: TyperException) -> str:
    """One line such as `syncd enqueue: missing option --push; see syncd enqueue --help`."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "syncd"
    message = re.sub(r"'(-[^']*)'", r"\1", " ".join(error.format_message().split())).rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]}; see {command} --help"


def _complain(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - this is the output


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"syncd {syncd.__version__}")  # noqa: T201 - this is the output
        raise typer.Exit


@app.callback()
def _syncd(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Keeps a PostgreSQL database and an Adobe Marketo Engage instance in step, both ways.

    A first look, with nothing to set up: [bold]syncd demo[/bold].
    For production: write /etc/syncd/syncd.yaml, then [bold]syncd migrate[/bold],
    [bold]syncd check[/bold] and [bold]syncd run[/bold].
    """


@app.command()
def run(
    config: Config = DEFAULT_CONFIG,
    clock: Annotated[str | None, typer.Option(hidden=True, metavar="SPEED@ORIGIN")] = None,
) -> int:
    """Keep database and Marketo in step until SIGTERM or Ctrl-C.

    Logs go to stderr. A second daemon for the same instance stands by, and
    takes over when the first is gone. The first signal lets running steps end
    (exit code 0, in under 10 seconds), a second one breaks them off; nothing is
    lost either way.
    """
    wall = _wall_clock(clock)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # nothing has begun that would need an end
    from syncd.cli import running

    running.run(_load(config), wall)
    return 0


@app.command()
def check(config: Config = DEFAULT_CONFIG, instance: Only = None) -> int:
    """Try everything that the YAML needs, and say what to do about what fails.

    Tries the YAML, the database and its schema, and of each instance:
    credentials, permissions, the names of fields. It only reads. While a daemon
    works for an instance, it is the daemon that makes the check.

    Exit code: 0 when all is well, 1 when something failed, 78 when the YAML
    can't be used.
    """
    from syncd.cli import render
    from syncd.cli.check import check as try_all
    from syncd.cli.choosing import instance_of

    settings = _load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances

    async def report() -> bool:
        well = True
        # closed here and now, should the reader of a pipe have gone
        async with contextlib.aclosing(try_all(settings, config, chosen, _wall_clock(None))) as parts:
            async for heading, findings in parts:
                render.show(render.findings_table(heading, findings))
                well = well and all(finding.ok for finding in findings)
        return well

    return 0 if _finish(report()) else 1


@app.command()
def migrate(
    config: Config = DEFAULT_CONFIG,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for a DBA instead; needs neither the YAML nor a database.")] = False,
) -> int:
    """Create or upgrade the schema [bold]syncd[/bold] in the database."""
    from syncd.store import migrate as migrations

    if sql:
        migrations.offline_sql(sys.stdout)
        return 0
    from syncd.cli.opening import upgrade

    before, after = _finish(upgrade(_load(config).database))
    print(f"at {after} already" if before == after else f"migrated from {before or 'nothing'} to {after}")  # noqa: T201 - the output
    return 0


@app.command()
def status(
    config: Config = DEFAULT_CONFIG,
    instance: Only = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with times in ISO 8601.")] = False,
) -> int:
    """Show how far everything is: the daemon, pulls, pushes, import jobs, today's calls."""
    import orjson

    from syncd.cli import render
    from syncd.cli.choosing import instance_of
    from syncd.cli.opening import read_status
    from syncd.store.status import as_json as plain

    settings = _load(config)
    if instance:
        instance_of(settings, instance)
    now = _wall_clock(None).now()
    snapshot = [found for found in _finish(read_status(settings.database, now)) if instance in (None, found.name)]
    if as_json:
        print(orjson.dumps(plain(snapshot), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
        return 0
    for found in snapshot:
        render.show(render.status_of(found, now))
    for name in {each.name for each in settings.instances if instance in (None, each.name)} - {found.name for found in snapshot}:
        print(f"{name}: no daemon has worked for it yet, and no changes wait; start syncd run")  # noqa: T201 - the output
    return 0


@app.command()
def enqueue(
    file: Annotated[Path, typer.Argument(metavar="LEADS.CSV", help="UTF-8, comma separated, with a header of REST field names.")],
    push: Annotated[str, typer.Option(metavar="NAME", help="The push of the YAML that the changes go through.")],
    config: Config = DEFAULT_CONFIG,
    instance: Annotated[
        str | None, typer.Option("--instance", "-i", metavar="NAME", help="The instance; needed where the YAML has several.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that holds the key, if not named as the push's lookup_field.")
    ] = None,
    clear_empty: Annotated[
        bool, typer.Option("--clear-empty", help="Let an empty cell clear its field; by default it leaves the field alone.")
    ] = False,
) -> int:
    """Put the rows of a CSV file into the outbox, all of them or none.

    Each row becomes one change: the key says which lead, every other column
    sets a field, as text. An empty cell leaves its field alone, unless
    --clear-empty is given.
    """
    from syncd.cli.choosing import instance_of, push_of
    from syncd.cli.enqueue import enqueue as write

    settings = _load(config)
    chosen = instance_of(settings, instance)
    done = _finish(write(settings, chosen.name, push_of(chosen, push), file, key, clear_empty))
    ids = f", ids {done.first_id} to {done.last_id}" if done.count else ""
    print(f"{done.count} changes enqueued for {chosen.name}, push {push}{ids}")  # noqa: T201 - this is the output
    return 0


@app.command()
def demo(
    leads: Annotated[int, typer.Option(min=0, metavar="N", help="Leads in the simulated Marketo, to be pulled.")] = 20_000,
    changes: Annotated[int, typer.Option(min=0, metavar="N", help="Changes in the outbox, to be pushed.")] = 60_000,
    seed: Seed = 1,
    speed: Annotated[
        float, typer.Option(min=0.1, max=1000, metavar="N", help="How many times faster than real time the rehearsal's clock runs.")
    ] = 10,
    faults: Annotated[bool, typer.Option("--faults", help="Let the simulator fail now and then, as the real one does.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the database up afterwards, and say how to look into it.")] = False,
) -> int:
    """Watch it work: a simulated Marketo, a PostgreSQL of its own, and a proof at the end that both sides agree."""
    import asyncio

    from syncd.demo import DemoOptions
    from syncd.demo import run as rehearse

    return asyncio.run(rehearse(DemoOptions(leads=leads, changes=changes, seed=seed, speed=speed, faults=faults, keep=keep)))


@app.command()
def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port on 127.0.0.1; 0 takes any free one.")] = 8899,
    leads: Annotated[int, typer.Option(min=0, metavar="N", help="Leads in its database.")] = 1_000,
    seed: Seed = 1,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, metavar="N", help="How many times faster than real time its clock runs.")] = 1,
    faults: Annotated[bool, typer.Option("--faults", help="Fail now and then, as the real one does.")] = False,
    foreign_jobs_per_hour: Annotated[
        float, typer.Option(min=0, max=1000, metavar="N", help="Import jobs of other integrations, which take slots.")
    ] = 0,
) -> int:
    """Run the simulated Marketo alone, to rehearse a configuration against.

    Prints its endpoints and credentials as a YAML to start from, runs until
    Ctrl-C, and then says what its client did.
    """
    import asyncio

    from syncd.cli.simulate import simulate as serve

    asyncio.run(serve(port, leads, seed, speed, faults, foreign_jobs_per_hour))
    return 0


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. From here on Ctrl-C unwinds what has begun; before, it just ends the process (see `main`)."""
    import asyncio

    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return asyncio.run(work)


def _load(file: Path) -> "Settings":
    from syncd.config import load

    return load(file, os.environ)


def _wall_clock(text: str | None) -> "WallClock":
    """The wall's clock, or by `SPEED@ORIGIN` the one that a rehearsal shares."""
    from syncd.ops.clock import WallClock

    if text is None:
        return WallClock()
    with contextlib.suppress(ValueError):
        speed, origin = map(float, text.split("@"))
        if speed > 0:
            return WallClock(speed, origin)
    raise typer.BadParameter("needs SPEED@ORIGIN, such as 10@1760000000", param_hint="--clock")
