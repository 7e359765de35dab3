"""The commands about single people: what is known of them, and forgetting them."""

from pathlib import Path
from typing import Annotated

import typer

from syncd.cli.shared import DEFAULT_CONFIG, Config, One, Yes, finish, load, wall_clock


def forget(
    who: Annotated[str | None, typer.Argument(metavar="EMAIL|ID", help="The person's email address, or a lead's id in Marketo.")] = None,
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    delete_in_marketo: Annotated[bool, typer.Option("--delete-in-marketo", help="Have Marketo delete the leads, too.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Forget again all who were forgotten: after a restore from a backup.")] = False,
    receipts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --again: what this command printed; for those newer than the backup."),
    ] = None,
    yes: Yes = False,
) -> int:
    """Erase a person, and keep them out: neither pulls nor pushes bring them back.

    Erases all that is kept of the leads with that address or id, and of those
    merged with them; changes on their way are cancelled. What Marketo may have
    in an import already is erased as soon as that has settled, by the daemon;
    deleting in Marketo waits for it, too. What is kept is a keyed hash, and a
    receipt that names nobody; keep what is printed. Exit code: 1 when something
    has to wait.
    """
    from syncd.cli import forget as work
    from syncd.cli.asking import wanted
    from syncd.cli.choosing import instance_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    key = work.key_of(who, again, receipts)
    if delete_in_marketo and chosen.rest is None:
        work.refuse_without_rest(chosen.name)
    hashes = work.read_receipts(receipts, chosen.name) if receipts else []
    proposal = finish(work.propose(settings.database, chosen, key, hashes))
    print(*work.proposal_lines(chosen.name, proposal, delete_in_marketo, again), sep="\n")  # noqa: T201 - this is the output
    if again and not proposal.person.keys:
        return 0
    if not wanted("Forget them?" if again else "Forget this person?", yes, "forget"):
        print("nobody forgotten")  # noqa: T201 - this is the output
        return 1
    receipt = finish(work.carry_out(settings.database, chosen, proposal.person, delete_in_marketo, again, wall_clock(None)))
    print(*work.receipt_lines(receipt), sep="\n")  # noqa: T201 - this is the output
    return 0 if receipt.finished_at is not None and receipt.in_marketo != "refused" else 1


lead = typer.Typer(help="Look at single leads.")


@lead.command("show")
def show_lead(
    who: Annotated[str, typer.Argument(metavar="EMAIL|ID", help="The lead's email address, or its id in Marketo.")],
    config: Config = DEFAULT_CONFIG,
    instance: One = None,
    last: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="How many events to show, the latest.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with whole texts and times in ISO 8601.")] = False,
) -> int:
    """Show what is known of a lead, and all that happened to it: what was pulled, what was sent.

    An address may belong to several leads; all are shown. Long texts are cut,
    but not with --json. Exit code: 1 when there is no such lead.
    """
    from syncd.cli import lead as work
    from syncd.cli import render
    from syncd.cli.choosing import instance_of
    from syncd.cli.render_lead import stories_of

    settings = load(config)
    chosen = instance_of(settings, instance)
    stories = finish(work.read(settings.database, chosen, who, last))
    if as_json:
        print(work.as_json(stories))  # noqa: T201 - this is the output
    else:
        render.show(stories_of(stories))
    return 0
