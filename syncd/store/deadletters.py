"""Failures: changes that ended rejected or unverified, which only a person can help. They are found, told, and sent again.

All that look for them go by an index that holds nothing else. A failure is retried once: its row says when, and as which change.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.store.leases import Connection

REASONS = 20  # told apart in a summary
PIECE = 1_000  # rows held in memory
NOBODY = 2**63 - 1  # a LIMIT that limits nothing

# Each query repeats the condition: SQL is read beside its function. $8: those that were retried, too.
COUNTED = """
SELECT h.push, h.state, h.reason, count(*) AS changes, max(h.settled_at) AS latest,
       sum(count(*)) OVER ()::bigint AS total, sum(count(*)) FILTER (WHERE h.state = 'unverified') OVER ()::bigint AS unverified,
       count(*) OVER () AS reasons
  FROM syncd.change_history h
 WHERE h.instance = $1 AND h.state IN ('rejected', 'unverified') AND ($2::text[] IS NULL OR h.push = ANY ($2))
   AND ($3::text IS NULL OR strpos(lower(h.reason), lower($3)) > 0) AND ($4::text IS NULL OR h.state = $4)
   AND h.settled_at >= coalesce($5::timestamptz, '-infinity') AND h.settled_at < coalesce($6::timestamptz, 'infinity')
   AND ($7::bigint[] IS NULL OR h.id = ANY ($7)) AND (h.retried_at IS NULL OR $8)
 GROUP BY h.push, h.state, h.reason ORDER BY changes DESC, h.push, h.state, h.reason LIMIT $9
"""
PUSHES = """
SELECT DISTINCT h.push
  FROM syncd.change_history h
 WHERE h.instance = $1 AND h.state IN ('rejected', 'unverified') AND ($2::text[] IS NULL OR h.push = ANY ($2))
   AND ($3::text IS NULL OR strpos(lower(h.reason), lower($3)) > 0) AND ($4::text IS NULL OR h.state = $4)
   AND h.settled_at >= coalesce($5::timestamptz, '-infinity') AND h.settled_at < coalesce($6::timestamptz, 'infinity')
   AND ($7::bigint[] IS NULL OR h.id = ANY ($7)) AND (h.retried_at IS NULL OR $8)
 ORDER BY 1
"""
FOUND = """
SELECT h.id, h.push, h.key, h.fields::text AS fields, h.state, h.reason, h.settled_at, h.retried_at, h.retried_as, h.erased
  FROM syncd.change_history h
 WHERE h.instance = $1 AND h.state IN ('rejected', 'unverified') AND ($2::text[] IS NULL OR h.push = ANY ($2))
   AND ($3::text IS NULL OR strpos(lower(h.reason), lower($3)) > 0) AND ($4::text IS NULL OR h.state = $4)
   AND h.settled_at >= coalesce($5::timestamptz, '-infinity') AND h.settled_at < coalesce($6::timestamptz, 'infinity')
   AND ($7::bigint[] IS NULL OR h.id = ANY ($7)) AND (h.retried_at IS NULL OR $8)
 ORDER BY h.settled_at DESC, h.id DESC LIMIT $9
"""
FIELDS = """
SELECT DISTINCT f.name
  FROM (SELECT h.fields
          FROM syncd.change_history h
         WHERE h.instance = $1 AND h.state IN ('rejected', 'unverified') AND ($2::text[] IS NULL OR h.push = ANY ($2))
           AND ($3::text IS NULL OR strpos(lower(h.reason), lower($3)) > 0) AND ($4::text IS NULL OR h.state = $4)
           AND h.settled_at >= coalesce($5::timestamptz, '-infinity') AND h.settled_at < coalesce($6::timestamptz, 'infinity')
           AND ($7::bigint[] IS NULL OR h.id = ANY ($7)) AND (h.retried_at IS NULL OR $8)
         ORDER BY h.settled_at DESC, h.id DESC LIMIT $9) h
 CROSS JOIN LATERAL jsonb_object_keys(h.fields) AS f (name) ORDER BY f.name
"""
ONE = """
SELECT c.id, c.push, c.key, c.fields::text AS fields, c.state, c.reason, c.created_at, c.settled_at, c.retry_of, c.retried_at, c.retried_as,
       c.erased, j.id AS import_job_id, j.batch_id, j.chunk_id, j.state AS job_state, j.attempt, j.submitted_at, j.finished_at
  FROM syncd.change c LEFT JOIN syncd.import_job j ON j.id = c.import_job_id
 WHERE c.instance = $1 AND c.id = $2
"""
# Locked first, and looked at again once the lock is had: of two that retry a failure one finds it retried. Of what later changes have
# set, a claim leaves out what comes to be settled after this. As in store/outbox.py, a retry has the place of what it retries, and what
# Marketo had already (noop) counts as set.
RETRY = """
WITH picked AS MATERIALIZED (
    SELECT h.id, h.push, h.key, h.key_norm, h.fields, h.state, h.created_at, h.settled_at, coalesce(h.retry_of, h.id) AS place,
           ($9::jsonb) ->> h.push AS lookup_field
      FROM syncd.change_history h
     WHERE h.instance = $1 AND h.state IN ('rejected', 'unverified') AND h.push = ANY ($2::text[])
       AND ($3::text IS NULL OR strpos(lower(h.reason), lower($3)) > 0) AND ($4::text IS NULL OR h.state = $4)
       AND h.settled_at >= coalesce($5::timestamptz, '-infinity') AND h.settled_at < coalesce($6::timestamptz, 'infinity')
       AND ($7::bigint[] IS NULL OR h.id = ANY ($7)) AND h.retried_at IS NULL
     ORDER BY h.settled_at DESC, h.id DESC LIMIT $8 FOR UPDATE
), weighed AS MATERIALIZED (
    SELECT p.*, later.names, later.names IS NOT NULL AND p.fields - later.names - p.lookup_field = '{}' AS hollow
      FROM picked p
     CROSS JOIN LATERAL (
           SELECT array_agg(DISTINCT f.name) AS names
             FROM syncd.change_history h
             LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
             LEFT JOIN syncd.chunk c ON c.id = j.chunk_id
             LEFT JOIN syncd.sync_batch b ON b.id = h.sync_batch_id
            CROSS JOIN LATERAL unnest(coalesce(h.erased, ARRAY(SELECT jsonb_object_keys(h.fields)))) AS f (name)
            WHERE h.instance = $1 AND h.key_norm = p.key_norm AND h.id > p.place AND coalesce(h.retry_of, h.id) > p.place
              AND (h.state IN ('applied', 'warned', 'unverified')
                   AND (coalesce(c.lookup_field, b.lookup_field) = p.lookup_field
                        OR b.lookup_field = 'id' AND ($9::jsonb ->> h.push) = p.lookup_field)
                   OR h.state = 'noop' AND ($9::jsonb ->> h.push) = p.lookup_field)
              AND h.settled_at >= p.created_at - interval '1 day'
              AND p.fields ? f.name AND f.name <> p.lookup_field) later
), made AS (
    INSERT INTO syncd.outbox (instance, push, key, fields, retry_of)
    SELECT $1, w.push, w.key, w.fields - coalesce(w.names, '{}'), w.place FROM weighed w WHERE NOT w.hollow ORDER BY w.place
    RETURNING id, retry_of
), marked AS (
    UPDATE syncd.change_history h SET retried_at = now(), retried_as = m.id
      FROM weighed w LEFT JOIN made m ON m.retry_of = w.place
     WHERE h.id = w.id AND h.settled_at = w.settled_at
    RETURNING h.id, h.retried_as, w.names
)
SELECT count(retried_as) AS made, min(retried_as) AS first_id, max(retried_as) AS last_id,
       count(*) FILTER (WHERE retried_as IS NOT NULL AND names IS NOT NULL) AS curtailed,
       count(*) FILTER (WHERE retried_as IS NULL) AS overtaken, (array_agg(id ORDER BY id) FILTER (WHERE retried_as IS NULL))[:20] AS hollow
  FROM marked
"""
MARK_MENDED = """
UPDATE syncd.change_history h SET retried_at = now(), retried_as = m.made
  FROM unnest($3::bigint[], $4::bigint[]) AS m (id, made)
 WHERE h.instance = $1 AND h.push = $2 AND h.id = m.id AND h.state IN ('rejected', 'unverified') AND h.retried_at IS NULL
RETURNING h.id
"""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which failures; None: whichever. `reason` is a part of it, in any case; `until` is no longer among them."""

    pushes: Sequence[str] | None = None
    reason: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: Sequence[int] | None = None
    retried_too: bool = False

    def values(self) -> tuple[object, ...]:
        """As the queries take them, behind the instance."""
        return self.pushes, self.reason, self.state, self.since, self.until, self.ids


@dataclass(frozen=True, slots=True)
class ByReason:
    """Failures with one push, state and reason."""

    push: str
    state: str
    reason: str | None
    changes: int
    latest: datetime


@dataclass(frozen=True, slots=True)
class Summary:
    """How many failures there are; `by_reason` has the most frequent of `reasons`."""

    changes: int
    unverified: int
    reasons: int
    by_reason: tuple[ByReason, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """`fields` is a JSON text, empty once the values of the fields `erased` are no longer kept."""

    id: int
    push: str
    key: str
    fields: str
    state: str
    reason: str | None
    settled_at: datetime
    retried_at: datetime | None
    retried_as: int | None
    erased: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Fate:
    """A change, whatever its state, and the last import that carried it; `fields` and `erased` as of a Failure."""

    id: int
    push: str
    key: str
    fields: str
    state: str
    reason: str | None
    created_at: datetime
    settled_at: datetime | None
    retry_of: int | None
    retried_at: datetime | None
    retried_as: int | None
    erased: Sequence[str] | None
    import_job_id: int | None
    batch_id: int | None
    chunk_id: int | None
    job_state: str | None
    attempt: int | None
    submitted_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of failures: changes `made`, of them `curtailed` without fields that later changes have set; `overtaken` are those
    of which nothing was left, the first of them in `hollow`."""

    made: int
    first_id: int | None
    last_id: int | None
    curtailed: int
    overtaken: int
    hollow: Sequence[int]


async def summary(connection: Connection, instance: str, selection: Selection) -> Summary:
    """How many there are, by reason."""
    rows = await connection.fetch(COUNTED, instance, *selection.values(), selection.retried_too, REASONS)
    found = tuple(ByReason(row["push"], row["state"], row["reason"], row["changes"], row["latest"]) for row in rows)
    return Summary(rows[0]["total"], rows[0]["unverified"] or 0, rows[0]["reasons"], found) if rows else Summary(0, 0, 0, ())


async def latest(connection: Connection, instance: str, selection: Selection, limit: int) -> list[Failure]:
    """The newest `limit` of them, the newest first."""
    return [Failure(**row) for row in await connection.fetch(FOUND, instance, *selection.values(), selection.retried_too, limit)]


async def pushes_of(connection: Connection, instance: str, selection: Selection) -> list[str]:
    """The pushes that they came through."""
    return [row["push"] for row in await connection.fetch(PUSHES, instance, *selection.values(), selection.retried_too)]


async def field_names(connection: Connection, instance: str, selection: Selection, limit: int | None) -> list[str]:
    """The fields that any of the newest `limit` sets or clears."""
    rows = await connection.fetch(FIELDS, instance, *selection.values(), selection.retried_too, limit or NOBODY)
    return [row["name"] for row in rows]


async def walk(connection: Connection, instance: str, selection: Selection, limit: int | None) -> AsyncIterator[Failure]:
    """The newest `limit` of them, the newest first, however many; in a transaction of the caller's."""
    async for row in connection.cursor(FOUND, instance, *selection.values(), selection.retried_too, limit or NOBODY, prefetch=PIECE):
        yield Failure(**row)


async def fate(connection: Connection, instance: str, change_id: int) -> Fate | None:
    """The change with that id; None when there is none."""
    row = await connection.fetchrow(ONE, instance, change_id)
    return Fate(**row) if row else None


async def retry(
    connection: Connection, instance: str, lookup_fields: Mapping[str, str], selection: Selection, limit: int | None
) -> Retried:
    """Make a new change of each of the newest `limit` that was not retried yet, all or none.

    `lookup_fields` says of each push what its keys are values of; `selection.pushes` are some of these.
    """
    row = await connection.fetchrow(RETRY, instance, *selection.values(), limit or NOBODY, json.dumps(dict(lookup_fields)))
    assert row is not None
    return Retried(**(dict(row) | {"hollow": row["hollow"] or ()}))


async def mark_mended(connection: Connection, instance: str, push: str, made: Mapping[int, int]) -> set[int]:
    """Write of each failure that a change was made of it; returns those that are none of the push's, or were retried before."""
    rows = await connection.fetch(MARK_MENDED, instance, push, list(made.keys()), list(made.values()))
    return set(made) - {row["id"] for row in rows}
