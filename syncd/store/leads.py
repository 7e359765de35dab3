"""The mirror: one statement per page or slice, sorted by key, that writes no byte for an unchanged lead (decisions.md, lead upsert)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from hashlib import blake2b

import asyncpg
import orjson

from syncd.core.mirror import MirrorRow
from syncd.store import forgetting
from syncd.store.leases import Connection
from syncd.store.staging import Slice, Staged

# Sorted, because unsorted batches on two connections deadlock. The casts to jsonb come after the anti-join: an unchanged lead costs
# one probe of the primary key. The LIMITs keep it one: a plain join was planned as a walk over the whole mirror for each page, as
# long as a new mirror was not analyzed.
#
# A row of a time to come was written by a clock that was ahead: it is no newer than this answer. A minute is not to come: others write
# while this statement runs, or waits for them.
#
# A digest begins with a mark of the question that was asked, and covers what could be answered. When a row really changes, the
# digests of pulls that own a field of the change lose all but that mark, since their next answer must be compared in full; when it
# doesn't, ours is only noted.
#
# A page and a slice of an extract differ in where the rows come from and in what becomes of those that a later request has told of
# already: a page is asked for again, the leads of an extract one by one.
#
# A row that history is to be written of is locked first, so that `old` is what the new value replaces, whatever another pull does
# meanwhile; unchanged ones are not, as a lock is a write. Of fields that were never asked for before, nobody knows since when they
# have their value: that is no change. Nothing is told of rows that are refused.
_FRESH = """
WITH fresh AS MATERIALIZED (
    SELECT p.lead_id, p.email, p.attributes, p.misfits, p.digest, l.found, starts_with(l.digest, left(p.digest, 7)) AS asked_before,
           NOT coalesce(p.kept, true) AND l.digest IS NULL AS dropped
      FROM """
_OF_A_PAGE = """unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $11::boolean[])
           AS p (lead_id, email, attributes, misfits, digest, kept)"""
_OF_A_SLICE = "syncd.staged_leads($2::jsonb, $3::jsonb, $4::text, $5::bigint, $6::bigint, $11::jsonb) p"
_WRITE = """
      LEFT JOIN LATERAL (
           SELECT true AS found, l.digests ->> $7 AS digest, l.deleted_at FROM syncd.lead l
            WHERE l.instance = $1 AND l.lead_id = p.lead_id LIMIT 1
           ) l ON true
     WHERE l.digest IS DISTINCT FROM p.digest OR l.deleted_at < $9 OR l.deleted_at > $10::timestamptz + interval '1 minute'
     ORDER BY p.lead_id
), held AS MATERIALIZED (
    SELECT f.*, l.digests AS old_digests, l.email AS old_email, l.attributes || coalesce(l.misfits, '{}') AS old_values, l.deleted_at,
           (l.asked_at > $9 AND l.asked_at <= $10::timestamptz + interval '1 minute')
               OR (l.deleted_at >= $9 AND l.deleted_at <= $10::timestamptz + interval '1 minute') AS overtaken,
           CASE WHEN f.found AND $13 THEN f.attributes::jsonb || f.misfits::jsonb END AS new_values
      FROM fresh f
      LEFT JOIN LATERAL (
           SELECT h.digests, h.email, h.attributes, h.misfits, h.asked_at, h.deleted_at FROM syncd.lead h
            WHERE f.found AND $13 AND h.instance = $1 AND h.lead_id = f.lead_id LIMIT 1 FOR NO KEY UPDATE
           ) l ON true
     WHERE NOT f.dropped
), written AS (
    INSERT INTO syncd.lead AS l (instance, lead_id, email, attributes, misfits, digests, first_seen_at, changed_at, asked_at)
    SELECT $1, lead_id, email, attributes::jsonb, nullif(misfits::jsonb, '{}'), jsonb_build_object($7::text, digest), $10, $10, $9
      FROM held
    ON CONFLICT (instance, lead_id) DO UPDATE
       SET (email, attributes, misfits, digests, changed_at, asked_at, deleted_at, merged_into) = (
           SELECT excluded.email, m.attributes, m.misfits,
                  CASE WHEN m.same THEN l.digests WHEN l.digests - $7 = '{}' THEN '{}' ELSE coalesce((
                      SELECT jsonb_object_agg(d.key, CASE
                                 WHEN excluded.email IS DISTINCT FROM l.email OR $12::jsonb -> d.key = 'null' THEN left(d.value, 7)
                                 WHEN EXISTS (SELECT FROM jsonb_array_elements_text($12::jsonb -> d.key) f
                                               WHERE l.attributes -> f IS DISTINCT FROM m.attributes -> f
                                                  OR l.misfits -> f IS DISTINCT FROM m.misfits -> f) THEN left(d.value, 7)
                                 ELSE d.value END)
                        FROM jsonb_each_text(l.digests - $7) d WHERE $12::jsonb ? d.key
                  ), '{}') END || excluded.digests,
                  CASE WHEN m.same THEN l.changed_at ELSE excluded.changed_at END,
                  excluded.asked_at, NULL::timestamptz, NULL::bigint
             FROM (SELECT n.*, n.attributes = l.attributes AND n.misfits IS NOT DISTINCT FROM l.misfits
                               AND excluded.email IS NOT DISTINCT FROM l.email AND l.deleted_at IS NULL AS same
                     FROM (SELECT coalesce(l.attributes - $8::text[], '{}') || excluded.attributes AS attributes,
                                  nullif(coalesce(l.misfits - $8::text[], '{}') || coalesce(excluded.misfits, '{}'), '{}') AS misfits
                          ) n
                  ) m)
     WHERE (l.asked_at <= excluded.asked_at OR l.asked_at > $10::timestamptz + interval '1 minute')
       AND (l.deleted_at IS NULL OR l.deleted_at < excluded.asked_at OR l.deleted_at > $10::timestamptz + interval '1 minute')
    RETURNING l.lead_id, (xmax = 0) AS created, changed_at = $10 AS changed
), lines AS (
    INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
    SELECT $1, h.lead_id, $7, $10, d.field, d.old, d.new
      FROM held h
     CROSS JOIN LATERAL (
           SELECT n.key AS field, h.old_values -> n.key AS old, n.value AS new
             FROM jsonb_each(h.new_values) n WHERE h.old_values -> n.key IS DISTINCT FROM n.value
           UNION ALL
           SELECT o.key, o.value, NULL FROM jsonb_each(h.old_values) o
            WHERE NOT h.new_values ? o.key AND ($8::text[] IS NULL OR o.key = ANY ($8::text[]))
           UNION ALL
           SELECT 'email', to_jsonb(h.old_email), to_jsonb(h.email)
            WHERE h.old_email IS DISTINCT FROM h.email AND NOT h.new_values ? 'email' AND NOT h.old_values ? 'email'
           UNION ALL
           SELECT 'deleted_at', to_jsonb(h.deleted_at), NULL WHERE h.deleted_at IS NOT NULL
           ) d
     WHERE h.new_values IS NOT NULL AND h.overtaken IS NOT TRUE AND (d.old IS NOT NULL OR h.asked_before OR d.field = 'email' OR EXISTS (
           SELECT FROM jsonb_each($12::jsonb) o WHERE h.old_digests ? o.key AND (o.value = 'null' OR o.value ? d.field)))
)"""
_DUE = """, due AS (
    INSERT INTO syncd.lead_due AS d (instance, pull, lead_id, reason, noted_at)
    SELECT $1, $7, o.lead_id, 'overtaken', $10 FROM (SELECT lead_id FROM held EXCEPT SELECT lead_id FROM written ORDER BY 1) o
    ON CONFLICT (instance, pull, lead_id) DO UPDATE SET reason = excluded.reason, noted_at = greatest(d.noted_at, excluded.noted_at)
)"""
_COUNT = """
SELECT count(*) FILTER (WHERE created) AS created, count(*) FILTER (WHERE changed AND NOT created) AS changed,
       (SELECT count(*) FROM held) - count(*) AS refused, (SELECT count(*) FROM fresh WHERE dropped) AS dropped
  FROM written
"""
UPSERT = _FRESH + _OF_A_PAGE + _WRITE + _COUNT
UPSERT_STAGED = _FRESH + _OF_A_SLICE + _WRITE + _DUE + _COUNT
# For leads that are not in the mirror: COPY, half the work of an INSERT. It fails where one is there, and that would be an error in
# the server's log: so it is asked first, and only what another stream writes at this moment is met by the COPY.
IS_ANY_KNOWN = "SELECT EXISTS (SELECT FROM syncd.lead WHERE instance = $1 AND lead_id = ANY ($2::bigint[]))"
NEW = ("instance", "lead_id", "email", "attributes", "misfits", "digests", "first_seen_at", "changed_at", "asked_at")
ENSURE_HISTORY = "SELECT syncd.ensure_lead_history($1, $2)"
WAIT_NO_LONGER = "SET LOCAL lock_timeout = '2s'"
# Of the two clocks the one that is behind counts: what was dropped by mistake is gone.
DROP_HISTORY = "SELECT syncd.drop_lead_history($1, least($2::date, current_date) - $3::integer)"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who brings a page, and what it may write."""

    pull: str
    question: str
    """Six characters that differ for pulls of other fields."""
    owned: Sequence[str] | None
    """The fields that it asks for, and may empty; None is all."""
    others: Mapping[str, Sequence[str] | None] = field(default_factory=dict)
    """What each other pull of the instance owns."""
    history: bool = True
    """Whether the changes are written to `lead_history`, whose partition for the day must then be there."""

    @property
    def mark(self) -> str:
        """What its digests begin with: the question, and what could be answered."""
        answerable = blake2b("\n".join(sorted(self.owned or ())).encode(), digest_size=3).hexdigest()
        return f"{self.question}:{answerable}"

    @property
    def others_as_json(self) -> str:
        """The other pulls as the statements take them."""
        return orjson.dumps(self.others, default=list).decode()


@dataclass(frozen=True, slots=True)
class Upserted:
    """What a page did to the mirror, in leads. `refused` are those of which a later request has told already; `dropped` those that
    were not to be kept and that the pull has never kept before; `forgotten` those of forgotten people, which are nothing of the above."""

    created: int
    changed: int
    refused: int = 0
    dropped: int = 0
    forgotten: int = 0


class NotAllNewError(Exception):
    """Some leads of a page are in the mirror already."""


async def insert(
    connection: Connection, instance: str, asker: Asker, rows: Sequence[MirrorRow], asked_at: datetime, now: datetime
) -> Upserted:
    """Write a page of leads none of which is in the mirror, as `upsert` would, in less time.

    Raises NotAllNewError when one is; the transaction can only be rolled back then.
    """
    forgotten = await forgetting.known_leads(connection, instance, rows)
    page = {row.lead_id: row for row in rows if row.lead_id not in forgotten}
    if await connection.fetchval(IS_ANY_KNOWN, instance, list(page)):
        raise NotAllNewError
    before = f'{{{orjson.dumps(asker.pull).decode()}: "{asker.mark}'
    records = [
        (instance, lead_id, email, attributes, None if misfits == "{}" else misfits, f'{before}{digest}"}}', now, now, asked_at)
        for lead_id, email, attributes, misfits, digest in sorted(page.values())
    ]
    try:
        await connection.copy_records_to_table("lead", schema_name="syncd", columns=NEW, records=records)
    except asyncpg.UniqueViolationError as error:
        raise NotAllNewError from error
    return Upserted(len(page), 0, forgotten=len(forgotten))


async def upsert(
    connection: Connection,
    instance: str,
    asker: Asker,
    rows: Sequence[MirrorRow],
    asked_at: datetime,
    now: datetime,
    kept: Sequence[bool] | None = None,
) -> Upserted:
    """Write a page of leads. `kept` says of each row whether it is to come into the mirror; without it all are.

    A lead that the pull has kept once stays up to date, so that the mirror never tells what is no longer so.
    """
    forgotten = await forgetting.known_leads(connection, instance, rows)
    latest = {row.lead_id: number for number, row in enumerate(rows) if row.lead_id not in forgotten}.values()
    page = [rows[number] for number in latest]
    record = await connection.fetchrow(
        UPSERT,
        instance,
        *_columns(page, asker),
        asker.pull,
        asker.owned,
        asked_at,
        now,
        None if kept is None else [kept[number] for number in latest],
        asker.others_as_json,
        asker.history,
    )
    assert record is not None
    return Upserted(record["created"], record["changed"], record["refused"], record["dropped"], len(forgotten))


def _columns(page: Sequence[MirrorRow], asker: Asker) -> Sequence[Sequence[int | str | None]]:
    """The page as the statements take it: ids, addresses, attributes, misfits, digests."""
    mark = asker.mark
    *columns, digests = zip(*page, strict=True) if page else ((),) * 5
    return (*columns, [f"{mark}{digest}" for digest in digests])


async def upsert_staged(
    connection: Connection, instance: str, asker: Asker, staged: Staged, piece: Slice, asked_at: datetime, now: datetime
) -> Upserted:
    """Write a slice of an extract, as `upsert` writes a page; the leads that it refuses become due to be read by their ids."""
    record = await connection.fetchrow(
        UPSERT_STAGED,
        instance,
        staged.parts,
        staged.columns,
        asker.mark,
        piece.after,
        piece.upto,
        asker.pull,
        asker.owned,
        asked_at,
        now,
        staged.conditions,
        asker.others_as_json,
        asker.history,
    )
    assert record is not None
    return Upserted(record["created"], record["changed"], record["refused"], record["dropped"])


async def ensure_history(connection: Connection, instance: str, day: date) -> None:
    """Make the history's partition for `day` (UTC) when it is missing."""
    await connection.execute(ENSURE_HISTORY, instance, day)


async def drop_history(connection: Connection, instance: str, today: date, keep: timedelta) -> int:
    """Drop the history of days more than `keep` before `today` (UTC); returns of how many.

    It waits 2 s at most for whoever reads the history, as all writers then wait behind it. Raises asyncpg's LockNotAvailableError.
    """
    await connection.execute(WAIT_NO_LONGER)
    return await connection.fetchval(DROP_HISTORY, instance, today, keep.days)  # type: ignore[no-any-return]
