"""What must hold whatever happens: in the tables after each action, and in Marketo once all is at rest."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from syncd.store.leases import Pool
from tests.flows.machine.marketo import WARN, Marketo, folded

ENDS = {"applied", "warned", "rejected", "superseded", "noop", "cancelled", "unverified"}

AMISS = """
WITH unsettled AS (SELECT * FROM syncd.chunk WHERE state IN ('open', 'sealed', 'in_job')),
     rows AS (SELECT c.instance, c.lookup_field, r.key_norm, c.id AS chunk_id, r.ordinal, r.line
                FROM unsettled c JOIN syncd.chunk_row r ON r.chunk_id = c.id),
     batches AS (SELECT * FROM syncd.sync_batch WHERE state IN ('open', 'submitting', 'unconfirmed')),
     records AS (SELECT b.instance, b.lookup_field, r.key_norm, b.id AS batch_id, r.ordinal, r.record
                   FROM batches b JOIN syncd.sync_record r ON r.batch_id = b.id),
     carried AS (SELECT instance, lookup_field, key_norm, chunk_id FROM rows
                 UNION ALL SELECT instance, lookup_field, key_norm, batch_id FROM records WHERE lookup_field <> 'id'
                 UNION ALL SELECT o.instance, 'email', o.key_norm, max(o.sync_batch_id) FROM syncd.outbox o
                            WHERE o.passed IS NOT NULL AND o.sync_batch_id IN (SELECT id FROM batches)
                              AND NOT EXISTS (SELECT FROM rows r
                                               WHERE (r.instance, r.lookup_field, r.key_norm) = (o.instance, 'email', o.key_norm))
                            GROUP BY o.instance, o.key_norm),
     live AS (SELECT * FROM syncd.import_job
               WHERE state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'unconfirmed'))
SELECT 'a change is in two places: ' || id AS what FROM syncd.change GROUP BY id HAVING count(*) > 1
UNION ALL
SELECT 'a change is lost: ' || i FROM unnest($1::bigint[]) AS i WHERE NOT EXISTS (SELECT FROM syncd.change c WHERE c.id = i)
UNION ALL
SELECT 'a change comes from nowhere: ' || id FROM syncd.change WHERE id <> ALL ($1) AND retry_of IS NULL
UNION ALL
SELECT 'claims are not what unsettled chunks and batches carry: ' || chunk_id
  FROM (TABLE carried EXCEPT ALL SELECT instance, lookup_field, key_norm, chunk_id FROM syncd.key_claim) AS unclaimed
UNION ALL
SELECT 'claims are of what no unsettled chunk or batch carries: ' || chunk_id
  FROM (SELECT instance, lookup_field, key_norm, chunk_id FROM syncd.key_claim EXCEPT ALL TABLE carried) AS carried_by_none
UNION ALL
SELECT 'rows of a settled chunk are left: ' || chunk_id FROM syncd.chunk_row WHERE chunk_id NOT IN (SELECT id FROM unsettled)
UNION ALL
SELECT 'records of an ended batch are left: ' || batch_id FROM syncd.sync_record WHERE batch_id NOT IN (SELECT id FROM batches)
UNION ALL
SELECT 'a change is carried by no record of its key: ' || o.id
  FROM syncd.outbox o LEFT JOIN records r ON r.batch_id = o.sync_batch_id AND r.ordinal = o.ordinal
 WHERE o.state = 'in_batch' AND (o.passed IS NULL OR o.sync_batch_id IN (SELECT id FROM batches)) AND r.key_norm IS DISTINCT FROM o.key_norm
UNION ALL
SELECT 'a record carries no change: batch ' || r.batch_id
  FROM records r LEFT JOIN syncd.outbox o ON r.batch_id = o.sync_batch_id AND r.ordinal = o.ordinal
 WHERE o.id IS NULL AND r.lookup_field <> 'id'
UNION ALL
SELECT 'a change has passed what has not its key: ' || o.id
  FROM syncd.outbox o LEFT JOIN syncd.key_claim k ON k.instance = o.instance AND k.lookup_field = 'email' AND k.key_norm = o.key_norm
 WHERE o.passed IS NOT NULL AND k.chunk_id IS NULL
UNION ALL
SELECT 'counts of a batch are not those of its records: ' || b.id
  FROM batches b LEFT JOIN records r ON r.batch_id = b.id GROUP BY b.id, b.row_count, b.byte_count
HAVING b.row_count <> count(r.ordinal) OR b.byte_count <> coalesce(sum(octet_length(r.record) + 1), 0)
UNION ALL
SELECT 'a change is carried by no row of its key: ' || o.id FROM syncd.outbox o LEFT JOIN rows r USING (chunk_id, ordinal)
 WHERE o.state = 'in_chunk' AND r.key_norm IS DISTINCT FROM o.key_norm
UNION ALL
SELECT 'a row carries no change: chunk ' || r.chunk_id FROM rows r LEFT JOIN syncd.outbox o USING (chunk_id, ordinal) WHERE o.id IS NULL
UNION ALL
SELECT 'a change waits for a chunk that has not its key: ' || o.id
  FROM syncd.outbox o LEFT JOIN syncd.key_claim k ON k.chunk_id = o.waits_for AND k.key_norm = o.key_norm
 WHERE o.waits_for IS NOT NULL AND k.chunk_id IS NULL
UNION ALL
SELECT 'counts of a chunk are not those of its rows: ' || c.id
  FROM unsettled c LEFT JOIN rows r ON r.chunk_id = c.id GROUP BY c.id, c.row_count, c.byte_count, c.header
HAVING c.row_count <> count(r.ordinal) OR c.byte_count <> octet_length(c.header) + coalesce(sum(octet_length(r.line)), 0)
UNION ALL
SELECT 'a chunk is in a job and yet in none: ' || c.id
  FROM unsettled c LEFT JOIN live j ON j.chunk_id = c.id WHERE (c.state = 'in_job') <> (j.id IS NOT NULL)
UNION ALL
SELECT 'more jobs than slots: ' || count(*) FROM live WHERE state NOT IN ('complete', 'failed') HAVING count(*) > $2
"""
STANDING = """
SELECT (SELECT count(*) FROM syncd.outbox WHERE state <> 'parked') AS under_way,
       (SELECT count(*) FROM syncd.import_job) AS jobs,
       (SELECT count(*) FROM syncd.import_job WHERE state IN ('settled', 'lost', 'absent')) AS ended,
       (SELECT count(*) FROM syncd.sync_batch) AS batches,
       (SELECT count(*) FROM syncd.sync_batch WHERE state IN ('settled', 'absent')) AS batches_ended
"""
CHANGES = """
SELECT id, push, lower(btrim(key, E' \\t\\r\\n')) AS key, fields, state, reason, coalesce(retry_of, id) AS place
  FROM syncd.change ORDER BY place, id
"""


@dataclass(frozen=True)
class Standing:
    """How far all is on its way: while two are the same, nothing has been sent, and nothing has ended."""

    under_way: int
    jobs: int
    ended: int
    batches: int
    batches_ended: int


@dataclass(frozen=True)
class Setter:
    """One change's word on one field of one lead."""

    id: int
    state: str
    reason: str | None
    value: str | None


async def look(pool: Pool, ids: set[int], slots: int) -> None:
    """Nothing is amiss in the tables."""
    amiss = [row["what"] for row in await pool.fetch(AMISS, list(ids), slots)]
    assert not amiss, amiss


async def standing(pool: Pool) -> Standing:
    """How far all is now."""
    row = await pool.fetchrow(STANDING)
    assert row is not None
    return Standing(**row)


async def left(pool: Pool) -> str:
    """What starves, and beside which jobs."""
    live = await pool.fetch("SELECT id, push, state, chunk_id, message FROM syncd.import_job WHERE state NOT IN ('settled', 'refused')")
    waiting = await pool.fetch(
        "SELECT id, push, state, waits_for, chunk_id, sync_batch_id, passed, attempt, reason FROM syncd.outbox ORDER BY id LIMIT 20"
    )
    return f"no starvation, but {[dict(row) for row in waiting]}; jobs {[dict(row) for row in live]}"


async def at_rest(pool: Pool, marketo: Marketo, lookup_fields: dict[str, str]) -> None:
    """Every change has its end, and each field of each lead the value that follows from the ends of its changes."""
    setters: dict[tuple[tuple[str, str], str], list[Setter]] = defaultdict(list)
    for row in await pool.fetch(CHANGES):
        waits_for_somebody = row["state"] == "parked" and "by Sync Leads, which does not write fields of companies" in row["reason"]
        assert row["state"] in ENDS or waits_for_somebody, (row["id"], row["state"], row["reason"])
        lookup_field = lookup_fields[row["push"]]
        for name, value in json.loads(row["fields"]).items():
            if name != lookup_field:
                setters[(lookup_field, folded(row["key"])), name].append(Setter(row["id"], row["state"], row["reason"], _text(value)))
    for (lead, name), words in setters.items():
        found = marketo.leads.get(lead, {}).get(name)
        may_be = _may_be(lead, name, words, marketo)
        assert found in may_be, (lead, name, found, may_be, words)


def _may_be(lead: tuple[str, str], name: str, words: list[Setter], marketo: Marketo) -> set[str | None]:
    """What the field may hold now, by the words on it in their order: the last one that took effect, or one of which nobody knows."""
    may_be: set[str | None] = {None}
    for number, word in enumerate(words):
        later = {other.state for other in words[number + 1 :]}
        doubtful = marketo.written.get((lead, name, word.value))
        if word.state in ("applied", "warned") and doubtful is not None:
            may_be = {word.value}
            warns = word.value is not None and word.value.startswith(WARN) and (lead, name, word.value) not in marketo.called
            assert word.state == "warned" or not warns, word
        elif word.state in ("applied", "warned"):
            assert later & {"applied", "warned", "unverified"}, ("never written", lead, name, words)
        elif word.state == "unverified" or doubtful:
            may_be.add(word.value)
        elif word.value is not None:  # which of several changes has cleared, nobody can tell
            retried = any(other.value == word.value for other in words[number + 1 :])  # no other change has the value of another
            assert doubtful is None or retried, ("written, and yet not applied", lead, name, words)
    return may_be


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) or value is None else str(value).lower()
