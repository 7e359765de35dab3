-- How long settled changes are kept: their values for some days, their outcomes for longer.

ALTER TABLE syncd.change_history
    ADD COLUMN erased text[],
    -- not nulls in place of the values: null is a value, and clears
    ADD CHECK (erased IS NULL OR fields = '{}'),
    ADD CHECK (erased IS NULL OR state NOT IN ('rejected', 'unverified') OR retried_at IS NOT NULL);
COMMENT ON COLUMN syncd.change_history.fields IS 'What the application asked for; empty once its values are erased';
COMMENT ON COLUMN syncd.change_history.erased IS 'The fields that it set or cleared, once their values are erased; null: nothing is erased';

-- failures that were retried after the values of their day had been erased
CREATE INDEX change_history_retried ON syncd.change_history (instance, settled_at) WHERE retried_at IS NOT NULL AND erased IS NULL;

CREATE OR REPLACE VIEW syncd.change AS
    SELECT o.id, o.instance, o.push, o.key, o.fields, o.state, o.reason,
           (SELECT max(j.id) FROM syncd.import_job j WHERE j.chunk_id = o.chunk_id) AS import_job_id,
           o.sync_batch_id, o.created_at, NULL::timestamptz AS settled_at,
           o.retry_of, NULL::timestamptz AS retried_at, NULL::bigint AS retried_as, NULL::text[] AS erased
      FROM syncd.outbox o
    UNION ALL
    SELECT h.id, h.instance, h.push, h.key, h.fields, h.state, h.reason, h.import_job_id, h.sync_batch_id, h.created_at, h.settled_at,
           h.retry_of, h.retried_at, h.retried_as, h.erased
      FROM syncd.change_history h;
COMMENT ON COLUMN syncd.change.fields IS 'What the application asked for; empty once its values are erased (keep.payloads)';
COMMENT ON COLUMN syncd.change.erased IS 'The fields that it set or cleared, once their values are erased; null: nothing is erased';

CREATE TABLE syncd.keep_mark (
    instance      text PRIMARY KEY,
    erased_before date NOT NULL
);
COMMENT ON TABLE  syncd.keep_mark               IS 'How far the values of settled changes have been erased';
COMMENT ON COLUMN syncd.keep_mark.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.keep_mark.erased_before IS 'Those of all days (UTC) of settling before this one are erased, but for failures that nobody has retried';

-- What an erasure frees is to be filled by the next piece of it, so that a partition hardly grows.
CREATE OR REPLACE FUNCTION syncd.ensure_history_partition(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'change_history_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('syncd.' || name) IS NOT NULL THEN
        RETURN;
    END IF;
    -- made apart and attached, because CREATE … PARTITION OF would lock out every reader of the history
    EXECUTE format('CREATE TABLE syncd.%I (LIKE syncd.change_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000)', name);
    EXECUTE format('ALTER TABLE syncd.change_history ATTACH PARTITION syncd.%I FOR VALUES FROM (%L) TO (%L)', name,
                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
EXCEPTION WHEN duplicate_table OR unique_violation THEN
    NULL;  -- another daemon was quicker
END $$;

DROP INDEX syncd.chunk_finished;
CREATE INDEX chunk_finished ON syncd.chunk (instance, finished_at) WHERE state IN ('done', 'split', 'dissolved');

CREATE FUNCTION syncd.drop_history_partition(instance text, day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    old    regclass := to_regclass('syncd.change_history_' || to_char(day, 'YYYYMMDD'));
    query  text     := format('SELECT EXISTS (SELECT FROM %1$s WHERE instance < $1) OR EXISTS (SELECT FROM %1$s WHERE instance > $1)', old);
    others boolean;
BEGIN
    IF old IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE query INTO others USING instance;
    IF NOT others THEN
        -- the whole table first, in the order in which its readers lock, and then the question again
        LOCK TABLE ONLY syncd.change_history IN ACCESS EXCLUSIVE MODE;
        EXECUTE query INTO others USING instance;
    END IF;
    IF NOT others THEN
        EXECUTE format('DROP TABLE %s', old);
    END IF;
    RETURN NOT others;
END
$$;
COMMENT ON FUNCTION syncd.drop_history_partition(text, date) IS 'Drops the partition of change_history for one day (UTC), unless another instance has changes in it; returns whether it did';
