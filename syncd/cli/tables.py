"""The commands for pushes that follow a table."""

from typing import Annotated

import typer

from syncd.cli.commands import DEFAULT_CONFIG, Config, One, _complain, _finish, _load, _wall_clock, app


@app.command()
def attach(
    push: Annotated[str, typer.Option(metavar="NAME", help="The push of the YAML that is to follow its table.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    backfill: Annotated[
        bool | None,
        typer.Option(
            "--backfill/--no-backfill", help="What the table has already; by default the first time, and when something is to be made good."
        ),
    ] = None,
) -> int:
    """Let a push follow its table: by triggers that write to the outbox.

    From then on each write to a mapped column becomes a change, in the writer's
    transaction. What the table has already becomes changes as well, held until
    they are released. Again, after another mapping, it replaces the triggers;
    interrupted, it goes on where it was. It waits for whoever writes to the
    table, and keeps others from it for a second at a time. A view, or a foreign
    table, is compared with a snapshot instead, by the daemon; what is attached
    already, at once.
    """
    from syncd.cli import attach as work
    from syncd.cli.choosing import instance_of, push_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    wanted = push_of(chosen, push)
    done = _finish(work.attach(settings.database, chosen.name, wanted, backfill, _wall_clock(None).now, _complain))
    print(*work.lines_of(chosen.name, wanted, done), sep="\n")  # noqa: T201 - this is the output
    return 0


@app.command()
def detach(
    push: Annotated[str, typer.Option(metavar="NAME", help="The push that follows a table; also one that is not in the YAML.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
) -> int:
    """Take from a table what syncd attach has put there.

    Nothing of syncd stays in the table. Changes that are in the outbox go on;
    those of a backfill that was not completed are cancelled.
    """
    from syncd.cli import attach as work
    from syncd.cli.choosing import instance_of, push_of

    settings = _load(config)
    chosen = instance_of(settings, instance)
    left = _finish(work.detach(settings.database, chosen.name, push, _wall_clock(None).now, _complain))
    if left is None:
        push_of(chosen, push)
    told = f"{push} is detached from {left}" if left else f"{push} is attached to no table"
    print(f"{chosen.name}: {told}")  # noqa: T201 - this is the output
    return 0 if left else 1
