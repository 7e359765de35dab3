"""The commands about what is pulled: what it costs, from where it comes, once more, and as typed views."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Only, Yes, complain, finish, load, wall_clock

if TYPE_CHECKING:
    from syncd.core.settings import Database, Instance

PullName = Annotated[str, typer.Option("--pull", "-p", metavar="NAME", help="The pull, as the YAML names it.")]


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

    settings = load(config)
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

    push, now = push_of(instance, name), wall_clock(None).now()
    made = finish(work.plan(database, instance, push, plan_id, now))
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

    pull, now = pull_of(instance, name), wall_clock(None).now()
    made = work.planned(instance, pull, finish(work.known(database, instance, pull)), now, leads, fields)
    if as_json:
        print(json.dumps(work.as_json(made, now), indent=2))  # noqa: T201 - this is the output
    else:
        render.show(work.table_of(made, instance, now))
    return 0


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
    settings = load(config)
    chosen = instance_of(settings, instance)
    done = finish(work.switch(settings.database, chosen, pull_of(chosen, pull), to, wall_clock(None)))  # type: ignore[arg-type]
    for line in work.lines_of(done, chosen):
        print(line)  # noqa: T201 - this is the output
    return 0


def backfill(
    pull: Annotated[str, typer.Option(metavar="NAME", help="The pull of the YAML that is to pull once more.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only leads updated at or after this, such as 2026-01-31T00:00:00Z.")
    ] = None,
    yes: Yes = False,
    watched: Annotated[bool, typer.Option("--watch", help="Show how far it is until it is finished; Ctrl-C stops only that.")] = False,
) -> int:
    """Pull once more what a pull has pulled already, beside what is new.

    Says what it costs in calls and time, asks, and hands it to the daemon,
    which walks it when nothing new waits. It outlasts restarts.
    """
    from syncd.cli import backfill as work
    from syncd.cli.choosing import instance_of, pull_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    pulled = pull_of(chosen, pull)
    beginning = None if since is None else work.since_of(pulled, since, wall_clock(None).now())
    # asked apart from any loop, in which Ctrl-C would wait for the answer
    proposal = finish(work.propose(settings.database, chosen, pulled, beginning))
    if proposal.under_way is None and not work.approved(pulled, proposal, chosen.limits, yes):
        return 1 if proposal.windows else 0
    try:
        return finish(work.carry_out(settings.database, chosen.name, pull, beginning, proposal, watched))
    except KeyboardInterrupt:
        complain("stopped watching; what was ordered goes on")
        raise


view = typer.Typer(help="The typed views of the mirror, syncd.lead_<instance>.", no_args_is_help=True)


@view.command("rebuild")
def rebuild_view(config: Config = DEFAULT_CONFIG, instance: Only = None) -> int:
    """Make the typed views anew, as Marketo's types and the YAML's columns want them now.

    Until then columns are only appended: types, names and order stay. Rights on
    a view survive; while other views depend on one, it is left as it is. Works
    in the database only, whether a daemon runs or not.
    """
    from syncd.cli.choosing import instance_of
    from syncd.cli.view import rebuild

    settings = load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances

    async def report() -> None:
        async with contextlib.aclosing(rebuild(settings.database, chosen)) as lines:
            async for line in lines:
                print(line)  # noqa: T201 - this is the output

    finish(report())
    return 0
