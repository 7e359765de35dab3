"""`syncd status`: what the status page shows, on a terminal; with `--watch`, time and again."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import asyncpg
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.cli.opening import open_pool
from syncd.cli.render import coloured, plain, table_with
from syncd.cli.render_status import status_of
from syncd.core.clock import Clock
from syncd.core.settings import Instance, Settings
from syncd.core.words import moment, span
from syncd.ops.paced import Paced
from syncd.page.todo import Todo, todo_of
from syncd.store import board, status
from syncd.store.board import InstanceBoard
from syncd.store.leases import Pool

EVERY = 2.0  # seconds, real, between two looks
LOOKING_SHARE = 0.1  # of the time, at most, goes into looking
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
IMPORTS = 5  # that ended, the latest
COLOURS = {"bad": "bold red", "warn": "yellow"}


async def read(settings: Settings, now: datetime) -> list[InstanceBoard]:
    """All instances of the database. Raises DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(settings.database, "syncd status") as pool:
        return await board.read(pool, _instances(settings), now, await status.count_all(pool))


def shown(settings: Settings, only: str | None, boards: Sequence[InstanceBoard], now: datetime) -> RenderableType:
    """Every instance of the database, and those of the YAML that it does not know; or the one that is meant."""
    parts: list[RenderableType] = [_board(each, now) for each in boards if only in (None, each.status.name)]
    unknown = {name for name in _instances(settings) if only in (None, name)} - {each.status.name for each in boards}
    parts += [Text(f"{name}: no daemon has worked for it yet, and no changes wait; start syncd run") for name in sorted(unknown)]
    return Group(*parts)


async def watch(settings: Settings, only: str | None, clock: Clock) -> None:
    """Show it until Ctrl-C; a database that goes away is waited for. Raises DatabaseUnavailable, SchemaMismatch at the start."""
    async with open_pool(settings.database, "syncd status") as pool:
        counts = Paced(lambda: status.count_all(pool), EVERY)
        with Live(console=Console(highlight=False), screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                began = time.monotonic()
                live.update(await _frame(settings, only, clock, pool, counts), refresh=True)
                await asyncio.sleep(max(EVERY, (time.monotonic() - began) / LOOKING_SHARE))


async def _frame(settings: Settings, only: str | None, clock: Clock, pool: Pool, counts: Paced[dict[str, status.Counts]]) -> RenderableType:
    now = clock.now()
    heading = Text(f"syncd status as of {moment(now)}; Ctrl-C ends it", "dim")
    try:
        boards = await board.read(pool, _instances(settings), now, await counts.get())
    except AWAY as error:
        return Group(heading, plain(f"the database does not answer ({type(error).__name__}); tried again", "bold red"))
    return Group(heading, shown(settings, only, boards, now))


def _instances(settings: Settings) -> dict[str, Instance]:
    return {instance.name: instance for instance in settings.instances}


def _board(found: InstanceBoard, now: datetime) -> RenderableType:
    parts: list[RenderableType] = [status_of(found.status, now)]
    parts += [_slots(found, now), _quota(found)] if found.status.pushes or found.status.live_jobs else [_quota(found)]
    if found.recent_jobs:
        parts.append(_imports(found, now))
    if found.failures.changes:
        parts.append(_failures(found))
    todo = todo_of(found, now)
    name = found.status.name
    first = _todo(name, todo) if todo or found.configured else Text(f"{name}: not in the configuration")
    return Group(first, Text(), *(part if n == 0 else Padding(part, (0, 0, 1, 0)) for n, part in enumerate(parts)))


def _todo(name: str, todo: Sequence[Todo]) -> RenderableType:
    """First of all what needs a person, with the command to type."""
    if not todo:
        return Text(f"{name}: all is well", "bold green")
    rows: list[Text] = []
    for each in todo:
        why = f": {each.why}" if each.why else ""
        rows.append(plain(f"{name}: {each.what}{why}", COLOURS[each.level]))
        rows.append(plain(f"  → {each.remedy}{': ' if each.commands else ''}{', or '.join(each.commands)}", "bold"))
    return Group(*rows)


def _slots(found: InstanceBoard, now: datetime) -> Text:
    owners = Counter(slot.owner for slot in found.slots)
    states = Counter(slot.state for slot in found.slots if slot.owner == "ours")
    ours = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    ends = [slot.expected_end for slot in found.slots if slot.expected_end is not None]
    last = f", the last of ours until {max(ends):%H:%M:%S}Z or so" if ends and max(ends) > now else ""
    return plain(
        f"import queue: {owners['ours']} ours{f' ({ours})' if ours else ''}, {owners['others']} others', {owners['nobody']} free{last}"
    )


def _quota(found: InstanceBoard) -> Text:
    quota = found.quota
    of = f" of {quota.daily_calls:,}" if quota.daily_calls else ""
    others = f"; REST calls of others {quota.others:,}" if quota.others is not None else ""
    whole = f", of {quota.subscription_calls:,} for all" if quota.others is not None and quota.subscription_calls else ""
    return plain(f"our calls today: {quota.rest + quota.soap:,}{of}{others}{whole}")


def _imports(found: InstanceBoard, now: datetime) -> Table:
    table = table_with(
        "job", "push", "ended", "rows", "applied", "warned", "rejected", "unverified", "again", "submitted", title="latest imports"
    )
    for job in found.recent_jobs[:IMPORTS]:
        counts = (job.row_count, job.applied, job.warned, job.rejected, job.unverified, job.retried)
        submitted = f"{span(now - job.submitted_at)} ago"
        table.add_row(str(job.id), plain(job.push), coloured(job.state), *(f"{count:,}" for count in counts), submitted)
    return table


def _failures(found: InstanceBoard) -> Table:
    table = table_with("failures", "push", "state", "latest", "reason")
    for each in found.failures.by_reason:
        table.add_row(f"{each.changes:,}", plain(each.push), each.state, moment(each.latest), plain(each.reason or ""))
    return table
