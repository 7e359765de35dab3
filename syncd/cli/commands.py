"""All commands of `syncd`, in the order of its help, and how a run of one ends.

They are thin: parse, call, print. What a command needs is imported when it runs, so that `--help` is quick.
"""

import re
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

import syncd
from syncd.cli import letters, operators, outbox, people, rehearsing, reverting, shared, sources, starting, verifying

COMMANDS = (
    *(starting.run, starting.check, starting.migrate),
    *(operators.status, outbox.enqueue, sources.backfill),
    *(rehearsing.demo, rehearsing.simulate),
    *(operators.pause, operators.resume, operators.jobs, operators.discard, operators.release),
    *(people.forget, reverting.revert),
    *(sources.plan, sources.switch_source),
    *(outbox.attach, outbox.detach),
    verifying.verify,
)
GROUPS = {"lead": people.lead, "view": sources.view, "failures": letters.failures}

app = typer.Typer(
    name="syncd",
    pretty_exceptions_enable=False,  # they show local variables, and with them secrets
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run_command(arguments: Sequence[str]) -> int:
    """Run `syncd` with `arguments`; returns the exit code."""
    try:
        code = app(arguments, prog_name="syncd", standalone_mode=False)
    except TyperException as error:
        shared.complain(_usage_line(error))
        return 2
    except Exception as error:
        from syncd.cli.failures import explain

        explained = explain(error)
        if explained is None:
            raise
        shared.complain(explained[0])
        return explained[1]
    return int(code or 0)


def _usage_line(error: TyperException) -> str:
    """One line such as `syncd enqueue: missing option --push; see syncd enqueue --help`."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "syncd"
    message = re.sub(r"'(-[^']*)'", r"\1", " ".join(error.format_message().split())).rstrip(".")
    return f"{command}: {message[:1].lower()}{message[1:]}; see {command} --help"


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


for _command in COMMANDS:
    app.command()(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)
