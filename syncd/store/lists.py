"""Static lists: who is a member, who was."""

from collections.abc import Sequence
from datetime import datetime

from syncd.store.leases import Connection

SEEN = """
INSERT INTO syncd.list_membership AS m (instance, list, lead_id, joined_at, seen_at)
SELECT $1, $2, p.lead_id, $4, $4 FROM (SELECT DISTINCT unnest($3::bigint[]) AS lead_id ORDER BY 1) p
ON CONFLICT (instance, list, lead_id) DO UPDATE
   SET seen_at = greatest(m.seen_at, excluded.seen_at), left_at = NULL,
       joined_at = CASE WHEN m.left_at IS NULL THEN m.joined_at ELSE excluded.joined_at END
"""
LEFT = """
UPDATE syncd.list_membership SET left_at = $4 WHERE instance = $1 AND list = $2 AND seen_at < $3 AND left_at IS NULL
"""


async def seen(connection: Connection, instance: str, name: str, lead_ids: Sequence[int], now: datetime) -> None:
    """These leads are members of the list."""
    await connection.execute(SEEN, instance, name, list(lead_ids), now)


async def walked(connection: Connection, instance: str, name: str, begun_at: datetime, now: datetime) -> int:
    """A whole walk of the list has ended: members that it did not bring have left. Returns how many."""
    return int((await connection.execute(LEFT, instance, name, begun_at, now)).split()[-1])
