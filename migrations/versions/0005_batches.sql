-- Sync batches: what goes by Sync Leads instead of a file. They share the ids of chunks, so that a key's claim, and what waits for it,
-- name whichever of the two carries it.

ALTER TABLE syncd.outbox ADD COLUMN priority text NOT NULL DEFAULT 'normal' CHECK (priority IN ('normal', 'urgent'));
COMMENT ON COLUMN syncd.outbox.priority  IS 'normal, or urgent: sent by Sync Leads within seconds, ahead of all others';
COMMENT ON COLUMN syncd.outbox.waits_for IS 'The unsettled chunk or sync batch that holds this key; the change is claimed after it';
COMMENT ON COLUMN syncd.outbox.ordinal   IS 'The row of the chunk, or the record of the sync batch, that carries it; several changes of one key share one';

ALTER TABLE syncd.outbox ADD COLUMN passed bigint, ADD CHECK (passed IS NULL OR state = 'in_batch');
COMMENT ON COLUMN syncd.outbox.passed IS 'The unsettled chunk with the same key that an urgent change has passed, by the lead''s id; it goes once more after that';
CREATE INDEX outbox_passed ON syncd.outbox (passed) WHERE passed IS NOT NULL;

ALTER TABLE syncd.outbox ADD COLUMN by_file boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN syncd.outbox.by_file IS 'Sync Leads would not have it, but an import may: several leads have its key, or it sets fields of a company';
CREATE INDEX outbox_by_file ON syncd.outbox (chunk_id) WHERE by_file;

DROP INDEX syncd.outbox_claimable;
CREATE INDEX outbox_claimable ON syncd.outbox (instance, push, id) WHERE state = 'pending' AND waits_for IS NULL AND priority = 'normal';
CREATE INDEX outbox_urgent    ON syncd.outbox (instance, push, id) WHERE state = 'pending' AND waits_for IS NULL AND priority = 'urgent';
CREATE INDEX outbox_in_batch  ON syncd.outbox (sync_batch_id, ordinal) WHERE sync_batch_id IS NOT NULL;

CREATE TABLE syncd.sync_batch (
    id           bigint      PRIMARY KEY DEFAULT nextval(pg_get_serial_sequence('syncd.chunk', 'id')),
    instance     text        NOT NULL,
    push         text        NOT NULL,
    state        text        NOT NULL DEFAULT 'open'
                 CHECK (state IN ('open', 'submitting', 'settled', 'refused', 'unconfirmed', 'absent')),
    urgent       boolean     NOT NULL,
    lookup_field text        NOT NULL,
    partition    text,
    row_count    integer     NOT NULL,
    byte_count   bigint      NOT NULL,
    next_ordinal integer     NOT NULL,
    opened_at    timestamptz NOT NULL,
    submitted_at timestamptz,
    ended_at     timestamptz,
    applied      integer     NOT NULL DEFAULT 0,
    rejected     integer     NOT NULL DEFAULT 0,
    unverified   integer     NOT NULL DEFAULT 0,
    retried      integer     NOT NULL DEFAULT 0,
    message      text,
    request_id   text,
    CHECK ((submitted_at IS NULL) = (state = 'open')),
    CHECK ((ended_at IS NOT NULL) = (state IN ('settled', 'refused', 'absent'))),
    CHECK (state <> 'settled' OR applied + rejected + unverified + retried = row_count)
);
CREATE INDEX sync_batch_live  ON syncd.sync_batch (instance, id) WHERE state IN ('open', 'submitting', 'unconfirmed');
CREATE INDEX sync_batch_ended ON syncd.sync_batch (instance, ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE  syncd.sync_batch              IS 'Up to 300 leads written by one call of Sync Leads: urgent changes, clears, column sets too rare to fill a file';
COMMENT ON COLUMN syncd.sync_batch.id           IS 'Identity; no chunk has the same';
COMMENT ON COLUMN syncd.sync_batch.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.sync_batch.push         IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.sync_batch.state        IS 'open (takes records), submitting, settled; refused (not executed: its changes are pending again); unconfirmed (it may have been executed), absent (taken for not executed, its changes are pending again)';
COMMENT ON COLUMN syncd.sync_batch.urgent       IS 'Whether it goes ahead of all others, out of the calls that are kept for such';
COMMENT ON COLUMN syncd.sync_batch.lookup_field IS 'The call''s lookupField';
COMMENT ON COLUMN syncd.sync_batch.partition    IS 'The call''s partitionName';
COMMENT ON COLUMN syncd.sync_batch.row_count    IS 'Records';
COMMENT ON COLUMN syncd.sync_batch.byte_count   IS 'Bytes of the records, without what stands around them in the body';
COMMENT ON COLUMN syncd.sync_batch.next_ordinal IS 'The ordinal that the next record gets';
COMMENT ON COLUMN syncd.sync_batch.opened_at    IS 'When it took its first record';
COMMENT ON COLUMN syncd.sync_batch.submitted_at IS 'When the call began';
COMMENT ON COLUMN syncd.sync_batch.ended_at     IS 'When its state became final';
COMMENT ON COLUMN syncd.sync_batch.applied      IS 'Records applied';
COMMENT ON COLUMN syncd.sync_batch.rejected     IS 'Records that Marketo refused';
COMMENT ON COLUMN syncd.sync_batch.unverified   IS 'Records of which nobody can tell';
COMMENT ON COLUMN syncd.sync_batch.retried      IS 'Records that go again';
COMMENT ON COLUMN syncd.sync_batch.message      IS 'The last fault';
COMMENT ON COLUMN syncd.sync_batch.request_id   IS 'Marketo''s requestId of the call, for its support';

CREATE TABLE syncd.sync_record (
    batch_id bigint  NOT NULL,
    ordinal  integer NOT NULL,
    key_norm text    NOT NULL,
    record   text    NOT NULL,
    PRIMARY KEY (batch_id, ordinal)
);
COMMENT ON TABLE  syncd.sync_record          IS 'The records of sync batches that have not ended';
COMMENT ON COLUMN syncd.sync_record.batch_id IS 'The sync batch';
COMMENT ON COLUMN syncd.sync_record.ordinal  IS 'Order in the call';
COMMENT ON COLUMN syncd.sync_record.key_norm IS 'The key that the record is about';
COMMENT ON COLUMN syncd.sync_record.record   IS 'A JSON object: what the call has of the lead';

COMMENT ON TABLE  syncd.key_claim          IS 'One unsettled chunk or sync batch per key: two that are live could reorder values or create duplicate leads';
COMMENT ON COLUMN syncd.key_claim.chunk_id IS 'The chunk or sync batch that has it';

DROP FUNCTION syncd.enqueue(text, text, text, jsonb);
CREATE FUNCTION syncd.enqueue(instance text, push text, key text, fields jsonb, clear text[] DEFAULT '{}', priority text DEFAULT 'normal')
RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO syncd.outbox (instance, push, key, fields, priority)
    VALUES ($1, $2, $3, (SELECT coalesce(jsonb_object_agg(c.name, NULL), '{}') FROM unnest($5) AS c (name)) || $4, $6) RETURNING id
$$;
COMMENT ON FUNCTION syncd.enqueue(text, text, text, jsonb, text[], text) IS 'Puts a change into the outbox, in the caller''s transaction, and returns its id: sets fields, clears those of clear; urgent ones go ahead of all others';
