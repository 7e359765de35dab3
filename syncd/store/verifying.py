"""Verifications: which leads are still to be looked at, and what drifted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.verify import Cause
from syncd.store.leases import Connection, Pool

KEPT = 20
"""Verifications of an instance whose results are kept."""

# One at a time: the index over those under way lets no second one in.
ORDER = """
INSERT INTO syncd.verification (instance, wanted) VALUES ($1, $2)
ON CONFLICT (instance) WHERE finished_at IS NULL DO NOTHING RETURNING id
"""
UNDER_WAY = """
SELECT id, wanted, asked_at, drawn_at, read_to, read_at, finished_at, leads, drifted, calls, message
  FROM syncd.verification WHERE instance = $1 AND finished_at IS NULL
"""
BY_ID = """
SELECT id, wanted, asked_at, drawn_at, read_to, read_at, finished_at, leads, drifted, calls, message
  FROM syncd.verification WHERE id = $1
"""
LAST = """
SELECT id, wanted, asked_at, drawn_at, read_to, read_at, finished_at, leads, drifted, calls, message
  FROM syncd.verification WHERE instance = $1 AND finished_at IS NOT NULL ORDER BY id DESC LIMIT 1
"""
DRIFT = "SELECT cause, field, leads, examples FROM syncd.verification_drift WHERE verification_id = $1 ORDER BY leads DESC, cause, field"
KNOWN = "SELECT count(*) FROM syncd.lead WHERE instance = $1"
LEFT = "SELECT count(*) FROM syncd.verification_lead WHERE verification_id = $1 AND looks > 0"

# The ends of an index, not the table.
SPAN = """
SELECT (SELECT lead_id FROM syncd.lead WHERE instance = $1 ORDER BY lead_id LIMIT 1),
       (SELECT lead_id FROM syncd.lead WHERE instance = $1 ORDER BY lead_id DESC LIMIT 1)
"""
# The LIMITs keep it one probe of the primary key for each id, whatever is known of the tables.
THERE = """
SELECT p.lead_id FROM unnest($2::bigint[]) AS p (lead_id)
 CROSS JOIN LATERAL (SELECT true FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1) l
"""
AT_OR_AFTER = """
SELECT DISTINCT l.lead_id FROM unnest($2::bigint[]) AS p (lead_id)
 CROSS JOIN LATERAL (SELECT lead_id FROM syncd.lead l WHERE l.instance = $1 AND l.lead_id >= p.lead_id ORDER BY l.lead_id LIMIT 1) l
"""
ADD = """
INSERT INTO syncd.verification_lead (verification_id, lead_id) SELECT $1, unnest($2::bigint[])
ON CONFLICT (verification_id, lead_id) DO NOTHING
"""
DRAWN = "UPDATE syncd.verification SET drawn_at = $2 WHERE id = $1 AND drawn_at IS NULL"
# On tables that were never analyzed all that is left would be sorted for each slice.
IN_ORDER = "SET LOCAL enable_bitmapscan = off"
SLICE = "SELECT lead_id FROM syncd.lead WHERE instance = $1 AND lead_id > $2 ORDER BY lead_id LIMIT $3"
NEXT = """
SELECT lead_id, looks, seen_at, digest FROM syncd.verification_lead WHERE verification_id = $1 ORDER BY looks, lead_id LIMIT $2
"""
SUSPECT = """
INSERT INTO syncd.verification_lead AS v (verification_id, lead_id, looks, seen_at, digest)
SELECT $1, s.lead_id, $3, $4, s.digest FROM unnest($2::bigint[], $5::bytea[]) AS s (lead_id, digest)
ON CONFLICT (verification_id, lead_id) DO UPDATE SET looks = excluded.looks, seen_at = excluded.seen_at, digest = excluded.digest
"""
DONE = "DELETE FROM syncd.verification_lead WHERE verification_id = $1 AND lead_id = ANY ($2::bigint[])"
COUNT = """
UPDATE syncd.verification
   SET leads = leads + $2, drifted = drifted + $3, calls = calls + 1, read_to = greatest(read_to, $4), message = NULL
 WHERE id = $1 AND finished_at IS NULL
"""
COUNT_DRIFT = """
INSERT INTO syncd.verification_drift AS d (verification_id, cause, field, leads, examples)
SELECT $1::bigint, n.cause, n.field, count(*), (array_agg(n.lead_id ORDER BY n.lead_id))[1:5]
  FROM unnest($2::text[], $3::text[], $4::bigint[]) AS n (cause, field, lead_id) GROUP BY 2, 3 ORDER BY 2, 3
ON CONFLICT (verification_id, cause, field) DO UPDATE
   SET leads = d.leads + excluded.leads, examples = (d.examples || excluded.examples)[1:5]
"""
ALL_READ = "UPDATE syncd.verification SET read_at = $2 WHERE id = $1 AND read_at IS NULL"
MET = "UPDATE syncd.verification SET message = $2 WHERE id = $1 AND finished_at IS NULL"
FINISH = "UPDATE syncd.verification SET finished_at = $2, message = $3 WHERE id = $1 AND finished_at IS NULL"
FORGET_LEADS = "DELETE FROM syncd.verification_lead WHERE verification_id = $1"
FORGET_OLD = """
WITH old AS (
    DELETE FROM syncd.verification WHERE id IN (
        SELECT id FROM syncd.verification WHERE instance = $1 AND finished_at IS NOT NULL ORDER BY id DESC OFFSET $2) RETURNING id
)
DELETE FROM syncd.verification_drift d USING old WHERE d.verification_id = old.id
"""


@dataclass(frozen=True, slots=True)
class Verification:
    """One comparison. `wanted` leads are drawn by chance, None are all; `drifted` of the `leads` looked at differ."""

    id: int
    wanted: int | None
    asked_at: datetime
    drawn_at: datetime | None
    read_to: int
    read_at: datetime | None
    finished_at: datetime | None
    leads: int
    drifted: int
    calls: int
    message: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """What so many leads, some of them the examples, differ in; an empty field stands for the lead as a whole."""

    cause: Cause
    field: str
    leads: int
    examples: Sequence[int]


@dataclass(frozen=True, slots=True)
class Seen:
    """A lead to be looked at; it has been so often before, the last time then."""

    lead_id: int
    looks: int
    seen_at: datetime | None = None
    digest: bytes | None = None


async def order(connection: Connection, instance: str, wanted: int | None) -> int | None:
    """Ask the daemon for a verification of so many leads, None of all. Returns its id; None when one is under way."""
    return await connection.fetchval(ORDER, instance, wanted)  # type: ignore[no-any-return]


async def under_way(pool: Pool, instance: str) -> Verification | None:
    """The one that is ordered and not finished."""
    row = await pool.fetchrow(UNDER_WAY, instance)
    return Verification(**row) if row else None


async def last(pool: Pool, instance: str) -> Verification | None:
    """The one that finished last."""
    row = await pool.fetchrow(LAST, instance)
    return Verification(**row) if row else None


async def read(pool: Pool, verification: int) -> Verification | None:
    """How one stands; None when it is forgotten."""
    row = await pool.fetchrow(BY_ID, verification)
    return Verification(**row) if row else None


async def drift(pool: Pool, verification: int) -> list[Drift]:
    """What one has found so far, what most leads have first."""
    return [Drift(**row) for row in await pool.fetch(DRIFT, verification)]


async def known_leads(pool: Pool, instance: str) -> int:
    """How many leads the mirror has, those that are deleted included."""
    return await pool.fetchval(KNOWN, instance)  # type: ignore[no-any-return]


async def to_look_at_again(pool: Pool, verification: int) -> int:
    """How many leads differed and are to be looked at again."""
    return await pool.fetchval(LEFT, verification)  # type: ignore[no-any-return]


async def span(connection: Connection, instance: str) -> tuple[int, int] | None:
    """The lowest and the highest id of the mirror; None when it is empty."""
    row = await connection.fetchrow(SPAN, instance)
    return None if row is None or row[0] is None else (row[0], row[1])


async def there(connection: Connection, instance: str, ids: Sequence[int]) -> set[int]:
    """Which of the ids the mirror has."""
    return {row["lead_id"] for row in await connection.fetch(THERE, instance, ids)}


async def at_or_after(connection: Connection, instance: str, ids: Sequence[int]) -> set[int]:
    """The mirror's leads with these ids, or with the next ones there are."""
    return {row["lead_id"] for row in await connection.fetch(AT_OR_AFTER, instance, ids)}


async def add(connection: Connection, verification: int, ids: Sequence[int]) -> None:
    """These leads are to be looked at."""
    await connection.execute(ADD, verification, ids)


async def drawn(connection: Connection, verification: int, now: datetime) -> None:
    """All of its leads are drawn."""
    await connection.execute(DRAWN, verification, now)


async def behind(pool: Pool, instance: str, after: int, most: int) -> list[int]:
    """The mirror's next ids behind `after`."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(IN_ORDER)
        return [row["lead_id"] for row in await connection.fetch(SLICE, instance, after, most)]


async def all_read(connection: Connection, verification: int, now: datetime) -> None:
    """All leads have been looked at once."""
    await connection.execute(ALL_READ, verification, now)


async def to_look_at(pool: Pool, verification: int, most: int) -> list[Seen]:
    """Up to `most` of those that have been looked at least often, all equally often."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(IN_ORDER)
        rows = [Seen(**row) for row in await connection.fetch(NEXT, verification, most)]
    return [row for row in rows if row.looks == rows[0].looks]


async def looked(
    connection: Connection,
    verification: int,
    looks: int,
    asked_at: datetime,
    suspects: Mapping[int, bytes],
    done: Sequence[int],
    drifted: Sequence[tuple[Cause, str, int]],
    *,
    new: int,
    read_to: int,
) -> None:
    """A call was made: `new` leads were looked at for the first time, the `suspects` wait for another look, the others are `done`."""
    await connection.execute(SUSPECT, verification, list(suspects), looks, asked_at, list(suspects.values()))
    await connection.execute(DONE, verification, done)
    await connection.execute(COUNT, verification, new, len({lead_id for _, _, lead_id in drifted}), read_to)
    columns = list(zip(*drifted, strict=True)) or [(), (), ()]
    await connection.execute(COUNT_DRIFT, verification, *columns)


async def met(connection: Connection, verification: int, message: str) -> None:
    """A fault keeps it waiting."""
    await connection.execute(MET, verification, message)


async def finish(connection: Connection, instance: str, verification: int, now: datetime, message: str | None = None) -> None:
    """It has ended; `message` says why it came to nothing, where it did."""
    await connection.execute(FINISH, verification, now, message)
    await connection.execute(FORGET_LEADS, verification)
    await connection.execute(FORGET_OLD, instance, KEPT)
