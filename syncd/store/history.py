"""The history of settled changes: one partition a day (UTC)."""

from datetime import date

from syncd.store.leases import Connection

ENSURE_PARTITION = "SELECT syncd.ensure_history_partition($1)"


async def ensure_partition(connection: Connection, day: date) -> None:
    """Make the history's partition for `day` (UTC) when it is missing."""
    await connection.execute(ENSURE_PARTITION, day)
