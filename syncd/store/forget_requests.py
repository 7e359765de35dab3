"""Requests to forget people, and their receipts, which name nobody. All times are the database's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from syncd.core.forget import EMAIL, ID, Person, kind_of
from syncd.store import forgetting
from syncd.store.leases import Connection, Pool

InMarketo = Literal["not asked", "waits", "deleted", "refused"]

NEW_RECEIPT = """
INSERT INTO syncd.forget_receipt (instance, hashes, again, in_marketo) VALUES ($1, $2, $3, $4) RETURNING id
"""
NEW_REQUEST = "INSERT INTO syncd.forget_request (instance, receipt_id, kinds, keys) VALUES ($1, $2, $3, $4)"
OPEN = """
SELECT r.id, r.receipt_id, r.kinds, r.keys, r.written_by IS NULL AS untouched, p.in_marketo,
       coalesce(r.written_by <= txid_snapshot_xmin(txid_current_snapshot()), false) AS written
  FROM syncd.forget_request r JOIN syncd.forget_receipt p ON p.id = r.receipt_id
 WHERE r.instance = $1 ORDER BY r.id
"""
ANY_OPEN = "SELECT EXISTS (SELECT FROM syncd.forget_request WHERE instance = $1)"
# The hashes were committed before this transaction began: a writer that has not seen them has a lower number.
NOTE_WRITERS = "UPDATE syncd.forget_request SET written_by = coalesce(written_by, txid_current()) WHERE id = $1"
ADD_UP = """
UPDATE syncd.forget_receipt
   SET erased = (SELECT coalesce(jsonb_object_agg(s.key, s.total), '{}')
                   FROM (SELECT e.key, sum(e.value::bigint) AS total
                           FROM (SELECT * FROM jsonb_each_text(erased) UNION ALL SELECT * FROM jsonb_each_text($2::jsonb)) e GROUP BY 1) s)
 WHERE id = $1
"""
ANSWERED = "UPDATE syncd.forget_receipt SET in_marketo = $2, deleted = deleted + $3 WHERE id = $1 AND in_marketo = 'waits'"
MESSAGE = "UPDATE syncd.forget_request SET message = $2 WHERE id = $1"
DONE = "DELETE FROM syncd.forget_request WHERE id = $1"
FINISHED = "UPDATE syncd.forget_receipt SET finished_at = now() WHERE id = $1 AND finished_at IS NULL"
RECEIPT = """
SELECT p.id, p.instance, p.hashes, p.again, p.forgotten_at, p.finished_at, p.erased, p.in_marketo, p.deleted, r.message
  FROM syncd.forget_receipt p LEFT JOIN syncd.forget_request r ON r.receipt_id = p.id WHERE p.id = $1
"""
RECEIVED = "SELECT DISTINCT unnest(hashes) AS hash FROM syncd.forget_receipt WHERE instance = $1"
# By one walk over the mirror, the outbox, the history and the snapshots of views each: after a restore anything may be there again.
LEADS_AGAIN = """
SELECT h.lead_id, h.email
  FROM (SELECT l.lead_id, l.email, ARRAY[syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'id', l.lead_id::text),
                                         syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'email', l.email)] AS hashes
          FROM syncd.forget_key k CROSS JOIN syncd.lead l WHERE l.instance = $1 OFFSET 0) h
 WHERE (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = ANY (h.hashes) LIMIT 1)
"""
KEYS_AGAIN = """
SELECT h.kind, h.key_norm
  FROM (SELECT c.kind, c.key_norm, syncd.person_hash(k.inner_pad, k.outer_pad, $1, c.kind, c.key_norm) AS hash
          FROM syncd.forget_key k
         CROSS JOIN (SELECT p.kind, o.key_norm FROM unnest($2::text[], $3::text[]) AS p (push, kind)
                       JOIN syncd.outbox o ON o.instance = $1 AND o.push = p.push
                      UNION
                     SELECT p.kind, o.key_norm FROM unnest($2::text[], $3::text[]) AS p (push, kind)
                       JOIN syncd.change_history o ON o.instance = $1 AND o.push = p.push
                      UNION
                     SELECT p.kind, s.key_norm COLLATE "default" FROM unnest($2::text[], $3::text[]) AS p (push, kind)
                       JOIN syncd.attachment a ON a.instance = $1 AND a.push = p.push
                       JOIN syncd.snapshot s ON s.attachment_id = a.id
                      UNION
                     SELECT 'email', lower(btrim(e.value, E' \\t\\r\\n'))
                       FROM (SELECT fields FROM syncd.outbox WHERE instance = $1
                              UNION ALL SELECT fields FROM syncd.change_history WHERE instance = $1) o
                      CROSS JOIN LATERAL jsonb_each_text(o.fields) AS e (name, value) WHERE lower(e.name) = 'email') c
        OFFSET 0) h
 WHERE (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = h.hash LIMIT 1)
"""
IDS_AGAIN = """
SELECT h.lead_id
  FROM (SELECT i.lead_id, syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'id', i.lead_id::text) AS hash
          FROM syncd.forget_key k
         CROSS JOIN (SELECT lead_id FROM syncd.lead_history WHERE instance = $1
                      UNION SELECT lead_id FROM syncd.list_membership WHERE instance = $1
                      UNION SELECT lead_id FROM syncd.lead_gone WHERE instance = $1
                      UNION SELECT lead_id FROM syncd.lead_due WHERE instance = $1) i
        OFFSET 0) h
 WHERE (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = h.hash LIMIT 1)
"""
TAKE_YOUR_TIME = "SET LOCAL statement_timeout = 0"


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody who is being forgotten. `untouched`: nothing has been erased yet. `written`: whatever had begun to write them without
    knowing of it has ended."""

    id: int
    receipt_id: int
    person: Person
    untouched: bool
    written: bool
    in_marketo: InMarketo


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done. `message` says why Marketo has not deleted the leads yet, where it met a fault."""

    id: int
    instance: str
    hashes: Sequence[bytes]
    again: bool
    forgotten_at: datetime
    finished_at: datetime | None
    erased: Mapping[str, int]
    in_marketo: InMarketo
    deleted: int
    message: str | None


async def begin(connection: Connection, instance: str, person: Person, delete_in_marketo: bool, again: bool = False) -> int:
    """Refuse the person from now on, and ask that all be erased that is there. Returns the receipt's id."""
    hashes = await forgetting.keep(connection, instance, person)
    in_marketo: InMarketo = "waits" if delete_in_marketo and person.ids else "not asked"
    receipt_id: int = await connection.fetchval(NEW_RECEIPT, instance, hashes, again, in_marketo)
    keys = sorted(person.keys)
    await connection.execute(NEW_REQUEST, instance, receipt_id, [kind for kind, _ in keys], [value for _, value in keys])
    return receipt_id


async def any_open(pool: Pool, instance: str) -> bool:
    """Whether somebody is being forgotten."""
    return await pool.fetchval(ANY_OPEN, instance)  # type: ignore[no-any-return]


async def open_ones(pool: Pool, instance: str) -> list[Request]:
    """Who is being forgotten, in the order in which it was asked for."""
    return [
        Request(
            row["id"],
            row["receipt_id"],
            Person.of(zip(row["kinds"], row["keys"], strict=True)),
            row["untouched"],
            row["written"],
            row["in_marketo"],
        )
        for row in await pool.fetch(OPEN, instance)
    ]


async def erased(connection: Connection, request: Request, counts: Mapping[str, int]) -> None:
    """So many rows more were erased, by table; whoever may yet write some unknowingly is noted the first time."""
    await connection.execute(NOTE_WRITERS, request.id)
    await connection.execute(ADD_UP, request.receipt_id, orjson.dumps(dict(counts)).decode())


async def answered(connection: Connection, request: Request, deleted: int, refused: bool) -> None:
    """Marketo has answered for all leads: `deleted` of them were there."""
    await connection.execute(ANSWERED, request.receipt_id, "refused" if refused else "deleted", deleted)


async def in_vain(connection: Connection, request: Request, message: str) -> None:
    """Marketo has not deleted them yet."""
    await connection.execute(MESSAGE, request.id, message)


async def finish(connection: Connection, request: Request) -> None:
    """Nothing is left of them, nor here."""
    await connection.execute(DONE, request.id)
    await connection.execute(FINISHED, request.receipt_id)


async def receipt(connection: Connection | Pool, receipt_id: int) -> Receipt:
    """The receipt, as far as it has come."""
    row = await connection.fetchrow(RECEIPT, receipt_id)
    assert row is not None
    return Receipt(**(dict(row) | {"erased": orjson.loads(row["erased"])}))


async def keep_received(connection: Connection, instance: str, hashes: Sequence[bytes]) -> None:
    """Refuse whom the receipts here, and these hashes of others, are about: a backup may have lost either."""
    received = [row["hash"] for row in await connection.fetch(RECEIVED, instance)]
    await forgetting.keep_hashes(connection, instance, [*received, *hashes])


async def found_again(connection: Connection, instance: str, pushes: Mapping[str, str]) -> Person:
    """All keys by which forgotten people are here again. `pushes` says of each push of the YAML what its lookup field is."""
    await connection.execute(TAKE_YOUR_TIME)
    kinds = [kind_of(field) for field in pushes.values()]
    keys = [(row["kind"], row["key_norm"]) for row in await connection.fetch(KEYS_AGAIN, instance, list(pushes), kinds)]
    for row in await connection.fetch(LEADS_AGAIN, instance):
        keys += [(ID, str(row["lead_id"])), (EMAIL, row["email"] or "")]
    keys += [(ID, str(row["lead_id"])) for row in await connection.fetch(IDS_AGAIN, instance)]
    return Person.of(keys)
