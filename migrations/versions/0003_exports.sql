-- Export jobs of Marketo's, and the staging of their files.

CREATE TABLE syncd.export (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    pull        text        NOT NULL,
    window_id   bigint      NOT NULL,
    part        smallint    NOT NULL DEFAULT 0,
    parts       smallint    NOT NULL DEFAULT 1,
    state       text        NOT NULL DEFAULT 'creating'
                CHECK (state IN ('creating', 'unconfirmed', 'absent', 'created', 'queued', 'processing', 'completed', 'failed', 'cancelled', 'loaded', 'expired')),
    export_id   text,
    fields      text[]      NOT NULL,
    wanted      jsonb       NOT NULL,
    span        interval,
    estimate    bigint,
    adopted     boolean     NOT NULL DEFAULT false,
    begun_at    timestamptz NOT NULL,
    created_at  timestamptz,
    asked_at    timestamptz,
    enqueued_at timestamptz,
    looked_at   timestamptz,
    started_at  timestamptz,
    finished_at timestamptz,
    ended_at    timestamptz,
    polls       integer     NOT NULL DEFAULT 0,
    records     bigint,
    bytes       bigint,
    sha256      bytea,
    attempts    integer     NOT NULL DEFAULT 0,
    message     text,
    request_id  text,
    CHECK (part >= 0 AND part < parts),
    CHECK ((export_id IS NOT NULL) = (state NOT IN ('creating', 'unconfirmed', 'absent'))),
    CHECK (asked_at IS NOT NULL OR state NOT IN ('queued', 'processing', 'completed', 'loaded')),
    CHECK ((ended_at IS NOT NULL) = (state IN ('absent', 'failed', 'cancelled', 'loaded', 'expired'))),
    UNIQUE (instance, export_id)
);
-- a part of a window is asked for by one export at most, as long as that may still bring it
CREATE UNIQUE INDEX export_unfinished_part ON syncd.export (window_id, part)
    WHERE state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed');
CREATE INDEX export_unfinished ON syncd.export (instance, id)
    WHERE state IN ('creating', 'unconfirmed', 'created', 'queued', 'processing', 'completed');
CREATE INDEX export_of_window ON syncd.export (window_id);
CREATE INDEX export_finished  ON syncd.export (instance, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX export_ended     ON syncd.export (instance, ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE  syncd.export             IS 'Jobs of Marketo''s bulk extract, each for a window of a pull, or for some of the fields of one';
COMMENT ON COLUMN syncd.export.id          IS 'Identity, and the order of their beginning';
COMMENT ON COLUMN syncd.export.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.export.pull        IS 'The pull, as named in the YAML; #census for the comparison of all ids';
COMMENT ON COLUMN syncd.export.window_id   IS 'What it asks for';
COMMENT ON COLUMN syncd.export.part        IS 'Which part of the fields it asks for, from 0';
COMMENT ON COLUMN syncd.export.parts       IS 'In how many parts the fields of the window are asked for';
COMMENT ON COLUMN syncd.export.state       IS 'creating, unconfirmed (it may exist), absent (it does not), then as Marketo says: created, queued, processing, completed, failed, cancelled; loaded; expired (its file can no longer be had, or not be read)';
COMMENT ON COLUMN syncd.export.export_id   IS 'Marketo''s exportId';
COMMENT ON COLUMN syncd.export.fields      IS 'The fields by their REST names in the order asked, which differs from export to export: the file''s header tells whose it is';
COMMENT ON COLUMN syncd.export.wanted      IS 'The filter: {"kind": updated_between, created_between, static_list or smart_list, …}';
COMMENT ON COLUMN syncd.export.span        IS 'How long its window is; null for a list';
COMMENT ON COLUMN syncd.export.estimate    IS 'How many bytes it was thought to have when it was asked for; null where nobody could tell';
COMMENT ON COLUMN syncd.export.adopted     IS 'Whether the answer of its creation was lost, and it was found in Marketo''s list of jobs';
COMMENT ON COLUMN syncd.export.begun_at    IS 'Right before Marketo was asked to create it';
COMMENT ON COLUMN syncd.export.created_at  IS 'When Marketo''s answer came, or it was found';
COMMENT ON COLUMN syncd.export.asked_at    IS 'Right before Marketo was asked to queue it: its data are as of later';
COMMENT ON COLUMN syncd.export.enqueued_at IS 'When it was first known to be queued';
COMMENT ON COLUMN syncd.export.looked_at   IS 'When its status was last asked for';
COMMENT ON COLUMN syncd.export.started_at  IS 'When it was first seen processing';
COMMENT ON COLUMN syncd.export.finished_at IS 'When it was first seen completed or failed; a completed one counts on that quota day';
COMMENT ON COLUMN syncd.export.ended_at    IS 'When its state became final';
COMMENT ON COLUMN syncd.export.polls       IS 'How often its status was asked for';
COMMENT ON COLUMN syncd.export.records     IS 'Leads in its file, as Marketo says';
COMMENT ON COLUMN syncd.export.bytes       IS 'Bytes of its file, as Marketo says';
COMMENT ON COLUMN syncd.export.sha256      IS 'Of its file, as Marketo says';
COMMENT ON COLUMN syncd.export.attempts    IS 'How often its whole file came otherwise than Marketo had said';
COMMENT ON COLUMN syncd.export.message     IS 'The last fault, or why it ended so';
COMMENT ON COLUMN syncd.export.request_id  IS 'Marketo''s requestId of the last fault, for its support';

-- ── staging ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
-- An export's file goes as it is into an unlogged table of texts, and from there in slices into the mirror.

CREATE FUNCTION syncd.make_staging(export bigint, columns integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM syncd.drop_staging(export);
    EXECUTE format('CREATE UNLOGGED TABLE syncd.%I (%s)', 'staging_' || export,
                   (SELECT string_agg(format('c%s text', n), ', ' ORDER BY n) FROM generate_series(1, columns) n));
END
$$;
COMMENT ON FUNCTION syncd.make_staging(bigint, integer) IS 'Makes an empty staging table, with columns c1, c2, … of text, for the file of an export';

CREATE FUNCTION syncd.drop_staging(export bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass('syncd.staging_' || export) IS NOT NULL THEN
        EXECUTE format('DROP TABLE syncd.%I', 'staging_' || export);
    END IF;
END
$$;
COMMENT ON FUNCTION syncd.drop_staging(bigint) IS 'Drops the staging table of an export, where there is one';

CREATE FUNCTION syncd.drop_leftover_stagings(instance text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    export  bigint;
    dropped integer := 0;
BEGIN
    FOR export IN
        SELECT substr(c.relname, 9)::bigint FROM pg_class c
         WHERE c.relnamespace = 'syncd'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^staging_[0-9]+$'
           AND NOT EXISTS (SELECT FROM syncd.export e WHERE e.id = substr(c.relname, 9)::bigint AND e.instance <> drop_leftover_stagings.instance)
    LOOP
        PERFORM syncd.drop_staging(export);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION syncd.drop_leftover_stagings(text) IS 'Drops the staging tables that a former daemon of the instance has left; returns how many';

CREATE FUNCTION syncd.lead_id_of(value text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN length(value) <= 18 AND value <> '' AND translate(value, '0123456789', '') = '' THEN value::bigint END
$$;
COMMENT ON FUNCTION syncd.lead_id_of(text) IS 'The lead''s id in a cell of a file; null for any other text';

CREATE FUNCTION syncd.index_staging(export bigint, id_column integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    others bigint;
BEGIN
    EXECUTE format('CREATE INDEX ON syncd.%I (syncd.lead_id_of(c%s))', 'staging_' || export, id_column);
    EXECUTE format('SELECT count(*) FROM syncd.%I WHERE syncd.lead_id_of(c%s) IS NULL', 'staging_' || export, id_column) INTO others;
    RETURN others;
END
$$;
COMMENT ON FUNCTION syncd.index_staging(bigint, integer) IS 'Makes the rows of a staging table to be had by the lead''s id, which is in that column; returns how many have none';

CREATE FUNCTION syncd.staging_slice(export bigint, id_column integer, after bigint, most integer) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    upto bigint;
BEGIN
    EXECUTE format('SELECT max(id) FROM (SELECT syncd.lead_id_of(c%1$s) AS id FROM syncd.%2$I WHERE syncd.lead_id_of(c%1$s) > $1 ORDER BY syncd.lead_id_of(c%1$s) LIMIT $2) s',
                   id_column, 'staging_' || export) INTO upto USING after, most;
    RETURN upto;
END
$$;
COMMENT ON FUNCTION syncd.staging_slice(bigint, integer, bigint, integer) IS 'The id up to which a staging table has so many rows behind `after`; null when it has none';

CREATE FUNCTION syncd.joined_stagings(parts jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(CASE WHEN p.n = 1 THEN format('syncd.%I p0', 'staging_' || (p.part ->> 'export'))
                           ELSE format(' JOIN syncd.%I p%s ON syncd.lead_id_of(p%2$s.c%s) = syncd.lead_id_of(p0.c%s)',
                                       'staging_' || (p.part ->> 'export'), p.n - 1, p.part ->> 'id', parts -> 0 ->> 'id') END, '' ORDER BY p.n)
           || format(' WHERE syncd.lead_id_of(p0.c%1$s) > $1 AND syncd.lead_id_of(p0.c%1$s) <= $2', parts -> 0 ->> 'id')
      FROM jsonb_array_elements(parts) WITH ORDINALITY AS p (part, n)
$$;
COMMENT ON FUNCTION syncd.joined_stagings(jsonb) IS 'SQL for the leads with ids above $1 and up to $2 that are in every part, [{export, id: its column}]; the others have moved on meanwhile';

CREATE FUNCTION syncd.staged_ids(parts jsonb, after bigint, upto bigint) RETURNS bigint[] LANGUAGE plpgsql STABLE AS $$
DECLARE
    ids bigint[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT syncd.lead_id_of(p0.c%s)) FROM %s', parts -> 0 ->> 'id', syncd.joined_stagings(parts))
       INTO ids USING after, upto;
    RETURN coalesce(ids, '{}');
END
$$;
COMMENT ON FUNCTION syncd.staged_ids(jsonb, bigint, bigint) IS 'The ids of the leads in a slice of staging tables';

-- What Python's str.strip takes off.
CREATE FUNCTION syncd.stripped(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT btrim(value, E' \t\n\x0b\f\r\x1c\x1d\x1e\x1f\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000')
$$;
COMMENT ON FUNCTION syncd.stripped(text) IS 'The text without the blanks around it';

-- Postgres counts repetitions up to 255 only: hence the lengths.
CREATE FUNCTION syncd.staged_number(value text, fraction boolean) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    pieces text[] := regexp_match(syncd.stripped(value), '^([+-]?)([0-9]+)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$');
BEGIN
    IF pieces IS NULL OR length(pieces[2]) > 1000 OR length(pieces[3]) > 1001 OR (NOT fraction AND (pieces[3] IS NOT NULL OR pieces[4] IS NOT NULL)) THEN
        RETURN NULL;
    END IF;
    RETURN concat(nullif(pieces[1], '+'), coalesce(nullif(ltrim(pieces[2], '0'), ''), '0'), pieces[3], pieces[4]);
END
$$;
COMMENT ON FUNCTION syncd.staged_number(text, boolean) IS 'A number as JSON writes it, with all its digits, with a fraction or without; null for any other text';

CREATE FUNCTION syncd.staged_date(value text) RETURNS text LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    day text := syncd.stripped(value);
BEGIN
    RETURN CASE WHEN to_char(syncd.as_date(day), 'YYYY-MM-DD') = day THEN '"' || day || '"' END;
END
$$;
COMMENT ON FUNCTION syncd.staged_date(text) IS 'YYYY-MM-DD as JSON; null for any other text';

CREATE FUNCTION syncd.staged_moment(value text) RETURNS text LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    told   text := syncd.stripped(value);
    format CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS"Z"';
    pieces text[];
    moment timestamp;
BEGIN
    IF to_char(syncd.as_moment(told) AT TIME ZONE 'UTC', format) = told THEN
        RETURN '"' || told || '"';
    END IF;
    pieces := regexp_match(told, '^([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.[0-9]{1,9})?(?:Z|([+-])([01][0-9]|2[0-3])(?::?([0-5][0-9])|:([0-5][0-9]):([0-5][0-9])))$');
    IF pieces IS NULL OR to_char(syncd.as_date(pieces[1]), 'YYYY-MM-DD') IS DISTINCT FROM pieces[1] THEN
        RETURN NULL;
    END IF;
    moment := (pieces[1] || ' ' || pieces[2])::timestamp
              - coalesce((pieces[3] || '1')::integer * concat(pieces[4], ':', coalesce(pieces[5], pieces[6]), ':', coalesce(pieces[7], '00'))::interval, '0');
    RETURN CASE WHEN moment >= '0001-01-01' AND moment < '10000-01-01' THEN '"' || to_char(moment, format) || '"' END;
END
$$;
COMMENT ON FUNCTION syncd.staged_moment(text) IS 'A datetime as JSON, in UTC and to the second; null for any other text';

-- What core/mirror.py makes of a value. What most values look like is seen without a regular expression.
CREATE FUNCTION syncd.staged_expression(cell text, kind text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
           WHEN kind IN ('integer', 'score')
           THEN format('CASE WHEN translate(%1$s, ''0123456789'', '''') = '''' AND length(%1$s) <= 1000 AND (left(%1$s, 1) <> ''0'' OR %1$s = ''0'') THEN %1$s ELSE syncd.staged_number(%1$s, false) END', cell)
           WHEN kind IN ('percent', 'float', 'currency')
           THEN format('CASE WHEN translate(%1$s, ''0123456789'', '''') IN ('''', ''.'') AND length(%1$s) <= 1000 AND (left(%1$s, 1) <> ''0'' OR %1$s = ''0'' OR %1$s LIKE ''0.%%'') AND %1$s NOT LIKE ''.%%'' AND %1$s NOT LIKE ''%%.'' THEN %1$s ELSE syncd.staged_number(%1$s, true) END', cell)
           WHEN kind = 'boolean'
           THEN format('CASE WHEN %1$s IN (''true'', ''false'') THEN %1$s ELSE CASE lower(syncd.stripped(%1$s) COLLATE "C") WHEN ''true'' THEN ''true'' WHEN ''1'' THEN ''true'' WHEN ''false'' THEN ''false'' WHEN ''0'' THEN ''false'' END END', cell)
           -- the last days of a month are left to who knows its length
           WHEN kind = 'date'
           THEN format('CASE WHEN %1$s LIKE ''____-__-__'' AND translate(%1$s, ''0123456789'', '''') = ''--'' AND left(%1$s, 4) <> ''0000'' AND substr(%1$s, 6, 2) COLLATE "C" BETWEEN ''01'' AND ''12'' AND substr(%1$s, 9, 2) COLLATE "C" BETWEEN ''01'' AND ''28'' THEN ''"'' || %1$s || ''"'' ELSE syncd.staged_date(%1$s) END', cell)
           WHEN kind = 'datetime'
           THEN format('CASE WHEN %1$s LIKE ''____-__-__T__:__:__Z'' AND translate(%1$s, ''0123456789'', '''') = ''--T::Z'' AND left(%1$s, 4) <> ''0000'' AND substr(%1$s, 6, 2) COLLATE "C" BETWEEN ''01'' AND ''12'' AND substr(%1$s, 9, 2) COLLATE "C" BETWEEN ''01'' AND ''28'' AND substr(%1$s, 12, 2) COLLATE "C" <= ''23'' AND substr(%1$s, 15, 2) COLLATE "C" <= ''59'' AND substr(%1$s, 18, 2) COLLATE "C" <= ''59'' THEN ''"'' || %1$s || ''"'' ELSE syncd.staged_moment(%1$s) END', cell)
           END
$$;
COMMENT ON FUNCTION syncd.staged_expression(text, text) IS 'SQL that gives a cell the JSON text of describe''s dataType, null where it does not fit; null when the dataType is no other than text';

-- Of a function's arguments, 100 are the most.
CREATE FUNCTION syncd.json_object_expression(members text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce('''{'' || concat_ws('','', ' || string_agg(g.members, ', ' ORDER BY g.number) || ') || ''}''', '''{}''')
      FROM (SELECT (n - 1) / 90 AS number, format('nullif(concat_ws('','', %s), '''')', string_agg(m.member, ', ' ORDER BY n)) AS members
              FROM unnest($1) WITH ORDINALITY AS m (member, n) GROUP BY 1) g
$$;
COMMENT ON FUNCTION syncd.json_object_expression(text[]) IS 'SQL for the text of a JSON object of these members, each SQL for the text of one, or null';

CREATE FUNCTION syncd.staged_leads(parts jsonb, columns jsonb, prefix text, after bigint, upto bigint, conditions jsonb)
RETURNS TABLE (lead_id bigint, email text, attributes text, misfits text, digest text, kept boolean) LANGUAGE plpgsql STABLE ROWS 20000 AS $$
DECLARE
    cells   text;
    typed   text;
    fit     text[];
    unfit   text[];
    let_in  text;
BEGIN
    SELECT string_agg(format(', nullif(nullif(p%s.c%s, ''null''), '''') AS t%s', c.part, c.at, c.n), '' ORDER BY c.n),
           string_agg(format(', %s AS v%s', e.expression, c.n), '' ORDER BY c.n) FILTER (WHERE e.expression IS NOT NULL),
           array_agg(format('%L || %s', m.name || ':', CASE WHEN e.expression IS NULL THEN format('to_json(t%s)::text', c.n) ELSE 'v' || c.n END)
                     ORDER BY c.name COLLATE "C") FILTER (WHERE c.n > 0),
           array_agg(format('CASE WHEN %s THEN %L || to_json(t%s)::text END',
                            CASE c.n WHEN 0 THEN 'length(t0) > 600' ELSE format('v%1$s IS NULL AND t%1$s IS NOT NULL', c.n) END, m.name || ':', c.n)
                     ORDER BY c.name COLLATE "C") FILTER (WHERE c.n = 0 OR e.expression IS NOT NULL)
      INTO cells, typed, fit, unfit
      FROM jsonb_to_recordset(columns) AS c (n integer, part integer, at integer, name text, kind text)
     CROSS JOIN LATERAL (SELECT to_json(c.name)::text AS name) m
     CROSS JOIN LATERAL (SELECT CASE WHEN c.n > 0 THEN syncd.staged_expression('t' || c.n, c.kind) END AS expression) e;
    SELECT string_agg(format(' AND %s = ANY (%L::text[])',
                             CASE WHEN w.n = -1 THEN 'v.lead_id::text'
                                  WHEN w.truth THEN format('CASE coalesce(t%1$s, '''') WHEN ''1'' THEN ''true'' WHEN ''0'' THEN ''false'' ELSE lower(coalesce(t%1$s, '''')) END', w.n)
                                  ELSE format('coalesce(t%s, '''')', w.n) END,
                             ARRAY(SELECT jsonb_array_elements_text(w.allowed))), '')
      INTO let_in
      FROM jsonb_to_recordset(conditions) AS w (n integer, truth boolean, allowed jsonb);
    RETURN QUERY EXECUTE format($sql$
        SELECT j.lead_id, j.email, j.attributes, j.misfits, $3 || md5(concat(j.email, E'\n', j.attributes, E'\n', j.misfits)), j.kept
          FROM (SELECT v.lead_id, CASE WHEN length(t0) <= 600 THEN t0 END AS email, %1$s AS attributes, %2$s AS misfits, true%3$s AS kept
                  FROM (SELECT c.*%4$s
                          FROM (SELECT DISTINCT ON (syncd.lead_id_of(p0.c%5$s)) syncd.lead_id_of(p0.c%5$s) AS lead_id%6$s
                                  FROM %7$s ORDER BY syncd.lead_id_of(p0.c%5$s), p0.ctid DESC) c
                        OFFSET 0) v
                OFFSET 0) j
        $sql$, syncd.json_object_expression(fit), syncd.json_object_expression(unfit), let_in, typed, parts -> 0 ->> 'id', cells, syncd.joined_stagings(parts))
        USING after, upto, prefix;
END
$$;
COMMENT ON FUNCTION syncd.staged_leads(jsonb, jsonb, text, bigint, bigint, jsonb) IS 'The leads in a slice of staging tables in the mirror''s form, to the byte as core/mirror.py has it. columns: [{n, part, at, name, kind}], where n = 0 is the email; conditions: [{n, truth, allowed}], where n = -1 is the id';
