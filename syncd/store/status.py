"""What `syncd status` and the status page show: one snapshot of the database."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from syncd.core.quota import day_began, quota_day
from syncd.core.settings import Limits
from syncd.store import attaching, export_figures, holding, jobs, pauses, pull_status, verifying
from syncd.store.attaching import Attached
from syncd.store.holding import Hold
from syncd.store.jobs import JobStatus
from syncd.store.leases import Pool
from syncd.store.pauses import Pause
from syncd.store.pull_status import PullStatus
from syncd.store.usage import ApiUser, Ledger, users_of


@dataclass(frozen=True, slots=True)
class PushStatus:
    """`paused` and `paused_until` as of a pull; `table` is what it follows by triggers."""

    name: str
    state: str
    message: str | None
    live: dict[str, int]
    settled: dict[str, int]
    oldest_pending_at: datetime | None
    paused: bool = False
    paused_until: datetime | None = None
    table: Attached | None = None


@dataclass(frozen=True, slots=True)
class ExportStatus:
    """An export of which something is still to come; `records` and `bytes` are None until Marketo has completed it."""

    id: int
    pull: str
    part: int
    parts: int
    state: str
    export_id: str | None
    records: int | None
    bytes: int | None
    begun_at: datetime
    message: str | None


@dataclass(frozen=True, slots=True)
class BytesStatus:
    """Of the extracts of the quota day: completed, and expected of those under way. `allowed`, and so what is `left` when all have
    come, are None where the caller's settings don't tell."""

    completed: int
    under_way: int
    allowed: int | None
    left: int | None


@dataclass(frozen=True, slots=True)
class CensusStatus:
    """The last one that ended, else the one under way."""

    started_at: datetime
    finished_at: datetime | None
    leads: int
    missing: int
    surplus: int
    message: str | None


@dataclass(frozen=True, slots=True)
class VerificationStatus:
    """The last one that ended, else the one under way. `causes` says in how many fields of leads what was found."""

    asked_at: datetime
    finished_at: datetime | None
    leads: int
    drifted: int
    message: str | None
    causes: dict[str, int]


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    name: str
    holder: str | None
    silent_for: float | None
    leads: int | None  # None while they are being counted
    calls_today: dict[str, int]  # charged, which is ahead of what was made
    api_users: list[ApiUser]
    extract_bytes: BytesStatus
    census: CensusStatus | None
    verification: VerificationStatus | None
    pulls: list[PullStatus]
    exports: list[ExportStatus]
    pushes: list[PushStatus]
    live_jobs: list[JobStatus]
    pauses: list[Pause]
    holds: list[Hold] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Counts:
    """What takes a walk through all leads, and through all that has ended: changes by push and state."""

    leads: int | None
    settled: Mapping[str, Mapping[str, int]]


UNCOUNTED = Counts(None, {})
"""While they are being counted."""

INSTANCES = "SELECT instance FROM syncd.lease UNION SELECT DISTINCT instance FROM syncd.outbox ORDER BY 1"
LEASE = """
SELECT format('pid %s on %s', pid, host) AS holder, extract(epoch FROM clock_timestamp() - heartbeat_at)::float8 AS silent_for
  FROM syncd.lease WHERE instance = $1
"""
LEADS = "SELECT count(*) FROM syncd.lead WHERE instance = $1 AND deleted_at IS NULL"
PUSHES = """
SELECT coalesce(p.push, o.push) AS name, coalesce(p.state, 'not in the configuration') AS state, p.message
  FROM (SELECT * FROM syncd.push WHERE instance = $1) p
  FULL JOIN (SELECT DISTINCT push FROM syncd.outbox WHERE instance = $1) o USING (push) ORDER BY 1
"""
LIVE = """
SELECT push, state, count(*) AS changes, min(created_at) FILTER (WHERE state = 'pending') AS oldest_pending_at
  FROM syncd.outbox WHERE instance = $1 GROUP BY push, state
"""
SETTLED = "SELECT push, state, count(*) AS changes FROM syncd.change_history WHERE instance = $1 GROUP BY push, state"
EXPORTS = """
SELECT id, pull, part, parts, state, export_id, records, bytes, begun_at, message
  FROM syncd.export
 WHERE instance = $1 AND state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed') ORDER BY id
"""
CENSUS = """
SELECT started_at, finished_at, leads, missing, surplus, message FROM syncd.census
 WHERE instance = $1 ORDER BY finished_at IS NULL, id DESC LIMIT 1
"""


async def read(
    pool: Pool, now: datetime, limits: Mapping[str, Limits] | None = None, counts: Mapping[str, Counts] | None = None
) -> list[InstanceStatus]:
    """All instances that a daemon has ever worked for, or that changes wait for. `limits` are the YAML's, by instance.

    `counts` are those of a moment before, for who reads often; what is not in it is counted.
    """
    names = [row["instance"] for row in await pool.fetch(INSTANCES)]
    return [await _instance(pool, name, now, (limits or {}).get(name), (counts or {}).get(name)) for name in names]


async def uncounted(pool: Pool) -> dict[str, Counts]:
    """For who does not wait until all instances are counted."""
    return {row["instance"]: UNCOUNTED for row in await pool.fetch(INSTANCES)}


async def count(pool: Pool, instance: str) -> Counts:
    """Count what takes long where there is much of it."""
    settled: dict[str, dict[str, int]] = {}
    for row in await pool.fetch(SETTLED, instance):
        settled.setdefault(row["push"], {})[row["state"]] = row["changes"]
    return Counts(await pool.fetchval(LEADS, instance), settled)


async def count_all(pool: Pool) -> dict[str, Counts]:
    """The same of all instances."""
    return {row["instance"]: await count(pool, row["instance"]) for row in await pool.fetch(INSTANCES)}


def as_json(snapshot: list[InstanceStatus]) -> dict[str, Any]:
    """The snapshot as plain values, times as they are; without the API users, whose ids are addresses."""
    return {"instances": [{key: value for key, value in asdict(instance).items() if key != "api_users"} for instance in snapshot]}


async def _instance(pool: Pool, instance: str, now: datetime, limits: Limits | None, counts: Counts | None) -> InstanceStatus:
    counts = counts or await count(pool, instance)
    lease = await pool.fetchrow(LEASE, instance)
    census = await pool.fetchrow(CENSUS, instance)
    held = await pauses.read(pool, instance)
    return InstanceStatus(
        name=instance,
        holder=lease["holder"] if lease else None,
        silent_for=lease["silent_for"] if lease else None,
        leads=counts.leads,
        calls_today=await Ledger(instance, pool).calls_of(quota_day(now)),
        api_users=await users_of(pool, instance, quota_day(now)),
        extract_bytes=await _extract_bytes(pool, instance, now, limits),
        census=CensusStatus(**census) if census else None,
        verification=await _verification(pool, instance),
        pulls=await pull_status.read(pool, instance, held),
        exports=[ExportStatus(**row) for row in await pool.fetch(EXPORTS, instance)],
        pushes=await _pushes(pool, instance, held, counts),
        live_jobs=await jobs.live(pool, instance),
        pauses=held,
        holds=await holding.holds(pool, instance),
    )


async def _verification(pool: Pool, instance: str) -> VerificationStatus | None:
    found = await verifying.last(pool, instance) or await verifying.under_way(pool, instance)
    if found is None:
        return None
    causes: dict[str, int] = {}
    for each in await verifying.drift(pool, found.id):
        causes[each.cause] = causes.get(each.cause, 0) + each.leads
    return VerificationStatus(found.asked_at, found.finished_at, found.leads, found.drifted, found.message, causes)


async def _extract_bytes(pool: Pool, instance: str, now: datetime, limits: Limits | None) -> BytesStatus:
    completed, under_way = await export_figures.spent(pool, instance, day_began(now)), await export_figures.promised(pool, instance)
    allowed = limits.export_daily_bytes if limits else None
    return BytesStatus(completed, under_way, allowed, None if allowed is None else max(0, allowed - completed - under_way))


async def _pushes(pool: Pool, instance: str, held: Sequence[Pause], counts: Counts) -> list[PushStatus]:
    live = await pool.fetch(LIVE, instance)
    tables = await attaching.attachments(pool, instance)
    return [
        PushStatus(
            name=push["name"],
            state=push["state"],
            message=push["message"],
            live={row["state"]: row["changes"] for row in live if row["push"] == push["name"]},
            settled=dict(counts.settled.get(push["name"], {})),
            oldest_pending_at=min(
                (row["oldest_pending_at"] for row in live if row["push"] == push["name"] and row["oldest_pending_at"]), default=None
            ),
            paused=bool(over := pauses.over(held, "out", push["name"])),
            paused_until=pauses.until(over),
            table=tables.get(push["name"]),
        )
        for push in await pool.fetch(PUSHES, instance)
    ]
