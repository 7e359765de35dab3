-- Views and foreign tables that pushes follow: a snapshot of digests, and the comparison with it. Layouts are those of 0006_attach.sql.

CREATE TABLE syncd.comparison (
    attachment_id bigint      PRIMARY KEY,
    layout        text        NOT NULL,
    generation    integer     NOT NULL DEFAULT 1,
    based_at      timestamptz,
    due_at        timestamptz NOT NULL,
    compared_at   timestamptz,
    keys          bigint      NOT NULL DEFAULT 0,
    changes       bigint      NOT NULL DEFAULT 0,
    gone          bigint      NOT NULL DEFAULT 0,
    no_keys       bigint      NOT NULL DEFAULT 0,
    long_keys     bigint      NOT NULL DEFAULT 0,
    duplicates    bigint      NOT NULL DEFAULT 0,
    forgotten     bigint      NOT NULL DEFAULT 0,
    failures      integer     NOT NULL DEFAULT 0,
    failed_at     timestamptz,
    message       text,
    CHECK ((failures > 0) = (failed_at IS NOT NULL) AND (failures > 0) = (message IS NOT NULL))
);
COMMENT ON TABLE  syncd.comparison               IS 'How the comparisons of a view that a push follows stand; the counts are those of the last one';
COMMENT ON COLUMN syncd.comparison.attachment_id IS 'The attachment';
COMMENT ON COLUMN syncd.comparison.layout        IS 'The layout that it is compared by, JSON';
COMMENT ON COLUMN syncd.comparison.generation    IS 'Rows of the snapshot with another one are from before the last syncd attach: all their values go anew';
COMMENT ON COLUMN syncd.comparison.based_at      IS 'When syncd attach had taken the first snapshot; null: it broke off, and nothing is compared before it is run again';
COMMENT ON COLUMN syncd.comparison.due_at        IS 'When the daemon is to compare next';
COMMENT ON COLUMN syncd.comparison.compared_at   IS 'When the last comparison was over that came to its end';
COMMENT ON COLUMN syncd.comparison.keys          IS 'How many keys the snapshot had then';
COMMENT ON COLUMN syncd.comparison.changes       IS 'How many changes it made';
COMMENT ON COLUMN syncd.comparison.gone          IS 'How many keys were gone';
COMMENT ON COLUMN syncd.comparison.no_keys       IS 'Rows without a key, left out';
COMMENT ON COLUMN syncd.comparison.long_keys     IS 'Rows whose key has over 1,000 bytes, left out';
COMMENT ON COLUMN syncd.comparison.duplicates    IS 'Keys that the view has in several rows with other values, left out';
COMMENT ON COLUMN syncd.comparison.forgotten     IS 'Rows of people who are forgotten, left out';
COMMENT ON COLUMN syncd.comparison.failures      IS 'How many comparisons in a row have failed';
COMMENT ON COLUMN syncd.comparison.failed_at     IS 'When the last of them did';
COMMENT ON COLUMN syncd.comparison.message       IS 'How, without values';

CREATE TABLE syncd.snapshot (
    attachment_id bigint   NOT NULL,
    key_norm      text     COLLATE "C" NOT NULL,
    key           text     NOT NULL,
    generation    integer  NOT NULL,
    digests       bigint[] NOT NULL,
    PRIMARY KEY (attachment_id, key_norm)
);
COMMENT ON TABLE  syncd.snapshot               IS 'What of a view has become changes: digests by key';
COMMENT ON COLUMN syncd.snapshot.attachment_id IS 'The attachment';
COMMENT ON COLUMN syncd.snapshot.key_norm      IS 'The key as claims compare it';
COMMENT ON COLUMN syncd.snapshot.key           IS 'The key as the view had it';
COMMENT ON COLUMN syncd.snapshot.generation    IS 'As in comparison: of which syncd attach the digests are';
COMMENT ON COLUMN syncd.snapshot.digests       IS 'A digest of the value of each field, in the order of the layout; null: no value';

ALTER TABLE syncd.attachment ADD COLUMN triggers smallint NOT NULL DEFAULT 2;
COMMENT ON COLUMN syncd.attachment.triggers IS 'How many triggers it has: 2, 3 with on_delete, 0 of a view, which is compared';

CREATE FUNCTION syncd.compare(attachment bigint, of_generation integer, layout jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
    -- a daemon's session plans for walks of indexes; here the planner is free, and floats look the same whatever the session has set
    SET enable_seqscan = on SET enable_hashjoin = on SET enable_mergejoin = on SET work_mem = '64MB' SET extra_float_digits = 1 SET jit = off AS $$
DECLARE
    -- equal numbers have equal digests, in whatever form
    digests text := (SELECT string_agg(format(CASE f.one ->> 'form' WHEN 'as_is' THEN 'jsonb_hash_extended(to_jsonb(r.v%s), 0)'
                                              WHEN 'money' THEN 'jsonb_hash_extended(to_jsonb(r.v%s), 0)' ELSE 'hashtextextended(r.v%s, 0)' END, f.n),
                                       ', ' ORDER BY f.n)
                       FROM jsonb_array_elements(layout -> 'fields') WITH ORDINALITY AS f (one, n));
    -- of which rows all goes, as of a new one
    whole   text := format('s.generation IS DISTINCT FROM %s', of_generation);
BEGIN
    IF to_regclass(layout ->> 'relation') IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('%s does not exist', layout ->> 'relation');
    END IF;
    DROP TABLE IF EXISTS pg_temp.syncd_compared;
    -- one sort by the key finds the keys that are in several rows, and joins the snapshot; what is the same in both is dropped there
    EXECUTE format($f$
        CREATE TEMPORARY TABLE syncd_compared AS
        WITH n AS (
            SELECT x.*, lag(x.norm) OVER by_key IS NOT DISTINCT FROM x.norm OR lead(x.norm) OVER by_key IS NOT DISTINCT FROM x.norm AS several
              FROM (SELECT coalesce(lower(btrim(r.k COLLATE "default", E' \t\r\n')), '') COLLATE "C" AS norm, ARRAY[%1$s] AS d, r.*
                      FROM (%2$s) r WHERE r.h) x
            WINDOW by_key AS (ORDER BY x.norm)
        ), c AS (
            SELECT coalesce(n.norm, s.key_norm) AS key_norm, coalesce(n.k, s.key) AS key, n.norm IS NULL AS gone, n.d AS digests,
                   %6$s OR n.d <> s.digests AS differs, CASE WHEN n.norm IS NULL THEN %3$L ELSE %4$s END AS fields
              FROM n FULL JOIN (SELECT * FROM syncd.snapshot s WHERE s.attachment_id = %5$s) s ON s.key_norm = n.norm
             WHERE n.norm IS NULL OR n.several OR %6$s OR n.d <> s.digests
        ), k AS (
            SELECT c.*, row_number() OVER of_key AS nth, count(*) OVER (PARTITION BY c.key_norm) AS of_rows,
                   min(c.digests) OVER (PARTITION BY c.key_norm) IS DISTINCT FROM max(c.digests) OVER (PARTITION BY c.key_norm) AS ambiguous
              FROM c WINDOW of_key AS (PARTITION BY c.key_norm ORDER BY c.key)
        )
        SELECT row_number() OVER (ORDER BY k.key_norm) AS nr, k.key_norm, k.key, k.digests, k.fields, k.of_rows,
               CASE WHEN k.gone THEN 'gone' WHEN k.key_norm = '' THEN 'no_key' WHEN octet_length(k.key) > 1000 THEN 'long_key'
                    WHEN k.ambiguous THEN 'duplicate' ELSE 'changed' END AS fate
          FROM k WHERE k.nth = 1 AND (k.gone OR k.ambiguous OR k.differs OR k.key_norm = '')$f$,
        digests, syncd.attach_rows(layout, layout ->> 'relation'), coalesce(layout -> 'on_delete', '{}'),
        syncd.attach_fields(layout, whole || ' AND n.v# IS NOT NULL OR NOT ' || whole || ' AND n.d[#] IS DISTINCT FROM s.digests[#]'),
        attachment, whole);
    ALTER TABLE pg_temp.syncd_compared ADD PRIMARY KEY (nr);
    ANALYZE pg_temp.syncd_compared;
END $$;
COMMENT ON FUNCTION syncd.compare(bigint, integer, jsonb) IS 'Reads a view once, and puts what differs from its snapshot into the session''s table syncd_compared';
