-- The dictionary as describe last gave it, and the typed view that is kept in step with it.

CREATE TABLE syncd.field (
    instance      text        NOT NULL,
    field         text        NOT NULL,
    ordinal       integer     NOT NULL,
    rest_name     text,
    soap_name     text,
    display_name  text        NOT NULL,
    data_type     text,
    length        integer,
    read_only     boolean     NOT NULL,
    first_seen_at timestamptz NOT NULL,
    vanished_at   timestamptz,
    retyped_at    timestamptz,
    retyped_from  text,
    position      integer,
    column_name   text,
    column_type   text        CHECK (column_type IN ('text', 'numeric', 'boolean', 'date', 'timestamptz')),
    PRIMARY KEY (instance, field),
    UNIQUE (instance, position),
    UNIQUE (instance, column_name),
    CHECK ((position IS NULL) = (column_name IS NULL) AND (position IS NULL) = (column_type IS NULL)),
    CHECK ((retyped_at IS NULL) = (retyped_from IS NULL))
);
COMMENT ON TABLE  syncd.field               IS 'The fields of each instance as Marketo last described them, and the columns of the view lead_<instance> that show them';
COMMENT ON COLUMN syncd.field.instance      IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.field.field         IS 'The field, as in lead.attributes: by its REST name, or its SOAP name where there is no other';
COMMENT ON COLUMN syncd.field.ordinal       IS 'Its place in Marketo''s list';
COMMENT ON COLUMN syncd.field.rest_name     IS 'What REST calls it; null when REST does not have it';
COMMENT ON COLUMN syncd.field.soap_name     IS 'What SOAP calls it; null when SOAP does not have it';
COMMENT ON COLUMN syncd.field.display_name  IS 'What people call it in Marketo';
COMMENT ON COLUMN syncd.field.data_type     IS 'Marketo''s dataType; null when there is no REST to ask, and the field is known by the YAML alone';
COMMENT ON COLUMN syncd.field.length        IS 'The longest text that it can hold, in characters; null when Marketo does not say';
COMMENT ON COLUMN syncd.field.read_only     IS 'Whether Marketo refuses to have it written';
COMMENT ON COLUMN syncd.field.first_seen_at IS 'When it was first described';
COMMENT ON COLUMN syncd.field.vanished_at   IS 'When it was first missing; null while it is described. What the mirror has of it stays';
COMMENT ON COLUMN syncd.field.retyped_at    IS 'When Marketo last described it with another type than before';
COMMENT ON COLUMN syncd.field.retyped_from  IS 'The type before that';
COMMENT ON COLUMN syncd.field.position      IS 'Its place among the fields of the view; null while no pull has asked for it. The next field goes to the end';
COMMENT ON COLUMN syncd.field.column_name   IS 'Its column of the view; stays until syncd view rebuild';
COMMENT ON COLUMN syncd.field.column_type   IS 'The type of the column; stays until syncd view rebuild';

-- Guarded, because a cast alone would also take words such as today. An exception costs less here than a regular expression
-- or jsonpath (100,000 values: 0.1 s; 0.3 s by regular expression, 0.25 s by jsonpath).
CREATE FUNCTION syncd.as_date(value text) RETURNS date LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
    RETURN CASE WHEN value LIKE '____-__-__' THEN value::date END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION syncd.as_date(text) IS 'YYYY-MM-DD as a date; null for any other text';

CREATE FUNCTION syncd.as_moment(value text) RETURNS timestamptz LANGUAGE plpgsql STABLE STRICT AS $$
BEGIN
    RETURN CASE WHEN value LIKE '____-__-__T__:__:__Z' THEN value::timestamptz END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION syncd.as_moment(text) IS 'YYYY-MM-DDThh:mm:ssZ, as the mirror keeps datetimes, as a timestamp; null for any other text';

CREATE FUNCTION syncd.field_expression(field text, column_type text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE column_type
           WHEN 'numeric'     THEN format('CASE jsonb_typeof(attributes -> %1$L) WHEN ''number'' THEN (attributes -> %1$L)::numeric END', field)
           WHEN 'boolean'     THEN format('CASE jsonb_typeof(attributes -> %1$L) WHEN ''boolean'' THEN (attributes -> %1$L)::boolean END', field)
           WHEN 'date'        THEN format('syncd.as_date(attributes ->> %L)', field)
           WHEN 'timestamptz' THEN format('syncd.as_moment(attributes ->> %L)', field)
           ELSE format('attributes ->> %L', field)
           END
$$;
COMMENT ON FUNCTION syncd.field_expression(text, text) IS 'SQL that gives a field of lead.attributes the type of its column, and null where the value does not fit; it never fails';

CREATE FUNCTION syncd.keep_lead_view(instance text, rebuild boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    name    text := 'lead_' || instance;
    view_id oid  := to_regclass('syncd.' || quote_ident(name));
    own     text[] := '{lead_id bigint,email text,first_seen_at timestamp with time zone,changed_at timestamp with time zone,deleted_at timestamp with time zone,merged_into bigint}';
    wanted  text[];
    has     text[];
    chosen  text;
    outcome text;
    holder  text;
    rights  aclitem[];
    note    record;
BEGIN
    SELECT own || coalesce(array_agg(f.column_name || ' ' || f.column_type::regtype ORDER BY f.position), '{}'),
           string_agg(format(', %s AS %I', syncd.field_expression(f.field, f.column_type), f.column_name), '' ORDER BY f.position)
      INTO wanted, chosen
      FROM syncd.field f WHERE f.instance = keep_lead_view.instance AND f.position IS NOT NULL;
    IF view_id IS NOT NULL THEN
        SELECT c.relacl, pg_get_userbyid(c.relowner) INTO rights, holder FROM pg_class c WHERE c.oid = view_id AND c.relkind = 'v';
        IF NOT FOUND THEN
            RAISE wrong_object_type USING MESSAGE = format('syncd.%I is there already, and is not a view', name);
        END IF;
        SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) INTO has
          FROM pg_attribute a WHERE a.attrelid = view_id AND a.attnum > 0;
    END IF;

    outcome := CASE WHEN view_id IS NULL THEN 'made' WHEN rebuild THEN 'rebuilt' WHEN has = wanted THEN 'kept'
                    WHEN has = wanted[:cardinality(has)] THEN 'extended' ELSE 'refused' END;
    IF outcome = 'refused' THEN
        RETURN outcome;
    END IF;
    IF outcome = 'rebuilt' THEN
        EXECUTE format('DROP VIEW syncd.%I', name);
    END IF;
    IF outcome <> 'kept' THEN
        EXECUTE format('CREATE OR REPLACE VIEW syncd.%I AS SELECT lead_id, email, first_seen_at, changed_at, deleted_at, merged_into%s FROM syncd.lead WHERE instance = %L',
                       name, chosen, instance);
        view_id := to_regclass('syncd.' || quote_ident(name));
    END IF;
    IF outcome = 'rebuilt' THEN
        FOR note IN
            SELECT a.privilege_type, a.is_grantable, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role
              FROM aclexplode(rights) a WHERE a.grantee = 0 OR pg_get_userbyid(a.grantee) <> holder
        LOOP
            EXECUTE format('GRANT %s ON syncd.%I TO %s%s', note.privilege_type, name, note.role,
                           CASE WHEN note.is_grantable THEN ' WITH GRANT OPTION' END);
        END LOOP;
        IF holder <> current_user THEN
            EXECUTE format('ALTER VIEW syncd.%I OWNER TO %I', name, holder);
        END IF;
    END IF;

    FOR note IN
        SELECT a.attname, coalesce(t.comment, l.comment) AS comment
          FROM pg_attribute a
          LEFT JOIN LATERAL (
               SELECT concat_ws(', ', f.display_name || coalesce(' (' || f.data_type || ')', ''),
                                'vanished from Marketo on ' || to_char(f.vanished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')) AS comment
                 FROM syncd.field f WHERE f.instance = keep_lead_view.instance AND f.column_name = a.attname
               ) t ON true
          LEFT JOIN LATERAL (SELECT col_description('syncd.lead'::regclass, o.attnum) AS comment
                               FROM pg_attribute o WHERE o.attrelid = 'syncd.lead'::regclass AND o.attname = a.attname) l ON true
         WHERE a.attrelid = view_id AND a.attnum > 0 AND col_description(view_id, a.attnum) IS DISTINCT FROM coalesce(t.comment, l.comment)
         ORDER BY a.attnum
    LOOP
        EXECUTE format('COMMENT ON COLUMN syncd.%I.%I IS %L', name, note.attname, note.comment);
    END LOOP;
    IF obj_description(view_id, 'pg_class') IS NULL THEN
        EXECUTE format('COMMENT ON VIEW syncd.%I IS %L', name,
                       format('The leads of %s with the fields that its pulls ask for; a value that does not fit its column''s type is null. Kept in step with Marketo by syncd', instance));
    END IF;
    RETURN outcome;
END
$$;
COMMENT ON FUNCTION syncd.keep_lead_view(text, boolean) IS 'Brings the view lead_<instance> in step with syncd.field, by DDL only where something differs. Returns made, kept, extended, rebuilt, or refused: then its columns are others, and it must be rebuilt';
