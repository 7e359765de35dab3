-- Pushes from tables: what is attached, what went wrong, and the functions that write the triggers.
-- A layout, as core/mapping.py makes it, is a JSON object: relation, identity [{column, type}], key {column, form}, where, and
-- fields [{name, column, form} or {name, const}], and where it is given on_delete {name: text or null}. Nothing of it gets into SQL but through %I and %L, except the operator's own `where`.

CREATE TABLE syncd.attachment (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance      text        NOT NULL,
    push          text        NOT NULL,
    relation      text        NOT NULL,
    digest        text        NOT NULL,
    attached_at   timestamptz NOT NULL,
    plan_id       bigint,
    backfilled_to text[],
    UNIQUE (instance, push),
    CHECK (backfilled_to IS NULL OR plan_id IS NOT NULL)
);
COMMENT ON TABLE  syncd.attachment               IS 'Tables that pushes follow by triggers (syncd attach)';
COMMENT ON COLUMN syncd.attachment.id            IS 'Identity; the trigger function is called attached_<id>, the triggers syncd_attached_<id>_insert, …_update and, with on_delete, …_delete';
COMMENT ON COLUMN syncd.attachment.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.attachment.push          IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.attachment.relation      IS 'The table, with its schema';
COMMENT ON COLUMN syncd.attachment.digest        IS 'SHA-256 of the layout that the triggers were made by: of the YAML''s mapping and the types of its columns';
COMMENT ON COLUMN syncd.attachment.attached_at   IS 'When the triggers were made';
COMMENT ON COLUMN syncd.attachment.plan_id       IS 'The backfill that is being made; null: none, or it is complete';
COMMENT ON COLUMN syncd.attachment.backfilled_to IS 'How far it has come, as texts of the identity''s columns: an interrupted one goes on there';

CREATE TABLE syncd.attach_fault (
    id       bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance text        NOT NULL,
    push     text        NOT NULL,
    code     text        NOT NULL,
    writes   bigint      NOT NULL,
    changes  bigint      NOT NULL,
    first_at timestamptz NOT NULL,
    last_at  timestamptz NOT NULL
);
CREATE INDEX attach_fault_of_push ON syncd.attach_fault (instance, push, code, id);
COMMENT ON TABLE  syncd.attach_fault          IS 'Rows of attached tables that did not become changes, which never fails a write; several rows of one code add up';
COMMENT ON COLUMN syncd.attach_fault.id       IS 'Identity';
COMMENT ON COLUMN syncd.attach_fault.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.attach_fault.push     IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.attach_fault.code     IS 'no_key, long_key (over 1,000 bytes), or the SQLSTATE of the error';
COMMENT ON COLUMN syncd.attach_fault.writes   IS 'How many statements';
COMMENT ON COLUMN syncd.attach_fault.changes  IS 'How many rows; of an error all that the statement wrote';
COMMENT ON COLUMN syncd.attach_fault.first_at IS 'When the first such transaction began';
COMMENT ON COLUMN syncd.attach_fault.last_at  IS 'When the last such transaction began';

CREATE FUNCTION syncd.note_attach_fault(of_instance text, of_push text, of_code text, of_changes bigint)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    noted boolean;
BEGIN
    -- a row that another writer holds is passed over, so that none ever waits here; there are as many rows as writers at a time.
    -- So is one that another has written since a REPEATABLE READ began: the last row is then its own, which it finds the next time
    BEGIN
        UPDATE syncd.attach_fault SET writes = writes + 1, changes = changes + of_changes, last_at = now()
         WHERE id = (SELECT f.id FROM syncd.attach_fault f WHERE f.instance = of_instance AND f.push = of_push AND f.code = of_code
                      ORDER BY f.id DESC LIMIT 1 FOR UPDATE SKIP LOCKED);
        noted := FOUND;
    EXCEPTION WHEN serialization_failure THEN
        noted := false;
    END;
    IF NOT noted THEN
        INSERT INTO syncd.attach_fault (instance, push, code, writes, changes, first_at, last_at)
        VALUES (of_instance, of_push, of_code, 1, of_changes, now(), now());
    END IF;
END $$;
COMMENT ON FUNCTION syncd.note_attach_fault(text, text, text, bigint) IS 'Counts rows that did not become changes';

CREATE FUNCTION syncd.attach_value(form text, of_column text)
RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE form
        WHEN 'as_is' THEN format('%I', of_column)
        WHEN 'money' THEN format('%I::numeric', of_column)
        -- infinity has no such form: its text is for the checks to reject, as null would clear
        WHEN 'moment' THEN format('coalesce(to_char(%1$I AT TIME ZONE ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS"Z"''), %1$I::text)', of_column)
        WHEN 'utc_moment' THEN format('coalesce(to_char(%1$I, ''YYYY-MM-DD"T"HH24:MI:SS"Z"''), %1$I::text)', of_column)
        -- bytes are compared, whatever equality the type has; an empty text is no value, as everywhere
        WHEN 'text' THEN format('nullif(%I::text COLLATE "C", '''')', of_column)
    END
$$;
COMMENT ON FUNCTION syncd.attach_value(text, text) IS 'SQL of a column''s value as it goes into JSON: as_is, money, moment, utc_moment or text';

CREATE FUNCTION syncd.attach_rows(layout jsonb, source text)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(E'SELECT %s, (%s)::text COLLATE "C" AS k%s, (%s\n) IS TRUE AS h FROM %s AS %I',
                  (SELECT string_agg(format('%I AS i%s', i.one ->> 'column', i.n), ', ' ORDER BY i.n)
                     FROM jsonb_array_elements(layout -> 'identity') WITH ORDINALITY AS i (one, n)),
                  syncd.attach_value(layout #>> '{key,form}', layout #>> '{key,column}'),
                  (SELECT string_agg(format(', %s AS v%s', coalesce(syncd.attach_value(f.one ->> 'form', f.one ->> 'column'),
                                                                    format('%L::text', f.one ->> 'const')), f.n), '' ORDER BY f.n)
                     FROM jsonb_array_elements(layout -> 'fields') WITH ORDINALITY AS f (one, n)),
                  coalesce(layout ->> 'where', 'true'),
                  source,
                  (SELECT c.relname FROM pg_class c WHERE c.oid = to_regclass(layout ->> 'relation')))
$$;
COMMENT ON FUNCTION syncd.attach_rows(jsonb, text) IS 'SQL of rows: identity i1, …, key k, values v1, …, whether `where` holds h';

CREATE FUNCTION syncd.attach_probes(layout jsonb, OUT condition text, OUT every text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(E'SELECT FROM %s AS %I WHERE (%s\n) LIMIT 0', layout ->> 'relation', c.relname, coalesce(layout ->> 'where', 'true')),
           format('SELECT FROM (%s) p LIMIT 0', syncd.attach_rows(layout, layout ->> 'relation'))
      FROM pg_class c WHERE c.oid = to_regclass(layout ->> 'relation')
$$;
COMMENT ON FUNCTION syncd.attach_probes(jsonb) IS 'SQL that reads no row, but fails where `where` is no condition, or a layout does not fit its table';

CREATE FUNCTION syncd.attach_fields(layout jsonb, kept text)
RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- a function takes 100 arguments
    SELECT format('(%s) - ARRAY[%s]::text[]', string_agg(part.built, ' || ' ORDER BY part.nr), string_agg(part.left_out, ', ' ORDER BY part.nr))
      FROM (SELECT (f.n - 1) / 40 AS nr,
                   format('jsonb_build_object(%s)', string_agg(format('%L, n.v%s', f.one ->> 'name', f.n), ', ' ORDER BY f.n)) AS built,
                   string_agg(format('CASE WHEN NOT (%s) THEN %L END', replace(kept, '#', f.n::text), f.one ->> 'name'), ', ' ORDER BY f.n)
                       AS left_out
              FROM jsonb_array_elements(layout -> 'fields') WITH ORDINALITY AS f (one, n) GROUP BY 1) part
$$;
COMMENT ON FUNCTION syncd.attach_fields(jsonb, text) IS 'SQL of a change''s fields: those values v# of n of which `kept` is true';

CREATE FUNCTION syncd.attach_body(of_instance text, of_push text, layout jsonb)
RETURNS text LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_rows text := syncd.attach_rows(layout, 'new_rows');
    old_rows text := syncd.attach_rows(layout, 'old_rows');
    same_row text := (SELECT string_agg(format('o.i%1$s = n.i%1$s', i), ' AND ') FROM generate_series(1, jsonb_array_length(layout -> 'identity')) i);
    -- of which rows all goes, as of a new one
    whole    text := '(o.h IS NOT TRUE OR n.k IS DISTINCT FROM o.k)';
    differs  text := (SELECT string_agg(format('n.v%1$s IS DISTINCT FROM o.v%1$s', i), ' OR ') FROM generate_series(1, jsonb_array_length(layout -> 'fields')) i);
    inserted text := format('SELECT n.k, %s AS f FROM (%s) n WHERE n.h', syncd.attach_fields(layout, 'n.v# IS NOT NULL'), new_rows);
    updated  text := format('SELECT n.k, %s AS f FROM (%s) n LEFT JOIN (%s) o ON %s WHERE n.h AND (%s OR %s)',
                            syncd.attach_fields(layout, whole || ' AND n.v# IS NOT NULL OR o.h IS TRUE AND n.v# IS DISTINCT FROM o.v#'),
                            new_rows, old_rows, same_row, whole, differs);
    -- rows that went, or no longer meet `where`; a key that another row of the statement has is still there
    normal   text := $n$lower(btrim(#.k COLLATE "default", E' \t\r\n'))$n$;
    deleted  text := format($g$SELECT o.k, %L::jsonb AS f FROM (%s) o WHERE o.h AND octet_length(o.k) <= 1000 AND btrim(o.k, E' \t\r\n') <> ''$g$,
                            layout -> 'on_delete', old_rows);
    left_out text := format(' UNION ALL %s AND NOT EXISTS (SELECT FROM (%s) n WHERE n.h AND %s = %s)',
                            deleted, new_rows, replace(normal, '#', 'n'), replace(normal, '#', 'o'));
    written  text := $f$
        WITH c AS MATERIALIZED (%s), written AS (
            INSERT INTO syncd.outbox (instance, push, key, fields)
            SELECT %L, %L, k, f FROM c WHERE f <> '{}' AND octet_length(k) <= 1000 AND btrim(k, E' \t\r\n') <> ''
        )
        SELECT count(*) FILTER (WHERE octet_length(k) > 1000), count(*) FILTER (WHERE k IS NULL OR octet_length(k) <= 1000)
          INTO long_keys, no_keys
          FROM c WHERE f <> '{}' AND (octet_length(k) <= 1000 AND btrim(k, E' \t\r\n') <> '') IS NOT TRUE;$f$;
BEGIN
    RETURN format($f$#variable_conflict use_column
DECLARE
    no_keys   bigint;
    long_keys bigint;
    code      text;
    count_of  bigint;
BEGIN
    BEGIN
        IF TG_OP = 'INSERT' THEN
            %3$s
        ELSIF TG_OP = 'UPDATE' THEN
            %4$s
        ELSE
            %5$s
        END IF;
        IF no_keys > 0 OR long_keys > 0 THEN
            BEGIN
                IF no_keys > 0 THEN
                    PERFORM syncd.note_attach_fault(%1$L, %2$L, 'no_key', no_keys);
                END IF;
                IF long_keys > 0 THEN
                    PERFORM syncd.note_attach_fault(%1$L, %2$L, 'long_key', long_keys);
                END IF;
            EXCEPTION WHEN OTHERS THEN
                -- the rows that have keys go all the same
                RAISE WARNING 'syncd: rows without a usable key were left out, and that could not be noted (error %%)', SQLSTATE;
            END;
        END IF;
    EXCEPTION WHEN OTHERS THEN
        -- whatever it is, the write goes on: it is noted without values, and syncd attach makes good what was lost
        code := SQLSTATE;
        BEGIN
            IF TG_OP = 'DELETE' THEN
                SELECT count(*) INTO count_of FROM old_rows;
            ELSE
                SELECT count(*) INTO count_of FROM new_rows;
            END IF;
            PERFORM syncd.note_attach_fault(%1$L, %2$L, code, count_of);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'syncd: what was written here does not go to Marketo (error %%), and that could not be noted (error %%)', code, SQLSTATE;
        END;
    END;
    RETURN NULL;
END$f$, of_instance, of_push, format(written, inserted, of_instance, of_push),
        format(written, updated || CASE WHEN layout ? 'on_delete' THEN left_out ELSE '' END, of_instance, of_push),
        CASE WHEN layout ? 'on_delete' THEN format(written, deleted, of_instance, of_push) ELSE 'NULL;' END);
END $$;
COMMENT ON FUNCTION syncd.attach_body(text, text, jsonb) IS 'The body of the trigger function of an attachment';

CREATE FUNCTION syncd.detach(attachment bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning AS $$
BEGIN
    -- CASCADE takes the triggers along: by themselves only the owner of the table could drop them
    EXECUTE format('DROP FUNCTION IF EXISTS syncd.%I() CASCADE', 'attached_' || attachment);
END $$;
COMMENT ON FUNCTION syncd.detach(bigint) IS 'Removes the triggers of an attachment, and their function';

CREATE FUNCTION syncd.attach(attachment bigint, of_instance text, of_push text, layout jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text := 'attached_' || attachment;
BEGIN
    PERFORM syncd.detach(attachment);
    -- by rights of syncd's role, as a writer need not have any here. Plans are kept for a session, and one that was made for a single row
    -- must not walk a million rows a million times: no nested loops. Floats look the same, whatever the writer has set
    EXECUTE format('CREATE FUNCTION syncd.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                    SET search_path = pg_catalog, pg_temp SET enable_nestloop = off SET enable_hashjoin = on SET extra_float_digits = 1 SET jit = off AS %L',
                   name, syncd.attach_body(of_instance, of_push, layout));
    EXECUTE format('REVOKE ALL ON FUNCTION syncd.%I() FROM PUBLIC', name);
    EXECUTE format('COMMENT ON FUNCTION syncd.%I() IS %L', name, format('Writes changes of %s for %s, push %s', layout ->> 'relation', of_instance, of_push));
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION syncd.%I()',
                   'syncd_' || name || '_insert', (layout ->> 'relation')::regclass, name);
    EXECUTE format('CREATE TRIGGER %I AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION syncd.%I()',
                   'syncd_' || name || '_update', (layout ->> 'relation')::regclass, name);
    IF layout ? 'on_delete' THEN
        EXECUTE format('CREATE TRIGGER %I AFTER DELETE ON %s REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION syncd.%I()',
                       'syncd_' || name || '_delete', (layout ->> 'relation')::regclass, name);
    END IF;
END $$;
COMMENT ON FUNCTION syncd.attach(bigint, text, text, jsonb) IS 'Makes the triggers of an attachment anew, and their function';

CREATE FUNCTION syncd.attach_page(of_instance text, of_push text, layout jsonb, plan bigint, ids bigint[], behind text[],
                                  OUT changes bigint, OUT no_keys bigint, OUT long_keys bigint, OUT reached text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names text; values_behind text; places text; texts text;
BEGIN
    SELECT string_agg(format('%I', i.one ->> 'column'), ', ' ORDER BY i.n),
           string_agg(format('($3)[%s]::%s', i.n, (i.one ->> 'type')::regtype), ', ' ORDER BY i.n),
           string_agg(format('i%s', i.n), ', ' ORDER BY i.n),
           string_agg(format('i%s::text', i.n), ', ' ORDER BY i.n)
      INTO names, values_behind, places, texts
      FROM jsonb_array_elements(layout -> 'identity') WITH ORDINALITY AS i (one, n);
    EXECUTE format($f$
        WITH page AS MATERIALIZED (
            SELECT row_number() OVER (ORDER BY %3$s) AS nr, p.* FROM (%1$s%2$s ORDER BY %3$s LIMIT array_length($1, 1)) p
        ), c AS MATERIALIZED (
            SELECT n.nr, n.k, %4$s AS f, octet_length(n.k) <= 1000 AND btrim(n.k, E' \t\r\n') <> '' AS usable FROM page n WHERE n.h
        ), written AS (
            INSERT INTO syncd.outbox (id, instance, push, key, fields, state, reason, plan_id) OVERRIDING SYSTEM VALUE
            SELECT ($1)[nr], %5$L, %6$L, k, f, 'held', format('plan %%s, a backfill, waits for its release', $2), $2
              FROM c WHERE f <> '{}' AND usable
        )
        SELECT count(*) FILTER (WHERE usable), count(*) FILTER (WHERE k IS NULL OR NOT usable AND octet_length(k) <= 1000),
               count(*) FILTER (WHERE octet_length(k) > 1000), (SELECT ARRAY[%7$s] FROM page ORDER BY nr DESC LIMIT 1)
          FROM c WHERE f <> '{}'$f$,
        syncd.attach_rows(layout, layout ->> 'relation'),
        CASE WHEN behind IS NOT NULL THEN format(' WHERE (%s) > (%s)', names, values_behind) END,
        places, syncd.attach_fields(layout, 'n.v# IS NOT NULL'), of_instance, of_push, texts)
      INTO changes, no_keys, long_keys, reached USING ids, plan, behind;
END $$;
COMMENT ON FUNCTION syncd.attach_page(text, text, jsonb, bigint, bigint[], text[]) IS 'Inserts the changes of the next rows of a table, as many as there are ids, held for a plan';
