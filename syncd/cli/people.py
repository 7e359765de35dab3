"""The command that forgets people."""

from pathlib import Path
from typing import Annotated

import typer

from syncd.cli.commands import DEFAULT_CONFIG, Config, One, _finish, _load, _wall_clock, app
from syncd.cli.operators import Yes


@app.command()
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

    settings = _load(config)
    chosen = instance_of(settings, instance)
    key = work.key_of(who, again, receipts)
    if delete_in_marketo and chosen.rest is None:
        work.refuse_without_rest(chosen.name)
    hashes = work.read_receipts(receipts, chosen.name) if receipts else []
    proposal = _finish(work.propose(settings.database, chosen, key, hashes))
    print(*work.proposal_lines(chosen.name, proposal, delete_in_marketo, again), sep="\n")  # noqa: T201 - this is the output
    if again and not proposal.person.keys:
        return 0
    if not wanted("Forget them?" if again else "Forget this person?", yes, "forget"):
        print("nobody forgotten")  # noqa: T201 - this is the output
        return 1
    receipt = _finish(work.carry_out(settings.database, chosen, proposal.person, delete_in_marketo, again, _wall_clock(None)))
    print(*work.receipt_lines(receipt), sep="\n")  # noqa: T201 - this is the output
    return 0 if receipt.finished_at is not None and receipt.in_marketo != "refused" else 1
