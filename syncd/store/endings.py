"""How chunks end, and how rows leave them: their keys are free again, and what has waited for these can be claimed."""

from collections.abc import Sequence
from datetime import datetime

from syncd.store import chunks
from syncd.store.leases import Connection

TO_DONE = "UPDATE syncd.chunk SET state = 'done', finished_at = $2 WHERE id = $1 AND state = 'in_job' RETURNING id"
TO_SPLIT = "UPDATE syncd.chunk SET state = 'split', finished_at = $2 WHERE id = $1 AND state = 'in_job' RETURNING id"
TO_DISSOLVED = """
UPDATE syncd.chunk SET state = 'dissolved', finished_at = $2 WHERE id = ANY ($1::bigint[]) AND state IN ('open', 'sealed') RETURNING id
"""
# ($1, $2]: the ordinals that a part takes over
NEW_PART = """
INSERT INTO syncd.chunk (instance, push, lookup_field, format, list_id, partition, columns, header, split_from, split_depth,
                         row_count, byte_count, next_ordinal, not_before, opened_at)
SELECT c.instance, c.push, c.lookup_field, c.format, c.list_id, c.partition, c.columns, c.header, c.id, c.split_depth + 1,
       (SELECT count(*) FROM syncd.chunk_row r WHERE r.chunk_id = c.id AND r.ordinal = ANY ($2::int[])),
       octet_length(c.header)
         + (SELECT sum(octet_length(r.line)) FROM syncd.chunk_row r WHERE r.chunk_id = c.id AND r.ordinal = ANY ($2::int[])),
       c.next_ordinal, $3, $4
  FROM syncd.chunk c WHERE c.id = $1 RETURNING id
"""
MOVE_CLAIMS = """
UPDATE syncd.key_claim k SET chunk_id = $2
 WHERE k.chunk_id = $1
   AND k.key_norm = ANY (ARRAY(SELECT r.key_norm FROM syncd.chunk_row r WHERE r.chunk_id = $1 AND r.ordinal = ANY ($3::int[])))
"""
MOVE_CHANGES = "UPDATE syncd.outbox SET chunk_id = $2 WHERE chunk_id = $1 AND ordinal = ANY ($3::int[])"
MOVE_ROWS = "UPDATE syncd.chunk_row SET chunk_id = $2 WHERE chunk_id = $1 AND ordinal = ANY ($3::int[])"
# Claims lock keys in the same order: neither side waits for the other in a circle.
LOCK_KEYS = "SELECT count(*) FROM (SELECT FROM syncd.key_claim WHERE chunk_id = ANY ($1::bigint[]) ORDER BY key_norm FOR UPDATE) AS locked"
RELEASE_KEYS = "DELETE FROM syncd.key_claim WHERE chunk_id = ANY ($1::bigint[])"
HAS_PASSED = "SELECT EXISTS (SELECT FROM syncd.outbox WHERE passed IS NOT NULL)"
LOCK_PASSING = """
SELECT count(*) FROM (
    SELECT FROM syncd.sync_batch
     WHERE state IN ('open', 'submitting', 'unconfirmed')
       AND id = ANY (ARRAY(SELECT sync_batch_id FROM syncd.outbox WHERE passed IS NOT NULL))
     ORDER BY id FOR UPDATE) AS locked
"""
# Marketo may still execute a call that has passed the chunk: what comes later of its keys is not to be overtaken by it.
TO_PASSING = """
UPDATE syncd.key_claim k SET chunk_id = p.batch_id
  FROM (SELECT o.instance, o.key_norm, max(b.id) AS batch_id FROM syncd.outbox o JOIN syncd.sync_batch b ON b.id = o.sync_batch_id
         WHERE o.passed IS NOT NULL AND b.state IN ('open', 'submitting', 'unconfirmed') GROUP BY o.instance, o.key_norm) p
 WHERE k.instance = p.instance AND k.lookup_field = 'email' AND k.key_norm = p.key_norm AND k.chunk_id = ANY ($1::bigint[])
"""
ONCE_MORE = """
UPDATE syncd.outbox o SET state = 'pending', sync_batch_id = NULL, ordinal = NULL, passed = NULL
 WHERE o.passed IS NOT NULL
   AND EXISTS (SELECT FROM syncd.key_claim k WHERE k.instance = o.instance AND k.lookup_field = 'email' AND k.key_norm = o.key_norm
                                               AND k.chunk_id = ANY ($1::bigint[]))
"""
WAKE_WAITING = "UPDATE syncd.outbox SET waits_for = NULL WHERE waits_for = ANY ($1::bigint[])"
DROP_ROWS = "DELETE FROM syncd.chunk_row WHERE chunk_id = ANY ($1::bigint[])"
CHANGES_PENDING = """
UPDATE syncd.outbox SET state = 'pending', chunk_id = NULL, ordinal = NULL, attempt = attempt + 1, reason = $2
 WHERE chunk_id = $1 AND state = 'in_chunk'
"""
LOCK_WITHDRAWN = """
SELECT count(*) FROM (
    SELECT FROM syncd.key_claim k
     WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])
       AND EXISTS (SELECT FROM syncd.chunk c WHERE c.id = k.chunk_id AND c.state = 'open')
     ORDER BY k.key_norm FOR UPDATE) AS locked
"""
# A chunk that is being sealed is not to lose a row that its hash was made of.
LOCK_WITHDRAWN_FROM = """
SELECT count(*) FROM (
    SELECT FROM syncd.chunk c
     WHERE c.state = 'open' AND c.id = ANY (ARRAY(
           SELECT k.chunk_id FROM syncd.key_claim k WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[])))
     ORDER BY c.id FOR UPDATE) AS locked
"""
# The rows of some keys leave the open chunks that have them; what else of the keys waited for those chunks need not any more.
WITHDRAW = """
WITH claim AS (
    DELETE FROM syncd.key_claim k USING syncd.chunk c
     WHERE k.instance = $1 AND k.lookup_field = $2 AND k.key_norm = ANY ($3::text[]) AND c.id = k.chunk_id AND c.state = 'open'
    RETURNING k.chunk_id, k.key_norm
), line AS (
    DELETE FROM syncd.chunk_row r USING claim WHERE r.chunk_id = claim.chunk_id AND r.key_norm = claim.key_norm
    RETURNING r.chunk_id, r.ordinal, octet_length(r.line) AS bytes
), freed AS (
    UPDATE syncd.outbox o SET state = 'pending', chunk_id = NULL, ordinal = NULL
      FROM line WHERE o.chunk_id = line.chunk_id AND o.ordinal = line.ordinal
), woken AS (
    UPDATE syncd.outbox o SET waits_for = NULL FROM claim WHERE o.waits_for = claim.chunk_id AND o.key_norm = claim.key_norm
)
UPDATE syncd.chunk c SET row_count = c.row_count - l.rows, byte_count = c.byte_count - l.bytes
  FROM (SELECT chunk_id, count(*)::integer AS rows, sum(bytes) AS bytes FROM line GROUP BY 1) l
 WHERE c.id = l.chunk_id RETURNING CASE WHEN c.row_count = 0 THEN c.id END AS empty
"""
# They come back to be packed anew at once: that is no attempt.
TAKEN_OUT = """
UPDATE syncd.outbox SET state = 'pending', chunk_id = NULL, ordinal = NULL WHERE chunk_id = ANY ($1::bigint[]) AND state = 'in_chunk'
RETURNING id
"""


async def to_done(connection: Connection, chunk_id: int, now: datetime) -> int | None:
    """in_job → done: every change of it has its end. Its keys are free again, and changes that waited for them claimable."""
    moved = await connection.fetchval(TO_DONE, chunk_id, now)
    if moved is not None:
        await let_go(connection, chunk_id)
    return moved  # type: ignore[no-any-return]


async def to_split(connection: Connection, chunk_id: int, ordinals: Sequence[int], not_before: datetime | None, now: datetime) -> list[int]:
    """in_job → split: the rows `ordinals` become two sealed chunks (one row: one) that keep their claims; the others have ended."""
    if await connection.fetchval(TO_SPLIT, chunk_id, now) is None:
        return []
    await lock(connection, chunk_id)
    middle = len(ordinals) // 2
    parts = []
    for part in filter(None, (ordinals[:middle], ordinals[middle:])):
        part_id = await connection.fetchval(NEW_PART, chunk_id, list(part), not_before, now)
        await connection.execute(MOVE_CLAIMS, chunk_id, part_id, list(part))
        await connection.execute(MOVE_CHANGES, chunk_id, part_id, list(part))
        await connection.execute(MOVE_ROWS, chunk_id, part_id, list(part))
        await chunks.seal(connection, part_id, now)
        parts.append(part_id)
    await let_go(connection, chunk_id)
    return parts


async def dissolve(connection: Connection, chunk_id: int, reason: str, now: datetime) -> int | None:
    """open | sealed → dissolved: its changes are pending again."""
    await lock(connection, chunk_id)
    moved = await connection.fetchval(TO_DISSOLVED, [chunk_id], now)
    if moved is not None:
        await connection.execute(CHANGES_PENDING, chunk_id, reason)
        await let_go(connection, chunk_id)
    return moved  # type: ignore[no-any-return]


async def take_out(connection: Connection, chunk_ids: Sequence[int], now: datetime) -> list[int]:
    """open → dissolved, for chunks that cost less as sync batches: their changes, whose ids are returned, are pending for the moment."""
    await lock(connection, *chunk_ids)
    gone = [row["id"] for row in await connection.fetch(TO_DISSOLVED, list(chunk_ids), now)]
    changes = [row["id"] for row in await connection.fetch(TAKEN_OUT, gone)]
    await let_go(connection, *gone)
    return changes


async def withdraw(connection: Connection, instance: str, lookup_field: str, keys: Sequence[str], now: datetime) -> None:
    """in_chunk → pending, for the rows of some keys in chunks that are open still; an empty chunk is dissolved."""
    for statement in (LOCK_WITHDRAWN, LOCK_WITHDRAWN_FROM):
        await connection.execute(statement, instance, lookup_field, list(keys))
    for row in await connection.fetch(WITHDRAW, instance, lookup_field, list(keys)):
        if row["empty"] is not None:
            await connection.fetchval(TO_DISSOLVED, [row["empty"]], now)


async def lock(connection: Connection, *chunk_ids: int) -> None:
    """The first locks of whatever ends chunks, or sync batches: the calls that have passed chunks, then the keys, each in their order.

    Claims lock keys, and after them the open chunks and the open batch, which therefore are not to be moved before this.
    """
    await connection.execute(LOCK_PASSING)
    await connection.execute(LOCK_KEYS, chunk_ids)


async def let_go(connection: Connection, *chunk_ids: int) -> None:
    """The keys of chunks, or of sync batches, are free again, and what waits for these can be claimed; their rows are dropped.

    What has passed them goes once more. Where a call that did has no answer yet, its batch takes the key over, until it ends.
    """
    await lock(connection, *chunk_ids)
    if await connection.fetchval(HAS_PASSED):
        await connection.execute(LOCK_PASSING)  # those that have come to pass until the keys were locked
        await connection.execute(TO_PASSING, chunk_ids)
        await connection.execute(ONCE_MORE, chunk_ids)
    # In this order: a claim that sees a key taken locks it, so what waits for the chunk is visible once the keys are deleted.
    for statement in (RELEASE_KEYS, WAKE_WAITING, DROP_ROWS):
        await connection.execute(statement, chunk_ids)
