"""What the status page shows beside `syncd status`: windows over time, slots, imports that ended, failures by reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from syncd.core.expect import LOOKS_BACK, queue_ends, walk_end
from syncd.core.gauges import SLOTS, Strangers
from syncd.core.polling import median
from syncd.core.settings import Instance
from syncd.store import batches, deadletters, imports, jobs, slots, status
from syncd.store.batches import Synced
from syncd.store.deadletters import Selection, Summary
from syncd.store.jobs import JobStatus
from syncd.store.leases import Pool
from syncd.store.pull_status import PullStatus
from syncd.store.status import Counts, InstanceStatus

RECENT = timedelta(hours=24)
RECENT_JOBS = 20
STRETCHES = 200  # windows of a pull that its bar shows

# The latest windows, in the order of the time that they span; a list's and keys' span none.
WINDOWS = """
SELECT pull, state, starts_at, ends_at
  FROM (SELECT w.pull, w.state, w.starts_at, w.ends_at, row_number() OVER (PARTITION BY w.pull ORDER BY w.starts_at DESC, w.id DESC) AS nth
          FROM syncd.pull_window w
         WHERE w.instance = $1 AND w.starts_at IS NOT NULL AND w.backfill_id IS NULL AND w.state IN ('open', 'blocked', 'done')) w
 WHERE nth <= $2 ORDER BY pull, starts_at, ends_at
"""
PACE = """
SELECT pull, count(*) AS windows, sum(leads)::bigint AS leads, min(least(planned_at, finished_at)) AS since
  FROM syncd.pull_window
 WHERE instance = $1 AND state = 'done' AND finished_at >= $2 AND finished_at <= $3 GROUP BY pull
"""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Windows of one state that follow each other."""

    state: str
    starts_at: datetime
    ends_at: datetime
    windows: int


@dataclass(frozen=True, slots=True)
class Slot:
    """One of Marketo's: `owner` is ours, others or nobody. Who the others are, and what they do, nothing tells."""

    owner: str
    state: str
    job: int | None = None
    push: str | None = None
    rows: int | None = None
    since: datetime | None = None
    expected_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """Calls of the quota day. `others` is None as long as Marketo has not told who spent what."""

    rest: int
    soap: int
    others: int | None
    daily_calls: int | None
    subscription_calls: int | None


@dataclass(frozen=True, slots=True)
class InstanceBoard:
    """One instance. `windows` and `expected_ends` are by pull; `configured` says whether the YAML has it."""

    status: InstanceStatus
    windows: Mapping[str, Sequence[Stretch]]
    expected_ends: Mapping[str, datetime]
    slots: Sequence[Slot]
    strangers: Strangers | None
    recent_jobs: Sequence[JobStatus]
    synced: Synced
    failures: Summary
    quota: Quota
    configured: bool = True


async def read(pool: Pool, instances: Mapping[str, Instance], now: datetime, counts: Mapping[str, Counts]) -> list[InstanceBoard]:
    """All instances of the database. `instances` are the YAML's."""
    limits = {name: instance.limits for name, instance in instances.items()}
    return [await _board(pool, each, instances.get(each.name), now) for each in await status.read(pool, now, limits, counts)]


def as_json(boards: Sequence[InstanceBoard], as_of: datetime) -> dict[str, Any]:
    """The same as plain values: what `syncd status --json` tells of each instance, and the rest beside it."""
    plain = status.as_json([board.status for board in boards])["instances"]
    for each, board in zip(plain, boards, strict=True):
        each.update({name: value for name, value in asdict(board).items() if name != "status"})
    return {"as_of": as_of, "instances": plain}


async def _board(pool: Pool, found: InstanceStatus, settings: Instance | None, now: datetime) -> InstanceBoard:
    name = found.name
    strangers = await slots.others(pool, name, now)
    async with pool.acquire() as connection:
        failures = await deadletters.summary(connection, name, Selection())
    return InstanceBoard(
        status=found,
        windows=await _windows(pool, name),
        expected_ends=await _expected_ends(pool, found, now),
        slots=await _slots(pool, found, settings, strangers, now),
        strangers=strangers,
        recent_jobs=(await jobs.ended(pool, name, now - RECENT, False, RECENT_JOBS))[::-1],
        synced=await batches.answered(pool, name, now - RECENT),
        failures=failures,
        quota=_quota(found, settings),
        configured=settings is not None,
    )


async def _windows(pool: Pool, instance: str) -> dict[str, list[Stretch]]:
    rows = await pool.fetch(WINDOWS, instance, STRETCHES)
    return {
        pull: _stretches((row["state"], row["starts_at"], row["ends_at"]) for row in of) for pull, of in groupby(rows, lambda r: r["pull"])
    }


def _stretches(windows: Iterable[tuple[str, datetime, datetime]]) -> list[Stretch]:
    """Neighbours of one state as one, however they overlap."""
    found: list[Stretch] = []
    for state, starts_at, ends_at in windows:
        if found and found[-1].state == state:
            last = found.pop()
            found.append(Stretch(state, last.starts_at, max(last.ends_at, ends_at), last.windows + 1))
        else:
            found.append(Stretch(state, starts_at, ends_at, 1))
    return found


async def _expected_ends(pool: Pool, found: InstanceStatus, now: datetime) -> dict[str, datetime]:
    """When each pull that is behind will have caught up, by what it did in the last hour."""
    pace = {row["pull"]: row for row in await pool.fetch(PACE, found.name, now - LOOKS_BACK, now)}
    ends: dict[str, datetime] = {}
    for pull in found.pulls:
        row = pace.get(pull.name)
        if row is not None and (end := _end(pull, row["windows"], row["leads"], now - max(row["since"], now - LOOKS_BACK), now)):
            ends[pull.name] = end
    return ends


def _end(pull: PullStatus, windows: int, leads: int, took: timedelta, now: datetime) -> datetime | None:
    if pull.state != "running":
        return None
    return walk_end(now, pull.leads_left, leads, took) or walk_end(now, pull.open_windows, windows, took)


async def _slots(pool: Pool, found: InstanceStatus, settings: Instance | None, strangers: Strangers | None, now: datetime) -> list[Slot]:
    """All ten, ours in the order of the queue first."""
    running = settings.limits.import_running if settings is not None else 2
    ours = [job for job in found.live_jobs if job.state in ("submitting", "queued", "importing", "unconfirmed")]
    typical = median(await imports.recent_runs(pool, found.name, running))
    ends = queue_ends([job.started_at for job in ours], typical, running, now)
    board = [Slot("ours", job.state, job.id, job.push, job.row_count, job.submitted_at, end) for job, end in zip(ours, ends, strict=True)]
    board += [Slot("others", "taken")] * (strangers.slots if strangers is not None else 0)
    return [*board[:SLOTS], *[Slot("nobody", "free")] * (SLOTS - len(board))]


def _quota(found: InstanceStatus, settings: Instance | None) -> Quota:
    rest, limits = found.calls_today.get("rest", 0), settings.limits if settings is not None else None
    total = sum(user.calls for user in found.api_users)
    return Quota(
        rest=rest,
        soap=found.calls_today.get("soap", 0),
        others=max(0, total - rest) if found.api_users else None,
        daily_calls=limits.daily_calls if limits else None,
        subscription_calls=limits.subscription_calls if limits else None,
    )
