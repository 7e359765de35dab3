"""`syncd plan --push`: what would become of the changes that wait. Values are shown to whoever runs it, and nowhere else."""

import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.status import Status
from rich.table import Table

from syncd.cli.failures import USAGE, Refused
from syncd.cli.opening import open_pool
from syncd.cli.render import NOTHING, plain
from syncd.core.dryrun import SampleRow
from syncd.core.settings import Database, Instance, Push
from syncd.core.words import counted, megabytes, moment, span
from syncd.flows import dryrun
from syncd.flows.dryrun import Old, Planned, PushPlan

REASONS = 10  # of each end
LONGEST_VALUE = 60  # characters
TELLS_OF = 100_000
"""So many changes take long enough for somebody to wonder."""


async def plan(database: Database, instance: Instance, push: Push, plan_id: int | None, now: datetime) -> PushPlan:
    """The plan; on a terminal with its progress. Raises Refused, DatabaseUnavailable, SchemaMismatch."""
    console = Console(stderr=True)
    with console.status("") as status:
        if not sys.stderr.isatty():
            status.stop()
        async with open_pool(database, "syncd plan") as pool:
            made = await dryrun.plan(pool, instance, push, plan_id, now, lambda done, total: _progress(status, done, total))
    if isinstance(made, str):
        raise Refused(f"syncd plan: {push.name} {made}; syncd status shows the plans that wait", USAGE)
    return made


def _progress(status: Status, done: int, total: int) -> None:
    if total >= TELLS_OF:
        status.update(f"{done:,} of about {total:,} changes")


def as_json(plan: PushPlan, instance: Instance, push: Push, now: datetime) -> dict[str, Any]:
    """For machines: counts, bytes, seconds, times in ISO 8601; ranges as [least, most]."""
    waits = {"pending": plan.waits.pending, "held": plan.waits.held, "parked": plan.waits.parked}
    sections = [_section(each, now) for each in plan.sections]
    head = {"instance": instance.name, "push": push.name, "as_of": now.isoformat(timespec="seconds"), "waits": waits}
    return {**head, "sections": sections, "guard": list(plan.guard), "notes": list(plan.notes)}


def _section(planned: Planned, now: datetime) -> dict[str, Any]:
    tally, expected = planned.tally, planned.forecast
    ends = {"noop": dict(tally.noop), "superseded": tally.superseded, "rejected": dict(tally.rejected), "parked": dict(tally.parked)}
    return {
        "of": planned.of,
        "changes": tally.changes,
        "carried": tally.carried,
        "rows": {"created": tally.created, "updated": tally.updated, "unknown": tally.unknown},
        **ends,
        "files": {"count": list(expected.files), "bytes": tally.file_bytes, "calls": list(expected.import_calls), "slots": expected.slots},
        "sync_leads": {"calls": list(expected.sync_calls), "bytes": tally.sync_bytes},
        "seconds": [round(each.total_seconds()) for each in expected.time],
        "ends_at": [(now + each).isoformat(timespec="seconds") for each in expected.time],
        "by": expected.basis,
        "sample": [_sample(row, planned.olds.get(row.key)) for row in planned.sample],
    }


def _sample(row: SampleRow, old: Old | None) -> dict[str, Any]:
    values = {name: {"old": old.values.get(name) if old else None, "new": new} for name, new in row.cells.items()}
    lead = old.lead_id if old else None
    return {"changes": list(row.change_ids), "key": row.key, "lead_id": lead, "row": row.fate, "by": row.by, "fields": values}


def shown(plan: PushPlan, push: Push, now: datetime) -> RenderableType:
    """For people."""
    parts: list[RenderableType] = []
    for planned in plan.sections:
        if planned.tally.changes:
            parts += [_numbers(planned, push, now), *([_rows(planned)] if planned.sample else [])]
        else:
            parts.append(plain(f"{push.name}: nothing is {planned.of}"))
    if plan.waits.parked:
        parts.append(plain(f"{counted(plan.waits.parked, 'change')} more {_is(plan.waits.parked)} parked, and left out"))
    parts += [plain(line) for line in [*plan.guard, *plan.notes]]
    parts.append(plain("nothing was sent, and nothing written"))
    return Group(*(Padding(part, (0, 0, 1, 0)) if isinstance(part, Table) else part for part in parts))


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _numbers(planned: Planned, push: Push, now: datetime) -> Table:
    tally, expected = planned.tally, planned.forecast
    title = f"{push.name}: {counted(tally.changes, 'change')} {planned.of if ' ' not in planned.of else 'of ' + planned.of}"
    table = Table(title=title, title_justify="left", show_header=False)
    for justify in ("left", "right", "left"):
        table.add_column(justify=justify)
    table.add_row("create a lead", f"{tally.created:,}", "")
    table.add_row("update a lead", f"{tally.updated:,}", "")
    if tally.unknown:
        table.add_row("of leads", f"{tally.unknown:,}", f"of which the mirror knows nothing by {push.lookup_field}")
    table.add_row("superseded", f"{tally.superseded:,}", "by newer changes of their keys")
    riding = tally.carried - tally.rows
    if riding:
        table.add_row("ride along", f"{riding:,}", "in a row with others of their keys")
    for name, reasons in (("noop", tally.noop), ("rejected", tally.rejected), ("parked", tally.parked)):
        for first, (count, reason) in enumerate(_most(reasons)):
            table.add_row(name if not first else "", f"{count:,}", plain(reason))
        if not reasons:
            table.add_row(name, "0", "")
    files = f"{_size(tally.file_bytes)}, {_range(*expected.import_calls, 'call')}, {counted(expected.slots, 'slot')} of the queue at a time"
    table.add_row("files", _numbers_of(*expected.files), files)
    table.add_row("calls of Sync Leads", _numbers_of(*expected.sync_calls), _size(tally.sync_bytes))
    soonest, latest = expected.time
    table.add_row("time", f"{_time(soonest)} to {_time(latest)}", f"until {moment(now + latest)} at the latest; {expected.basis}")
    return table


def _most(reasons: Counter[str]) -> Iterator[tuple[int, str]]:
    often = reasons.most_common()
    yield from ((count, reason) for reason, count in often[:REASONS])
    if len(often) > REASONS:
        yield sum(count for _, count in often[REASONS:]), f"for {len(often) - REASONS} more reasons"


def _rows(planned: Planned) -> Table:
    table = Table(title=f"{len(planned.sample)} of the {planned.tally.rows:,} rows", title_justify="left")
    for heading in ("changes", "key", "lead", "by", "old → new"):
        table.add_column(heading)
    for row in planned.sample:
        old = planned.olds.get(row.key)
        lead = str(old.lead_id) if old else {"created": "new", "updated": NOTHING, "unknown": "?"}[row.fate]
        values = [f"{name}: {_value(old.values.get(name) if old else None)} → {_value(new)}" for name, new in row.cells.items()]
        ids = ", ".join(map(str, row.change_ids[:5])) + (", …" if len(row.change_ids) > 5 else "")
        table.add_row(ids, plain(row.key), lead, "a file" if row.by == "file" else "Sync Leads", plain("; ".join(values)))
    return table


def _value(value: str | None) -> str:
    text = value or NOTHING
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _numbers_of(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _range(least: int, most: int, thing: str) -> str:
    return counted(most, thing) if least == most else f"{least:,} to {counted(most, thing)}"


def _size(size: int) -> str:
    return megabytes(size) if size >= 100_000 else counted(size, "byte")


def _time(length: timedelta) -> str:
    return span(timedelta(seconds=round(length.total_seconds())))
