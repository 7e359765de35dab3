"""What gauges show of the database, in queries that may be asked again and again; of these, LIVE walks through the whole outbox."""

from datetime import datetime

from syncd.core.gauges import Gauges
from syncd.core.quota import quota_day
from syncd.store import slots
from syncd.store.leases import Pool
from syncd.store.usage import Ledger

# The watermark is the one of `syncd status` (store/pull_status.py).
PULLS = """
SELECT p.pull, p.state, w.open_windows, w.blocked_windows,
       CASE WHEN p.follows = 'activities' AND p.source IS DISTINCT FROM 'soap'
            THEN least(coalesce(w.first_open, p.planned_until), o.due_since)
            ELSE coalesce(w.first_open, p.planned_until) END AS watermark
  FROM syncd.pull p
 CROSS JOIN LATERAL (
       SELECT min(starts_at) FILTER (WHERE backfill_id IS NULL) AS first_open, count(*) FILTER (WHERE state = 'open') AS open_windows,
              count(*) FILTER (WHERE state = 'blocked') AS blocked_windows
         FROM syncd.pull_window w WHERE w.instance = p.instance AND w.pull = p.pull AND w.state IN ('open', 'blocked')) w
  LEFT JOIN LATERAL (
       SELECT d.noted_at AS due_since FROM syncd.lead_due d
        WHERE d.instance = p.instance AND d.pull = p.pull ORDER BY d.noted_at, d.lead_id LIMIT 1) o ON true
 WHERE p.instance = $1 AND p.configured AND p.pull NOT LIKE '#%'
"""
PUSHES = "SELECT push, state FROM syncd.push WHERE instance = $1"
LIVE = """
SELECT push, state, count(*) AS changes, min(created_at) FILTER (WHERE state = 'pending') AS oldest_pending_at
  FROM syncd.outbox WHERE instance = $1 GROUP BY push, state
"""
FAILURES = """
SELECT push, state, count(*) AS changes FROM syncd.change_history
 WHERE instance = $1 AND state IN ('rejected', 'unverified') AND retried_at IS NULL GROUP BY push, state
"""
LOST = """
SELECT a.push, coalesce(sum(f.changes) FILTER (WHERE f.code NOT IN ('no_key', 'long_key')), 0)::bigint AS changes
  FROM syncd.attachment a LEFT JOIN syncd.attach_fault f ON f.instance = a.instance AND f.push = a.push
 WHERE a.instance = $1 GROUP BY a.push
"""


async def read(pool: Pool, instance: str, now: datetime) -> Gauges:
    """As of `now`."""
    pulls, live = await pool.fetch(PULLS, instance), await pool.fetch(LIVE, instance)
    others = await slots.others(pool, instance, now)
    return Gauges(
        pulls={row["pull"]: row["state"] for row in pulls},
        watermarks={row["pull"]: row["watermark"] for row in pulls if row["watermark"] is not None},
        windows={(row["pull"], state): row[f"{state}_windows"] for row in pulls for state in ("open", "blocked")},
        pushes={row["push"]: row["state"] for row in await pool.fetch(PUSHES, instance)},
        live={(row["push"], row["state"]): row["changes"] for row in live},
        oldest_pending={row["push"]: row["oldest_pending_at"] for row in live if row["oldest_pending_at"] is not None},
        failures={(row["push"], row["state"]): row["changes"] for row in await pool.fetch(FAILURES, instance)},
        lost={row["push"]: row["changes"] for row in await pool.fetch(LOST, instance)},
        slots=await slots.ours(pool, instance),
        strangers=others.slots if others is not None else 0,
        calls=await Ledger(instance, pool).calls_of(quota_day(now)),
    )
