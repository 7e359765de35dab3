"""The command that puts values back."""

import sys
from functools import partial
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Yes, complain, finish, load, wall_clock


def revert(
    push: Annotated[str, typer.Option(metavar="NAME", help="The push whose imports are to be undone.")],
    since: Annotated[str, typer.Option(metavar="TIME", help="What was sent at or after this, such as 2026-01-31T06:00:00Z.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="And before this; by default until now.")] = None,
    fields: Annotated[str | None, typer.Option(metavar="F,…", help="Only these fields, by their REST names.")] = None,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and all else to stderr.")] = False,
) -> int:
    """Make a plan that puts back what leads had before a push's imports.

    By the mirror's history, and only where our value still stands: what anybody
    has changed since is left, and counted, as are leads that an import has
    created. Counts, asks, and holds the changes as a plan: nothing goes before
    syncd release --plan N. What is broken off is cancelled by the next one.
    """
    import orjson

    from syncd.cli import revert as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of, push_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    reverted, now = push_of(chosen, push), wall_clock(None).now
    meant = work.wanted_of(since, until, fields, now())
    tell = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    result = finish(work.survey(settings.database, chosen, reverted, meant, now, complain))
    tell(*work.lines_of(reverted, result), sep="\n")
    if result.tally.changes:
        # asked apart from any loop, in which Ctrl-C would wait for the answer
        if not wanted("Hold them as a plan?", yes, "revert", "to make the plan"):
            tell("no plan was made")
            return 1
        result = finish(work.carry_out(settings.database, chosen, reverted, meant, now, complain))
        tell(*work.done_lines(chosen, reverted, result), sep="\n")
    if as_json:
        shown = work.as_json(chosen, reverted, result)
        print(orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
    return 0
