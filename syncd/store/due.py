"""Leads that are to be read by their ids, each once for a pull however often it was noted meanwhile."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from syncd.store import forgetting
from syncd.store.leases import Connection, Pool

Reason = Literal["changed", "winner", "overtaken", "listed", "census"]
"""The first three are news, which are read first; the others belong to a fill, which may take hours."""

# Sorted, because unsorted batches on two connections deadlock. The later note counts, be its clock behind the other's; but news stay
# news, whatever lists them too.
NOTE = """
INSERT INTO syncd.lead_due AS d (instance, pull, lead_id, reason, noted_at, window_id)
SELECT $1, $2, p.lead_id, $4, $5, $6 FROM (SELECT DISTINCT unnest($3::bigint[]) AS lead_id ORDER BY 1) p
ON CONFLICT (instance, pull, lead_id) DO UPDATE
   SET noted_at = excluded.noted_at, window_id = coalesce(d.window_id, excluded.window_id),
       reason = CASE WHEN excluded.reason IN ('listed', 'census') THEN d.reason ELSE excluded.reason END
"""
NOTE_HELD = """
INSERT INTO syncd.lead_due AS d (instance, pull, lead_id, reason, noted_at)
SELECT $1, $2, l.lead_id, $3, $4
  FROM syncd.lead l WHERE l.instance = $1 AND l.deleted_at IS NULL AND l.digests ? $2 ORDER BY l.lead_id
ON CONFLICT (instance, pull, lead_id) DO UPDATE
   SET noted_at = excluded.noted_at,
       reason = CASE WHEN excluded.reason IN ('listed', 'census') THEN d.reason ELSE excluded.reason END
"""
# A winner has been updated: it has left the windows of a fill that is under way, and the log tells of its values only what has changed.
NOTE_WINNERS = """
INSERT INTO syncd.lead_due AS d (instance, pull, lead_id, reason, noted_at)
SELECT DISTINCT $1, p.pull, w.winner, 'winner', $5::timestamptz
  FROM unnest($3::bigint[], $4::bigint[]) AS w (winner, lead_id)
 CROSS JOIN (SELECT n.pull, f.follows IS NOT DISTINCT FROM 'activities' AS follows_the_log
               FROM unnest($2::text[]) AS n (pull) LEFT JOIN syncd.pull f ON f.instance = $1 AND f.pull = n.pull) p
  LEFT JOIN LATERAL (SELECT digests FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = w.lead_id LIMIT 1) l ON true
 WHERE l.digests ? p.pull OR p.follows_the_log ORDER BY 2, 3
ON CONFLICT (instance, pull, lead_id) DO UPDATE SET noted_at = excluded.noted_at, reason = excluded.reason
"""
TAKE = """
(SELECT lead_id, noted_at FROM syncd.lead_due
  WHERE instance = $1 AND pull = $2 AND reason IN ('changed', 'winner', 'overtaken') AND lead_id <> ALL ($3::bigint[])
  ORDER BY noted_at, lead_id LIMIT $4)
UNION ALL
(SELECT lead_id, noted_at FROM syncd.lead_due
  WHERE instance = $1 AND pull = $2 AND reason NOT IN ('changed', 'winner', 'overtaken') AND lead_id <> ALL ($3::bigint[])
  ORDER BY noted_at, lead_id LIMIT $4)
LIMIT $4
"""
# What is as it was taken had been noted before it was asked for, be its clock ahead of the request's. The LIMIT makes each lead a probe of
# the primary key, as in leads.UPSERT; one that is noted anew meanwhile is another row version, and stays.
READ = """
WITH read AS (
    DELETE FROM syncd.lead_due d
     USING unnest($3::bigint[], $4::timestamptz[]) AS p (lead_id, noted_at)
     CROSS JOIN LATERAL (
           SELECT f.ctid FROM syncd.lead_due f
            WHERE f.instance = $1 AND f.pull = $2 AND f.lead_id = p.lead_id
              AND (f.noted_at <= $5 OR f.noted_at = p.noted_at) LIMIT 1) f
     WHERE d.ctid = f.ctid
 RETURNING d.window_id
)
SELECT DISTINCT window_id FROM read WHERE window_id IS NOT NULL ORDER BY 1
"""
# As leads.UPSERT refuses them.
OVERTAKEN = """
SELECT p.lead_id
  FROM unnest($2::bigint[]) AS p (lead_id)
 CROSS JOIN LATERAL (SELECT asked_at, deleted_at FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1) l
 WHERE (l.asked_at > $3 AND l.asked_at <= $4::timestamptz + interval '1 minute')
    OR (l.deleted_at >= $3 AND l.deleted_at <= $4::timestamptz + interval '1 minute')
"""
COUNT = "SELECT count(*) FROM syncd.lead_due WHERE instance = $1 AND pull = $2"
OLDEST = "SELECT noted_at FROM syncd.lead_due WHERE instance = $1 AND pull = $2 ORDER BY noted_at, lead_id LIMIT 1"


@dataclass(frozen=True, slots=True)
class Due:
    """A lead that is due since `noted_at`."""

    noted_at: datetime
    lead_id: int


async def note(
    connection: Connection, instance: str, pull: str, ids: Iterable[int], reason: Reason, now: datetime, window: int | None = None
) -> int:
    """These leads are to be read for the pull: by whatever is asked for from now on. `window` is the window of ids that waits for it.

    Returns how many are not, as they are forgotten people's.
    """
    listed = set(ids)
    forgotten = await forgetting.known_ids(connection, instance, listed) if listed else set()
    if listed - forgotten:
        await connection.execute(NOTE, instance, pull, list(listed - forgotten), reason, now, window)
    return len(forgotten)


async def note_held(connection: Connection, instance: str, pull: str, reason: Reason, now: datetime) -> int:
    """All leads that the mirror has of the pull are to be read again. Returns how many."""
    return int((await connection.execute(NOTE_HELD, instance, pull, reason, now)).split()[-1])


async def note_winners(
    connection: Connection, instance: str, pulls: Sequence[str], merged: Sequence[tuple[int, int]], now: datetime
) -> None:
    """Of each (winner, lead) the winner is to be read for those of `pulls` that have the lead, be it the winner or a loser.

    A pull that follows the activity log selects by update time: it is to have every winner.
    """
    forgotten = await forgetting.known_ids(connection, instance, {winner for winner, _ in merged})
    merged = [(winner, lead) for winner, lead in merged if winner not in forgotten]
    winners, ids = [winner for winner, _ in merged], [lead for _, lead in merged]
    await connection.execute(NOTE_WINNERS, instance, list(pulls), winners, ids, now)


async def take(pool: Pool, instance: str, pull: str, under_way: Sequence[int], limit: int) -> list[Due]:
    """The news that have been due for longest, then the others, but for those that are asked for already."""
    rows = await pool.fetch(TAKE, instance, pull, under_way, limit)
    return [Due(row["noted_at"], row["lead_id"]) for row in rows]


async def read(connection: Connection, instance: str, pull: str, taken: Sequence[Due], asked_at: datetime) -> list[int]:
    """An answer is written that was asked for then, for leads as they were taken: drop those that were not noted since.

    Returns the windows of ids that waited for some.
    """
    in_order = sorted(taken, key=lambda each: each.lead_id)  # as notes lock them
    ids, noted = [each.lead_id for each in in_order], [each.noted_at for each in in_order]
    return [row["window_id"] for row in await connection.fetch(READ, instance, pull, ids, noted, asked_at)]


async def overtaken(connection: Connection, instance: str, ids: Iterable[int], asked_at: datetime, now: datetime) -> set[int]:
    """Those of the leads of which the mirror knows from a later request than one of then."""
    return {row["lead_id"] for row in await connection.fetch(OVERTAKEN, instance, list(ids), asked_at, now)}


async def count(pool: Pool, instance: str, pull: str) -> int:
    """How many leads wait to be read for the pull."""
    return await pool.fetchval(COUNT, instance, pull)  # type: ignore[no-any-return]


async def oldest(pool: Pool, instance: str, pull: str) -> datetime | None:
    """Since when the one waits that has waited for longest; None when none does."""
    return await pool.fetchval(OLDEST, instance, pull)  # type: ignore[no-any-return]
