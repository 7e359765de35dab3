"""Erasing a person: who they are, by what the mirror knows, and then every row and value that names them, table by table.

What is in a file or a batch that Marketo may have is left until it has settled. tests/store/test_erasing.py holds a list of all
columns of the schema that can name anybody, and how each is seen to.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from syncd.core.forget import EMAIL, ID, Key, Person, kind_of
from syncd.store import batches, cursors, endings, holding
from syncd.store.history import ensure_partition
from syncd.store.leases import Connection

CANCELLED = "it was about a person who is forgotten"
DISSOLVED = "it was packed with a change of a person who is forgotten"
ERASED = "(erased: it named a person who is forgotten)"

# A walk over the history of years may take long.
TAKE_YOUR_TIME = "SET LOCAL statement_timeout = 0"

MOST_LEADS = 1_000
"""That many leads are no person, but an address that forms were filled with."""

# ── who it is ──

LEADS = """
SELECT lead_id, email, merged_into FROM syncd.lead WHERE instance = $1 AND lead_id = ANY ($2::bigint[])
UNION
SELECT lead_id, email, merged_into FROM syncd.lead WHERE instance = $1 AND lower(email) = ANY ($3::text[])
LIMIT $4
"""
# By a walk over the mirror: nothing else looks for losers by their winner.
LOSERS = "SELECT lead_id, email, merged_into FROM syncd.lead WHERE instance = $1 AND merged_into = ANY ($2::bigint[]) LIMIT $3"
# An address that another lead has now is that one's.
FORMER_EMAILS = """
SELECT DISTINCT lower(v.value #>> '{}') AS email
  FROM syncd.lead_history h CROSS JOIN LATERAL unnest(ARRAY[h.old, h.new]) AS v (value)
 WHERE h.instance = $1 AND h.lead_id = ANY ($2::bigint[]) AND lower(h.field) = 'email' AND jsonb_typeof(v.value) = 'string'
   AND NOT EXISTS (SELECT FROM syncd.lead l
                    WHERE l.instance = $1 AND lower(l.email) = lower(v.value #>> '{}') AND l.lead_id <> ALL ($2::bigint[]))
"""
OTHER_KEYS = """
SELECT f.name, l.attributes ->> f.name AS value FROM syncd.lead l CROSS JOIN unnest($3::text[]) AS f (name)
 WHERE l.instance = $1 AND l.lead_id = ANY ($2::bigint[]) AND l.attributes ->> f.name IS NOT NULL
"""

# ── changes ──

# Of a push that the YAML no longer names nobody knows whose values its keys are: those that look like the person's are taken for it.
LIVE = """
SELECT o.id, o.key_norm, o.state, o.chunk_id, o.sync_batch_id, c.lookup_field, coalesce(c.state, b.state) AS carrier
  FROM (SELECT * FROM syncd.outbox o
         WHERE o.instance = $1 AND o.key_norm = ANY (ARRAY(SELECT lower(k) FROM unnest($2::text[]) k))
           AND (o.push <> ALL ($3::text[]) OR EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS p (push, key)
                                                        WHERE p.push = o.push AND lower(p.key) = o.key_norm))
         UNION ALL
        SELECT * FROM syncd.outbox o
         WHERE o.instance = $1 AND o.push = ANY ($6::text[]) AND o.key_norm <> ALL (ARRAY(SELECT lower(k) FROM unnest($2::text[]) k))
           AND EXISTS (SELECT FROM jsonb_each_text(o.fields) e
                        WHERE lower(e.key) = 'email' AND lower(btrim(e.value, E' \\t\\r\\n')) = ANY ($7::text[]))) o
  LEFT JOIN syncd.chunk c ON c.id = o.chunk_id
  LEFT JOIN syncd.sync_batch b ON b.id = o.sync_batch_id
"""
CANCEL = """
WITH ended AS (
    DELETE FROM syncd.outbox WHERE id = ANY ($1::bigint[]) AND state IN ('pending', 'held', 'parked') RETURNING *
)
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at, retry_of,
                                  erased)
SELECT id, instance, push, '', '', '{}', 'cancelled', $2, attempt, created_at, $3, retry_of, ARRAY(SELECT jsonb_object_keys(fields))
  FROM ended
"""
ERASE_SETTLED = """
UPDATE syncd.change_history h
   SET key = '', key_norm = '', fields = '{}', erased = coalesce(h.erased, ARRAY(SELECT jsonb_object_keys(h.fields))),
       reason = CASE WHEN h.reason IS NOT NULL THEN $6 END,
       retried_at = CASE WHEN h.state IN ('rejected', 'unverified') THEN coalesce(h.retried_at, now()) END
 WHERE h.instance = $1 AND h.key_norm = ANY (ARRAY(SELECT lower(k) FROM unnest($2::text[]) k))
   AND (h.push <> ALL ($3::text[]) OR EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS p (push, key)
                                                WHERE p.push = h.push AND lower(p.key) = h.key_norm))
"""
ERASE_SETTLED_BY_FIELD = """
UPDATE syncd.change_history h
   SET key = '', key_norm = '', fields = '{}', erased = coalesce(h.erased, ARRAY(SELECT jsonb_object_keys(h.fields))),
       reason = CASE WHEN h.reason IS NOT NULL THEN $4 END,
       retried_at = CASE WHEN h.state IN ('rejected', 'unverified') THEN coalesce(h.retried_at, now()) END
 WHERE h.instance = $1 AND h.push = ANY ($2::text[])
   AND EXISTS (SELECT FROM jsonb_each_text(h.fields) e
                WHERE lower(e.key) = 'email' AND lower(btrim(e.value, E' \\t\\r\\n')) = ANY ($3::text[]))
"""
# A view that has them still is not to bring them back: comparisons leave out who is forgotten.
DROP_SNAPSHOT = """
DELETE FROM syncd.snapshot s USING syncd.attachment a
 WHERE a.instance = $1 AND s.attachment_id = a.id AND s.key_norm = ANY (ARRAY(SELECT lower(k) FROM unnest($2::text[]) k))
   AND (a.push <> ALL ($3::text[]) OR EXISTS (SELECT FROM unnest($4::text[], $5::text[]) AS p (push, key)
                                                WHERE p.push = a.push AND lower(p.key) = s.key_norm))
"""

# ── the mirror and what hangs on leads ──

IDS_OF_EMAILS = "SELECT lead_id FROM syncd.lead WHERE instance = $1 AND lower(email) = ANY ($2::text[])"
DROP_DUE = """
WITH dropped AS (
    DELETE FROM syncd.lead_due WHERE instance = $1 AND lead_id = ANY ($2::bigint[]) RETURNING window_id
)
SELECT count(*) AS leads, array_agg(DISTINCT window_id) FILTER (WHERE window_id IS NOT NULL) AS windows FROM dropped
"""
OF_LEADS = {
    "lead": "DELETE FROM syncd.lead WHERE instance = $1 AND lead_id = ANY ($2::bigint[])",
    "lead_history": "DELETE FROM syncd.lead_history WHERE instance = $1 AND lead_id = ANY ($2::bigint[])",
    "list_membership": "DELETE FROM syncd.list_membership WHERE instance = $1 AND lead_id = ANY ($2::bigint[])",
    "lead_gone": "DELETE FROM syncd.lead_gone WHERE instance = $1 AND lead_id = ANY ($2::bigint[])",
    "census_id": "DELETE FROM syncd.census_id WHERE instance = $1 AND lead_id = ANY ($2::bigint[])",
    "verification_lead": """
DELETE FROM syncd.verification_lead l USING syncd.verification v
 WHERE v.instance = $1 AND l.verification_id = v.id AND l.lead_id = ANY ($2::bigint[])
""",
    "verification_drift": """
UPDATE syncd.verification_drift d SET examples = ARRAY(SELECT e FROM unnest(d.examples) e WHERE e <> ALL ($2::bigint[]))
  FROM syncd.verification v WHERE v.instance = $1 AND d.verification_id = v.id AND d.examples && $2::bigint[]
""",
}
NOT_INTO = "UPDATE syncd.lead_gone SET merged_into = NULL WHERE instance = $1 AND merged_into = ANY ($2::bigint[])"
WINDOWS_OF_KEYS = """
SELECT w.id, w.leads, w.expected, ARRAY(SELECT k FROM unnest(w.keys) k WHERE lower(k) <> ALL ($2::text[])) AS others
  FROM syncd.pull_window w
 WHERE w.instance = $1 AND w.keys IS NOT NULL AND EXISTS (SELECT FROM unnest(w.keys) k WHERE lower(k) = ANY ($2::text[])) FOR UPDATE
"""
OTHER_KEYS_ONLY = "UPDATE syncd.pull_window SET keys = $2 WHERE id = $1 AND keys IS NOT NULL"
STAGED = """
SELECT syncd.refuse_staged(e.instance, e.id, array_position(e.fields, 'id'), array_position(e.fields, 'email'))
  FROM syncd.export e WHERE e.instance = $1 AND to_regclass('syncd.staging_' || e.id) IS NOT NULL
"""

# ── texts of others' making ──

TEXTS = {
    "import_job": "UPDATE syncd.import_job SET message = $3 WHERE instance = $1 AND message ~* $2",
    "sync_batch": "UPDATE syncd.sync_batch SET message = $3 WHERE instance = $1 AND message ~* $2",
    "export": "UPDATE syncd.export SET message = $3 WHERE instance = $1 AND message ~* $2",
    "pull": "UPDATE syncd.pull SET message = $3 WHERE instance = $1 AND message ~* $2",
    "pull_window": "UPDATE syncd.pull_window SET message = $3 WHERE instance = $1 AND message ~* $2",
    "push": "UPDATE syncd.push SET message = $3 WHERE instance = $1 AND message ~* $2",
    "plan": "UPDATE syncd.plan SET reason = $3 WHERE instance = $1 AND reason ~* $2",
    "backfill": "UPDATE syncd.backfill SET reason = $3 WHERE instance = $1 AND reason ~* $2",
    "verification": "UPDATE syncd.verification SET message = $3 WHERE instance = $1 AND message ~* $2",
    "census": "UPDATE syncd.census SET message = $3 WHERE instance = $1 AND message ~* $2",
}
ANSWERS = "DELETE FROM syncd.request WHERE instance = $1 AND answer::text ~* $2"


class NoPersonError(Exception):
    """What is asked for belongs to more leads than a person has."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """`erased` counts rows by table; `carried` changes are in files or batches that Marketo may have."""

    erased: Counter[str]
    carried: int


async def person_of(connection: Connection, instance: str, key: Key, pushes: Mapping[str, str]) -> Person:
    """All that is known of whom `key` finds: leads with the same address, or merged with theirs, and the addresses and keys of these.

    `pushes` says of each push of the YAML what its lookup field is. Raises NoPersonError.
    """
    person = Person.of([key])
    while True:
        rows = await connection.fetch(LEADS, instance, person.ids, person.emails, MOST_LEADS + 1)
        rows += await connection.fetch(LOSERS, instance, person.ids, MOST_LEADS + 1)
        found = {(ID, str(lead)) for row in rows for lead in (row["lead_id"], row["merged_into"]) if lead is not None}
        grown = Person.of([*person.keys, *found, *((EMAIL, row["email"]) for row in rows if row["email"])])
        if len(grown.ids) > MOST_LEADS:
            raise NoPersonError
        if grown == person:
            break
        person = grown
    former = [(EMAIL, row["email"]) for row in await connection.fetch(FORMER_EMAILS, instance, person.ids)]
    others = sorted({field for field in pushes.values() if kind_of(field) not in (EMAIL, ID)})
    keys = [(row["name"], row["value"]) for row in await connection.fetch(OTHER_KEYS, instance, person.ids, others)]
    return Person.of([*person.keys, *former, *keys])


async def live(connection: Connection, instance: str, person: Person, pushes: Mapping[str, str]) -> tuple[list[int], int]:
    """The ids of changes that have not settled and may be cancelled, and how many are carried by what Marketo may have."""
    rows = await connection.fetch(LIVE, *_changes(instance, person, pushes), _by_other_keys(pushes), person.emails)
    carried = sum(row["carrier"] not in (None, "open", "sealed") for row in rows)
    return [row["id"] for row in rows if row["carrier"] is None], carried


async def erase(connection: Connection, instance: str, person: Person, pushes: Mapping[str, str], now: datetime) -> Erasure:
    """Erase all that names the person, but for what is carried by what Marketo may have."""
    await connection.execute(TAKE_YOUR_TIME)
    erased: Counter[str] = Counter()
    carried = await _erase_changes(connection, instance, person, pushes, now, erased)
    ids = sorted({*person.ids, *(row["lead_id"] for row in await connection.fetch(IDS_OF_EMAILS, instance, person.emails))})
    await _erase_leads(connection, instance, ids, now, erased)
    await _erase_keys_of_windows(connection, instance, person, now, erased)
    erased["staging"] = sum(row[0] for row in await connection.fetch(STAGED, instance))
    words = "|".join([*(re.escape(email) for email in person.emails), *(rf"\y{lead_id}\y" for lead_id in ids)])
    if words:  # a person who is known by other keys alone has none, and no words at all are found in every text
        for table, statement in TEXTS.items():
            erased[table] += _rows(await connection.execute(statement, instance, words, ERASED))
        erased["request"] = _rows(await connection.execute(ANSWERS, instance, words))
    return Erasure(+erased, carried)


async def _erase_changes(
    connection: Connection, instance: str, person: Person, pushes: Mapping[str, str], now: datetime, erased: Counter[str]
) -> int:
    """Out of what is not sent yet, cancelled, and emptied where it has settled. Returns how many are carried still."""
    await ensure_partition(connection, now.date())
    changes, others = _changes(instance, person, pushes), _by_other_keys(pushes)
    rows = await connection.fetch(LIVE, *changes, others, person.emails)
    open_chunks = [row for row in rows if row["chunk_id"] is not None and row["carrier"] == "open"]
    sealed = sorted({row["chunk_id"] for row in rows if row["carrier"] == "sealed"})
    open_batches = sorted({row["sync_batch_id"] for row in rows if row["sync_batch_id"] is not None and row["carrier"] == "open"})
    if rows:  # all at once: what holds the keys of one while it waits for those of the next could wait for ever
        await endings.lock(connection, *{row["chunk_id"] for row in open_chunks}, *sealed, *open_batches)
    opened: dict[str, list[str]] = {}
    for row in open_chunks:
        opened.setdefault(row["lookup_field"], []).append(row["key_norm"])
    for lookup_field, keys in opened.items():
        await endings.withdraw(connection, instance, lookup_field, keys, now)
    for chunk_id in sealed:
        await endings.dissolve(connection, chunk_id, DISSOLVED, now)
    for batch_id in open_batches:
        await batches.undo(connection, batch_id, DISSOLVED)
    free, _ = await live(connection, instance, person, pushes)
    erased["outbox"] = _rows(await connection.execute(CANCEL, free, CANCELLED, now))
    for push in pushes if free else ():
        await holding.plans_discarded(connection, instance, push, now)
        await holding.settle_holds(connection, instance, push)
    erased["change_history"] = _rows(await connection.execute(ERASE_SETTLED, *changes, ERASED))
    erased["snapshot"] = _rows(await connection.execute(DROP_SNAPSHOT, *changes))
    if others:
        erased["change_history"] += _rows(await connection.execute(ERASE_SETTLED_BY_FIELD, instance, others, person.emails, ERASED))
    return len(await connection.fetch(LIVE, *changes, others, person.emails))


async def _erase_leads(connection: Connection, instance: str, ids: Sequence[int], now: datetime, erased: Counter[str]) -> None:
    for table, statement in OF_LEADS.items():
        erased[table] = _rows(await connection.execute(statement, instance, ids))
    await connection.execute(NOT_INTO, instance, ids)
    due = await connection.fetchrow(DROP_DUE, instance, ids)
    assert due is not None
    erased["lead_due"] = due["leads"]
    for window in due["windows"] or ():
        await cursors.finish_if_read(connection, window, now)


async def _erase_keys_of_windows(connection: Connection, instance: str, person: Person, now: datetime, erased: Counter[str]) -> None:
    """Windows that ask for them by key ask for the others alone; one that is left without keys is done."""
    hers = [*person.emails, *map(str, person.ids)]
    for row in await connection.fetch(WINDOWS_OF_KEYS, instance, hers):
        if not row["others"]:
            await cursors.finish(connection, row["id"], row["leads"], row["expected"] or 0, now)
        await connection.execute(OTHER_KEYS_ONLY, row["id"], row["others"])
        erased["pull_window"] += 1


def _changes(instance: str, person: Person, pushes: Mapping[str, str]) -> tuple[str, list[str], list[str], list[str], list[str]]:
    """What finds their changes, as the statements take it."""
    hers = person.keys_of({push: kind_of(field) for push, field in pushes.items()})
    keys = sorted({value for _, value in person.keys})
    return instance, keys, sorted(pushes), [push for push, _ in hers], [key for _, key in hers]


def _by_other_keys(pushes: Mapping[str, str]) -> list[str]:
    """The pushes whose changes may name a person by an address that is not their key."""
    return sorted(push for push, field in pushes.items() if kind_of(field) != EMAIL)


def _rows(status: str) -> int:
    return int(status.rpartition(" ")[2])
