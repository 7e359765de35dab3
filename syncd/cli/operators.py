"""The commands of those who operate syncd: brakes, and looks at how everything stands and into Marketo's import queue."""

import contextlib
import sys
from functools import partial
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Only, Yes, finish, load, wall_clock

Way = Annotated[str | None, typer.Option("--direction", metavar="in|out", help="All pulls, or all pushes.")]
OnePull = Annotated[str | None, typer.Option("--pull", metavar="NAME", help="Only this pull.")]
OnePush = Annotated[str | None, typer.Option("--push", metavar="NAME", help="Only this push.")]


def pause(
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    direction: Way = None,
    pull: OnePull = None,
    push: OnePush = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Go on by itself then, such as 2026-01-31T06:00:00Z; by default when resumed.")
    ] = None,
    yes: Yes = False,
) -> int:
    """Stop an instance, a direction, or one pull or push, without stopping the daemon.

    Within seconds nothing new is asked for, packed or submitted; what Marketo
    has already is still settled and loaded. It outlasts restarts, and covers
    what comes into the YAML later. Changes may be enqueued meanwhile: they wait.
    """
    from syncd.cli import brakes as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen_instance, now = instance_of(settings, instance), wall_clock(None).now()
    chosen, end = work.choice("pause", direction, pull, push), work.until_of(until, now)
    work.known(chosen_instance, chosen)
    print(work.proposal(chosen_instance, chosen, end))  # noqa: T201 - this is the output
    if not wanted("Pause it?", yes, "pause"):
        print("not paused")  # noqa: T201 - this is the output
        return 1
    outcome = finish(work.pause(settings.database, chosen_instance.name, chosen, end, now))
    print(*work.paused_lines(chosen_instance.name, chosen, end, outcome), sep="\n")  # noqa: T201 - this is the output
    return 0


def resume(config: Config = DEFAULT_CONFIG, instance: One = None, direction: Way = None, pull: OnePull = None, push: OnePush = None) -> int:
    """Let go on what was paused with the same choice.

    What another pause covers, too, stays paused, and what is blocked stays
    blocked until it is tried again; either is told. Exit code: 1 when something
    of the choice stays paused.
    """
    from syncd.cli import brakes as work
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen_instance, chosen = instance_of(settings, instance), work.choice("resume", direction, pull, push)
    outcome = finish(work.resume(settings.database, chosen_instance.name, chosen))
    if not outcome.found and not outcome.standing:
        work.known(chosen_instance, chosen)
    print(*work.resumed_lines(chosen_instance.name, chosen, outcome), sep="\n")  # noqa: T201 - this is the output
    return 0 if work.all_free(chosen, outcome) else 1


def jobs(
    config: Config = DEFAULT_CONFIG,
    instance: Only = None,
    everything: Annotated[bool, typer.Option("--all", help="All of the last 7 days, refused ones too, instead of the last 10.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with times in ISO 8601.")] = False,
) -> int:
    """Show Marketo's import queue as far as it is ours, and the imports that left it last.

    Asks the database only: jobs are as of the daemon's last look at them.
    """
    import orjson

    from syncd.cli import queue as work
    from syncd.cli import render
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen = (instance_of(settings, instance),) if instance else settings.instances
    now = wall_clock(None).now()
    queues = finish(work.read(settings, chosen, everything, now))
    if as_json:
        print(orjson.dumps(work.as_json(queues), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
        return 0
    for each in queues:
        render.show(work.shown(each, now))
    return 0


def discard(
    push: Annotated[str, typer.Option(metavar="NAME", help="The push whose changes are meant; also one that is not in the YAML.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    older_than: Annotated[str | None, typer.Option("--older-than", metavar="T", help="Only changes enqueued longer ago, as 12h.")] = None,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Only changes enqueued before, such as 2026-01-31T06:00:00Z.")] = None,
    key: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only of keys like '*@example.com'; ? is one character.")] = None,
    held: Annotated[bool, typer.Option("--held", help="Only what the push's guard holds.")] = False,
    plan: Annotated[int | None, typer.Option(metavar="N", help="Only what is held for this plan.")] = None,
    yes: Yes = False,
) -> int:
    """Cancel changes that wait to be packed, or are held or parked.

    Counts them and asks. What is in a chunk already may be at Marketo: it is
    counted, and goes on. The cancelled ones stay readable in syncd.change. A
    push that its guard holds goes on, with a canary first, unless only a plan or
    some keys are meant.
    """
    from syncd.cli import discard as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of, push_of

    settings = load(config)
    chosen_instance = instance_of(settings, instance)
    begin = partial(work.before_of, older_than, before)
    begin(wall_clock(None).now())  # a wrong time is told before anything else
    chosen, found, ids = finish(work.look(settings.database, chosen_instance.name, push, begin, key, held, plan))
    if not found.count and not found.carried:
        push_of(chosen_instance, push)
    print(*work.lines_of(push, found, ids), sep="\n")  # noqa: T201 - this is the output
    if not found.count:
        return 0
    if not wanted("Cancel them?", yes, "discard"):
        print("nothing cancelled")  # noqa: T201 - this is the output
        return 1
    done, left = finish(work.cancel(settings.database, chosen, found))
    print(*work.done_lines(push, found, done, left), sep="\n")  # noqa: T201 - this is the output
    return 1 if left else 0


def release(
    push: Annotated[str, typer.Option(metavar="NAME", help="The push whose changes are meant.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    plan: Annotated[int | None, typer.Option(metavar="N", help="Only what is held for this plan.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="What the guard holds, and all plans.")] = False,
    yes: Yes = False,
) -> int:
    """Let go what a push's guard holds, or what is held for a plan.

    Counts it and asks. What is released is not held again. A push that a bad
    canary has stopped goes on, with all that waits, and without another canary.
    Nothing is released that came after the count.
    """
    from syncd.cli import releasing as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of, push_of

    settings = load(config)
    chosen_instance = instance_of(settings, instance)
    released = push_of(chosen_instance, push)
    found = finish(work.look(settings.database, chosen_instance.name, push, plan, everything))
    print(*work.lines_of(push, found), sep="\n")  # noqa: T201 - this is the output
    if not found.anything:
        return 0
    if not wanted("Let them go?", yes, "release"):
        print("nothing released")  # noqa: T201 - this is the output
        return 1
    done = finish(work.release(settings.database, chosen_instance.name, released, found))
    print(*work.done_lines(push, found, done), sep="\n")  # noqa: T201 - this is the output
    return 1 if done.left else 0


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
    settings = load(config)
    if instance:
        instance_of(settings, instance)
    clock = wall_clock(None)
    if watched:
        with contextlib.suppress(KeyboardInterrupt):
            finish(work.watch(settings, instance, clock))
        return 0
    now = clock.now()
    boards = finish(work.read(settings, now))
    if as_json:
        found = plain([each for each in boards if instance in (None, each.status.name)], now)
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z).decode())  # noqa: T201 - the output
    else:
        render.show(work.shown(settings, instance, boards, now))
    return 0
