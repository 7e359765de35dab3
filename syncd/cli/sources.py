"""The commands about where leads come from."""

from typing import Annotated

import typer

from syncd.cli.commands import DEFAULT_CONFIG, Config, One, _finish, _load, _wall_clock, app

PullName = Annotated[str, typer.Option("--pull", "-p", metavar="NAME", help="The pull, as the YAML names it.")]


@app.command()
def plan(
    pull: PullName,
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    leads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Reckon with so many leads.")] = None,
    fields: Annotated[
        int | None, typer.Option(min=1, max=5_000, metavar="N", help="Reckon with so many fields of the usual types.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Say what filling a pull costs by each source: bytes, calls, days.

    Reckons with the leads that the mirror has and the shares that `limits`
    grants. Asks the database only, and spends nothing.
    """
    import json

    from syncd.cli import plan as work
    from syncd.cli import render
    from syncd.cli.choosing import instance_of, pull_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    pulled = pull_of(chosen, pull)
    now = _wall_clock(None).now()
    made = work.planned(chosen, pulled, _finish(work.known(settings.database, chosen, pulled)), now, leads, fields)
    if as_json:
        print(json.dumps(work.as_json(made, now), indent=2))  # noqa: T201 - this is the output
    else:
        render.show(work.table_of(made, chosen, now))
    return 0


@app.command("switch-source")
def switch_source(
    pull: PullName,
    to: Annotated[str, typer.Option("--to", metavar="SOURCE", help="auto, bulk_extract, activities or soap.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
) -> int:
    """Let a pull go on through another source, its mirror and its place kept.

    Gives the mirror's fields their REST names where it has them by SOAP's,
    carries the watermark over, lists the fields that the new source does not
    have, and prints the YAML that follows. Run it while no daemon works for
    the instance.
    """
    from syncd.cli import switch as work
    from syncd.cli.choosing import instance_of, pull_of

    if to not in ("auto", "bulk_extract", "activities", "soap"):
        raise typer.BadParameter("auto, bulk_extract, activities or soap", param_hint="--to")
    settings = _load(config)
    chosen = instance_of(settings, instance)
    done = _finish(work.switch(settings.database, chosen, pull_of(chosen, pull), to, _wall_clock(None)))  # type: ignore[arg-type]
    for line in work.lines_of(done, chosen):
        print(line)  # noqa: T201 - this is the output
    return 0
