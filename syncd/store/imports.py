"""Import jobs: one attempt each to have a chunk imported, and what became of every change of it. One function per edge."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from syncd.core.polling import Finished, runs_of
from syncd.core.results import Verdicts
from syncd.core.values import ImportStatus
from syncd.store import chunks, endings
from syncd.store.chunks import Chunk
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection, Pool

JobState = Literal["submitting", "queued", "importing", "complete", "failed", "refused", "unconfirmed", "absent", "lost", "settled"]


@dataclass(frozen=True, slots=True)
class Job:
    """An import job that may be live."""

    id: int
    push: str
    chunk_id: int
    batch_id: int | None
    state: JobState
    submitted_at: datetime
    looked_at: datetime | None
    failed: int
    warnings: int
    started_at: datetime | None = None
    finished_at: datetime | None = None


START = "UPDATE syncd.chunk SET state = 'in_job', not_before = NULL WHERE id = $1 AND state = 'sealed' RETURNING id"
NEW_JOB = """
INSERT INTO syncd.import_job (instance, push, chunk_id, row_count, byte_count, sha256, attempt, submitted_at)
SELECT c.instance, c.push, c.id, c.row_count, c.byte_count, c.sha256,
       1 + (SELECT count(*) FROM syncd.import_job j WHERE j.chunk_id = c.id), $2
  FROM syncd.chunk c WHERE c.id = $1
RETURNING id
"""
LIVE = """
SELECT id, push, chunk_id, batch_id, state, submitted_at, looked_at, failed, warnings, started_at, finished_at FROM syncd.import_job
 WHERE instance = $1 AND state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'unconfirmed') ORDER BY id
"""
TO_ANSWERED = """
UPDATE syncd.import_job SET state = $2, batch_id = $3, request_id = $4,
       started_at = CASE WHEN $2 <> 'queued' THEN $5::timestamptz END,
       finished_at = CASE WHEN $2 IN ('complete', 'failed') THEN $5::timestamptz END
 WHERE id = $1 AND state = 'submitting' RETURNING id
"""
TO_REFUSED = "UPDATE syncd.import_job SET state = 'refused', message = $2 WHERE id = $1 AND state = 'submitting' RETURNING chunk_id"
TO_UNCONFIRMED = "UPDATE syncd.import_job SET state = 'unconfirmed', message = $2 WHERE id = $1 AND state = 'submitting' RETURNING id"
ORPHANED = """
UPDATE syncd.import_job SET state = 'unconfirmed', message = 'the daemon ended before Marketo''s answer was written'
 WHERE instance = $1 AND state = 'submitting' RETURNING id
"""
TO_QUEUED = "UPDATE syncd.import_job SET state = 'queued', batch_id = $2 WHERE id = $1 AND state = 'unconfirmed' RETURNING id"
TO_ABSENT = "UPDATE syncd.import_job SET state = 'absent', message = $2 WHERE id = $1 AND state = 'unconfirmed' RETURNING chunk_id"
LOOKED = """
UPDATE syncd.import_job
   SET state = CASE WHEN state = 'importing' AND $2 = 'queued' THEN state ELSE $2 END, looked_at = $3, polls = polls + 1,
       processed = $4, failed = $5, warnings = $6, message = $7,
       started_at = CASE WHEN $2 = 'queued' THEN started_at ELSE coalesce(started_at, $3) END,
       finished_at = CASE WHEN $2 IN ('complete', 'failed') THEN $3 END
 WHERE id = $1 AND state IN ('queued', 'importing') RETURNING id
"""
LOOKED_IN_VAIN = "UPDATE syncd.import_job SET looked_at = $2, polls = polls + 1, message = $3 WHERE id = $1"
TO_SETTLED = """
UPDATE syncd.import_job SET state = 'settled', settled_at = $2, applied = $3, warned = $4, rejected = $5, unverified = $6, retried = $7
 WHERE id = $1 AND state IN ('complete', 'failed') RETURNING id
"""
TO_LOST = """
UPDATE syncd.import_job SET state = 'lost', settled_at = $2, unverified = row_count, message = $3
 WHERE id = $1 AND state IN ('queued', 'importing', 'complete', 'failed') RETURNING id
"""
# The verdicts are looked up, not joined: a join was planned as a nested loop over the rows and their verdicts.
END_CHANGES = """
WITH ended AS (
    DELETE FROM syncd.outbox WHERE chunk_id = $1 RETURNING *
)
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, import_job_id, created_at, settled_at,
                                  retry_of)
SELECT id, instance, push, key, key_norm, fields, coalesce($3::jsonb -> ordinal::text ->> 0, $4),
       coalesce($3::jsonb -> ordinal::text ->> 1, $5::text), attempt, $2, created_at, $6, retry_of
  FROM ended
"""
RUNS = """
SELECT submitted_at, nullif(started_at, finished_at) AS started_at, finished_at, row_count FROM (
    SELECT id, submitted_at, started_at, finished_at, row_count FROM syncd.import_job
     WHERE instance = $1 AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT $2) AS latest
 ORDER BY id
"""
# From its submission, as nobody sees a run begin; and in proportion, for one that is larger than any seen.
LONGEST_RUN = """
SELECT max(finished_at - submitted_at) * greatest(1, (SELECT row_count FROM syncd.import_job WHERE id = $3)::float8 / max(row_count))
  FROM syncd.import_job WHERE instance = $1 AND finished_at >= $2
"""
LATER_FINISHED = "SELECT min(finished_at) FROM syncd.import_job WHERE instance = $1 AND id > $2 AND finished_at IS NOT NULL"


async def start(connection: Connection, chunk: Chunk, now: datetime) -> int | None:
    """sealed → in_job, with a job `submitting`: written before the POST, so that a crash leaves a trace. Returns the job's id."""
    if await connection.fetchval(START, chunk.id) is None:
        return None
    return await connection.fetchval(NEW_JOB, chunk.id, now)  # type: ignore[no-any-return]


async def live(pool: Pool, instance: str) -> list[Job]:
    """The jobs that may be live, or whose outcome is not written yet, in order of submission."""
    return [Job(**row) for row in await pool.fetch(LIVE, instance)]


async def to_answered(connection: Connection, job_id: int, batch_id: int, status: str, request_id: str | None, now: datetime) -> int | None:
    """submitting → queued | importing | complete | failed: Marketo answered with a batchId."""
    return await connection.fetchval(TO_ANSWERED, job_id, status, batch_id, request_id, now)  # type: ignore[no-any-return]


async def to_refused(connection: Connection, job_id: int, message: str) -> int | None:
    """submitting → refused: known not executed. Returns the chunk's id; the caller moves the chunk on."""
    return await connection.fetchval(TO_REFUSED, job_id, message)  # type: ignore[no-any-return]


async def to_unconfirmed(connection: Connection, job_id: int, message: str) -> int | None:
    """submitting → unconfirmed: it may exist."""
    return await connection.fetchval(TO_UNCONFIRMED, job_id, message)  # type: ignore[no-any-return]


async def orphaned(connection: Connection, instance: str) -> list[int]:
    """submitting → unconfirmed, for jobs of a daemon that ended before the answer was written."""
    return [row["id"] for row in await connection.fetch(ORPHANED, instance)]


async def to_queued(connection: Connection, job_id: int, batch_id: int) -> int | None:
    """unconfirmed → queued: an operator or a late reply knows the batchId."""
    return await connection.fetchval(TO_QUEUED, job_id, batch_id)  # type: ignore[no-any-return]


async def to_absent(connection: Connection, job_id: int, message: str) -> int | None:
    """unconfirmed → absent: it does not exist; its chunk goes again."""
    chunk_id = await connection.fetchval(TO_ABSENT, job_id, message)
    if chunk_id is not None:
        await chunks.to_sealed(connection, chunk_id, None)
    return chunk_id  # type: ignore[no-any-return]


async def looked(connection: Connection, job_id: int, status: ImportStatus, now: datetime) -> int | None:
    """queued → importing, queued | importing → complete | failed, by what Marketo says."""
    return await connection.fetchval(  # type: ignore[no-any-return]
        LOOKED, job_id, status.state, now, status.processed, status.failed, status.warned, status.message
    )


async def looked_in_vain(connection: Connection, job_id: int, message: str, now: datetime) -> None:
    """A look at the job's status or results that met a fault."""
    await connection.execute(LOOKED_IN_VAIN, job_id, now, message)


async def settle(
    connection: Connection,
    job: Job,
    row_count: int,
    verdicts: Verdicts,
    now: datetime,
    again: Sequence[int] = (),
    not_before: datetime | None = None,
) -> dict[str, int] | None:
    """complete | failed → settled: every change gets its end, or goes again.

    `verdicts` are the rows that are not plainly applied; the rows `again` become two sealed chunks. Returns the counts by outcome,
    None when another has settled the job already.
    """
    count = Counter(state for state, _ in verdicts.values())
    counts = {
        "applied": row_count - len(verdicts) - len(again),
        "warned": count["warned"],
        "rejected": count["rejected"],
        "unverified": count["unverified"],
        "retried": len(again),
    }
    if await connection.fetchval(TO_SETTLED, job.id, now, *counts.values()) is None:
        return None
    if again:
        await endings.to_split(connection, job.chunk_id, again, not_before, now)
    else:
        await endings.to_done(connection, job.chunk_id, now)
    await end_changes(connection, job.chunk_id, job.id, verdicts, "applied", now)
    return counts


async def to_lost(connection: Connection, job: Job, message: str, now: datetime) -> bool:
    """queued | importing | complete | failed → lost: its results can no longer be had, so its changes are unverified."""
    if await connection.fetchval(TO_LOST, job.id, now, message) is None:
        return False
    await end_changes(connection, job.chunk_id, job.id, {}, "unverified", now, reason=message)
    await endings.to_done(connection, job.chunk_id, now)
    return True


async def end_changes(
    connection: Connection,
    chunk_id: int,
    job_id: int,
    verdicts: Mapping[int, tuple[str, str]],
    otherwise: str,
    now: datetime,
    reason: str | None = None,
) -> None:
    """in_chunk → an end, for the changes that the chunk still has: as `verdicts` says by ordinal, else `otherwise` for `reason`."""
    await ensure_partition(connection, now.date())
    await connection.execute(END_CHANGES, chunk_id, job_id, json.dumps(verdicts), otherwise, reason, now)


async def recent_runs(pool: Pool, instance: str, running: int, count: int = 25) -> list[timedelta]:
    """How long the latest jobs of ours ran, in the order of the queue, of which Marketo works on `running` at a time."""
    return [run for run, _ in await recent_sizes(pool, instance, running, count)]


async def recent_sizes(pool: Pool | Connection, instance: str, running: int, count: int = 25) -> list[tuple[timedelta, int]]:
    """How long the latest jobs of ours ran, and how many rows each had."""
    # Those before them tell when the first of them could begin.
    rows = await pool.fetch(RUNS, instance, count + running)
    runs = runs_of([Finished(row["submitted_at"], row["started_at"], row["finished_at"]) for row in rows], running)
    return list(zip(runs, (row["row_count"] for row in rows), strict=True))[-count:]


async def longest_run(pool: Pool, instance: str, since: datetime, job_id: int) -> timedelta:
    """How long a job like this one may run, by the longest of those that finished after `since`."""
    return await pool.fetchval(LONGEST_RUN, instance, since, job_id) or timedelta()


async def later_finished_at(pool: Pool, instance: str, job_id: int) -> datetime | None:
    """When the first job of ours that was submitted after this one finished."""
    return await pool.fetchval(LATER_FINISHED, instance, job_id)  # type: ignore[no-any-return]
