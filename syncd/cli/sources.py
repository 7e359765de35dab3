"""The commands about where leads come from."""

from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli.commands import DEFAULT_CONFIG, Config, One, _finish, _load, _wall_clock, app

if TYPE_CHECKING:
    from syncd.core.settings import Database, Instance

PullName = Annotated[str, typer.Option("--pull", "-p", metavar="NAME", help="The pull, as the YAML names it.")]


@app.command()
def plan(
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    pull: Annotated[str | None, typer.Option("--pull", "-p", metavar="NAME", help="What filling this pull costs.")] = None,
    push: Annotated[str | None, typer.Option("--push", metavar="NAME", help="What would become of what waits for this push.")] = None,
    held_for: Annotated[int | None, typer.Option("--plan", metavar="N", help="Only what is held for this plan, of a push.")] = None,
    leads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Reckon with so many leads.")] = None,
    fields: Annotated[
        int | None, typer.Option(min=1, max=5_000, metavar="N", help="Reckon with so many fields of the usual types.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Say what a pull's fill costs, or what a push would do, before anything is spent or sent.

    Of a pull: bytes, calls, days by each source, with the leads that the mirror
    has and the shares that `limits` grants. Of a push: how many of the changes
    that wait create or update a lead, or end otherwise and why, in how many
    files, calls and minutes, with twenty rows old → new. Asks the database only,
    and writes nothing.
    """
    if (pull is None) == (push is None):
        raise typer.BadParameter("give --pull or --push", param_hint="--pull / --push")
    if pull is not None and held_for is not None:
        raise typer.BadParameter("a plan is a push's: give --push", param_hint="--plan")
    if push is not None and (leads is not None or fields is not None):
        raise typer.BadParameter("they are of a pull: give --pull", param_hint="--leads / --fields")
    from syncd.cli.choosing import instance_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    if push is not None:
        return _plan_push(settings.database, chosen, push, held_for, as_json)
    assert pull is not None
    return _plan_pull(settings.database, chosen, pull, leads, fields, as_json)


def _plan_push(database: "Database", instance: "Instance", name: str, plan_id: int | None, as_json: bool) -> int:
    import json

    from syncd.cli import plan_push as work
    from syncd.cli import render
    from syncd.cli.choosing import push_of

    push, now = push_of(instance, name), _wall_clock(None).now()
    made = _finish(work.plan(database, instance, push, plan_id, now))
    if as_json:
        print(json.dumps(work.as_json(made, instance, push, now), indent=2))  # noqa: T201 - this is the output
    else:
        render.show(work.shown(made, push, now))
    return 0


def _plan_pull(database: "Database", instance: "Instance", name: str, leads: int | None, fields: int | None, as_json: bool) -> int:
    import json

    from syncd.cli import plan as work
    from syncd.cli import render
    from syncd.cli.choosing import pull_of

    pull, now = pull_of(instance, name), _wall_clock(None).now()
    made = work.planned(instance, pull, _finish(work.known(database, instance, pull)), now, leads, fields)
    if as_json:
        print(json.dumps(work.as_json(made, now), indent=2))  # noqa: T201 - this is the output
    else:
        render.show(work.table_of(made, instance, now))
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
