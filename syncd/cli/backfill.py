"""`syncd backfill`: what pulling once more costs, the order for the daemon, and how far it is."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from syncd.cli.asking import wanted
from syncd.cli.failures import FAILED, USAGE, Refused
from syncd.cli.opening import open_pool, running_dsn
from syncd.cli.render import ALIVE, printable
from syncd.config import values
from syncd.core import drift
from syncd.core.cost import Cost, cost
from syncd.core.price import by_extract, by_id, by_ids, bytes_per_lead
from syncd.core.settings import Database, Instance, Keys, Limits, Pull, SmartList, StaticList
from syncd.core.windows import plan
from syncd.core.words import moment, span
from syncd.flows.plan import KEYS_PER_CALL
from syncd.store import backfills, fields, leases, pull_status, pulls, routes
from syncd.store.backfills import Progress
from syncd.store.leases import Pool

LOOK_EVERY = 1.0  # seconds, real
TELL_EVERY = 5.0  # seconds, real: in a pipe
REASON = "asked for by hand"
RATE_OVER = 30  # looks


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a backfill would do. `windows` is 0 where nothing has been pulled yet that could be pulled again; `under_way` is one,
    not finished, that brings all that is asked for. The leads are the mirror's: what the pull's `where` keeps out is not counted."""

    price: Cost
    windows: int
    under_way: int | None = None


def since_of(pull: Pull, text: str, now: datetime) -> datetime:
    """The value of --since. Raises Refused."""
    if pull.since is None:
        what = "list" if isinstance(pull.select, StaticList | SmartList) else "keys"
        raise Refused(f"syncd backfill: --since is not for the pull {pull.name}: its {what} can only be walked whole", USAGE)
    try:
        since = values.moment(text)
    except values.NotAllowed as error:
        raise Refused(f"syncd backfill: --since {text} is not allowed; {error}", USAGE) from None
    if since > now:
        raise Refused(f"syncd backfill: --since is in the future ({moment(since)})", USAGE)
    return since


async def propose(database: Database, instance: Instance, pull: Pull, since: datetime | None) -> Proposal:
    """What pulling once more would cost. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(database, "syncd backfill") as pool:
        if await pull_status.one(pool, instance.name, pull.name) is None:
            raise Refused(f"syncd backfill: no daemon has begun the pull {pull.name} yet; start syncd run with this configuration")
        until = (await pulls.state(pool, instance.name, pull.name)).planned_until
        windows = _windows(pull, since, until)
        known = await backfills.known_leads(pool, instance.name, pull.name)
        price = await _price(pool, instance, pull, known, windows)
        asked = since or pull.since
        there = await pull_status.unfinished_backfills(pool, instance.name, pull.name)
        covering = (each.id for each in there if each.since is None or (asked is not None and each.since <= asked))
        return Proposal(price, windows, next(covering, None))


async def _price(pool: Pool, instance: Instance, pull: Pull, known: int, windows: int) -> Cost:
    """By the way that the pull goes."""
    limits = instance.limits
    if pull.source == "soap":
        return cost(known, windows, pull.batch_size, pull.streams, limits)
    chosen = (await routes.read(pool, instance.name, pull.name)).route
    if pull.source == "activities":
        return by_id(known, limits).as_cost(limits)
    if chosen is not None and chosen.ids_only:
        return by_ids(known, windows, limits).as_cost(limits)
    each = await routes.bytes_per_lead(pool, instance.name, pull.name)
    if each is None:
        async with pool.acquire() as connection:
            described = await fields.read(connection, instance.name)
        kinds = [field.data_type or "string" for field in described if drift.asking(field, (pull,))]
        each = bytes_per_lead(kinds or ["string"] * len(pull.fields))
    return by_extract(known, windows, round(each), limits).as_cost(limits)


def _windows(pull: Pull, since: datetime | None, until: datetime | None) -> int:
    match pull.select:
        case StaticList() | SmartList():
            return 1
        case Keys():
            return math.ceil(_count(pull.select) / KEYS_PER_CALL)
    assert until is not None, "a pull by update time knows where it begins"
    earliest = pull.select.since
    return sum(1 for _ in plan(max(earliest, since or earliest), until, pull.window))


def _count(keys: Keys) -> int:
    if keys.file is None:
        return len(keys.values)
    try:
        with keys.file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError as error:
        raise Refused(f"{keys.file}: {error.strerror}") from None


def costs(pull: Pull, proposal: Proposal, limits: Limits) -> str:
    """The line that says what it costs."""
    price = proposal.price
    minutes = math.ceil(price.time.total_seconds() / 60)
    time_needed = f"about {minutes:,} min" if price.days == 1 else f"about {price.days:,} days, by the day's quota"
    dropped = ", and those that its `where` keeps out" if pull.where else ""
    share = f"{100 * price.share_of_day:.1f} % of the day's {limits.daily_calls:,}"
    daily = f"{100 * price.share_of_bytes:.1f} % of the day's {limits.export_daily_bytes / 1e6:,.0f}"
    extracts = f", {price.bytes / 1e6:,.1f} MB of extracts ({daily})" if price.bytes else ""
    return (
        f"{pull.name}: {price.leads:,} leads at most{dropped}, in {_many(proposal.windows, 'window')}: "
        f"about {_many(price.calls, 'call')} ({share}){extracts}, {time_needed}"
    )


def approved(pull: Pull, proposal: Proposal, limits: Limits, yes: bool) -> bool:
    """Say what it costs, and whether it is wanted: by `yes`, or by whoever sits at the terminal. Raises Refused without either."""
    if proposal.windows == 0:
        say(f"{pull.name}: nothing to pull again: it has not come to that yet, and will anyway")
        return False
    say(costs(pull, proposal, limits))
    ordered = wanted("Order it?", yes, "backfill", "to order it")
    if not ordered:
        say("not ordered")
    return ordered


async def carry_out(database: Database, instance: str, pull: str, since: datetime | None, proposal: Proposal, watched: bool) -> int:
    """Hand the backfill to the daemon, unless one is under way that does for it, and show how far it is if `watched`.

    Returns the exit code. Raises DatabaseUnavailable, SchemaMismatch.
    """
    alone = _is_alone(database)
    async with open_pool(database, "syncd backfill") as pool:
        backfill = proposal.under_way
        if backfill is None:
            async with pool.acquire() as connection:
                backfill = await backfills.order(connection, instance, pull, since, REASON)
            say(f"{pull}: ordered")
        else:
            say(f"{pull}: is being backfilled already; nothing more was ordered")
        if watched and not alone:
            return await _watch(pool, instance, backfill)
        progress, missing = await backfills.progress(pool, backfill), await _hindrance(pool, instance, None)
        if progress and proposal.under_way is not None:
            say(line_of(progress, 0))
        if missing:
            say(f"{missing}; it goes on when one does")
        return FAILED if watched else 0


def _is_alone(database: Database) -> bool:
    """Whether this command must start the embedded server: a daemon would wait for it as long as we watch."""
    return database.embedded is not None and running_dsn(database.embedded) is None


async def _watch(pool: Pool, instance: str, backfill: int) -> int:
    looks: deque[tuple[float, int]] = deque(maxlen=RATE_OVER)
    told: str | None = None
    with _shown() as show:
        while (progress := await backfills.progress(pool, backfill)) is not None and progress.finished_at is None:
            hindrance = await _hindrance(pool, instance, progress)
            if hindrance is not None and hindrance != told:
                say(hindrance)
            told = hindrance
            if hindrance is not None:
                looks.clear()  # a rate that fades while nothing moves would be news at every look
            looks.append((time.monotonic(), progress.leads))
            show(progress, rate_of(looks))
            await asyncio.sleep(LOOK_EVERY)
    if await backfills.was_abandoned(pool, backfill):
        say("broken off, as the pull asks for something else now; see syncd status")
        return FAILED
    say(f"finished: {_many(progress.leads, 'lead')} in {_many(progress.windows, 'window')}" if progress else "finished")
    return 0


async def _hindrance(pool: Pool, instance: str, progress: Progress | None) -> str | None:
    """What keeps the backfill from going on."""
    if progress is not None and progress.pull_state not in (None, "running"):
        return printable(f"the pull is {progress.pull_state}{f': {progress.pull_message}' if progress.pull_message else ''}")
    async with pool.acquire() as connection:
        holder = await leases.current_holder(connection, instance)
    return None if holder is not None and holder.silent_for < ALIVE else f"no daemon runs for {instance}: start syncd run"


def rate_of(looks: Sequence[tuple[float, int]]) -> float:
    """Leads a second between the first and the last of `looks` (seconds, leads); a window that is walked again takes leads back."""
    (began, before), (now, leads) = looks[0], looks[-1]
    return max(0.0, (leads - before) / (now - began)) if now > began else 0.0


def left_of(progress: Progress) -> int:
    """Leads that are still to come: those promised, or as many as the windows so far had."""
    by_windows = progress.leads * (progress.windows - progress.done) // progress.done if progress.done else 0
    return max(progress.left, by_windows)


def line_of(progress: Progress, rate: float) -> str:
    """How far it is, and how long it takes from there."""
    if progress.planned_at is None:
        return "waits for the daemon to plan it"
    line = f"{progress.done:,} of {_many(progress.windows, 'window')}, {_many(progress.leads, 'lead')}"
    if rate <= 0:
        return line
    left = left_of(progress)
    return f"{line}, {rate:,.0f} a second{f', about {span(timedelta(seconds=left / rate))} left' if left else ''}"


@contextmanager
def _shown() -> Iterator[Callable[[Progress, float], None]]:
    """A bar on a terminal, else a line every few seconds, as long as there is something new to tell."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        due, told = 0.0, ""

        def tell(progress: Progress, rate: float) -> None:
            nonlocal due, told
            line = line_of(progress, rate)
            if line != told and time.monotonic() >= due:
                say(line)
                told = line
                due = time.monotonic() + TELL_EVERY

        yield tell
        return
    with Bar(BarColumn(), TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(progress: Progress, rate: float) -> None:
            bar.update(task, total=progress.windows or None, completed=progress.done, description=line_of(progress, rate))

        yield draw


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def say(text: str) -> None:
    """A line of output, at once: whoever watches through a pipe wants it now."""
    print(text, flush=True)  # noqa: T201 - this is the output
