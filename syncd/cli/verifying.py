"""The command that holds the mirror and the pushes against Marketo."""

import sys
from functools import partial
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Yes, complain, finish, load


def verify(
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    sample: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="So many leads of the mirror, drawn by chance.")] = 1_000,
    everything: Annotated[bool, typer.Option("--all", help="All leads of the mirror instead.")] = False,
    yes: Yes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and all else to stderr.")] = False,
) -> int:
    """Read leads back from Marketo; hold them against the mirror and what pushes applied last.

    Says what it costs, asks, hands it to the daemon, and tells how far it is;
    Ctrl-C stops only that. What differs is read once more after the next pulls,
    as it may only have been on its way. What then drifts is told by field and
    cause, and kept for syncd status.

    Exit code: 0 when all agree, 1 when something drifted, or it could not be
    made.
    """
    import orjson

    from syncd.cli import render
    from syncd.cli import verify as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    leads = None if everything else sample
    tell = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    # asked apart from any loop, in which Ctrl-C would wait for the answer
    proposal = finish(work.propose(settings.database, chosen, leads))
    if proposal.under_way is None:
        tell(work.costs(chosen, leads, proposal))
        if not wanted("Read them back?", yes, "verify", "to order it"):
            tell("nothing was read")
            return 1
    try:
        result = finish(work.carry_out(settings.database, chosen, leads, proposal, tell))
    except KeyboardInterrupt:
        complain("stopped watching; what was ordered goes on, and syncd status shows its result")
        raise
    if result is None:
        return 1
    if as_json:
        print(orjson.dumps(work.as_json(result), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
    else:
        render.show(work.table_of(result))
    return 0 if result.well else 1
