"""The commands; thin: parse, call, print. What a command needs is imported when it runs, so that `--help` is quick."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.exceptions import TyperException

import syncd
from syncd.cli import rehearsing

if TYPE_CHECKING:
    from syncd.core.settings import Settings
    from syncd.ops.clock import WallClock

app = typer.Typer(
    name="syncd",
    pretty_exceptions_enable=False,  # they show local variables, and with them secrets
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The YAML that says what to keep in step.")]
Only = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="Only this instance of the YAML.")]
One = Annotated[str | None, typer.Option("--instance", "-i", metavar="NAME", help="The instance; needed where the YAML has several.")]
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
    lost either way. SIGHUP has it read the YAML again: what can change while it
    runs changes, what can't is named in the log, and a YAML that can't be used is
    refused.
    """
    wall = _wall_clock(clock)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # nothing has begun that would need an end
    if not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: None)  # a reload, of what is about to be read
    from syncd.cli import running

    running.run(_load(config), wall, partial(_load, config))
    return 0


@app.command()
def check(
    config: Config = DEFAULT_CONFIG,
    instance: Only = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, once all has been tried.")] = False,
) -> int:
    """Try everything that the YAML needs, and say what to do about what fails.

    Tries the YAML, the database and its schema, and of each instance:
    credentials, permissions, the names of fields. It changes nothing: it reads,
    and where pulls come through REST it creates a bulk extract of one second
    and cancels it, never queued, to learn by what extracts can select there.
    While a daemon works for an instance, it is the daemon that makes the check.

    Exit code: 0 when all is well, 1 when something failed, 78 when the YAML
    can't be used.
    """
    from syncd.cli import render
    from syncd.cli.check import as_json as plain
    from syncd.cli.check import check as try_all
    from syncd.cli.choosing import instance_of

    settings = _load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances

    async def report() -> bool:
        tried = []
        # closed here and now, should the reader of a pipe have gone
        async with contextlib.aclosing(try_all(settings, config, chosen, _wall_clock(None))) as parts:
            async for heading, findings in parts:
                tried.append((heading, findings))
                if not as_json:
                    render.show(render.findings_table(heading, findings))
        if as_json:
            print(plain(tried))  # noqa: T201 - this is the output
        return all(finding.ok for _, findings in tried for finding in findings)

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
    watched: Annotated[bool, typer.Option("--watch", help="Show it anew every two seconds, until Ctrl-C.")] = False,
) -> int:
    """Show what the status page shows: what needs a person, and how far everything is.

    That is the daemon, pulls, pushes, exports and imports, failures by reason,
    today's calls and bytes. It asks the database only: the daemon's pace and what
    went wrong lately are on the page alone.
    """
    import orjson

    from syncd.cli import render
    from syncd.cli import standing as work
    from syncd.cli.choosing import instance_of
    from syncd.store.board import as_json as plain

    if watched and (as_json or not sys.stdout.isatty()):
        raise typer.BadParameter("goes without --json" if as_json else "needs a terminal", param_hint="--watch")
    settings = _load(config)
    if instance:
        instance_of(settings, instance)
    clock = _wall_clock(None)
    if watched:
        with contextlib.suppress(KeyboardInterrupt):
            _finish(work.watch(settings, instance, clock))
        return 0
    now = clock.now()
    boards = _finish(work.read(settings, now))
    if as_json:
        found = plain([each for each in boards if instance in (None, each.status.name)], now)
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
    else:
        render.show(work.shown(settings, instance, boards, now))
    return 0


@app.command()
def enqueue(
    file: Annotated[Path, typer.Argument(metavar="LEADS.CSV", help="UTF-8, comma separated, with a header of REST field names.")],
    push: Annotated[str, typer.Option(metavar="NAME", help="The push of the YAML that the changes go through.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that holds the key, if not named as the push's lookup_field.")
    ] = None,
    clear_empty: Annotated[
        bool, typer.Option("--clear-empty", help="Let an empty cell clear its field; by default it leaves the field alone.")
    ] = False,
    urgent: Annotated[bool, typer.Option("--urgent", help="Send them by Sync Leads within seconds, ahead of all others.")] = False,
) -> int:
    """Put the rows of a CSV file into the outbox, all of them or none.

    Each row becomes one change: the key says which lead, every other column
    sets a field, as text. An empty cell leaves its field alone, unless
    --clear-empty is given. Columns that syncd failures export has written beside
    the fields say which failures the rows mend, and what they clear.
    """
    from syncd.cli.choosing import instance_of, push_of
    from syncd.cli.enqueue import enqueue as write

    settings = _load(config)
    chosen = instance_of(settings, instance)
    done = _finish(write(settings, chosen.name, push_of(chosen, push), file, key, clear_empty, "urgent" if urgent else "normal"))
    ids = f", ids {done.first_id} to {done.last_id}" if done.count else ""
    print(f"{done.count} changes enqueued for {chosen.name}, push {push}{ids}")  # noqa: T201 - this is the output
    return 0


@app.command()
def backfill(
    pull: Annotated[str, typer.Option(metavar="NAME", help="The pull of the YAML that is to pull once more.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only leads updated at or after this, such as 2026-01-31T00:00:00Z.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    watched: Annotated[bool, typer.Option("--watch", help="Show how far it is until it is finished; Ctrl-C stops only that.")] = False,
) -> int:
    """Pull once more what a pull has pulled already, beside what is new.

    Says what it costs in calls and time, asks, and hands it to the daemon,
    which walks it when nothing new waits. It outlasts restarts.
    """
    from syncd.cli import backfill as work
    from syncd.cli.choosing import instance_of, pull_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    pulled = pull_of(chosen, pull)
    beginning = None if since is None else work.since_of(pulled, since, _wall_clock(None).now())
    # asked apart from any loop, in which Ctrl-C would wait for the answer
    proposal = _finish(work.propose(settings.database, chosen, pulled, beginning))
    if proposal.under_way is None and not work.approved(pulled, proposal, chosen.limits, yes):
        return 1 if proposal.windows else 0
    try:
        return _finish(work.carry_out(settings.database, chosen.name, pull, beginning, proposal, watched))
    except KeyboardInterrupt:
        _complain("stopped watching; what was ordered goes on")
        raise


lead = typer.Typer(help="Look at single leads.")
app.add_typer(lead, name="lead")


@lead.command("show")
def show_lead(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The lead's email address, or its id in Marketo.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    last: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="How many events to show, the latest.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole texts and times in ISO 8601.")] = False,
) -> int:
    """Show what is known of a lead, and all that happened to it: what was pulled, what was sent.

    An address may belong to several leads; all are shown. Long texts are cut,
    but not with --json. Exit code: 1 when there is no such lead.
    """
    from syncd.cli import lead as work
    from syncd.cli import render
    from syncd.cli.choosing import instance_of
    from syncd.cli.render_lead import stories_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    stories = _finish(work.read(settings.database, chosen, who, last))
    if as_json:
        print(work.as_json(stories))  # noqa: T201 - this is the output
    else:
        render.show(stories_of(stories))
    return 0


app.command()(rehearsing.demo)
app.command()(rehearsing.simulate)


view = typer.Typer(help="The typed views of the mirror, syncd.lead_<instance>.", no_args_is_help=True)
app.add_typer(view, name="view")


@view.command("rebuild")
def rebuild_view(config: Config = DEFAULT_CONFIG, instance: Only = None) -> int:
    """Make the typed views anew, as Marketo's types and the YAML's columns want them now.

    Until then columns are only appended: types, names and order stay. Rights on
    a view survive; while other views depend on one, it is left as it is. Works
    in the database only, whether a daemon runs or not.
    """
    from syncd.cli.choosing import instance_of
    from syncd.cli.view import rebuild

    settings = _load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances

    async def report() -> None:
        async with contextlib.aclosing(rebuild(settings.database, chosen)) as lines:
            async for line in lines:
                print(line)  # noqa: T201 - this is the output

    _finish(report())
    return 0


def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. From here on Ctrl-C unwinds what has begun; before, it just ends the process (see `main`)."""
    import asyncio
    import logging

    # asyncio tells of what an interruption leaves unanswered, which is no news to whoever pressed Ctrl-C
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
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


from syncd.cli import letters, operators, people, reverting, sources, tables, verifying  # noqa: E402, F401 - their commands, made of what stands above
