"""The commands about changes that Marketo did not take."""

from pathlib import Path
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Yes, complain, finish, load

failures = typer.Typer(help="Changes that Marketo did not take: see, explain, export, retry.", no_args_is_help=True)

PushName = Annotated[str | None, typer.Option("--push", "-p", metavar="NAME", help="Only of this push.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Only with this text or code in their reason, in any case.")]
State = Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only rejected, or only unverified.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only those that ended at or after this, such as 2026-01-31.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only those that ended before this.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the newest so many.")]
All = Annotated[bool, typer.Option("--all", help="Those that were retried or mended, too.")]


@failures.command("list")
def list_failures(
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    push: PushName = None,
    reason: Reason = None,
    state: State = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option("--limit", min=0, max=100_000, metavar="N", help="How many one by one, the newest.")] = 20,
    retried_too: All = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with times in ISO 8601.")] = False,
) -> int:
    """Show what failed: how many by reason, then one by one, the newest first.

    Rejected changes, and those of which nobody can tell whether they were
    applied (unverified); not those that had nothing to send (noop).
    --limit 0 counts only.
    """
    from syncd.cli import deadletters as work
    from syncd.cli import render, showing
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    selection = work.selection_of(push, reason, state, since, until, retried_too)
    summary, found = finish(work.read(settings.database, chosen, selection, limit))
    if as_json:
        print(showing.as_json(summary, found))  # noqa: T201 - this is the output
    else:
        render.show(showing.list_of(summary, found, retried_too))
    return 0


@failures.command("show")
def show_failure(
    change: Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="The change's id.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with times in ISO 8601.")] = False,
) -> int:
    """Show one change: its fields, how it was sent, the reason, and what to do about it.

    Any change will do, whatever its state. Exit code: 1 when there is none.
    """
    from syncd.cli import deadletters as work
    from syncd.cli import render, showing
    from syncd.cli.choosing import instance_of

    settings = load(config)
    found = finish(work.one(settings.database, instance_of(settings, instance), change))
    if as_json:
        print(showing.fate_as_json(found))  # noqa: T201 - this is the output
    else:
        render.show(showing.fate_of(found))
    return 0


@failures.command("export")
def export_failures(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The CSV to write, which must not be there yet; else stdout.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    push: PushName = None,
    reason: Reason = None,
    state: State = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    retried_too: All = False,
) -> int:
    """Write failures of one push as CSV: their values as enqueued, and the reason.

    Mend its cells and give the file to syncd enqueue: what it enqueues counts
    as the retry of the change in the column syncd:change. An empty cell is a
    field that the change left alone; fields that it clears are named in
    syncd:clear. Delete the rows that are not to be sent.
    """
    from syncd.cli import deadletters as work
    from syncd.cli.choosing import instance_of, push_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    if push is not None:
        push_of(chosen, push)
    selection = work.selection_of(push, reason, state, since, until, retried_too)
    done = finish(work.export(settings.database, chosen, selection, limit, file))
    where = f" to {file}" if file and done.changes else ""
    complain(f"{done.changes:,} failures exported{where}")  # stdout may be the file
    if done.unlike_key:
        told = ", ".join(map(str, done.unlike_key[:20]))
        complain(f"{len(done.unlike_key):,} of them set the lookup field otherwise than their key, and only the key is in the file: {told}")
    if done.too_deep:
        told = ", ".join(map(str, done.too_deep[:20]))
        complain(f"{len(done.too_deep):,} left out, as their values are nested too deep for a cell: {told}")
    if done.erased:
        told = ", ".join(map(str, done.erased[:20]))
        complain(f"{len(done.erased):,} left out, as their values are no longer kept: {told}")
    return 0


@failures.command("retry")
def retry_failures(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID ...]", help="Only these changes.")] = None,
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    push: PushName = None,
    reason: Reason = None,
    state: State = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
    yes: Yes = False,
) -> int:
    """Send failures again as they are, each as a new change, once.

    Counts them and asks. What later changes of the same key have set is not set
    again; where nothing else is left, nothing is sent.
    """
    from dataclasses import replace

    from syncd.cli import deadletters as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of, push_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    if push is not None:
        push_of(chosen, push)
    asked = replace(work.selection_of(push, reason, state, since, until), ids=ids or None)
    selection, summary, others = finish(work.proposed(settings.database, chosen, asked))
    if others:
        complain(f"left alone: failures of pushes that the configuration no longer has ({', '.join(others)})")
    if not summary.changes:
        print("no failures to retry")  # noqa: T201 - this is the output
        return 0
    newest = f", of which the newest {limit:,}" if limit and limit < summary.changes else ""
    doubt = f"; {summary.unverified:,} are unverified: they may have been applied already" if summary.unverified else ""
    print(f"{summary.changes:,} failures{newest}{doubt}")  # noqa: T201 - this is the output
    if not wanted("Send them again?", yes, "failures retry"):
        print("not retried")  # noqa: T201 - this is the output
        return 1
    for line in work.retried_lines(finish(work.retry(settings.database, chosen, selection, limit))):
        print(line)  # noqa: T201 - this is the output
    return 0
