"""What `syncd status` and the status page show: one snapshot of the database."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from syncd.core.quota import day_began, quota_day
from syncd.core.settings import Limits
from syncd.store import attaching, exports, holding, jobs, pauses, pulls, verifying
from syncd.store.attaching import Attached
from syncd.store.holding import Hold
from syncd.store.jobs import JobStatus
from syncd.store.leases import Pool
from syncd.store.pauses import Pause
from syncd.store.usage import ApiUser, Ledger, users_of


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """One that is not finished; without windows as long as the daemon has not planned it."""

    id: int
    since: datetime | None
    planned_at: datetime | None
    windows: int
    done: int


@dataclass(frozen=True, slots=True)
class PullStatus:
    """`watermark` is None for a list or keys before their first complete walk. The windows are those of the news; `leads_dropped`
    are those that its `where` did not let in, of all windows that are still on record. `route` says in words how its leads come,
    None as long as that is not chosen; `leads_due` are to be read by their ids. `paused`: by an operator, who also may have paused one
    that is blocked; `paused_until` is None where that does not end by itself."""

    name: str
    state: str
    message: str | None
    watermark: datetime | None
    open_windows: int
    done_windows: int
    leads_walked: int
    leads_left: int
    leads_dropped: int = 0
    backfill: BackfillStatus | None = None
    source: str | None = None
    route: str | None = None
    reason: str | None = None
    leads_due: int = 0
    due_since: datetime | None = None
    paused: bool = False
    paused_until: datetime | None = None


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
# The leads of a pull that follows the activity log have come up to where the log was read, or since when one is due.
PULLS = """
SELECT p.pull AS name, CASE WHEN p.configured THEN p.state ELSE 'not in the configuration' END AS state, p.message,
       CASE WHEN p.follows = 'activities' AND p.source IS DISTINCT FROM 'soap'
            THEN least(coalesce(w.first_open, p.planned_until), o.due_since)
            ELSE coalesce(w.first_open, p.planned_until) END AS watermark,
       coalesce(w.open_windows, 0) AS open_windows, coalesce(w.done_windows, 0) AS done_windows,
       coalesce(w.leads_walked, 0)::bigint AS leads_walked, coalesce(w.leads_left, 0)::bigint AS leads_left,
       coalesce(w.leads_dropped, 0)::bigint AS leads_dropped, n.leads_due, o.due_since,
       p.source, p.selector, p.by_creation, p.ids_only, p.follows, p.routed_at IS NOT NULL AS routed, p.route_reason
  FROM syncd.pull p
  LEFT JOIN LATERAL (
       SELECT min(starts_at) FILTER (WHERE backfill_id IS NULL AND state IN ('open', 'blocked')) AS first_open,
              count(*) FILTER (WHERE backfill_id IS NULL AND state IN ('open', 'blocked')) AS open_windows,
              count(*) FILTER (WHERE backfill_id IS NULL AND state = 'done') AS done_windows,
              sum(leads) FILTER (WHERE backfill_id IS NULL) AS leads_walked,
              sum(greatest(expected - leads, 0)) FILTER (WHERE backfill_id IS NULL AND state = 'open') AS leads_left,
              sum(dropped) AS leads_dropped
         FROM syncd.pull_window w WHERE w.instance = p.instance AND w.pull = p.pull) w ON true
  LEFT JOIN LATERAL (SELECT count(*) AS leads_due FROM syncd.lead_due d WHERE d.instance = p.instance AND d.pull = p.pull) n ON true
  LEFT JOIN LATERAL (
       SELECT d.noted_at AS due_since FROM syncd.lead_due d
        WHERE d.instance = p.instance AND d.pull = p.pull ORDER BY d.noted_at, d.lead_id LIMIT 1) o ON true
 WHERE p.instance = $1 AND p.pull <> '#census' AND ($2::text IS NULL OR p.pull = $2) ORDER BY p.pull
"""
BACKFILLS = """
SELECT b.pull, b.id, b.since, b.planned_at, w.windows, w.done
  FROM syncd.backfill b
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE state <> 'split') AS windows, count(*) FILTER (WHERE state IN ('done', 'abandoned')) AS done
         FROM syncd.pull_window w WHERE w.backfill_id = b.id) w
 WHERE b.instance = $1 AND ($2::text IS NULL OR b.pull = $2) AND b.finished_at IS NULL ORDER BY b.id
"""
ABANDONED = "SELECT EXISTS (SELECT FROM syncd.pull_window WHERE backfill_id = $1 AND state = 'abandoned')"
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
        pulls=await _pulls(pool, instance, held),
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


async def pull(pool: Pool, instance: str, name: str) -> PullStatus | None:
    """How one pull stands; None when no daemon has registered it."""
    return next(iter(await _pulls(pool, instance, await pauses.read(pool, instance), name)), None)


async def unfinished_backfills(pool: Pool, instance: str, name: str) -> list[BackfillStatus]:
    """The backfills of a pull that are planned or wait to be, in the order in which they are walked."""
    return [found for _, found in await _backfills(pool, instance, name)]


async def was_abandoned(pool: Pool, backfill: int) -> bool:
    """Whether windows of a backfill were left unwalked, as the pull had come to ask for something else."""
    return await pool.fetchval(ABANDONED, backfill)  # type: ignore[no-any-return]


async def _pulls(pool: Pool, instance: str, held: Sequence[Pause], name: str | None = None) -> list[PullStatus]:
    first: dict[str, BackfillStatus] = {}
    for each, found in await _backfills(pool, instance, name):
        first.setdefault(each, found)
    rows = await pool.fetch(PULLS, instance, name)
    return [_pull(row, first.get(row["name"]), pauses.over(held, "in", row["name"])) for row in rows]


def _pull(row: asyncpg.Record, backfill: BackfillStatus | None, over: Sequence[Pause]) -> PullStatus:
    shown = dict(row)
    chosen = {key: shown.pop(key) for key in ("selector", "by_creation", "ids_only", "follows", "routed", "route_reason")}
    reason = chosen["route_reason"] if chosen["routed"] else None
    return PullStatus(
        **shown,
        backfill=backfill,
        route=_route(row["source"], chosen),
        reason=reason,
        paused=bool(over),
        paused_until=pauses.until(over),
    )


def _route(source: str | None, chosen: Mapping[str, Any]) -> str | None:
    """How the leads of a pull come, for people."""
    if source == "soap":
        return "pages of getMultipleLeads"
    if not chosen["routed"]:
        return None
    if source == "activities":
        return "the activity log"
    if pulls.kind_of(chosen["selector"]) != "updated_since":
        return "an extract of the list at each walk"
    way = f"extracts by {'createdAt' if chosen['by_creation'] else 'updatedAt'}"
    way += " of ids, whose leads are read by them" if chosen["ids_only"] else ""
    return f"{way}, then the activity log" if chosen["follows"] == "activities" else way


async def _extract_bytes(pool: Pool, instance: str, now: datetime, limits: Limits | None) -> BytesStatus:
    completed, under_way = await exports.spent(pool, instance, day_began(now)), await exports.promised(pool, instance)
    allowed = limits.export_daily_bytes if limits else None
    return BytesStatus(completed, under_way, allowed, None if allowed is None else max(0, allowed - completed - under_way))


async def _backfills(pool: Pool, instance: str, name: str | None) -> list[tuple[str, BackfillStatus]]:
    rows = await pool.fetch(BACKFILLS, instance, name)
    return [(row["pull"], BackfillStatus(row["id"], row["since"], row["planned_at"], row["windows"], row["done"])) for row in rows]


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
