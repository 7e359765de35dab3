"""The commands that fill the outbox: from a table that a push follows, or from a file."""

from pathlib import Path
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, complain, finish, load, wall_clock


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

    settings = load(config)
    chosen = instance_of(settings, instance)
    wanted = push_of(chosen, push)
    done = finish(work.attach(settings.database, chosen.name, wanted, backfill, wall_clock(None).now, complain))
    print(*work.lines_of(chosen.name, wanted, done), sep="\n")  # noqa: T201 - this is the output
    return 0


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

    settings = load(config)
    chosen = instance_of(settings, instance)
    left = finish(work.detach(settings.database, chosen.name, push, wall_clock(None).now, complain))
    if left is None:
        push_of(chosen, push)
    told = f"{push} is detached from {left}" if left else f"{push} is attached to no table"
    print(f"{chosen.name}: {told}")  # noqa: T201 - this is the output
    return 0 if left else 1


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

    settings = load(config)
    chosen = instance_of(settings, instance)
    done = finish(write(settings, chosen.name, push_of(chosen, push), file, key, clear_empty, "urgent" if urgent else "normal"))
    ids = f", ids {done.first_id} to {done.last_id}" if done.count else ""
    print(f"{done.count} changes enqueued for {chosen.name}, push {push}{ids}")  # noqa: T201 - this is the output
    return 0
