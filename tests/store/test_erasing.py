"""Erasing a person, held against all columns of the schema, so that no table can be forgotten."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from syncd.core.forget import Person
from syncd.core.pack import pack
from syncd.core.pending import Target
from syncd.store import batches, chunks, claims, erasing, forget_requests, forgetting, outbox
from syncd.store.erasing import Erasure, NoPersonError
from syncd.store.leases import Lease, Pool
from tests.store.outgoing import NOW, PUSH, claim, enqueue, next_chunk, seal_all, settle, started, table, under_way, until_blocked

PUSHES = {"contacts": "email", "by id": "id", "by number": "crmNumber"}
ADA, NAME, LEAD = "ada@example.com", "Lovelace", 1_234_567

# Every column that could hold a text or an id of a person's, and how erasing sees to it. Who adds a column to the schema decides here:
#   erased    its rows or values are found by the person's keys, and deleted or emptied (store/erasing.py)
#   scanned   a text of others' making: one that has an address or id of theirs is replaced (erasing.TEXTS)
#   passing   rows are gone when the import, batch, load or request is over that they belong to, for which erasing waits
#   nobody    names of fields, pulls, pushes, states, and numbers of ours or Marketo's that are no lead's
ERASED = """
lead.lead_id lead.email lead.attributes lead.misfits lead.digests lead.merged_into
lead_history.lead_id lead_history.field lead_history.old lead_history.new lead_due.lead_id lead_gone.lead_id lead_gone.merged_into
list_membership.lead_id census_id.lead_id pull_window.keys verification_lead.lead_id verification_lead.digest verification_drift.examples
outbox.key outbox.key_norm outbox.fields outbox.reason
change_history.key change_history.key_norm change_history.fields change_history.reason
snapshot.key snapshot.key_norm snapshot.digests
"""
SCANNED = """
import_job.message sync_batch.message export.message pull.message pull_window.message push.message plan.reason backfill.reason
census.message request.answer verification.message
"""
PASSING = """
chunk_row.key_norm chunk_row.line sync_record.key_norm sync_record.record key_claim.key_norm forget_request.keys forget_request.message
attachment.backfilled_to
"""
NOBODY = """
lease.host lease.instance lease.epoch lease_fence.instance lease_fence.epoch api_usage.instance api_usage.api api_usage.calls
request.id request.instance request.kind lead.instance
pull.instance pull.pull pull.state pull.selector pull.source pull.follows pull.route_reason
pull_window.id pull_window.instance pull_window.pull pull_window.source pull_window.state pull_window.position pull_window.expected
pull_window.leads pull_window.parent_id pull_window.backfill_id pull_window.dropped
push.instance push.push push.state claim_mark.instance claim_mark.claimed_up_to
outbox.id outbox.instance outbox.push outbox.state outbox.waits_for outbox.chunk_id outbox.sync_batch_id outbox.priority outbox.passed
outbox.retry_of outbox.lacks outbox.plan_id
change_history.id change_history.instance change_history.push change_history.state change_history.import_job_id
change_history.sync_batch_id change_history.retry_of change_history.retried_as change_history.erased
chunk.id chunk.instance chunk.push chunk.state chunk.lookup_field chunk.format chunk.list_id chunk.partition chunk.columns chunk.header
chunk.byte_count chunk.sha256 chunk.split_from chunk_row.chunk_id key_claim.instance key_claim.lookup_field key_claim.chunk_id
key_claim.place
import_job.id import_job.instance import_job.push import_job.chunk_id import_job.batch_id import_job.state import_job.byte_count
import_job.sha256 import_job.request_id
field.instance field.field field.rest_name field.soap_name field.display_name field.data_type field.retyped_from field.column_name
field.column_type
backfill.id backfill.instance backfill.pull list_membership.instance list_membership.list list_membership.walk
lead_history.instance lead_history.pull api_user.instance api_user.user_id api_user.calls
activity_token.id activity_token.instance activity_token.stream activity_token.token activity_seen.instance activity_seen.stream
activity_seen.guid
census.id census.instance census.compared_to census.leads census.missing census.surplus census_id.instance
export.id export.instance export.pull export.window_id export.state export.export_id export.fields export.wanted export.estimate
export.records export.bytes export.sha256 export.request_id
lead_due.instance lead_due.pull lead_due.reason lead_due.window_id lead_gone.instance pause.instance pause.direction pause.name
sync_batch.id sync_batch.instance sync_batch.push sync_batch.state sync_batch.lookup_field sync_batch.partition sync_batch.byte_count
sync_batch.request_id sync_record.batch_id keep_mark.instance
plan.id plan.instance plan.push plan.kind plan.state plan.changes
attachment.id attachment.instance attachment.push attachment.relation attachment.digest attachment.plan_id
attach_fault.id attach_fault.instance attach_fault.push attach_fault.code attach_fault.writes attach_fault.changes
comparison.attachment_id comparison.layout comparison.keys comparison.changes comparison.gone comparison.no_keys comparison.long_keys
comparison.duplicates comparison.forgotten comparison.message snapshot.attachment_id
guard.instance guard.push guard.digest guard.canary guard.why guard.canary_ids guard.surge_after guard.surge_upto guard.held_why
guard_count.instance guard_count.push
verification.id verification.instance verification.read_to verification.leads verification.drifted verification.calls
verification_lead.verification_id verification_drift.verification_id verification_drift.cause verification_drift.field
verification_drift.leads
forget_key.key forget_key.inner_pad forget_key.outer_pad forgotten.instance forgotten.hash
forget_receipt.id forget_receipt.instance forget_receipt.hashes forget_receipt.erased forget_receipt.in_marketo
forget_request.id forget_request.instance forget_request.receipt_id forget_request.kinds forget_request.written_by
schema_version.version_num
"""
COLUMNS = """
SELECT c.table_name || '.' || c.column_name AS name
  FROM information_schema.columns c
  JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name AND t.table_type = 'BASE TABLE'
  JOIN pg_class p ON p.relname = c.table_name AND p.relnamespace = 'syncd'::regnamespace AND NOT p.relispartition
 WHERE c.table_schema = 'syncd'
   AND c.data_type IN ('text', 'character varying', 'jsonb', 'json', 'ARRAY', 'bigint', 'bytea', 'USER-DEFINED')
"""


async def found(pool: Pool, *words: str) -> dict[str, int]:
    """In how many rows of which tables any of the words stands, in whatever column; numbers only as a whole."""
    tables = await pool.fetch("SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = 'syncd'")
    counts = {}
    for name in (row["name"] for row in tables):
        pattern = "|".join(rf"\y{word}\y" if word.isdigit() else word for word in words)
        count = await pool.fetchval(f'SELECT count(*) FROM syncd."{name}" t WHERE t::text ~* $1', pattern)
        if count:
            counts[name] = count
    return counts


async def test_of_each_column_it_is_known_how_a_person_is_erased_from_it(pool: Pool) -> None:
    told = [name for names in (ERASED, SCANNED, PASSING, NOBODY) for name in names.split()]
    assert len(told) == len(set(told)), "some are named twice"
    there = {row["name"] for row in await pool.fetch(COLUMNS)}
    assert there - set(told) == set(), "decide how a person is erased from them: see above, and store/erasing.py"
    assert set(told) - there == set(), "there are no such columns"
    assert {f"{name}.{'reason' if name in ('plan', 'backfill') else 'message'}" for name in erasing.TEXTS} | {"request.answer"} == set(
        SCANNED.split()
    )


EVERYWHERE = """
INSERT INTO syncd.lead (instance, lead_id, email, attributes, misfits, digests, first_seen_at, changed_at, asked_at)
VALUES ('acme', 1234567, 'Ada@example.com', '{"lastName": "Lovelace", "crmNumber": "K-17"}', '{"x": "Lovelace"}', '{}',
        now(), now(), now()),
       ('acme', 1234568, 'ada@example.com', '{"lastName": "Lovelace"}', NULL, '{}', now(), now(), now()),
       ('acme', 1234569, 'old@example.com', '{"lastName": "Lovelace"}', NULL, '{}', now(), now(), now()),
       ('acme', 1234571, 'eve@example.com', '{"lastName": "Eve"}', NULL, '{}', now(), now(), now());
UPDATE syncd.lead SET deleted_at = now(), merged_into = 1234567 WHERE lead_id = 1234569;
SELECT syncd.ensure_lead_history('acme', (now() AT TIME ZONE 'UTC')::date);
SELECT syncd.ensure_history_partition((now() AT TIME ZONE 'UTC')::date);
INSERT INTO syncd.lead_history (instance, lead_id, pull, seen_at, field, old, new)
VALUES ('acme', 1234567, 'people', now(), 'lastName', '"Byron"', '"Lovelace"'),
       ('acme', 1234567, 'people', now(), 'email', '"former@example.com"', '"ada@example.com"'),
       ('acme', 1234568, 'people', now(), 'Email', '"eve@example.com"', '"ada@example.com"'),
       ('acme', 1234571, 'people', now(), 'lastName', NULL, '"Eve"');
INSERT INTO syncd.pull (instance, pull, selector, message) VALUES ('acme', 'people', 's', 'no such lead: ada@example.com');
INSERT INTO syncd.pull_window (instance, pull, source, planned_at, keys, message)
VALUES ('acme', 'keys', 'soap', now(), '{eve@example.com,ADA@example.com}', NULL), ('acme', 'keys', 'soap', now(), '{1234567}', NULL),
       ('acme', 'people', 'soap', now(), NULL, 'lead 1234567 can not be read');
INSERT INTO syncd.pull_window (instance, pull, source, planned_at, starts_at, ends_at, ids_only)
VALUES ('acme', 'ids', 'bulk_extract', now(), now(), now(), true);
INSERT INTO syncd.export (instance, pull, window_id, export_id, state, fields, wanted, begun_at, asked_at, ended_at)
SELECT 'acme', 'ids', id, 'e-1', 'loaded', '{id}', '{}', now(), now(), now() FROM syncd.pull_window WHERE ids_only;
INSERT INTO syncd.export (instance, pull, window_id, export_id, state, fields, wanted, begun_at, asked_at, message)
SELECT 'acme', 'people', 99, 'e-2', 'completed', '{lastName,email,id}', '{}', now(), now(), 'spoilt near Ada@example.com';
SELECT syncd.make_staging(max(id), 3) FROM syncd.export;
INSERT INTO syncd.lead_due (instance, pull, lead_id, reason, noted_at, window_id)
SELECT 'acme', 'ids', 1234567, 'listed', now(), id FROM syncd.pull_window WHERE ids_only;
INSERT INTO syncd.lead_gone VALUES ('acme', 1234569, now(), 1234567, now()), ('acme', 1234580, now(), 1234567, now());
INSERT INTO syncd.list_membership VALUES ('acme', 'VIPs', 1234567, now(), now(), NULL, 1), ('acme', 'VIPs', 1234571, now(), now(), NULL, 1);
INSERT INTO syncd.census_id VALUES ('acme', 1234567), ('acme', 1234571);
INSERT INTO syncd.verification (instance, message) VALUES ('acme', 'refused: 1234567'), ('beta', 'refused');
INSERT INTO syncd.verification_lead (verification_id, lead_id) SELECT id, 1234567 FROM syncd.verification WHERE instance = 'acme';
INSERT INTO syncd.verification_lead (verification_id, lead_id) SELECT id, 1234571 FROM syncd.verification;
INSERT INTO syncd.verification_drift
SELECT id, 'mirror_wrong', 'title', 2, '{1234568,1234571}' FROM syncd.verification WHERE instance = 'acme';
INSERT INTO syncd.census (instance, started_at, message) VALUES ('acme', now(), 'broke at 1234567');
INSERT INTO syncd.backfill (instance, pull, reason) VALUES ('acme', 'people', 'for ada@example.com');
INSERT INTO syncd.push (instance, push, message) VALUES ('acme', 'contacts', 'refused: ADA@EXAMPLE.COM');
INSERT INTO syncd.plan (instance, push, kind, reason, made_at) VALUES ('acme', 'contacts', 'revert', 'of ada@example.com', now());
INSERT INTO syncd.request (instance, kind, answered_at, answer) VALUES ('acme', 'check', now(), '[{"detail": "ada@example.com"}]');
INSERT INTO syncd.sync_batch (instance, push, urgent, lookup_field, row_count, byte_count, next_ordinal, opened_at, state, submitted_at,
                              ended_at, applied, message)
VALUES ('acme', 'contacts', false, 'email', 1, 9, 1, now(), 'settled', now(), now(), 1, 'skipped ada@example.com');
INSERT INTO syncd.import_job (instance, push, chunk_id, state, row_count, byte_count, sha256, attempt, submitted_at, message)
VALUES ('acme', 'contacts', 4711, 'refused', 1, 1, '', 1, now(), 'row of ada@example.com');
INSERT INTO syncd.outbox (instance, push, key, fields, state, reason)
VALUES ('acme', 'contacts', 'Ada@example.com', '{"lastName": "Lovelace"}', 'pending', NULL),
       ('acme', 'contacts', 'former@example.com', '{"lastName": "Lovelace"}', 'held', NULL),
       ('acme', 'by id', ' 1234567', '{"lastName": "Lovelace"}', 'parked', 'Lovelace is too long'),
       ('acme', 'by id', '1234599', '{"lastName": "Lovelace", "Email": "ada@example.com "}', 'pending', NULL),
       ('acme', 'by number', 'k-17', '{"lastName": "Lovelace"}', 'pending', NULL),
       ('acme', 'removed', '1234567', '{"lastName": "Lovelace"}', 'pending', NULL),
       ('acme', 'by number', '1234567', '{"lastName": "Somebody"}', 'pending', NULL),
       ('acme', 'contacts', 'eve@example.com', '{"lastName": "Eve"}', 'pending', NULL),
       ('beta', 'contacts', 'eve@example.com', '{"lastName": "Eve"}', 'pending', NULL);
INSERT INTO syncd.attachment (instance, push, relation, digest, attached_at)
VALUES ('acme', 'contacts', 'crm.v', '', now()), ('acme', 'by number', 'crm.v', '', now()), ('beta', 'contacts', 'crm.v', '', now());
INSERT INTO syncd.snapshot (attachment_id, key_norm, key, generation, digests)
SELECT id, 'eve@example.com', 'eve@example.com', 1, '{7}' FROM syncd.attachment;
INSERT INTO syncd.snapshot (attachment_id, key_norm, key, generation, digests)
SELECT id, lower(key), key, 1, '{7}'
  FROM syncd.attachment JOIN (VALUES ('contacts', 'Ada@example.com'), ('by number', 'K-17')) v (push, key) USING (push)
 WHERE instance = 'acme';
INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, reason, attempt, created_at, settled_at)
VALUES (901, 'acme', 'contacts', 'ADA@example.com', 'ada@example.com', '{"lastName": "Lovelace"}', 'rejected', 'Lovelace: bad', 0,
        now(), now()),
       (902, 'acme', 'contacts', 'ada@example.com', 'ada@example.com', '{"lastName": "Lovelace"}', 'applied', NULL, 0, now(), now()),
       (903, 'acme', 'by id', '1234567', '1234567', '{"lastName": "Lovelace"}', 'unverified', 'who knows', 0, now(), now()),
       (904, 'acme', 'by number', 'Q', 'q', '{"lastName": "Lovelace", "email": "Ada@example.com"}', 'warned', 'Lovelace', 0, now(), now()),
       (905, 'acme', 'contacts', 'eve@example.com', 'eve@example.com', '{"lastName": "Eve"}', 'rejected', 'why', 0, now(), now());
"""


async def plant(pool: Pool) -> None:
    """The person in every table, among others."""
    await pool.execute(EVERYWHERE)
    staging = await pool.fetchval("SELECT 'staging_' || max(id) FROM syncd.export")
    rows = [("Lovelace", None, "1234567"), ("Lovelace", "ada@example.com", "1234600"), ("Eve", "eve@example.com", "1234571")]
    await pool.copy_records_to_table(staging, schema_name="syncd", records=rows)


async def ada(pool: Pool, key: tuple[str, str] = ("email", ADA)) -> Person:
    async with pool.acquire() as connection:
        return await erasing.person_of(connection, "acme", key, PUSHES)


async def erase(lease: Lease, person: Person) -> Erasure:
    async with lease.transaction() as connection:
        await forgetting.keep(connection, "acme", person)
        return await erasing.erase(connection, "acme", person, PUSHES, NOW)


@pytest.mark.parametrize("key", [("email", "ADA@example.com"), ("id", "01234567"), ("id", "1234569")])
async def test_a_person_is_all_their_leads_addresses_and_keys(pool: Pool, key: tuple[str, str]) -> None:
    await plant(pool)
    assert (await ada(pool, key)).keys == {
        ("email", "ada@example.com"),
        ("email", "old@example.com"),
        ("email", "former@example.com"),  # but not eve@example.com, which is Eve's
        ("id", "1234567"),
        ("id", "1234568"),
        ("id", "1234569"),
        ("crmNumber", "k-17"),
    }


async def test_an_address_of_a_thousand_leads_is_no_person(pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO syncd.lead (instance, lead_id, email, attributes, digests, first_seen_at, changed_at, asked_at)
           SELECT 'acme', n, 'test@example.com', '{}', '{}', now(), now(), now() FROM generate_series(1, 1001) n"""
    )
    with pytest.raises(NoPersonError):
        await ada(pool, ("email", "test@example.com"))


async def test_nothing_that_names_the_person_is_left_in_any_table(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    words = (ADA, "former@example.com", "old@example.com", "k-17", NAME, "1234567", "1234568", "1234569")
    before = await found(pool, *words)
    assert set(before) >= {
        *erasing.TEXTS, *erasing.OF_LEADS, "lead_due", "request", "outbox", "change_history", "change", "pull_window", "lead_gone"
    }  # fmt: skip
    assert any(name.startswith("staging_") for name in before)
    others = await found(pool, 'Eve"', "Somebody")
    erasure = await erase(lease, await ada(pool))
    assert erasure.carried == 0
    assert await found(pool, *words) == {"outbox": 1, "change": 1}, "the number 1234567 of somebody else"
    assert await table(pool, "SELECT push, key FROM syncd.outbox WHERE key = '1234567'") == [("by number", "1234567")]
    assert await found(pool, 'Eve"', "Somebody") == others
    assert erasure.erased == {
        **dict.fromkeys(erasing.TEXTS, 1),
        "lead": 3,
        "lead_history": 3,
        "list_membership": 1,
        "lead_gone": 1,
        "census_id": 1,
        "verification_lead": 1,
        "verification_drift": 1,
        "lead_due": 1,
        "outbox": 6,
        "change_history": 4,
        "snapshot": 2,
        "pull_window": 3,
        "staging": 2,
        "request": 1,
    }


async def test_of_a_person_without_address_and_id_no_text_is_touched(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    erasure = await erase(lease, Person.of([("crmNumber", "k-17")]))
    assert erasure.erased.keys() <= {"outbox", "snapshot"}
    assert await pool.fetchval("SELECT count(*) FROM syncd.request") == 1
    assert await pool.fetchval("SELECT message FROM syncd.import_job") == "row of ada@example.com"


async def test_a_plan_of_which_nothing_is_left_is_discarded(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    await pool.execute("UPDATE syncd.plan SET state = 'waiting'")
    await pool.execute("UPDATE syncd.outbox SET plan_id = (SELECT id FROM syncd.plan) WHERE state = 'held'")
    await erase(lease, await ada(pool))
    assert await pool.fetchval("SELECT state FROM syncd.plan") == "discarded"


async def test_changes_keep_their_ends_and_names_of_fields_alone(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    await erase(lease, await ada(pool))
    rows = await table(pool, "SELECT id, state, key, fields, reason, erased, retried_at IS NOT NULL FROM syncd.change_history ORDER BY id")
    assert rows[-5:-1] == [
        (901, "rejected", "", "{}", erasing.ERASED, ["lastName"], True),
        (902, "applied", "", "{}", None, ["lastName"], False),
        (903, "unverified", "", "{}", erasing.ERASED, ["lastName"], True),
        (904, "warned", "", "{}", erasing.ERASED, ["email", "lastName"], False),
    ]
    assert {(row[1], row[2], row[3], row[4]) for row in rows[:-5]} == {("cancelled", "", "{}", erasing.CANCELLED)}


async def test_windows_go_on_without_them(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    await erase(lease, await ada(pool))
    assert await table(pool, "SELECT pull, state, keys FROM syncd.pull_window ORDER BY id") == [
        ("keys", "open", ["eve@example.com"]),
        ("keys", "done", None),
        ("people", "open", None),
        ("ids", "done", None),
    ]


async def test_a_second_time_there_is_nothing(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    person = await ada(pool)
    await erase(lease, person)
    assert await erase(lease, person) == Erasure(+Counter(), 0)


# ── what is packed ──


async def in_the_outbox(pool: Pool) -> list[tuple[Any, ...]]:
    return await table(pool, "SELECT key, state FROM syncd.outbox ORDER BY id")


async def test_out_of_open_chunks_alone(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, ADA, lastName=NAME)
    await enqueue(pool, "eve@example.com", lastName="Eve")
    await claim(lease)
    assert (await erase(lease, Person.of([("email", ADA)]))).erased == {"outbox": 1}
    assert await in_the_outbox(pool) == [("eve@example.com", "in_chunk")]
    assert await found(pool, ADA, NAME) == {}


async def test_a_sealed_chunk_is_dissolved(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, ADA, lastName=NAME)
    await enqueue(pool, "eve@example.com", lastName="Eve")
    await claim(lease)
    await seal_all(lease)
    assert (await erase(lease, Person.of([("email", ADA)]))).erased == {"outbox": 1}
    assert await in_the_outbox(pool) == [("eve@example.com", "pending")]
    assert await next_chunk(lease) is None
    assert await found(pool, ADA, NAME) == {}


async def test_all_keys_are_locked_before_the_first_chunk_is_dissolved(pool: Pool, lease: Lease) -> None:
    """With those of one chunk held, and those of the next waited for, whoever locks them in their order would be waited for in a circle."""
    for one in (enqueue(pool, "z@x", f=1), enqueue(pool, "a@x", g=1)):
        await one
        await claim(lease)
        await seal_all(lease)
    lock = "SELECT FROM syncd.key_claim WHERE key_norm = $1 FOR SHARE"
    async with pool.acquire() as claiming, claiming.transaction():
        await claiming.execute(lock, "a@x")
        erasure = started(erase(lease, Person.of([("email", "z@x"), ("email", "a@x")])))
        await until_blocked(pool, erasure)
        await asyncio.wait_for(claiming.execute(lock, "z@x"), 10)
    assert (await asyncio.wait_for(erasure, 10)).erased["outbox"] == 2


async def test_an_open_batch_is_given_up(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, ADA, lastName=None, title=NAME)
    await enqueue(pool, "eve@example.com", lastName=None)
    await claim(lease)
    assert {state for _, state in await in_the_outbox(pool)} == {"in_batch"}
    assert (await erase(lease, Person.of([("email", ADA)]))).erased == {"outbox": 1}
    assert await in_the_outbox(pool) == [("eve@example.com", "pending")]
    assert await found(pool, ADA, NAME) == {}


async def test_what_marketo_may_have_stays_until_it_has_settled(pool: Pool, lease: Lease) -> None:
    await enqueue(pool, ADA, lastName=NAME)
    await enqueue(pool, "eve@example.com", lastName="Eve")
    chunk, job = await under_way(lease)
    await enqueue(pool, ADA, title=NAME)
    await claim(lease)  # waits for the chunk
    person = Person.of([("email", ADA)])
    assert await erase(lease, person) == Erasure(Counter({"outbox": 1}), 1)
    assert set(await found(pool, ADA)) == {"outbox", "change", "chunk_row", "key_claim"}
    assert await chunks.render(pool, chunk.id), "it still renders to what was sent"
    await settle(lease, chunk, job, {0: ("rejected", f"{NAME} is bad")})
    assert await erase(lease, person) == Erasure(Counter({"change_history": 1}), 0)
    assert await found(pool, ADA, NAME) == {}


async def test_so_does_a_batch(pool: Pool, lease: Lease) -> None:
    await pool.execute("SELECT syncd.enqueue('acme', 'contacts', $1, '{\"lastName\": \"Lovelace\"}', priority => 'urgent')", ADA)
    await claim_urgent(lease)
    (batch,) = await batches.live(pool, "acme")
    async with lease.transaction() as connection:
        await batches.to_submitting(connection, batch.id, NOW)
    person = Person.of([("email", ADA)])
    assert (await erase(lease, person)).carried == 1
    async with lease.transaction() as connection:
        await batches.to_refused(connection, batch.id, "why", NOW)
    assert await erase(lease, person) == Erasure(Counter({"outbox": 1}), 0)
    assert await found(pool, ADA, NAME) == {}


async def claim_urgent(lease: Lease) -> None:
    async with lease.transaction() as connection:
        seen = await outbox.urgent(connection, "acme", PUSH, 100, NOW)
        target = replace(Target("email", "csv", 10_000, 200), by_sync=True)
        await claims.claim(connection, "acme", PUSH, pack(seen.changes, seen.claimed, (), target), NOW, urgent=True)


# ── requests and receipts ──


async def begin(pool: Pool, person: Person, delete: bool = False) -> int:
    async with pool.acquire() as connection, connection.transaction():
        return await forget_requests.begin(connection, "acme", person, delete)


async def test_a_request_waits_for_whoever_may_not_know_of_it(pool: Pool, database: str) -> None:
    """A transaction that looked before the hash was there may yet write the person."""
    receipt = await begin(pool, Person.of([("email", ADA)]))
    before = await asyncpg.connect(database)
    transaction = before.transaction()
    await transaction.start()
    await before.execute("SELECT txid_current()")
    (request,) = await forget_requests.open_ones(pool, "acme")
    assert (request.untouched, request.written, request.receipt_id) == (True, False, receipt)
    async with pool.acquire() as connection, connection.transaction():
        await forget_requests.erased(connection, request, {"lead": 1, "outbox": 2})
    (request,) = await forget_requests.open_ones(pool, "acme")
    assert (request.untouched, request.written) == (False, False)
    await transaction.rollback()
    await before.close()
    (request,) = await forget_requests.open_ones(pool, "acme")
    assert request.written
    async with pool.acquire() as connection, connection.transaction():
        await forget_requests.erased(connection, request, {"outbox": 3})
        await forget_requests.finish(connection, request)
        done = await forget_requests.receipt(connection, receipt)
    assert (done.erased, done.in_marketo, done.finished_at is not None) == ({"lead": 1, "outbox": 5}, "not asked", True)
    assert await forget_requests.open_ones(pool, "acme") == []
    assert await found(pool, ADA) == {}


async def test_whom_a_backup_has_brought_back_is_found_by_the_hashes(pool: Pool, lease: Lease) -> None:
    await plant(pool)
    person = await ada(pool)
    receipt = await begin(pool, person)
    await pool.execute("DELETE FROM syncd.forgotten")  # as if it were older than they
    await pool.execute("UPDATE syncd.lead SET email = NULL WHERE lead_id = 1234568")
    async with pool.acquire() as connection, connection.transaction():
        await forget_requests.keep_received(connection, "acme", [])
        again = await forget_requests.found_again(connection, "acme", PUSHES)
        assert await forget_requests.found_again(connection, "beta", PUSHES) == Person.of([])
    assert again.keys == person.keys
    assert (await pool.fetchval("SELECT cardinality(hashes) FROM syncd.forget_receipt WHERE id = $1", receipt)) == len(person.keys)


async def test_nor_does_a_snapshot_that_came_with_the_backup_keep_them(pool: Pool) -> None:
    await pool.execute(
        """INSERT INTO syncd.attachment (instance, push, relation, digest, attached_at) VALUES ('acme', 'contacts', 'crm.v', '', now());
           INSERT INTO syncd.snapshot (attachment_id, key_norm, key, generation, digests)
           SELECT id, 'ada@example.com', 'Ada@example.com', 1, '{7}' FROM syncd.attachment"""
    )
    await begin(pool, Person.of([("email", ADA)]))
    async with pool.acquire() as connection, connection.transaction():
        assert await forget_requests.found_again(connection, "acme", PUSHES) == Person.of([("email", ADA)])


async def test_so_is_one_whom_nothing_names_but_a_value_of_a_change(pool: Pool) -> None:
    await pool.execute("SELECT syncd.ensure_history_partition((now() AT TIME ZONE 'UTC')::date)")
    async with pool.acquire() as connection, connection.transaction():
        await forgetting.keep(connection, "acme", Person.of([("email", ADA)]))
        await connection.execute(
            """INSERT INTO syncd.change_history (id, instance, push, key, key_norm, fields, state, attempt, created_at, settled_at)
               VALUES (904, 'acme', 'by number', 'Q', 'q', '{"Email": "Ada@example.com "}', 'applied', 0, now(), now())"""
        )
        assert await forget_requests.found_again(connection, "acme", PUSHES) == Person.of([("email", ADA)])
