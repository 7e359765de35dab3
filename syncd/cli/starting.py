"""The commands that set syncd up and run it."""

import contextlib
import os
import signal
import sys
from functools import partial
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, Only, finish, load, wall_clock


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
    wall = wall_clock(clock)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # nothing has begun that would need an end
    if not sys.stdin.isatty():
        signal.signal(signal.SIGHUP, lambda *_: None)  # a reload, of what is about to be read
    from syncd.cli import running

    running.run(load(config), wall, partial(load, config))
    return 0


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

    settings = load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances

    async def report() -> bool:
        tried = []
        # closed here and now, should the reader of a pipe have gone
        async with contextlib.aclosing(try_all(settings, config, chosen, wall_clock(None))) as parts:
            async for heading, findings in parts:
                tried.append((heading, findings))
                if not as_json:
                    render.show(render.findings_table(heading, findings))
        if as_json:
            print(plain(tried))  # noqa: T201 - this is the output
        return all(finding.ok for _, findings in tried for finding in findings)

    return 0 if finish(report()) else 1


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

    before, after = finish(upgrade(load(config).database))
    print(f"at {after} already" if before == after else f"migrated from {before or 'nothing'} to {after}")  # noqa: T201 - the output
    return 0
