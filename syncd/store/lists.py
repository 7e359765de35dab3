"""Static lists: who is a member, who was."""

from collections.abc import Sequence
from datetime import datetime

from syncd.store import forgetting
from syncd.store.leases import Connection

SEEN = """
INSERT INTO syncd.list_membership AS m (instance, list, lead_id, joined_at, seen_at, walk)
SELECT $1, $2, p.lead_id, $4, $4, $5 FROM (SELECT DISTINCT unnest($3::bigint[]) AS lead_id ORDER BY 1) p
ON CONFLICT (instance, list, lead_id) DO UPDATE
   SET seen_at = excluded.seen_at, walk = greatest(m.walk, excluded.walk), left_at = NULL,
       joined_at = CASE WHEN m.left_at IS NULL THEN m.joined_at ELSE excluded.joined_at END
"""
# By the walks, not by times: the clock may step while a list is walked.
LEFT = "UPDATE syncd.list_membership SET left_at = $4 WHERE instance = $1 AND list = $2 AND walk < $3 AND left_at IS NULL"


async def seen(connection: Connection, instance: str, name: str, walk: int, lead_ids: Sequence[int], now: datetime) -> None:
    """These leads are members of the list, by the walk whose window's id is `walk`; forgotten people are of none."""
    others = set(lead_ids) - await forgetting.known_ids(connection, instance, lead_ids)
    await connection.execute(SEEN, instance, name, list(others), now, walk)


async def walked(connection: Connection, instance: str, name: str, walk: int, now: datetime) -> int:
    """The whole list was walked: members that neither this walk nor a later one brought have left. Returns how many."""
    return int((await connection.execute(LEFT, instance, name, walk, now)).split()[-1])
