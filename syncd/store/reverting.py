"""Reverts: what was sent, and what the mirror knows of it, a page of keys at a time; and the plan that puts values back.

A change of a revert has the place of the change that it reverts (`outbox.retry_of`): whatever came after that one stays, however late the
plan is released, and however late it was committed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, time
from typing import Any

from syncd.core.merge import ECHO
from syncd.core.revert import Found, Line, Sent
from syncd.store.attaching import PROGRESS
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection

PAGE = 2_000  # keys
BATCH = 20_000  # changes
OVERTAKEN = "its lead was changed in Marketo, or went, after the plan was made"

# Where nothing is known of a partition, all of it would be sorted for each page. Keys are looked up in a hash only where they are known
# when the query is planned.
BY_INDEX = "SET LOCAL enable_sort = off; SET LOCAL plan_cache_mode = force_custom_plan"
KEYS = """
SELECT h.key_norm FROM syncd.change_history h
 WHERE h.instance = $1 AND h.push = $2 AND h.settled_at >= $3 AND h.key_norm > $4 AND h.state IN ('applied', 'warned', 'unverified')
 GROUP BY h.key_norm ORDER BY h.key_norm LIMIT $5
"""
# What came back from a chunk or went ahead of one may have been written by any of its tries; a chunk goes again under another job.
CHANGES = """
SELECT h.key_norm, h.id, coalesce(h.retry_of, h.id) AS place, h.push, h.key, h.fields::text AS fields,
       CASE WHEN h.state = 'noop' AND h.reason = $4 THEN 'echo' ELSE h.state END AS state, h.erased,
       coalesce(j.submitted_at, b.submitted_at, h.settled_at) AS sent_at, h.settled_at,
       least(coalesce(CASE WHEN h.attempt > 0 OR c.split_from IS NOT NULL OR b.urgent THEN h.created_at END,
                      (SELECT min(f.submitted_at) FROM syncd.import_job f WHERE f.chunk_id = j.chunk_id)),
             coalesce(j.submitted_at, b.submitted_at, h.settled_at)) AS first_at
  FROM syncd.change_history h
  LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
  LEFT JOIN syncd.chunk c ON c.id = j.chunk_id
  LEFT JOIN syncd.sync_batch b ON b.id = h.sync_batch_id
 WHERE h.instance = $1 AND h.key_norm = ANY ($2::text[]) AND h.settled_at >= $3 AND h.state IN ('applied', 'warned', 'unverified', 'noop')
"""
# By a walk over the outbox, which has no index of keys (store/story.py), for all keys of a page at once: 0.3 s for a million changes.
ON_THE_WAY = """
SELECT DISTINCT o.key_norm, o.push, f.name
  FROM syncd.outbox o CROSS JOIN LATERAL jsonb_object_keys(o.fields) AS f (name)
 WHERE o.instance = $1 AND o.key_norm = ANY ($2::text[])
"""
# The LIMITs keep it one probe of an index for each key, whatever is known of the tables. Two leads are enough to know of several.
_LEADS = """
SELECT k.key_norm, l.lead_id, l.email, l.first_seen_at, l.asked_at, ARRAY(SELECT jsonb_object_keys(l.digests)) AS pulls,
       (SELECT jsonb_object_agg(f.name, CASE WHEN f.name = 'email' AND NOT l.attributes ? 'email' THEN to_jsonb(l.email)
                                             ELSE coalesce(l.attributes -> f.name, l.misfits -> f.name) END)
          FROM unnest($3::text[]) AS f (name))::text AS values
  FROM unnest($2::text[]) AS k (key_norm)
 CROSS JOIN LATERAL (
       SELECT * FROM syncd.lead m
"""
_BY_EMAIL = """WHERE m.instance = $1 AND lower(m.email) = k.key_norm AND m.deleted_at IS NULL LIMIT 2) l"""
_BY_ID = """WHERE m.instance = $1 AND m.lead_id = CASE WHEN k.key_norm ~ '^[1-9][0-9]{0,17}$' THEN k.key_norm::bigint END
   AND m.deleted_at IS NULL LIMIT 1) l"""
LEADS_BY_EMAIL, LEADS_BY_ID = _LEADS + _BY_EMAIL, _LEADS + _BY_ID
LINES = """
SELECT h.lead_id, h.field, h.seen_at, h.old::text AS old, h.new::text AS new
  FROM syncd.lead_history h
 WHERE h.instance = $1 AND h.lead_id = ANY ($2::bigint[]) AND h.field = ANY ($3::text[]) AND h.seen_at >= $4
"""
ERASED = """
SELECT f.name, count(*) AS changes
  FROM syncd.change_history h
  LEFT JOIN syncd.import_job j ON j.id = h.import_job_id
  LEFT JOIN syncd.sync_batch b ON b.id = h.sync_batch_id
 CROSS JOIN LATERAL unnest(h.erased) AS f (name)
 WHERE h.instance = $1 AND h.key_norm = '' AND h.push = $2 AND h.settled_at >= $3 AND h.state IN ('applied', 'warned', 'unverified')
   AND coalesce(j.submitted_at, b.submitted_at, h.settled_at) >= $3 AND coalesce(j.submitted_at, b.submitted_at, h.settled_at) < $4
 GROUP BY f.name
"""
OLDEST = """
SELECT min(to_date(substr(c.relname, 15, 8), 'YYYYMMDD')) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass('syncd.' || quote_ident('lead_history_i_' || $1))
"""
BEGIN = "INSERT INTO syncd.plan (instance, push, kind, reason, made_at) VALUES ($1, $2, 'revert', $3, $4) RETURNING id"
UNFINISHED = "SELECT id FROM syncd.plan WHERE instance = $1 AND push = $2 AND kind = 'revert' AND state = 'making' ORDER BY id"
INSERT = """
INSERT INTO syncd.outbox (instance, push, key, fields, state, reason, created_at, retry_of, plan_id)
SELECT $1, $2, c.key, c.fields::jsonb, 'held', format('plan %s, a revert of change %s, waits for its release', $6::bigint, c.place), $7,
       c.place, $6
  FROM unnest($3::text[], $4::bigint[], $5::text[]) AS c (key, place, fields)
"""
IS_REVERT = "SELECT EXISTS (SELECT FROM syncd.plan WHERE instance = $1 AND push = $2 AND id = $3 AND kind = 'revert')"
# A lead that is gone would be created anew by an upsert.
CANCEL_OVERTAKEN = """
WITH chosen AS MATERIALIZED (
    SELECT id, key_norm, fields, created_at FROM syncd.outbox
     WHERE plan_id = $2 AND state = 'held' AND id > $4 ORDER BY id LIMIT $5 FOR UPDATE
), overtaken AS (
    SELECT c.id FROM chosen c
      LEFT JOIN LATERAL (
           SELECT m.lead_id FROM syncd.lead m
            WHERE m.instance = $1 AND lower(m.email) = c.key_norm AND m.deleted_at IS NULL LIMIT 1) e ON $3
      LEFT JOIN LATERAL (
           SELECT m.lead_id FROM syncd.lead m
            WHERE m.instance = $1 AND m.deleted_at IS NULL
              AND m.lead_id = CASE WHEN c.key_norm ~ '^[1-9][0-9]{0,17}$' THEN c.key_norm::bigint END LIMIT 1) i ON NOT $3
     WHERE coalesce(e.lead_id, i.lead_id) IS NULL
        OR (SELECT true FROM syncd.lead_history h
             WHERE h.instance = $1 AND h.lead_id = coalesce(e.lead_id, i.lead_id) AND h.seen_at > c.created_at AND c.fields ? h.field
             LIMIT 1)
), ended AS (
    DELETE FROM syncd.outbox o USING overtaken c WHERE o.id = c.id RETURNING o.*
), told AS (
    INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of)
    SELECT id, instance, push, key, key_norm, fields, 'cancelled', $6, attempt, created_at, $7, retry_of FROM ended
)
SELECT (SELECT count(*) FROM ended) AS changes, max(id) AS last FROM chosen
"""


async def history_from(connection: Connection, instance: str) -> datetime | None:
    """Since when the history of leads is kept; None: there is none."""
    day = await connection.fetchval(OLDEST, instance)
    return None if day is None else datetime.combine(day, time.min, UTC)


async def keys(connection: Connection, instance: str, push: str, since: datetime, after: str) -> list[str]:
    """The next keys behind `after` of which changes have ended since then; first in a page's transaction, which then goes by indexes."""
    await connection.execute(BY_INDEX)
    return [row["key_norm"] for row in await connection.fetch(KEYS, instance, push, since, after, PAGE)]


async def erased(connection: Connection, instance: str, push: str, since: datetime, until: datetime) -> dict[str, int]:
    """How many changes of forgotten people were sent then, by field."""
    return {row["name"]: row["changes"] for row in await connection.fetch(ERASED, instance, push, since, until)}


async def changes(connection: Connection, instance: str, keys: Sequence[str], since: datetime) -> list[tuple[str, Sent]]:
    """The changes of all pushes with these keys that have ended since then and may have written, each with its key's normal form."""
    rows = await connection.fetch(CHANGES, instance, keys, since, ECHO)
    return [(key_norm, Sent(*change)) for key_norm, *change in (row.values() for row in rows)]


async def on_the_way(connection: Connection, instance: str, keys: Sequence[str]) -> list[tuple[str, str, str]]:
    """Key, push and field of the changes that have not ended."""
    return [tuple(row) for row in await connection.fetch(ON_THE_WAY, instance, keys)]


async def leads(
    connection: Connection, instance: str, lookup_field: str, keys: Sequence[str], fields: Sequence[str]
) -> list[tuple[str, str | None, Found]]:
    """The living leads of these keys, two of each at most, with their keys, addresses, and values of the fields."""
    query = LEADS_BY_EMAIL if lookup_field == "email" else LEADS_BY_ID
    return [
        (
            row["key_norm"],
            row["email"],
            Found(row["lead_id"], _texts(row["values"]), row["first_seen_at"], row["asked_at"], frozenset(row["pulls"])),
        )
        for row in await connection.fetch(query, instance, keys, fields)
    ]


async def lines(
    connection: Connection, instance: str, ids: Sequence[int], fields: Sequence[str], since: datetime
) -> dict[int, dict[str, list[Line]]]:
    """How the fields of these leads have changed since then, the oldest first."""
    found: dict[int, dict[str, list[Line]]] = {}
    rows = await connection.fetch(LINES, instance, ids, fields, since)
    for row in sorted(rows, key=lambda row: row["seen_at"]):
        found.setdefault(row["lead_id"], {}).setdefault(row["field"], []).append(Line(row["seen_at"], row["old"], row["new"]))
    return found


async def begin(connection: Connection, instance: str, push: str, reason: str, now: datetime) -> int:
    """A plan, to be filled; returns its id."""
    return await connection.fetchval(BEGIN, instance, push, reason, now)  # type: ignore[no-any-return]


async def unfinished(connection: Connection, instance: str, push: str) -> list[int]:
    """Plans that somebody began to fill."""
    return [row["id"] for row in await connection.fetch(UNFINISHED, instance, push)]


async def insert(
    connection: Connection, instance: str, push: str, plan: int, rows: Iterable[tuple[str, int, str]], now: datetime
) -> int | None:
    """Hold changes (key, place, fields) for the plan; returns how many, None when somebody has ended it."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    if await connection.fetchval(PROGRESS, plan, len(columns[0])) is None:
        return None
    await connection.execute(INSERT, instance, push, *columns, plan, now)
    return len(columns[0])


async def cancel_overtaken(connection: Connection, instance: str, push: str, plan: int, by_email: bool, now: datetime) -> int:
    """held → cancelled, for changes of a revert whose lead has moved in a field of theirs, or gone, since they were made; how many."""
    if not await connection.fetchval(IS_REVERT, instance, push, plan):
        return 0
    done, after = 0, 0
    while True:
        async with connection.transaction():
            await ensure_partition(connection, now.date())
            row = await connection.fetchrow(CANCEL_OVERTAKEN, instance, plan, by_email, after, BATCH, OVERTAKEN, now)
        assert row is not None
        if row["last"] is None:
            return done
        done, after = done + row["changes"], row["last"]


def _texts(values: str | None) -> Mapping[str, str]:
    """The JSON texts of an object's members, with all digits of their numbers; without those that are null."""
    members: dict[str, Any] = _AS_WRITTEN.decode(values or "{}")
    return {
        name: str(value) if isinstance(value, _Digits) else json.dumps(value, ensure_ascii=False)
        for name, value in members.items()
        if value is not None
    }


class _Digits(str):
    """A number as it is written."""

    __slots__ = ()


_AS_WRITTEN = json.JSONDecoder(parse_int=_Digits, parse_float=_Digits)
