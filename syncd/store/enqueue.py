"""Many changes into the outbox at once: `syncd enqueue`."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from syncd.store import deadletters
from syncd.store.leases import Connection

BATCH = 5_000  # rows held in memory
Priority = Literal["normal", "urgent"]

HIGHEST = "SELECT coalesce(max(id), 0) FROM syncd.outbox"
# Ids only grow, so ours lie above the highest seen before; other writers' may lie between them.
OURS = "SELECT min(id) AS first, max(id) AS last FROM syncd.outbox WHERE id > $1 AND xmin = pg_current_xact_id()::xid"
# Ids that no other writer gets; COPY takes them as they are.
NEW_IDS = "SELECT nextval('syncd.outbox_id_seq') AS id FROM generate_series(1, $1)"


class NewChange(NamedTuple):
    """`fields` is a JSON text; `mends` is the failed change that it stands for."""

    key: str
    fields: str
    mends: int | None = None


class NotMendable(Exception):  # noqa: N818 - not a mistake of ours
    """A change is to mend one that is no failure of its push, or was retried before; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """How many changes were written, and the ids of the first and the last; no ids when there was none."""

    count: int
    first_id: int | None
    last_id: int | None


async def enqueue_all(
    connection: Connection, instance: str, push: str, changes: Iterable[NewChange], priority: Priority = "normal"
) -> Enqueued:
    """Write all `changes` in one transaction; whatever they raise, nothing is written. Raises NotMendable."""
    count = 0
    async with connection.transaction():
        before = await connection.fetchval(HIGHEST)
        rows = iter(changes)
        while batch := list(islice(rows, BATCH)):
            if any(change.mends is not None for change in batch):
                await _mend(connection, instance, push, batch, priority)
            else:
                await connection.copy_records_to_table(
                    "outbox",
                    schema_name="syncd",
                    columns=("instance", "push", "key", "fields", "priority"),
                    records=((instance, push, change.key, change.fields, priority) for change in batch),
                )
            count += len(batch)
        ours = await connection.fetchrow(OURS, before)
        assert ours is not None
        return Enqueued(count, ours["first"], ours["last"])


async def _mend(connection: Connection, instance: str, push: str, batch: list[NewChange], priority: Priority) -> None:
    """Write changes under ids known beforehand, and of the failures that they mend, as which changes they go again."""
    ids = [row["id"] for row in await connection.fetch(NEW_IDS, len(batch))]
    await connection.copy_records_to_table(
        "outbox",
        schema_name="syncd",
        columns=("id", "instance", "push", "key", "fields", "priority"),
        records=((new, instance, push, change.key, change.fields, priority) for new, change in zip(ids, batch, strict=True)),
    )
    made = {change.mends: new for new, change in zip(ids, batch, strict=True) if change.mends is not None}
    if left := await deadletters.mark_mended(connection, instance, push, made):
        raise NotMendable(f"change {min(left)} is no failure of the push {push} that still waits to be retried")
