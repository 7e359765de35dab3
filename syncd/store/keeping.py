"""What is forgotten of settled changes: first their values, later they themselves, with the chunks and imports that carried them.

The history has a partition a day (UTC), which all instances share. A day is worked off in pieces, in the order of ids, in which its
rows lie; so a piece costs what it holds, and no index is kept for it beside the settling of changes. A partition is dropped whole
where no other instance has changes in it.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from syncd.store.leases import Connection, Pool

# Of the two clocks the one that is behind counts: what was forgotten by mistake is gone.
EARLIER = "SELECT least($1::timestamptz, now())"
DAYS = r"""
SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'syncd.change_history'::regclass AND c.relname ~ '^change_history_\d{8}$' ORDER BY 1
"""
MARK = "SELECT erased_before FROM syncd.keep_mark WHERE instance = $1"
RAISE_MARK = """
INSERT INTO syncd.keep_mark AS m (instance, erased_before) VALUES ($1, $2)
ON CONFLICT (instance) DO UPDATE SET erased_before = greatest(m.erased_before, excluded.erased_before)
"""
# Where nothing is known of a partition, a piece was found by sorting all of it.
IN_ORDER = "SET LOCAL enable_sort = off"
# A piece is of whichever instance, so that it is bounded where the day is full of others' changes. Its rows are all in one partition:
# they are changed by their places, as each other way was planned badly for some statistics.
# A failure keeps its values until it is retried: nobody could do that without them.
ERASE = """
WITH piece AS MATERIALIZED (
    SELECT ctid AS place, id FROM syncd.change_history WHERE settled_at >= $2 AND settled_at < $3 AND id > $4 ORDER BY id LIMIT $5
), erased AS (
    UPDATE syncd.change_history h SET fields = '{}', erased = ARRAY(SELECT jsonb_object_keys(h.fields))
     WHERE h.settled_at >= $2 AND h.settled_at < $3 AND h.ctid = ANY (ARRAY(SELECT place FROM piece))
       AND h.instance = $1 AND h.erased IS NULL AND h.state NOT IN ('rejected', 'unverified')
)
SELECT max(id) FROM piece
"""
# Their oldest day first, and then in that day alone: to plan a change of 370 partitions takes most of a second.
OLDEST_RETRIED = """
SELECT settled_at FROM syncd.change_history
 WHERE instance = $1 AND settled_at < $2 AND retried_at IS NOT NULL AND erased IS NULL ORDER BY settled_at LIMIT 1
"""
ERASE_RETRIED = """
UPDATE syncd.change_history h SET fields = '{}', erased = ARRAY(SELECT jsonb_object_keys(h.fields))
 WHERE h.settled_at >= $2 AND h.settled_at < $3 AND h.ctid = ANY (ARRAY(
       SELECT r.ctid FROM syncd.change_history r
        WHERE r.instance = $1 AND r.settled_at >= $2 AND r.settled_at < $3 AND r.retried_at IS NOT NULL AND r.erased IS NULL LIMIT $4))
   AND h.instance = $1 AND h.retried_at IS NOT NULL AND h.erased IS NULL
"""
WAIT_NO_LONGER = "SET LOCAL lock_timeout = '2s'"
DROP = "SELECT syncd.drop_history_partition($1, $2)"
OURS = "SELECT EXISTS (SELECT FROM syncd.change_history WHERE instance = $1 AND settled_at >= $2 AND settled_at < $3)"
DELETE = """
WITH piece AS MATERIALIZED (
    SELECT ctid AS place, id FROM syncd.change_history WHERE settled_at >= $2 AND settled_at < $3 AND id > $4 ORDER BY id LIMIT $5
), deleted AS (
    DELETE FROM syncd.change_history h
     WHERE h.settled_at >= $2 AND h.settled_at < $3 AND h.ctid = ANY (ARRAY(SELECT place FROM piece)) AND h.instance = $1
)
SELECT max(id) FROM piece
"""
# A chunk is finished when all its jobs are over and all its changes have left it.
FORGET_CHUNKS = """
WITH old AS MATERIALIZED (
    SELECT id FROM syncd.chunk
     WHERE instance = $1 AND state IN ('done', 'split', 'dissolved') AND finished_at < $2 ORDER BY finished_at LIMIT $3
), jobs AS (
    DELETE FROM syncd.import_job WHERE chunk_id = ANY (ARRAY(SELECT id FROM old))
), gone AS (
    DELETE FROM syncd.chunk WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
)
SELECT count(*) FROM gone
"""

FORGET_BATCHES = """
DELETE FROM syncd.sync_batch WHERE id = ANY (ARRAY(
    SELECT id FROM syncd.sync_batch WHERE instance = $1 AND ended_at < $2 ORDER BY ended_at LIMIT $3))
"""


@dataclass(frozen=True, slots=True)
class Place:
    """How far a day is worked off: all ids up to `after`."""

    day: date
    after: int = 0


async def earlier(pool: Pool, now: datetime) -> datetime:
    """Our clock's time or the database's, whichever is less."""
    return await pool.fetchval(EARLIER, now)  # type: ignore[no-any-return]


async def days(connection: Connection, before: date) -> list[date]:
    """The days before that one that the history has a partition for, the oldest first."""
    return [row["day"] for row in await connection.fetch(DAYS) if row["day"] < before]


async def to_erase(connection: Connection, instance: str, before: date) -> list[date]:
    """Those of them whose values are not known to be erased."""
    mark = await connection.fetchval(MARK, instance)
    return [day for day in await days(connection, before) if mark is None or day >= mark]


async def erased_before(connection: Connection, instance: str, day: date) -> None:
    """The values of all days before that one are erased."""
    await connection.execute(RAISE_MARK, instance, day)


async def erase(connection: Connection, instance: str, place: Place, limit: int) -> Place | None:
    """Erase the values of the next `limit` changes of a day, but for failures that nobody has retried; None at the end of the day."""
    return await _piece(connection, ERASE, instance, place, limit)


async def erase_retried(connection: Connection, instance: str, before: date, limit: int) -> int:
    """Erase the values of `limit` failures of one day before that one which were retried; returns of how many."""
    oldest: datetime | None = await connection.fetchval(OLDEST_RETRIED, instance, _midnight(before))
    if oldest is None:
        return 0
    done = await connection.execute(ERASE_RETRIED, instance, *_span(oldest.astimezone(UTC).date()), limit)
    return int(done.rpartition(" ")[2])


async def drop(connection: Connection, instance: str, day: date) -> bool:
    """Drop a day's partition, unless another instance has changes in it; returns whether it did.

    It waits 2 s at most for whoever reads the history, as all writers then wait behind it. Raises asyncpg's LockNotAvailableError.
    """
    await connection.execute(WAIT_NO_LONGER)
    return await connection.fetchval(DROP, instance, day)  # type: ignore[no-any-return]


async def has_changes(connection: Connection, instance: str, day: date) -> bool:
    """Whether any change of the instance ended on that day."""
    return await connection.fetchval(OURS, instance, *_span(day))  # type: ignore[no-any-return]


async def delete(connection: Connection, instance: str, place: Place, limit: int) -> Place | None:
    """Delete the instance's among the next `limit` changes of a day; None at the end of the day."""
    return await _piece(connection, DELETE, instance, place, limit)


async def forget_chunks(connection: Connection, instance: str, before: date, limit: int) -> int:
    """Delete the `limit` oldest chunks that were finished before that day, with their import jobs; returns how many."""
    return await connection.fetchval(FORGET_CHUNKS, instance, _midnight(before), limit)  # type: ignore[no-any-return]


async def forget_batches(connection: Connection, instance: str, before: date, limit: int) -> int:
    """Delete the `limit` oldest sync batches that had ended before that day; returns how many."""
    return int((await connection.execute(FORGET_BATCHES, instance, _midnight(before), limit)).rpartition(" ")[2])


async def _piece(connection: Connection, work: str, instance: str, place: Place, limit: int) -> Place | None:
    await connection.execute(IN_ORDER)
    end = await connection.fetchval(work, instance, *_span(place.day), place.after, limit)
    return None if end is None else Place(place.day, end)


def _span(day: date) -> tuple[datetime, datetime]:
    return _midnight(day), _midnight(day + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
