"""Views and foreign tables that pushes follow: compared with a snapshot of digests, which moves with the changes that it makes.

A comparison reads the view once, outside of any writing transaction, into a temporary table that has only what differs. Then, a page a
transaction, changes go into the outbox and digests into the snapshot: a crash anywhere loses nothing, and nothing is sent twice.
The session holds the push's lock (`attaching.alone`) as long as the temporary table is there: no two comparisons meet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from syncd.core.forget import kind_of
from syncd.core.mapping import Layout
from syncd.core.settings import Push
from syncd.store.leases import Connection, Pool

PAGE = 20_000  # keys
LONGEST = "SET LOCAL statement_timeout = '1h'"
"""A view may take its time; one that hangs for ever would be told by nobody."""

BEGIN_ANEW = """
INSERT INTO syncd.comparison AS c (attachment_id, layout, due_at) VALUES ($1, $2, $3)
ON CONFLICT (attachment_id) DO UPDATE SET layout = excluded.layout, due_at = excluded.due_at, generation = c.generation + 1, based_at = NULL
"""
OF_PUSH = """
SELECT a.id, a.relation, a.plan_id, c.layout, c.generation, c.due_at, c.based_at, c.failures,
       greatest(c.compared_at, c.failed_at) AS last_at
  FROM syncd.attachment a JOIN syncd.comparison c ON c.attachment_id = a.id WHERE a.instance = $1 AND a.push = $2
"""
COMPARISONS = """
SELECT a.push, c.based_at, c.compared_at, c.keys, c.changes, c.gone, c.no_keys, c.long_keys, c.duplicates, c.forgotten,
       c.failed_at, c.message
  FROM syncd.attachment a JOIN syncd.comparison c ON c.attachment_id = a.id WHERE a.instance = $1
"""
READ = "SELECT syncd.compare($1, $2, $3::text::jsonb)"
FOUND = """
SELECT coalesce(max(nr), 0) AS last, coalesce(sum(of_rows) FILTER (WHERE fate = 'no_key'), 0)::bigint AS no_keys,
       coalesce(sum(of_rows) FILTER (WHERE fate = 'long_key'), 0)::bigint AS long_keys,
       count(*) FILTER (WHERE fate = 'duplicate') AS duplicates
  FROM pg_temp.syncd_compared
"""
# Of people who are forgotten nothing is kept and nothing sent. Hashes are made once for each key, and looked up each by itself
# (store/forgetting.py says why).
WRITE = """
WITH page AS MATERIALIZED (
    SELECT c.* FROM pg_temp.syncd_compared c WHERE c.nr > $3 AND c.nr <= $4 AND c.fate IN ('changed', 'gone')
), hashed AS MATERIALIZED (
    SELECT p.*, CASE WHEN EXISTS (SELECT FROM syncd.forgotten WHERE instance = $1) THEN (
               SELECT ARRAY[syncd.person_hash(k.inner_pad, k.outer_pad, $1, $5, p.key),
                            syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'email',
                                              (SELECT e.value FROM jsonb_each_text(p.fields) e WHERE lower(e.key) = 'email' LIMIT 1))]
                 FROM syncd.forget_key k) END AS hashes
      FROM page p
), known AS MATERIALIZED (
    SELECT h.*, h.hashes IS NOT NULL
                AND (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = ANY (h.hashes) LIMIT 1) IS TRUE AS forgotten
      FROM hashed h
), written AS (
    INSERT INTO syncd.outbox (instance, push, key, fields, state, reason, plan_id)
    SELECT $1, $2, k.key, k.fields, CASE WHEN $9::bigint IS NULL THEN 'pending' ELSE 'held' END,
           CASE WHEN $9 IS NOT NULL THEN format('plan %s, a backfill, waits for its release', $9) END, $9
      FROM known k WHERE NOT k.forgotten AND k.fields <> '{}' AND $8 ORDER BY k.nr
    RETURNING id
), kept AS (
    INSERT INTO syncd.snapshot AS s (attachment_id, key_norm, key, generation, digests)
    SELECT $6, k.key_norm, k.key, $7, k.digests FROM known k WHERE k.fate = 'changed' AND NOT k.forgotten ORDER BY k.nr
    ON CONFLICT (attachment_id, key_norm) DO UPDATE SET key = excluded.key, generation = excluded.generation, digests = excluded.digests
), dropped AS (
    DELETE FROM syncd.snapshot s USING known k
     WHERE k.fate = 'gone' AND s.attachment_id = $6 AND s.key_norm = k.key_norm
)
SELECT (SELECT count(*) FROM written) AS changes, count(*) FILTER (WHERE fate = 'gone') AS gone,
       count(*) FILTER (WHERE forgotten) AS forgotten FROM known
"""
DONE = """
UPDATE syncd.comparison SET compared_at = $2, based_at = coalesce(based_at, $2), due_at = $3, changes = $4, gone = $5, no_keys = $6,
       long_keys = $7, duplicates = $8, forgotten = $9, failures = 0, failed_at = NULL, message = NULL,
       keys = (SELECT count(*) FROM syncd.snapshot s WHERE s.attachment_id = $1)
 WHERE attachment_id = $1
"""
FAILED = "UPDATE syncd.comparison SET failures = failures + 1, failed_at = $2, message = $3, due_at = $4 WHERE attachment_id = $1"
DUE = "UPDATE syncd.comparison SET due_at = least(due_at, $2) WHERE attachment_id = $1"
FORGET_TEMPORARY = "DROP TABLE IF EXISTS pg_temp.syncd_compared"
REMOVE = """
WITH removed AS (DELETE FROM syncd.comparison WHERE attachment_id = $1)
DELETE FROM syncd.snapshot WHERE attachment_id = $1
"""


class NotComparable(Exception):  # noqa: N818 - of the view, not a mistake of ours
    """A view could not be read; the message says why, without values."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A view that a push follows, as the daemon has it. `based_at` is None as long as syncd attach has not taken the first snapshot."""

    id: int
    relation: str
    plan_id: int | None
    layout: str
    generation: int
    due_at: datetime
    based_at: datetime | None
    last_at: datetime | None
    failures: int


@dataclass(frozen=True, slots=True)
class Compared:
    """How the last comparison of a view ended; `failed_at` and `message` of one that did not come to its end since."""

    based_at: datetime | None
    compared_at: datetime | None
    keys: int
    changes: int
    gone: int
    no_keys: int
    long_keys: int
    duplicates: int
    forgotten: int
    failed_at: datetime | None
    message: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a reading has found: pages up to `last`, and what is left out."""

    last: int
    no_keys: int
    long_keys: int
    duplicates: int


@dataclass(slots=True)
class Tally:
    """What the pages have written so far, up to `reached`."""

    reached: int = 0
    changes: int = 0
    gone: int = 0
    forgotten: int = 0


async def begin(connection: Connection, attachment: int, layout: Layout, now: datetime) -> None:
    """Compare by this layout from now on, beginning with a snapshot of all that there is."""
    await connection.execute(BEGIN_ANEW, attachment, layout.text, now)


async def remove(connection: Connection, attachment: int) -> None:
    """Forget the snapshot of an attachment, and how its comparisons stand."""
    await connection.execute(REMOVE, attachment)


async def of_push(connection: Connection | Pool, instance: str, push: str) -> Followed | None:
    """The view that the push follows; None when it follows none."""
    row = await connection.fetchrow(OF_PUSH, instance, push)
    return None if row is None else Followed(**row)


async def compared(connection: Connection | Pool, instance: str) -> dict[str, Compared]:
    """How comparisons stand, by push."""
    return {row["push"]: Compared(**dict(list(row.items())[1:])) for row in await connection.fetch(COMPARISONS, instance)}


async def read(connection: Connection, view: Followed) -> Found:
    """Read the view, and keep what differs in a temporary table of the session. Raises NotComparable."""
    try:
        async with connection.transaction():
            await connection.execute(LONGEST)
            await connection.execute(READ, view.id, view.generation, view.layout)
    except asyncpg.PostgresError as error:
        if is_ours(error) or connection.is_closed():
            raise
        raise NotComparable(told(error)) from None
    row = await connection.fetchrow(FOUND)
    assert row is not None
    return Found(**row)


async def write(connection: Connection, instance: str, push: Push, view: Followed, found: Found, tally: Tally, *, sends: bool) -> bool:
    """Write the next page, in the transaction at hand; `sends` is False for a first snapshot that nobody is to get. False: it was the last.

    Changes of a view whose backfill is being made are held for its plan.
    """
    upto = min(tally.reached + PAGE, found.last)
    row = await connection.fetchrow(
        WRITE, instance, push.name, tally.reached, upto, kind_of(push.lookup_field), view.id, view.generation, sends, view.plan_id
    )
    assert row is not None
    tally.reached = upto
    tally.changes += row["changes"]
    tally.gone += row["gone"]
    tally.forgotten += row["forgotten"]
    return upto < found.last


async def done(connection: Connection, view: Followed, found: Found, tally: Tally, now: datetime, every: timedelta) -> None:
    """The comparison has come to its end."""
    counts = tally.changes, tally.gone, found.no_keys, found.long_keys, found.duplicates, tally.forgotten
    await connection.execute(DONE, view.id, now, now + every, *counts)


async def failed(connection: Connection, view: Followed, message: str, now: datetime, every: timedelta) -> None:
    """The view could not be read; it is tried again when its time comes."""
    await connection.execute(FAILED, view.id, now, message, now + every)


async def due(connection: Connection, attachment: int, now: datetime) -> None:
    """Have the daemon compare at once."""
    await connection.execute(DUE, attachment, now)


async def forget_temporary(connection: Connection) -> None:
    """Drop what a reading has left in the session."""
    await connection.execute(FORGET_TEMPORARY)


def left_out(found: Found | Compared) -> str:
    """Rows that do not become changes, by cause."""
    causes: Iterable[tuple[int, str]] = (
        (found.no_keys, "rows without a key"),
        (found.long_keys, "with a key of more than 1,000 bytes"),
        (found.duplicates, "keys that are in several rows with other values"),
    )
    return ", ".join(f"{count:,} {cause}" for count, cause in causes if count)


def is_ours(error: asyncpg.PostgresError) -> bool:
    """Whether the database fails us, and not the view: it is away, is stopped, or full."""
    stopped = isinstance(error, asyncpg.OperatorInterventionError) and not isinstance(error, asyncpg.QueryCanceledError)
    return stopped or isinstance(error, asyncpg.InsufficientResourcesError)


def told(error: asyncpg.PostgresError) -> str:
    """The error by its code; what it says as well where that names things and no values."""
    code = getattr(error, "sqlstate", None) or "unknown"
    if isinstance(error, asyncpg.SyntaxOrAccessError | asyncpg.PostgresConnectionError):
        return f"error {code}, {str(error).splitlines()[0]}"
    if isinstance(error, asyncpg.QueryCanceledError):
        return f"error {code}: it took too long, or was cancelled"
    return f"error {code} ({type(error).__name__.removesuffix('Error')})"
