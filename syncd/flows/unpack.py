"""What is packed already, and is not to be sent as it is, comes apart: its changes are packed anew."""

from collections.abc import Iterable
from datetime import datetime

import structlog

from syncd.store import batches, endings
from syncd.store.leases import Lease

log = structlog.get_logger()


async def unpack(lease: Lease, instance: str, chunks: Iterable[int], sync_batches: Iterable[int], reason: str, now: datetime) -> None:
    """Of these, what can't be with Marketo yet: each in a transaction of its own.

    One that held the keys of one while it waits for those of the next could wait for ever.
    """
    for chunk_id in chunks:
        async with lease.transaction() as connection:
            dissolved = await endings.dissolve(connection, chunk_id, reason, now)
        if dissolved is not None:
            log.warning("chunk_dissolved", instance=instance, chunk=chunk_id, reason=reason)
    for batch_id in sync_batches:
        async with lease.transaction() as connection:
            undone = await batches.undo(connection, batch_id, reason)
        if undone is not None:
            log.warning("batch_given_up", instance=instance, batch=batch_id, reason=reason)
