"""Many changes into the outbox at once: `syncd enqueue`."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from syncd.store.leases import Connection

BATCH = 5_000  # rows held in memory

HIGHEST = "SELECT coalesce(max(id), 0) FROM syncd.outbox"
# Ids only grow, so ours lie above the highest seen before; other writers' may lie between them.
OURS = "SELECT min(id) AS first, max(id) AS last FROM syncd.outbox WHERE id > $1 AND xmin = pg_current_xact_id()::xid"


@dataclass(frozen=True, slots=True)
class Enqueued:
    """How many changes were written, and the ids of the first and the last; no ids when there was none."""

    count: int
    first_id: int | None
    last_id: int | None


async def enqueue_all(connection: Connection, instance: str, push: str, changes: Iterable[tuple[str, str]]) -> Enqueued:
    """Write all `changes` (key, JSON text of the fields) in one transaction; whatever they raise, nothing is written."""
    count = 0
    async with connection.transaction():
        before = await connection.fetchval(HIGHEST)
        rows = ((instance, push, key, fields) for key, fields in changes)
        while batch := list(islice(rows, BATCH)):
            await connection.copy_records_to_table(
                "outbox", schema_name="syncd", columns=("instance", "push", "key", "fields"), records=batch
            )
            count += len(batch)
        ours = await connection.fetchrow(OURS, before)
        assert ours is not None
        return Enqueued(count, ours["first"], ours["last"])
