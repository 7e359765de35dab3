"""`syncd verify`: what reading leads back costs, the order for the daemon, and what it found."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool, running_dsn
from syncd.cli.render import ALIVE, printable
from syncd.core.cost import Cost
from syncd.core.price import by_id
from syncd.core.settings import Database, Instance
from syncd.core.verify import Cause
from syncd.store import leases, pauses, verifying
from syncd.store.leases import Pool
from syncd.store.verifying import Drift, Verification

LOOK_EVERY = 0.5  # seconds, real
TELL_EVERY = 5.0  # seconds, real
THE_LEAD = "(the lead)"

MEANINGS: dict[Cause, str] = {
    "mirror_wrong": "the pulls have come past it, and the mirror has another value",
    "mirror_behind": "Marketo's value is newer than what the pulls have brought",
    "push_overwritten": "somebody has changed what a push applied",
    "push_not_arrived": "a push applied it, and Marketo has another value that nobody is known to have set since",
    "missing_in_marketo": "the mirror has the lead, Marketo has not",
    "missing_in_mirror": "Marketo has the lead, the mirror has not",
}

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a verification would cost; `under_way` is one that was ordered before and is not finished."""

    leads: int
    price: Cost
    under_way: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A verification that has ended, and what it found."""

    verification: Verification
    drift: Sequence[Drift]

    @property
    def well(self) -> bool:
        return not self.drift and self.verification.message is None


async def propose(database: Database, instance: Instance, wanted: int | None) -> Proposal:
    """What verifying so many leads, or all, would cost. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    if instance.rest is None or not instance.pulls:
        lacking = "rest" if instance.rest is None else "pulls"
        raise Refused(
            f"syncd verify: {instance.name} has no {lacking}: leads are read back through REST, beside what pulls have brought", USAGE
        )
    async with open_pool(database, "syncd verify") as pool:
        known = await verifying.known_leads(pool, instance.name)
        if not known:
            raise Refused(f"syncd verify: the mirror of {instance.name} has no leads yet; start syncd run")
        under_way = await verifying.under_way(pool, instance.name)
    leads = known if wanted is None else min(wanted, known)
    return Proposal(leads, by_id(leads, instance.limits).as_cost(instance.limits), under_way.id if under_way else None)


def costs(instance: Instance, wanted: int | None, proposal: Proposal) -> str:
    """The line that says what it costs."""
    price, limits = proposal.price, instance.limits
    which = f"all {proposal.leads:,} leads" if wanted is None else f"{proposal.leads:,} leads drawn by chance"
    minutes = math.ceil(price.time.total_seconds() / 60)
    time_needed = f"about {minutes:,} min" if price.days == 1 else f"about {price.days:,} days, by the day's quota"
    return (
        f"{instance.name}: {which}: {price.calls:,} to {2 * price.calls:,} calls by how many ids between them are to be looked for, "
        f"{100 * price.share_of_day:.1f} % of the day's {limits.daily_calls:,} or twice that, {time_needed}; "
        "what differs is read again after the next pulls, 300 leads a call"
    )


async def carry_out(database: Database, instance: Instance, wanted: int | None, proposal: Proposal, tell: Tell) -> Result | None:
    """Hand it to the daemon, and tell how far it is until it has ended; None where no daemon is there to do it.

    Raises DatabaseUnavailable, SchemaMismatch.
    """
    # an embedded server that this command must start: a daemon would wait for it as long as we watch
    alone = database.embedded is not None and running_dsn(database.embedded) is None
    async with open_pool(database, "syncd verify") as pool:
        ordered = proposal.under_way
        if ordered is None:
            async with pool.acquire() as connection:
                ordered = await verifying.order(connection, instance.name, wanted)
        else:
            tell(f"{instance.name}: is being verified already; nothing more was ordered")
        if ordered is None:
            raise Refused(f"syncd verify: somebody else has just ordered one for {instance.name}; run it again to watch that")
        if alone or await _is_without_daemon(pool, instance.name):
            tell(f"ordered; no daemon runs for {instance.name}: it goes on when one does (syncd run), and syncd status shows the result")
            return None
        return await _watch(pool, instance.name, ordered, proposal.leads, tell)


async def _is_without_daemon(pool: Pool, instance: str) -> bool:
    async with pool.acquire() as connection:
        holder = await leases.current_holder(connection, instance)
    return holder is None or holder.silent_for >= ALIVE


async def _watch(pool: Pool, instance: str, ordered: int, leads: int, tell: Tell) -> Result:
    told, due = None, 0.0
    while True:
        found = await verifying.read(pool, ordered)
        if found is None:
            raise Refused("syncd verify: its result is gone: the database was changed by hand")
        if found.finished_at is not None:
            return Result(found, await verifying.drift(pool, ordered))
        line = await _line(pool, instance, found, leads)
        if line != told and time.monotonic() >= due:
            tell(line)
            told, due = line, time.monotonic() + TELL_EVERY
        await asyncio.sleep(LOOK_EVERY)


async def _line(pool: Pool, instance: str, found: Verification, leads: int) -> str:
    if await pauses.rests(pool, instance, "in"):
        return f"{instance} is paused: it goes on after syncd resume"
    if await _is_without_daemon(pool, instance):
        return f"no daemon runs for {instance}: start syncd run"
    if found.message is not None:
        return printable(f"waits: {found.message}")
    again = await verifying.to_look_at_again(pool, found.id)
    waits = f"; {_many(again, 'lead')} differ, and are read again once the pulls have come so far" if again else ""
    return f"{found.leads:,} of {_many(leads, 'lead')}, {_many(found.calls, 'call')}{waits}"


def table_of(result: Result) -> RenderableType:
    """The result for people."""
    found = result.verification
    if found.message is not None:
        return printable(f"came to nothing: {found.message}")
    summary = f"{_many(found.leads, 'lead')} read back in {_many(found.calls, 'call')}: "
    if not result.drift:
        return f"{summary}all agree with the mirror, and with what the pushes applied last"
    table = Table(box=None, pad_edge=False)
    for heading in ("leads", "field", "cause", "that is", "such as lead"):
        table.add_column(heading, justify="right" if heading == "leads" else "left", overflow="fold", header_style="dim")
    for each in result.drift:
        examples = ", ".join(map(str, each.examples))
        table.add_row(f"{each.leads:,}", printable(each.field or THE_LEAD), each.cause, MEANINGS[each.cause], examples)
    return Group(f"{summary}{_many(found.drifted, 'lead')} drifted", table)


def as_json(result: Result) -> dict[str, Any]:
    """The result for machines."""
    found = result.verification
    shown = {name: getattr(found, name) for name in ("wanted", "asked_at", "finished_at", "leads", "drifted", "calls", "message")}
    return shown | {"drift": [asdict(each) | {"field": each.field or None} for each in result.drift]}


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
