"""How pulls stand: up to when their leads have come and by which way, what is left, and the backfills under way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from syncd.store import pauses, pulls
from syncd.store.leases import Pool
from syncd.store.pauses import Pause

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


async def read(pool: Pool, instance: str, held: Sequence[Pause], name: str | None = None) -> list[PullStatus]:
    """How all pulls of the instance stand, or the one; `held` are the instance's pauses."""
    first: dict[str, BackfillStatus] = {}
    for each, found in await _backfills(pool, instance, name):
        first.setdefault(each, found)
    rows = await pool.fetch(PULLS, instance, name)
    return [_pull(row, first.get(row["name"]), pauses.over(held, "in", row["name"])) for row in rows]


async def one(pool: Pool, instance: str, name: str) -> PullStatus | None:
    """How one pull stands; None when no daemon has registered it."""
    return next(iter(await read(pool, instance, await pauses.read(pool, instance), name)), None)


async def unfinished_backfills(pool: Pool, instance: str, name: str) -> list[BackfillStatus]:
    """The backfills of a pull that are planned or wait to be, in the order in which they are walked."""
    return [found for _, found in await _backfills(pool, instance, name)]


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


async def _backfills(pool: Pool, instance: str, name: str | None) -> list[tuple[str, BackfillStatus]]:
    rows = await pool.fetch(BACKFILLS, instance, name)
    return [(row["pull"], BackfillStatus(row["id"], row["since"], row["planned_at"], row["windows"], row["done"])) for row in rows]
