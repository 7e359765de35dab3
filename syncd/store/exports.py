"""Export jobs: which windows Marketo has been asked for, and how far each is. One function per edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from syncd.core.extract import in_order
from syncd.core.faults import Fault
from syncd.core.values import CreatedBetween, ExportFilter, ExportStatus, InSmartList, InStaticList, UpdatedBetween
from syncd.store.leases import Connection, Pool

State = Literal["creating", "unconfirmed", "created", "queued", "processing", "completed"]


@dataclass(frozen=True, slots=True)
class Export:
    """An export of which something is still to come."""

    id: int
    pull: str
    window_id: int
    part: int
    parts: int
    state: State
    export_id: str | None
    fields: Sequence[str]
    adopted: bool
    begun_at: datetime
    asked_at: datetime | None
    enqueued_at: datetime | None
    looked_at: datetime | None
    finished_at: datetime | None
    records: int | None
    size: int | None
    sha256: bytes | None
    attempts: int


BEGIN = """
INSERT INTO syncd.export (instance, pull, window_id, part, parts, fields, wanted, span, estimate, begun_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id
"""
ORDER = "UPDATE syncd.export SET fields = $2 WHERE id = $1"
UNFINISHED = """
SELECT id, pull, window_id, part, parts, state, export_id, fields, adopted, begun_at, asked_at, enqueued_at, looked_at, finished_at,
       records, bytes AS size, sha256, attempts
  FROM syncd.export
 WHERE instance = $1 AND state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed') ORDER BY id
"""
TO_CREATED = "UPDATE syncd.export SET state = 'created', export_id = $2, created_at = $3 WHERE id = $1 AND state = 'creating' RETURNING id"
TO_REFUSED = """
UPDATE syncd.export SET state = 'absent', ended_at = $2, message = $3, request_id = $4 WHERE id = $1 AND state = 'creating' RETURNING id
"""
TO_UNCONFIRMED = """
UPDATE syncd.export SET state = 'unconfirmed', message = $2, request_id = $3 WHERE id = $1 AND state = 'creating' RETURNING id
"""
ORPHANED = """
UPDATE syncd.export SET state = 'unconfirmed', message = 'the daemon ended before Marketo''s answer was written'
 WHERE instance = $1 AND pull = $2 AND state = 'creating' RETURNING id
"""
ADOPT = """
UPDATE syncd.export SET state = 'created', export_id = $2, created_at = $3, adopted = true, message = NULL
 WHERE id = $1 AND state = 'unconfirmed' RETURNING id
"""
TO_ABSENT = "UPDATE syncd.export SET state = 'absent', ended_at = $2, message = $3 WHERE id = $1 AND state = 'unconfirmed' RETURNING id"
ASKED = "UPDATE syncd.export SET asked_at = $2 WHERE id = $1 AND state = 'created' RETURNING id"
TO_QUEUED = """
UPDATE syncd.export SET state = 'queued', enqueued_at = $2, asked_at = coalesce(asked_at, begun_at), message = NULL
 WHERE id = $1 AND state = 'created' RETURNING id
"""
# Marketo renews what it says once a minute: an older word does not take a newer one back.
LOOKED = """
UPDATE syncd.export
   SET state = CASE WHEN $2 = 'created' OR (state = 'processing' AND $2 = 'queued') THEN state ELSE $2 END,
       looked_at = $3, polls = polls + 1, records = coalesce($4, records), bytes = coalesce($5, bytes), sha256 = coalesce($6, sha256),
       message = $7,
       asked_at = CASE WHEN $2 = 'created' THEN asked_at ELSE coalesce(asked_at, begun_at) END,
       enqueued_at = CASE WHEN $2 = 'created' THEN enqueued_at ELSE coalesce(enqueued_at, $3) END,
       started_at = CASE WHEN $2 IN ('created', 'queued') THEN started_at ELSE coalesce(started_at, $3) END,
       finished_at = CASE WHEN $2 IN ('completed', 'failed') THEN $3 END,
       ended_at = CASE WHEN $2 IN ('failed', 'cancelled') THEN $3 END
 WHERE id = $1 AND state IN ('created', 'queued', 'processing') RETURNING state
"""
TOLD_ANEW = """
UPDATE syncd.export SET records = coalesce($2, records), bytes = coalesce($3, bytes), sha256 = coalesce($4, sha256), looked_at = $5,
       polls = polls + 1
 WHERE id = $1 AND state = 'completed' RETURNING id
"""
TO_CANCELLED = """
UPDATE syncd.export SET state = 'cancelled', ended_at = $2, message = $3
 WHERE id = $1 AND state IN ('created', 'queued', 'processing') RETURNING id
"""
TO_LOADED = "UPDATE syncd.export SET state = 'loaded', ended_at = $2, message = NULL WHERE id = $1 AND state = 'completed' RETURNING id"
TO_EXPIRED = "UPDATE syncd.export SET state = 'expired', ended_at = $2, message = $3 WHERE id = $1 AND state = 'completed' RETURNING id"
SPOILT = "UPDATE syncd.export SET attempts = attempts + 1, message = $2 WHERE id = $1 AND state = 'completed' RETURNING attempts"
IN_VAIN = "UPDATE syncd.export SET message = $2, request_id = $3, looked_at = CASE WHEN $4 THEN $5 ELSE looked_at END WHERE id = $1"
OLDEST_ASKED = """
SELECT min(asked_at) FROM syncd.export
 WHERE instance = $1 AND state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed')
"""
KNOWN = "SELECT export_id FROM syncd.export WHERE instance = $1 AND export_id = ANY ($2::text[])"
# What has ended since then is found by its index; when each had begun decides.
ABSENT_SINCE = "SELECT count(*) FROM syncd.export WHERE instance = $1 AND ended_at >= $2 AND state = 'absent' AND begun_at >= $2"
# A blocked window is wanted again soon.
UNWANTED = """
SELECT e.id FROM syncd.export e
  LEFT JOIN LATERAL (SELECT w.state FROM syncd.pull_window w WHERE w.id = e.window_id LIMIT 1) w ON true
 WHERE e.instance = $1 AND e.state IN ('created', 'queued', 'processing', 'completed')
   AND (w.state IS NULL OR w.state NOT IN ('open', 'blocked'))
"""
COUNTS = """
SELECT state, count(*) AS count FROM syncd.export
 WHERE instance = $1 AND state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed') GROUP BY state
"""
FORGET = "DELETE FROM syncd.export WHERE instance = $1 AND ended_at < $2"


def kind_of(wanted: ExportFilter) -> str:
    """What its filter goes by."""
    match wanted:
        case UpdatedBetween():
            return "updated_between"
        case CreatedBetween():
            return "created_between"
        case InStaticList():
            return "static_list"
        case InSmartList():
            return "smart_list"


def _as_json(wanted: ExportFilter) -> str:
    match wanted:
        case UpdatedBetween(starts_at, ends_at) | CreatedBetween(starts_at, ends_at):
            of: dict[str, object] = {"starts_at": starts_at, "ends_at": ends_at}
        case InStaticList(name) | InSmartList(name):
            of = {"list": name}
    return orjson.dumps({"kind": kind_of(wanted)} | of).decode()


async def begin(
    connection: Connection,
    instance: str,
    pull: str,
    window_id: int,
    part: tuple[int, int],
    fields: Sequence[str],
    wanted: ExportFilter,
    estimate: int | None,
    now: datetime,
) -> tuple[int, Sequence[str]]:
    """An export `creating`, written before the POST, so that a crash leaves a trace; returns its id and the fields in its own order.

    `part` is which one of how many. Raises asyncpg's UniqueViolationError when the part has an unfinished export.
    """
    span = wanted.ends_at - wanted.starts_at if isinstance(wanted, UpdatedBetween | CreatedBetween) else None
    export: int = await connection.fetchval(
        BEGIN, instance, pull, window_id, part[0], part[1], list(fields), _as_json(wanted), span, estimate, now
    )
    ordered = in_order(fields, export)
    await connection.execute(ORDER, export, ordered)
    return export, ordered


async def unfinished(pool: Pool, instance: str) -> list[Export]:
    """The exports of which something is still to come, in the order of their beginning."""
    return [Export(**row) for row in await pool.fetch(UNFINISHED, instance)]


async def to_created(connection: Connection, export: int, export_id: str, now: datetime) -> int | None:
    """creating → created: Marketo answered with an exportId."""
    return await connection.fetchval(TO_CREATED, export, export_id, now)  # type: ignore[no-any-return]


async def to_refused(connection: Connection, export: int, fault: Fault, now: datetime) -> int | None:
    """creating → absent: known not executed."""
    return await connection.fetchval(TO_REFUSED, export, now, str(fault), fault.request_id)  # type: ignore[no-any-return]


async def to_unconfirmed(connection: Connection, export: int, fault: Fault) -> int | None:
    """creating → unconfirmed: it may exist."""
    return await connection.fetchval(TO_UNCONFIRMED, export, str(fault), fault.request_id)  # type: ignore[no-any-return]


async def orphaned(connection: Connection, instance: str, pull: str) -> list[int]:
    """creating → unconfirmed, for exports of a daemon that ended, or lost its database, before the answer was written."""
    return [row["id"] for row in await connection.fetch(ORPHANED, instance, pull)]


async def adopt(connection: Connection, export: int, export_id: str, now: datetime) -> int | None:
    """unconfirmed → created: it was found in Marketo's list."""
    return await connection.fetchval(ADOPT, export, export_id, now)  # type: ignore[no-any-return]


async def to_absent(connection: Connection, export: int, message: str, now: datetime) -> int | None:
    """unconfirmed → absent: it does not exist, or was never queued."""
    return await connection.fetchval(TO_ABSENT, export, now, message)  # type: ignore[no-any-return]


async def asked(connection: Connection, export: int, now: datetime) -> int | None:
    """created → created: Marketo is about to be asked to queue it; what it brings will be no older."""
    return await connection.fetchval(ASKED, export, now)  # type: ignore[no-any-return]


async def to_queued(connection: Connection, export: int, now: datetime) -> int | None:
    """created → queued: Marketo has queued it, now or before."""
    return await connection.fetchval(TO_QUEUED, export, now)  # type: ignore[no-any-return]


async def looked(connection: Connection, export: int, status: ExportStatus, now: datetime) -> str | None:
    """created | queued | processing → queued | processing | completed | failed | cancelled, by what Marketo says. Returns its state."""
    return await connection.fetchval(  # type: ignore[no-any-return]
        LOOKED, export, status.state, now, status.records, status.bytes, _digest(status), status.message
    )


async def told_anew(connection: Connection, export: int, status: ExportStatus, now: datetime) -> int | None:
    """completed → completed, with what Marketo says of its file now."""
    return await connection.fetchval(  # type: ignore[no-any-return]
        TOLD_ANEW, export, status.records, status.bytes, _digest(status), now
    )


async def to_cancelled(connection: Connection, export: int, message: str, now: datetime) -> int | None:
    """created | queued | processing → cancelled: nobody wants it any more, or Marketo does not know it."""
    return await connection.fetchval(TO_CANCELLED, export, now, message)  # type: ignore[no-any-return]


async def to_loaded(connection: Connection, export: int, now: datetime) -> int | None:
    """completed → loaded, in the transaction that writes its leads."""
    return await connection.fetchval(TO_LOADED, export, now)  # type: ignore[no-any-return]


async def to_expired(connection: Connection, export: int, message: str, now: datetime) -> int | None:
    """completed → expired: its file can no longer be had, not be read, or is not wanted."""
    return await connection.fetchval(TO_EXPIRED, export, now, message)  # type: ignore[no-any-return]


async def spoilt(connection: Connection, export: int, message: str) -> int | None:
    """completed → completed: its whole file came, otherwise than Marketo had said. Returns how often it has."""
    return await connection.fetchval(SPOILT, export, message)  # type: ignore[no-any-return]


async def in_vain(connection: Connection, export: int, fault: Fault, now: datetime, looked_at: bool = False) -> None:
    """A call for the export met a fault; `looked_at` says that it was a look at its status."""
    await connection.execute(IN_VAIN, export, str(fault), fault.request_id, looked_at, now)


async def oldest_asked(pool: Pool, instance: str) -> datetime | None:
    """When the oldest export was asked for that is not loaded yet; None when there is none."""
    return await pool.fetchval(OLDEST_ASKED, instance)  # type: ignore[no-any-return]


async def known(pool: Pool, instance: str, export_ids: Sequence[str]) -> set[str]:
    """Which of these are exports of ours that we know of."""
    return {row["export_id"] for row in await pool.fetch(KNOWN, instance, list(export_ids))}


async def absent_since(pool: Pool, instance: str, since: datetime) -> int:
    """How many that began at or after then were given up: each may have left a job all the same."""
    return await pool.fetchval(ABSENT_SINCE, instance, since)  # type: ignore[no-any-return]


async def unwanted(pool: Pool, instance: str) -> set[int]:
    """The exports of windows that nobody waits for any more."""
    return {row["id"] for row in await pool.fetch(UNWANTED, instance)}


async def counts(pool: Pool, instance: str) -> Mapping[str, int]:
    """How many unfinished exports are in each state."""
    return {row["state"]: row["count"] for row in await pool.fetch(COUNTS, instance)}


async def forget_ended(connection: Connection, instance: str, before: datetime) -> None:
    """Delete exports that came to their end before then."""
    await connection.execute(FORGET, instance, before)


def _digest(status: ExportStatus) -> bytes | None:
    return bytes.fromhex(status.sha256) if status.sha256 is not None else None
