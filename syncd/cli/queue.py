"""`syncd jobs`: Marketo's import queue, as far as it is ours."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from syncd.cli.opening import open_pool
from syncd.cli.render import coloured, plain, table_with
from syncd.core.settings import Instance, Settings
from syncd.core.states import IN_QUEUE
from syncd.core.words import counted, moment, span
from syncd.store import batches, jobs
from syncd.store.batches import Batch, Synced
from syncd.store.jobs import JobStatus

KEPT_FOR = timedelta(days=7)
"""How long Marketo knows a batch (protocol 4)."""
LATEST = 10
CALLS = {"open": "gathering", "submitting": "under way", "unconfirmed": "without an answer"}
LATELY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Queue:
    """Of one instance. The slots are ours: what others have in Marketo's queue can't be seen. `answered` are calls of the last day."""

    name: str
    slots_used: int
    slots_allowed: int
    importing: int
    chunks_waiting: int
    live: Sequence[JobStatus]
    ended: Sequence[JobStatus]
    batches: Sequence[Batch]
    answered: Synced


async def read(settings: Settings, instances: Sequence[Instance], everything: bool, now: datetime) -> list[Queue]:
    """The queues as of `now`; of the jobs that ended the latest, or `everything` of a week. Raises DatabaseUnavailable, SchemaMismatch."""
    async with open_pool(settings.database, "syncd jobs") as pool:
        queues = []
        for instance in instances:
            live = await jobs.live(pool, instance.name)
            ended = await jobs.ended(pool, instance.name, now - KEPT_FOR, everything, None if everything else LATEST)
            used = sum(job.state in IN_QUEUE for job in live)
            importing = sum(job.state == "importing" for job in live)
            waiting = await jobs.chunks_waiting(pool, instance.name)
            under_way, answered = await batches.live(pool, instance.name), await batches.answered(pool, instance.name, now - LATELY)
            slots = instance.limits.import_slots
            queues.append(Queue(instance.name, used, slots, importing, waiting, live, ended, under_way, answered))
        return queues


def as_json(queues: Sequence[Queue]) -> dict[str, Any]:
    """As plain values, times as they are."""
    return {"instances": [asdict(queue) for queue in queues]}


def shown(queue: Queue, now: datetime) -> RenderableType:
    """One instance's queue as tables."""
    facts = table_with("", "", title=queue.name, header=False)
    facts.add_row("slots", f"{queue.slots_used} of at most {queue.slots_allowed} taken, {queue.importing} importing; others' can't be seen")
    facts.add_row("chunks that wait for a slot", f"{queue.chunks_waiting:,}")
    facts.add_row("calls of Sync Leads", _batches(queue))
    parts: list[RenderableType] = [facts]
    parts.append(_live(queue.live, now) if queue.live else Text("no import is under way"))
    if queue.ended:
        parts.append(_ended(queue.ended, now))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _batches(queue: Queue) -> str:
    by_state: dict[str, list[int]] = {}
    for batch in queue.batches:
        by_state.setdefault(batch.state, []).append(batch.row_count)
    told = [f"{len(rows):,} {CALLS[state]} ({counted(sum(rows), 'lead')})" for state, rows in by_state.items()]
    lately = queue.answered
    ends = {"applied": lately.applied, "rejected": lately.rejected, "unverified": lately.unverified, "sent again": lately.retried}
    told.append(f"{lately.calls:,} answered in 24 h: {', '.join(f'{count:,} {end}' for end, count in ends.items())}")
    return "; ".join(told)


def _live(found: Sequence[JobStatus], now: datetime) -> Table:
    table = table_with("job", "push", "chunk", "batch", "state", "rows", "bytes", "age", "looks", "last look", "message")
    for job in found:
        table.add_row(
            *_names(job),
            f"{job.row_count:,}",
            f"{job.byte_count:,}",
            span(now - job.submitted_at),
            f"{job.polls:,}",
            f"{span(now - job.looked_at)} ago" if job.looked_at else "",
            plain(job.message or ""),
        )
    return table


def _ended(found: Sequence[JobStatus], now: datetime) -> Table:
    table = table_with(
        "job", "push", "chunk", "batch", "ended", "rows", "imported", "failed", "warnings", "unverified", "again", "submitted", "message"
    )
    for job in found:
        table.add_row(
            *_names(job),
            f"{job.row_count:,}",
            *(f"{count:,}" for count in (job.applied + job.warned, job.rejected, job.warned, job.unverified, job.retried)),
            moment(job.submitted_at),
            plain(job.message or ""),
        )
    return table


def _names(job: JobStatus) -> tuple[str, Text, str, str, Text]:
    return str(job.id), plain(job.push), str(job.chunk_id), str(job.batch_id or ""), coloured(job.state)
