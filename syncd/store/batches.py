"""Sync batches: what one call of Sync Leads carries, and what became of every change of it. One function per edge."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.pack import PackedBatch
from syncd.core.settings import Push
from syncd.store import endings
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection, Pool


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that has not ended."""

    id: int
    push: str
    state: str
    urgent: bool
    lookup_field: str
    partition: str | None
    row_count: int
    byte_count: int
    opened_at: datetime
    submitted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Synced:
    """Answered calls of Sync Leads, and what became of their changes."""

    calls: int
    applied: int
    rejected: int
    unverified: int
    retried: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a record's changes; `pending` sends them again, `file` too, but not by Sync Leads."""

    state: str
    reason: str | None = None


OPEN_READ = """
SELECT id, row_count, byte_count, next_ordinal FROM syncd.sync_batch
 WHERE instance = $1 AND push = $2 AND state = 'open' AND NOT urgent AND lookup_field = $3 AND partition IS NOT DISTINCT FROM $4
 ORDER BY id DESC LIMIT 1
"""
OPEN = OPEN_READ + " FOR UPDATE"
NEW = """
INSERT INTO syncd.sync_batch (instance, push, urgent, lookup_field, partition, row_count, byte_count, next_ordinal, opened_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id
"""
GROW = "UPDATE syncd.sync_batch SET row_count = $2, byte_count = $3, next_ordinal = $4 WHERE id = $1 AND state = 'open'"
# By the place among the ids, which are sorted (store/outbox.py).
INTO_BATCHES = """
UPDATE syncd.outbox SET state = 'in_batch', waits_for = NULL, reason = NULL, admitted = true,
       sync_batch_id = ($2::bigint[])[width_bucket(id, $1::bigint[])], ordinal = ($3::int[])[width_bucket(id, $1::bigint[])],
       passed = ($4::bigint[])[width_bucket(id, $1::bigint[])]
 WHERE id = ANY ($1::bigint[]) AND state = 'pending'
"""
SYNCED = """
SELECT count(*) AS calls, coalesce(sum(applied), 0)::bigint AS applied, coalesce(sum(rejected), 0)::bigint AS rejected,
       coalesce(sum(unverified), 0)::bigint AS unverified, coalesce(sum(retried), 0)::bigint AS retried
  FROM syncd.sync_batch WHERE instance = $1 AND ended_at >= $2 AND state = 'settled'
"""
LIVE = """
SELECT id, push, state, urgent, lookup_field, partition, row_count, byte_count, opened_at, submitted_at FROM syncd.sync_batch
 WHERE instance = $1 AND state IN ('open', 'submitting', 'unconfirmed') ORDER BY urgent DESC, id
"""
RECORDS = "SELECT ordinal, record FROM syncd.sync_record WHERE batch_id = $1 ORDER BY ordinal"
ATTEMPTS = "SELECT ordinal, max(attempt) AS attempt FROM syncd.outbox WHERE sync_batch_id = $1 GROUP BY ordinal"
TO_SUBMITTING = "UPDATE syncd.sync_batch SET state = 'submitting', submitted_at = $2 WHERE id = $1 AND state = 'open' RETURNING row_count"
TO_SETTLED = """
UPDATE syncd.sync_batch
   SET state = 'settled', ended_at = $2, request_id = $3, applied = $4, rejected = $5, unverified = $6, retried = $7
 WHERE id = $1 AND state = 'submitting' RETURNING id
"""
TO_REFUSED = """
UPDATE syncd.sync_batch SET state = 'refused', ended_at = $2, message = $3 WHERE id = $1 AND state = 'submitting' RETURNING id
"""
TO_UNCONFIRMED = "UPDATE syncd.sync_batch SET state = 'unconfirmed', message = $2 WHERE id = $1 AND state = 'submitting' RETURNING id"
ORPHANED = """
UPDATE syncd.sync_batch SET state = 'unconfirmed', message = 'the daemon ended before Marketo''s answer was written'
 WHERE instance = $1 AND state = 'submitting' RETURNING id
"""
TO_ABSENT = """
UPDATE syncd.sync_batch SET state = 'absent', ended_at = $2, message = $3 WHERE id = $1 AND state = 'unconfirmed' RETURNING id
"""
# What has passed a chunk is not at its end: it goes once more after that, whatever became of it now.
END_CHANGES = """
WITH ended AS (
    DELETE FROM syncd.outbox
     WHERE sync_batch_id = $1 AND passed IS NULL AND coalesce($2::jsonb -> ordinal::text ->> 0, 'applied') NOT IN ('pending', 'file')
    RETURNING *
)
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, sync_batch_id, created_at, settled_at,
                                  retry_of)
SELECT id, instance, push, key, key_norm, fields, coalesce($2::jsonb -> ordinal::text ->> 0, 'applied'),
       $2::jsonb -> ordinal::text ->> 1, attempt, $1, created_at, $3, retry_of
  FROM ended
"""
# What was known not to be written has not been tried in vain: only an answer of its own counts.
CHANGES_PENDING = """
UPDATE syncd.outbox SET state = 'pending', sync_batch_id = NULL, ordinal = NULL, passed = NULL, attempt = attempt + $3,
       by_file = by_file OR coalesce($2::jsonb -> ordinal::text ->> 0 = 'file', false),
       priority = CASE WHEN $2::jsonb -> ordinal::text ->> 0 = 'file' THEN 'normal' ELSE priority END,
       reason = coalesce($2::jsonb -> ordinal::text ->> 1, $4)
 WHERE sync_batch_id = $1 AND NOT ($5 AND passed IS NOT NULL)
"""
DROP_RECORDS = "DELETE FROM syncd.sync_record WHERE batch_id = $1"
OF_REMOVED_PUSHES = "SELECT id FROM syncd.sync_batch WHERE instance = $1 AND state = 'open' AND push <> ALL ($2::text[])"
# Open batches are few, and found by `sync_batch_live`; their records, 300 at most each, by the primary key.
WITH_FIELDS = """
SELECT id FROM syncd.sync_batch b
 WHERE instance = $1 AND state = 'open'
   AND EXISTS (SELECT FROM syncd.sync_record r WHERE r.batch_id = b.id AND r.record::jsonb ?| $2::text[])
 ORDER BY id
"""
DELETE_OPEN = "DELETE FROM syncd.sync_batch WHERE id = $1 AND state = 'open' RETURNING id"


async def open_one(connection: Connection, instance: str, push: Push, *, lock: bool = True) -> PackedBatch | None:
    """The push's batch that takes records still; locked."""
    row = await connection.fetchrow(OPEN if lock else OPEN_READ, instance, push.name, push.written_by, push.partition)
    return PackedBatch(row["id"], row["row_count"], row["byte_count"], row["next_ordinal"]) if row is not None else None


async def fill(
    connection: Connection,
    instance: str,
    push: Push,
    packed: Sequence[PackedBatch],
    now: datetime,
    urgent: bool = False,
    passed: Mapping[str, int] | None = None,
) -> None:
    """pending → in_batch, for what was packed into open batches, in the transaction that holds the rows.

    With `passed` the records name leads by their ids, and pass those chunks, which have the keys.
    """
    records: list[tuple[int, int, str, str]] = []
    claims: list[tuple[str, str, str, int, int]] = []
    moved: list[tuple[int, int, int, str]] = []
    for batch in packed:
        if batch.id is None:
            batch_id = await connection.fetchval(
                NEW,
                instance,
                push.name,
                urgent,
                push.written_by if passed is None else "id",
                push.partition,
                batch.row_count,
                batch.byte_count,
                batch.next_ordinal,
                now,
            )
        else:
            batch_id = batch.id
            await connection.execute(GROW, batch_id, batch.row_count, batch.byte_count, batch.next_ordinal)
        for row in batch.rows:
            records.append((batch_id, row.ordinal, row.key_norm, row.line))
            if passed is None:
                claims.append((instance, push.lookup_field, row.key_norm, batch_id, row.place))
            moved.extend((change, batch_id, row.ordinal, row.key_norm) for change in row.change_ids)
    if records:
        await connection.copy_records_to_table("sync_record", schema_name="syncd", records=records)
        await connection.copy_records_to_table("key_claim", schema_name="syncd", records=claims)
        changes, batch_ids, ordinals, keys = zip(*sorted(moved), strict=True)
        chunks = None if passed is None else [passed[key] for key in keys]
        await connection.execute(INTO_BATCHES, changes, batch_ids, ordinals, chunks)


async def live(pool: Pool, instance: str) -> list[Batch]:
    """The batches that have not ended: urgent ones first, then the oldest."""
    return [Batch(**row) for row in await pool.fetch(LIVE, instance)]


async def answered(pool: Pool, instance: str, since: datetime) -> Synced:
    """Those that have ended since then."""
    row = await pool.fetchrow(SYNCED, instance, since)
    assert row is not None, "a sum is a row"
    return Synced(**row)


async def records(pool: Pool, batch_id: int) -> list[tuple[int, str]]:
    """Ordinal and record, in the order of the call."""
    return [(row["ordinal"], row["record"]) for row in await pool.fetch(RECORDS, batch_id)]


async def attempts(pool: Pool, batch_id: int) -> dict[int, int]:
    """How often the changes of each record came back so far."""
    return {row["ordinal"]: row["attempt"] for row in await pool.fetch(ATTEMPTS, batch_id)}


async def to_submitting(connection: Connection, batch_id: int, now: datetime) -> int | None:
    """open → submitting: written before the call, so that a crash leaves a trace. Returns how many records it has, no more to come."""
    return await connection.fetchval(TO_SUBMITTING, batch_id, now)  # type: ignore[no-any-return]


async def settle(
    connection: Connection, batch: Batch, verdicts: Mapping[int, Verdict], request_id: str | None, now: datetime
) -> dict[str, int] | None:
    """submitting → settled: every change gets its end, `applied` where `verdicts` names none, or goes again.

    Returns the counts by outcome; None when another has settled the batch already.
    """
    count = Counter(verdict.state for verdict in verdicts.values())
    counts = {
        "applied": batch.row_count - len(verdicts),
        "rejected": count["rejected"],
        "unverified": count["unverified"],
        "retried": count["pending"] + count["file"],
    }
    await endings.lock(connection, batch.id)
    if await connection.fetchval(TO_SETTLED, batch.id, now, request_id, *counts.values()) is None:
        return None
    await ensure_partition(connection, now.date())
    by_ordinal = json.dumps({ordinal: (verdict.state, verdict.reason) for ordinal, verdict in verdicts.items()})
    await connection.execute(END_CHANGES, batch.id, by_ordinal, now)
    await _let_go(connection, batch.id, by_ordinal, 1, None, settled=True)
    return counts


async def to_refused(connection: Connection, batch_id: int, message: str, now: datetime) -> int | None:
    """submitting → refused: known not executed; its changes are pending again."""
    await endings.lock(connection, batch_id)
    moved = await connection.fetchval(TO_REFUSED, batch_id, now, message)
    if moved is not None:
        await _let_go(connection, batch_id, "{}", 0, message)
    return moved  # type: ignore[no-any-return]


async def to_unconfirmed(connection: Connection, batch_id: int, message: str) -> int | None:
    """submitting → unconfirmed: it may have been executed."""
    return await connection.fetchval(TO_UNCONFIRMED, batch_id, message)  # type: ignore[no-any-return]


async def orphaned(connection: Connection, instance: str) -> list[int]:
    """submitting → unconfirmed, for batches of a daemon that ended before the answer was written."""
    return [row["id"] for row in await connection.fetch(ORPHANED, instance)]


async def to_absent(connection: Connection, batch_id: int, message: str, now: datetime) -> int | None:
    """unconfirmed → absent: whatever became of it, it is over; its changes are pending again."""
    await endings.lock(connection, batch_id)
    moved = await connection.fetchval(TO_ABSENT, batch_id, now, message)
    if moved is not None:
        await _let_go(connection, batch_id, "{}", 1, message)
    return moved  # type: ignore[no-any-return]


async def undo(connection: Connection, batch_id: int, reason: str) -> int | None:
    """An open batch is given up, and its changes are pending again."""
    await endings.lock(connection, batch_id)
    moved = await connection.fetchval(DELETE_OPEN, batch_id)
    if moved is not None:
        await _let_go(connection, batch_id, "{}", 0, reason)
    return moved  # type: ignore[no-any-return]


async def _let_go(connection: Connection, batch_id: int, verdicts: str, attempt: int, reason: str | None, settled: bool = False) -> None:
    await connection.execute(CHANGES_PENDING, batch_id, verdicts, attempt, reason, settled)
    await endings.let_go(connection, batch_id)
    await connection.execute(DROP_RECORDS, batch_id)


async def of_removed_pushes(connection: Connection, instance: str, pushes: Sequence[str]) -> list[int]:
    """Open batches of pushes that the configuration no longer names."""
    return [row["id"] for row in await connection.fetch(OF_REMOVED_PUSHES, instance, list(pushes))]


async def with_fields(connection: Connection, instance: str, names: Sequence[str]) -> list[int]:
    """Open batches that have a record with one of these fields."""
    return [row["id"] for row in await connection.fetch(WITH_FIELDS, instance, list(names))]
