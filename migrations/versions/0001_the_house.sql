-- The house: everything of syncd lives in the schema `syncd`.
-- States are text with a CHECK (a new state is then a cheap migration); architecture: no foreign key points at outbox or history.


-- ── one daemon per instance ───────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.lease (
    instance     text        PRIMARY KEY,
    epoch        bigint      NOT NULL,
    holder       uuid        NOT NULL,
    host         text        NOT NULL,
    pid          integer     NOT NULL,
    since        timestamptz NOT NULL,
    heartbeat_at timestamptz NOT NULL
);
COMMENT ON TABLE  syncd.lease              IS 'Which daemon works for an instance; all times by the database''s clock';
COMMENT ON COLUMN syncd.lease.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lease.epoch        IS 'Grows by one with each holder';
COMMENT ON COLUMN syncd.lease.holder       IS 'Random identity of the daemon process that holds the lease';
COMMENT ON COLUMN syncd.lease.host         IS 'Host that the holder runs on';
COMMENT ON COLUMN syncd.lease.pid          IS 'Process id of the holder on its host';
COMMENT ON COLUMN syncd.lease.since        IS 'When the holder took the lease';
COMMENT ON COLUMN syncd.lease.heartbeat_at IS 'Last sign of life; after 15 seconds without one a standby takes over';

CREATE TABLE syncd.lease_fence (
    instance text   PRIMARY KEY,
    epoch    bigint NOT NULL
);
COMMENT ON TABLE  syncd.lease_fence          IS 'Locked FOR SHARE by each writing transaction of the holder, apart from the lease so that long writes don''t block the heartbeat';
COMMENT ON COLUMN syncd.lease_fence.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lease_fence.epoch    IS 'Writes of a daemon that holds an older epoch are refused';

CREATE TABLE syncd.api_usage (
    instance text   NOT NULL,
    api      text   NOT NULL CHECK (api IN ('soap', 'rest')),
    day      date   NOT NULL,
    calls    bigint NOT NULL,
    PRIMARY KEY (instance, day, api)
);
COMMENT ON TABLE  syncd.api_usage          IS 'API calls of ours per quota day';
COMMENT ON COLUMN syncd.api_usage.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.api_usage.api      IS 'soap or rest';
COMMENT ON COLUMN syncd.api_usage.day      IS 'Quota day: from midnight to midnight in America/Chicago';
COMMENT ON COLUMN syncd.api_usage.calls    IS 'Calls made, and those reserved ahead by a running daemon (20 at most)';

CREATE TABLE syncd.request (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('check')),
    asked_at    timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    answer      jsonb,
    CHECK ((answered_at IS NULL) = (answer IS NULL))
);
COMMENT ON TABLE  syncd.request             IS 'What commands by hand ask of the running daemon, so that they don''t call Marketo beside it; forgotten after 5 minutes';
COMMENT ON COLUMN syncd.request.id          IS 'Identity';
COMMENT ON COLUMN syncd.request.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.request.kind        IS 'check: try every way to the instance';
COMMENT ON COLUMN syncd.request.asked_at    IS 'When it was asked, by the database''s clock';
COMMENT ON COLUMN syncd.request.answered_at IS 'When the daemon answered, by the database''s clock';
COMMENT ON COLUMN syncd.request.answer      IS 'For a check: a list of {what, ok, detail, remedy}';

-- ── in ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.lead (
    instance      text        NOT NULL,
    lead_id       bigint      NOT NULL,
    email         text,
    attributes    jsonb       NOT NULL,
    misfits       jsonb,
    digests       jsonb       NOT NULL,
    first_seen_at timestamptz NOT NULL,
    changed_at    timestamptz NOT NULL,
    asked_at      timestamptz NOT NULL,
    deleted_at    timestamptz,
    merged_into   bigint,
    PRIMARY KEY (instance, lead_id)
);
CREATE INDEX lead_by_email ON syncd.lead (instance, lower(email));
COMMENT ON TABLE  syncd.lead               IS 'The mirror: what Marketo said of each lead, never what was sent to it';
COMMENT ON COLUMN syncd.lead.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lead.lead_id       IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.lead.email         IS 'The lead''s email address; neither unique nor always there';
COMMENT ON COLUMN syncd.lead.attributes    IS 'Field name → value; a field without a value is absent. Datetimes are UTC, numbers exact';
COMMENT ON COLUMN syncd.lead.misfits       IS 'Field name → text, for values that don''t fit the declared type of their field';
COMMENT ON COLUMN syncd.lead.digests       IS 'Pull → digest of its last answer, by which an unchanged lead is known and not written again';
COMMENT ON COLUMN syncd.lead.first_seen_at IS 'When the lead was first written here';
COMMENT ON COLUMN syncd.lead.changed_at    IS 'When email, attributes or misfits last changed here';
COMMENT ON COLUMN syncd.lead.asked_at      IS 'When the request went out whose answer this row holds; an older answer never overwrites it';
COMMENT ON COLUMN syncd.lead.deleted_at    IS 'When the lead was found deleted in Marketo';
COMMENT ON COLUMN syncd.lead.merged_into   IS 'The lead that this one was merged into';

CREATE TABLE syncd.pull (
    instance      text        NOT NULL,
    pull          text        NOT NULL,
    state         text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'blocked')),
    selector      text        NOT NULL,
    planned_until timestamptz NOT NULL,
    planned_at    timestamptz,
    retry_at      timestamptz,
    message       text,
    PRIMARY KEY (instance, pull)
);
COMMENT ON TABLE  syncd.pull               IS 'How far each pull of the YAML is planned, and whether it runs';
COMMENT ON COLUMN syncd.pull.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.pull.pull          IS 'The pull, as named in the YAML';
COMMENT ON COLUMN syncd.pull.state         IS 'running; paused by an operator; blocked by a configuration fault, tried again at retry_at';
COMMENT ON COLUMN syncd.pull.selector      IS 'What is asked for: when the YAML comes to ask for something else, everything is pulled anew';
COMMENT ON COLUMN syncd.pull.planned_until IS 'Windows exist for all update times before this; the watermark is the start of the first unfinished one';
COMMENT ON COLUMN syncd.pull.planned_at    IS 'When windows were last planned';
COMMENT ON COLUMN syncd.pull.retry_at      IS 'When a blocked pull is tried again';
COMMENT ON COLUMN syncd.pull.message       IS 'Why it is blocked, and what to do';

CREATE TABLE syncd.pull_window (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    pull        text        NOT NULL,
    source      text        NOT NULL CHECK (source IN ('soap')),
    starts_at   timestamptz,
    ends_at     timestamptz,
    state       text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'split', 'abandoned', 'blocked')),
    position    text,
    expected    bigint,
    leads       bigint      NOT NULL DEFAULT 0,
    walks       smallint    NOT NULL DEFAULT 1,
    restarts    integer     NOT NULL DEFAULT 0,
    message     text,
    planned_at  timestamptz NOT NULL,
    finished_at timestamptz,
    CHECK (starts_at <= ends_at)
);
CREATE INDEX pull_window_open ON syncd.pull_window (instance, pull, starts_at) WHERE state IN ('open', 'blocked');
CREATE INDEX pull_window_finished ON syncd.pull_window (finished_at) WHERE state IN ('done', 'split', 'abandoned');
COMMENT ON TABLE  syncd.pull_window             IS 'Spans of update time, each walked by one stream of pages; the position moves in the transaction that writes the page';
COMMENT ON COLUMN syncd.pull_window.id          IS 'Identity';
COMMENT ON COLUMN syncd.pull_window.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.pull_window.pull        IS 'The pull, as named in the YAML';
COMMENT ON COLUMN syncd.pull_window.source      IS 'Which of Marketo''s interfaces it is read through';
COMMENT ON COLUMN syncd.pull_window.starts_at   IS 'First update time of the window (to the second)';
COMMENT ON COLUMN syncd.pull_window.ends_at     IS 'Last update time of the window (to the second)';
COMMENT ON COLUMN syncd.pull_window.state       IS 'open, done, split into smaller ones, abandoned (the pull asks for something else now), blocked';
COMMENT ON COLUMN syncd.pull_window.position    IS 'Marketo''s stream position after the last page that was written; null = from the beginning';
COMMENT ON COLUMN syncd.pull_window.expected    IS 'How many leads the first reply promised';
COMMENT ON COLUMN syncd.pull_window.leads       IS 'How many leads came in this walk';
COMMENT ON COLUMN syncd.pull_window.walks       IS 'How often it was walked: a second time when fewer leads came than were promised';
COMMENT ON COLUMN syncd.pull_window.restarts    IS 'How often Marketo refused its position (fault 20122)';
COMMENT ON COLUMN syncd.pull_window.message     IS 'The last fault';
COMMENT ON COLUMN syncd.pull_window.planned_at  IS 'When it was planned';
COMMENT ON COLUMN syncd.pull_window.finished_at IS 'When its state became final';

-- ── out ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.push (
    instance text NOT NULL,
    push     text NOT NULL,
    state    text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'held', 'blocked')),
    retry_at timestamptz,
    message  text,
    PRIMARY KEY (instance, push)
);
COMMENT ON TABLE  syncd.push          IS 'Whether each push of the YAML runs';
COMMENT ON COLUMN syncd.push.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.push.push     IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.push.state    IS 'running; paused by an operator; held by the guard; blocked by a refusal, tried again at retry_at';
COMMENT ON COLUMN syncd.push.retry_at IS 'When a blocked push is tried again';
COMMENT ON COLUMN syncd.push.message  IS 'Why it is blocked, and what to do';

CREATE TABLE syncd.claim_mark (
    instance      text   PRIMARY KEY,
    claimed_up_to bigint NOT NULL
);
COMMENT ON TABLE  syncd.claim_mark               IS 'How far claims have come: a row at or below the mark that is still pending is late, waited, or is tried again';
COMMENT ON COLUMN syncd.claim_mark.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.claim_mark.claimed_up_to IS 'The highest change id ever claimed; used to ask history only for late rows, never to find pending ones';

CREATE TABLE syncd.outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance      text        NOT NULL,
    push          text        NOT NULL,
    key           text        NOT NULL,
    fields        jsonb       NOT NULL CHECK (jsonb_typeof(fields) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    state         text        NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'in_chunk', 'in_batch', 'held', 'parked')),
    reason        text,
    attempt       integer     NOT NULL DEFAULT 0,
    key_norm      text        NOT NULL GENERATED ALWAYS AS (lower(btrim(key, E' \t\r\n'))) STORED,
    waits_for     bigint,
    chunk_id      bigint,
    ordinal       integer,
    sync_batch_id bigint,
    CHECK ((state = 'in_chunk') = (chunk_id IS NOT NULL AND ordinal IS NOT NULL)),
    CHECK ((state = 'in_batch') = (sync_batch_id IS NOT NULL)),
    CHECK (waits_for IS NULL OR state = 'pending'),
    -- what an index can hold: a longer key could neither be claimed nor rejected, and all others would wait behind it
    CONSTRAINT key_of_1000_bytes_at_most CHECK (octet_length(key) <= 1000)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX outbox_claimable ON syncd.outbox (instance, push, id) WHERE state = 'pending' AND waits_for IS NULL;
CREATE INDEX outbox_waiting   ON syncd.outbox (waits_for) WHERE waits_for IS NOT NULL;
CREATE INDEX outbox_in_chunk  ON syncd.outbox (chunk_id, ordinal) WHERE chunk_id IS NOT NULL;
CREATE INDEX outbox_set_aside ON syncd.outbox (instance, push, id) WHERE state IN ('held', 'parked');
COMMENT ON TABLE  syncd.outbox               IS 'Live changes on their way to Marketo; applications insert instance, push, key and fields. Settled ones move to change_history';
COMMENT ON COLUMN syncd.outbox.id            IS 'Identity, and per key the order of changes';
COMMENT ON COLUMN syncd.outbox.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.outbox.push          IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.outbox.key           IS 'The value of the push''s lookup field, of at most 1,000 bytes';
COMMENT ON COLUMN syncd.outbox.fields        IS 'REST field name → value to set; null or an empty text clears the field, an absent field is left alone';
COMMENT ON COLUMN syncd.outbox.created_at    IS 'When the application''s transaction began';
COMMENT ON COLUMN syncd.outbox.state         IS 'pending, in_chunk, in_batch, held (by the guard), parked (cannot go as things are; see reason)';
COMMENT ON COLUMN syncd.outbox.reason        IS 'Why the change is where it is';
COMMENT ON COLUMN syncd.outbox.attempt       IS 'How often it came back from a chunk';
COMMENT ON COLUMN syncd.outbox.key_norm      IS 'The key as claims compare it: emails are one key whatever their case';
COMMENT ON COLUMN syncd.outbox.waits_for     IS 'The unsettled chunk that holds this key; the change is claimed after it';
COMMENT ON COLUMN syncd.outbox.chunk_id      IS 'The chunk that carries it';
COMMENT ON COLUMN syncd.outbox.ordinal       IS 'The row of the chunk that carries it; several changes of one key share a row';
COMMENT ON COLUMN syncd.outbox.sync_batch_id IS 'The sync batch that carries it';

CREATE TABLE syncd.change_history (
    id            bigint      NOT NULL,
    instance      text        NOT NULL,
    push          text        NOT NULL,
    key           text        NOT NULL,
    key_norm      text        NOT NULL,
    fields        jsonb       NOT NULL,
    state         text        NOT NULL CHECK (state IN ('applied', 'warned', 'rejected', 'superseded', 'noop', 'cancelled', 'unverified')),
    reason        text,
    attempt       integer     NOT NULL,
    import_job_id bigint,
    sync_batch_id bigint,
    created_at    timestamptz NOT NULL,
    settled_at    timestamptz NOT NULL
) PARTITION BY RANGE (settled_at);
CREATE INDEX change_history_by_id  ON syncd.change_history (id);
CREATE INDEX change_history_by_key ON syncd.change_history (instance, key_norm, id);
COMMENT ON TABLE  syncd.change_history               IS 'Settled changes, one partition per day (UTC) of settling';
COMMENT ON COLUMN syncd.change_history.id            IS 'The change''s id in the outbox';
COMMENT ON COLUMN syncd.change_history.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.change_history.push          IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.change_history.key           IS 'The value of the push''s lookup field';
COMMENT ON COLUMN syncd.change_history.key_norm      IS 'The key as claims compare it';
COMMENT ON COLUMN syncd.change_history.fields        IS 'What the application asked for';
COMMENT ON COLUMN syncd.change_history.state         IS 'How it ended: applied, warned (applied with a warning), rejected, superseded, noop, cancelled, or unverified (nobody can tell: look)';
COMMENT ON COLUMN syncd.change_history.reason        IS 'Marketo''s reason, or ours';
COMMENT ON COLUMN syncd.change_history.attempt       IS 'How often it had come back from a chunk';
COMMENT ON COLUMN syncd.change_history.import_job_id IS 'The import job that decided it';
COMMENT ON COLUMN syncd.change_history.sync_batch_id IS 'The sync batch that decided it';
COMMENT ON COLUMN syncd.change_history.created_at    IS 'When the application''s transaction began';
COMMENT ON COLUMN syncd.change_history.settled_at    IS 'When its fate became known';

CREATE FUNCTION syncd.ensure_history_partition(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'change_history_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('syncd.' || name) IS NOT NULL THEN
        RETURN;
    END IF;
    -- made apart and attached, because CREATE … PARTITION OF would lock out every reader of the history
    EXECUTE format('CREATE TABLE syncd.%I (LIKE syncd.change_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
    EXECUTE format('ALTER TABLE syncd.change_history ATTACH PARTITION syncd.%I FOR VALUES FROM (%L) TO (%L)', name,
                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
EXCEPTION WHEN duplicate_table OR unique_violation THEN
    NULL;  -- another daemon was quicker
END $$;
COMMENT ON FUNCTION syncd.ensure_history_partition(date) IS 'Makes the partition of change_history for one day (UTC) when it is missing';

CREATE TABLE syncd.chunk (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance     text        NOT NULL,
    push         text        NOT NULL,
    state        text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'sealed', 'in_job', 'done', 'split', 'dissolved')),
    lookup_field text        NOT NULL,
    format       text        NOT NULL CHECK (format IN ('csv', 'tsv', 'ssv')),
    list_id      bigint,
    partition    text,
    columns      text[]      NOT NULL,
    header       text        NOT NULL,
    row_count    integer     NOT NULL,
    byte_count   bigint      NOT NULL,
    next_ordinal integer     NOT NULL,
    sha256       bytea,
    split_from   bigint,
    split_depth  smallint    NOT NULL DEFAULT 0,
    not_before   timestamptz,
    opened_at    timestamptz NOT NULL,
    sealed_at    timestamptz,
    finished_at  timestamptz,
    CHECK ((sha256 IS NOT NULL) OR state IN ('open', 'dissolved'))
);
CREATE INDEX chunk_open     ON syncd.chunk (instance, push) WHERE state = 'open';
CREATE INDEX chunk_sealed   ON syncd.chunk (instance, id)   WHERE state = 'sealed';
CREATE INDEX chunk_finished ON syncd.chunk (finished_at)    WHERE state IN ('done', 'split', 'dissolved');
COMMENT ON TABLE  syncd.chunk              IS 'What one import file holds: rows of one column set, one row per key, cells frozen';
COMMENT ON COLUMN syncd.chunk.id           IS 'Identity';
COMMENT ON COLUMN syncd.chunk.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.chunk.push         IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.chunk.state        IS 'open (takes rows), sealed (waits for a slot), in_job, done, split (into smaller ones), dissolved (its changes are pending again)';
COMMENT ON COLUMN syncd.chunk.lookup_field IS 'The import''s lookupField';
COMMENT ON COLUMN syncd.chunk.format       IS 'csv, tsv or ssv';
COMMENT ON COLUMN syncd.chunk.list_id      IS 'The import''s listId';
COMMENT ON COLUMN syncd.chunk.partition    IS 'The import''s partitionName';
COMMENT ON COLUMN syncd.chunk.columns      IS 'Field names of the file, the lookup field first';
COMMENT ON COLUMN syncd.chunk.header       IS 'First line of the file, with its line end';
COMMENT ON COLUMN syncd.chunk.row_count    IS 'Rows, the header aside';
COMMENT ON COLUMN syncd.chunk.byte_count   IS 'Bytes of the file, the header included';
COMMENT ON COLUMN syncd.chunk.next_ordinal IS 'The ordinal that the next row gets';
COMMENT ON COLUMN syncd.chunk.sha256       IS 'Of the file, since it was sealed: it renders to the same bytes for ever';
COMMENT ON COLUMN syncd.chunk.split_from   IS 'The chunk that this one is a part of';
COMMENT ON COLUMN syncd.chunk.split_depth  IS 'How often the chunk it came from had been split, this time included';
COMMENT ON COLUMN syncd.chunk.not_before   IS 'Not to be sent before';
COMMENT ON COLUMN syncd.chunk.opened_at    IS 'When it took its first row';
COMMENT ON COLUMN syncd.chunk.sealed_at    IS 'When it was full or old enough';
COMMENT ON COLUMN syncd.chunk.finished_at  IS 'When its state became final';

CREATE TABLE syncd.chunk_row (
    chunk_id bigint  NOT NULL,
    ordinal  integer NOT NULL,
    key_norm text    NOT NULL,
    line     text    NOT NULL,
    PRIMARY KEY (chunk_id, ordinal)
);
COMMENT ON TABLE  syncd.chunk_row          IS 'The rows of unsettled chunks, as they stand in the file';
COMMENT ON COLUMN syncd.chunk_row.chunk_id IS 'The chunk';
COMMENT ON COLUMN syncd.chunk_row.ordinal  IS 'Order in the file';
COMMENT ON COLUMN syncd.chunk_row.key_norm IS 'The key that the row is about';
COMMENT ON COLUMN syncd.chunk_row.line     IS 'The row''s final cells: one record of the file, with its line end';

CREATE TABLE syncd.key_claim (
    instance     text   NOT NULL,
    lookup_field text   NOT NULL,
    key_norm     text   NOT NULL,
    chunk_id     bigint NOT NULL,
    PRIMARY KEY (instance, lookup_field, key_norm)
);
CREATE INDEX key_claim_by_chunk ON syncd.key_claim (chunk_id);
COMMENT ON TABLE  syncd.key_claim              IS 'One unsettled chunk per key: two live jobs of one key could reorder values or create duplicate leads';
COMMENT ON COLUMN syncd.key_claim.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.key_claim.lookup_field IS 'The field that the key is a value of';
COMMENT ON COLUMN syncd.key_claim.key_norm     IS 'The key as claims compare it';
COMMENT ON COLUMN syncd.key_claim.chunk_id     IS 'The chunk that has it';

CREATE TABLE syncd.import_job (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance     text        NOT NULL,
    push         text        NOT NULL,
    chunk_id     bigint      NOT NULL,
    batch_id     bigint,
    state        text        NOT NULL DEFAULT 'submitting'
                 CHECK (state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'refused', 'unconfirmed', 'absent', 'lost', 'settled')),
    row_count    integer     NOT NULL,
    byte_count   bigint      NOT NULL,
    sha256       bytea       NOT NULL,
    attempt      integer     NOT NULL,
    submitted_at timestamptz NOT NULL,
    looked_at    timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    settled_at   timestamptz,
    polls        integer     NOT NULL DEFAULT 0,
    processed    integer     NOT NULL DEFAULT 0,
    failed       integer     NOT NULL DEFAULT 0,
    warnings     integer     NOT NULL DEFAULT 0,
    applied      integer     NOT NULL DEFAULT 0,
    warned       integer     NOT NULL DEFAULT 0,
    rejected     integer     NOT NULL DEFAULT 0,
    unverified   integer     NOT NULL DEFAULT 0,
    retried      integer     NOT NULL DEFAULT 0,
    message      text,
    request_id   text,
    CHECK ((batch_id IS NOT NULL) = (state IN ('queued', 'importing', 'complete', 'failed', 'settled', 'lost'))),
    CHECK (state <> 'settled' OR applied + warned + rejected + unverified + retried = row_count)
);
-- a chunk is in one job that may be live, at most
CREATE UNIQUE INDEX import_job_live_chunk ON syncd.import_job (chunk_id)
    WHERE state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'unconfirmed');
CREATE INDEX import_job_live      ON syncd.import_job (instance, id)
    WHERE state IN ('submitting', 'queued', 'importing', 'complete', 'failed', 'unconfirmed');
CREATE INDEX import_job_by_chunk  ON syncd.import_job (chunk_id, id);
CREATE INDEX import_job_finished  ON syncd.import_job (instance, finished_at) WHERE finished_at IS NOT NULL;
COMMENT ON TABLE  syncd.import_job              IS 'Each attempt to have a chunk imported';
COMMENT ON COLUMN syncd.import_job.id           IS 'Identity, and the order of submission';
COMMENT ON COLUMN syncd.import_job.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.import_job.push         IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.import_job.chunk_id     IS 'What was sent';
COMMENT ON COLUMN syncd.import_job.batch_id     IS 'Marketo''s batchId';
COMMENT ON COLUMN syncd.import_job.state        IS 'submitting, queued, importing, complete, failed, settled; refused (not executed); unconfirmed (it may exist), absent (it does not); lost (results no longer to be had)';
COMMENT ON COLUMN syncd.import_job.row_count    IS 'Rows sent';
COMMENT ON COLUMN syncd.import_job.byte_count   IS 'Bytes of the file sent';
COMMENT ON COLUMN syncd.import_job.sha256       IS 'Of the file sent';
COMMENT ON COLUMN syncd.import_job.attempt      IS 'The how-manyth attempt of this chunk';
COMMENT ON COLUMN syncd.import_job.submitted_at IS 'When the attempt began';
COMMENT ON COLUMN syncd.import_job.looked_at    IS 'When its status was last asked for';
COMMENT ON COLUMN syncd.import_job.started_at   IS 'When it was first seen importing';
COMMENT ON COLUMN syncd.import_job.finished_at  IS 'When it was first seen complete or failed';
COMMENT ON COLUMN syncd.import_job.settled_at   IS 'When its outcome was written to its changes';
COMMENT ON COLUMN syncd.import_job.polls        IS 'How often its status was asked for';
COMMENT ON COLUMN syncd.import_job.processed    IS 'Rows processed, as Marketo last said';
COMMENT ON COLUMN syncd.import_job.failed       IS 'Rows failed, as Marketo last said';
COMMENT ON COLUMN syncd.import_job.warnings     IS 'Rows with a warning, as Marketo last said';
COMMENT ON COLUMN syncd.import_job.applied      IS 'Rows applied';
COMMENT ON COLUMN syncd.import_job.warned       IS 'Rows applied with a warning';
COMMENT ON COLUMN syncd.import_job.rejected     IS 'Rows that Marketo refused';
COMMENT ON COLUMN syncd.import_job.unverified   IS 'Rows of which nobody can tell';
COMMENT ON COLUMN syncd.import_job.retried      IS 'Rows that go again';
COMMENT ON COLUMN syncd.import_job.message      IS 'What Marketo said, or the last fault';
COMMENT ON COLUMN syncd.import_job.request_id   IS 'Marketo''s requestId of the submission, for its support';

-- ── what applications use ─────────────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION syncd.enqueue(instance text, push text, key text, fields jsonb) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO syncd.outbox (instance, push, key, fields) VALUES ($1, $2, $3, $4) RETURNING id
$$;
COMMENT ON FUNCTION syncd.enqueue(text, text, text, jsonb) IS 'Puts a change into the outbox, in the caller''s transaction, and returns its id';

CREATE VIEW syncd.change AS
    SELECT o.id, o.instance, o.push, o.key, o.fields, o.state, o.reason,
           (SELECT max(j.id) FROM syncd.import_job j WHERE j.chunk_id = o.chunk_id) AS import_job_id,
           o.sync_batch_id, o.created_at, NULL::timestamptz AS settled_at
      FROM syncd.outbox o
    UNION ALL
    SELECT h.id, h.instance, h.push, h.key, h.fields, h.state, h.reason, h.import_job_id, h.sync_batch_id, h.created_at, h.settled_at
      FROM syncd.change_history h;
COMMENT ON VIEW   syncd.change               IS 'Every change, live or settled: where its fate is read';
COMMENT ON COLUMN syncd.change.id            IS 'The change''s id, as enqueue returned it';
COMMENT ON COLUMN syncd.change.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.change.push          IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.change.key           IS 'The value of the push''s lookup field';
COMMENT ON COLUMN syncd.change.fields        IS 'What the application asked for';
COMMENT ON COLUMN syncd.change.state         IS 'pending, in_chunk, in_batch, held, parked; at the end applied, warned, rejected, superseded, noop, cancelled or unverified';
COMMENT ON COLUMN syncd.change.reason        IS 'Why';
COMMENT ON COLUMN syncd.change.import_job_id IS 'The import job that carries or decided it';
COMMENT ON COLUMN syncd.change.sync_batch_id IS 'The sync batch that carries or decided it';
COMMENT ON COLUMN syncd.change.created_at    IS 'When the application''s transaction began';
COMMENT ON COLUMN syncd.change.settled_at    IS 'When its fate became known; null while it is live';
