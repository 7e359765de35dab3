-- People who are forgotten: keyed hashes by which they are refused, receipts, and what is still to be erased.

-- HMAC (RFC 2104) by hand: PostgreSQL has sha256(), but no hmac() without an extension.
CREATE FUNCTION syncd.hmac_pad(key bytea, filler integer) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT decode(string_agg(lpad(to_hex(CASE WHEN n < length(key) THEN get_byte(key, n) ELSE 0 END # filler), 2, '0'), '' ORDER BY n), 'hex')
      FROM generate_series(0, 63) AS n
$$;
COMMENT ON FUNCTION syncd.hmac_pad(bytea, integer) IS 'A key of at most 64 bytes as HMAC mixes it in: filled up to a block of SHA-256, each byte xor the filler';

CREATE TABLE syncd.forget_key (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    key       bytea   NOT NULL CHECK (length(key) BETWEEN 32 AND 64),
    inner_pad bytea   NOT NULL GENERATED ALWAYS AS (syncd.hmac_pad(key, 54)) STORED,
    outer_pad bytea   NOT NULL GENERATED ALWAYS AS (syncd.hmac_pad(key, 92)) STORED
);
COMMENT ON TABLE  syncd.forget_key           IS 'What the hashes of forgotten people are made with; random, made once. Without it nobody can be told by a hash: it belongs into every backup';
COMMENT ON COLUMN syncd.forget_key.one       IS 'There is one row';
COMMENT ON COLUMN syncd.forget_key.key       IS 'The key';
COMMENT ON COLUMN syncd.forget_key.inner_pad IS 'The key as the inner hash of HMAC begins';
COMMENT ON COLUMN syncd.forget_key.outer_pad IS 'The key as the outer hash of HMAC begins';
INSERT INTO syncd.forget_key (key)
SELECT sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

-- One expression, neither strict nor with a table of its own, so that it is inlined into what calls it: as a call it took ten times as long.
CREATE FUNCTION syncd.person_hash(inner_pad bytea, outer_pad bytea, instance text, kind text, value text) RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(outer_pad || sha256(inner_pad || convert_to(
               instance || E'\n' || kind || E'\n'
               || CASE kind WHEN 'id' THEN ltrim(btrim(value, E' \t\r\n'), '0') ELSE lower(btrim(value, E' \t\r\n') COLLATE "C") END, 'UTF8')))
$$;
COMMENT ON FUNCTION syncd.person_hash(bytea, bytea, text, text, text) IS 'HMAC-SHA-256, by the pads of forget_key, of what somebody is found by: kind is email, id, or another lookup field. The same as core/forget.py makes';

CREATE TABLE syncd.forgotten (
    instance     text        NOT NULL,
    hash         bytea       NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, hash)
);
COMMENT ON TABLE  syncd.forgotten              IS 'Who is forgotten, by keyed hashes of their addresses, ids and other keys: neither pulls nor pushes bring them back';
COMMENT ON COLUMN syncd.forgotten.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.forgotten.hash         IS 'person_hash of one of the keys';
COMMENT ON COLUMN syncd.forgotten.forgotten_at IS 'Since when, by the database''s clock';

CREATE TABLE syncd.forget_receipt (
    id           bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance     text        NOT NULL,
    hashes       bytea[]     NOT NULL,
    again        boolean     NOT NULL,
    forgotten_at timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    erased       jsonb       NOT NULL DEFAULT '{}',
    in_marketo   text        NOT NULL CHECK (in_marketo IN ('not asked', 'waits', 'deleted', 'refused')),
    deleted      integer     NOT NULL DEFAULT 0,
    CHECK (finished_at IS NULL OR in_marketo <> 'waits')
);
COMMENT ON TABLE  syncd.forget_receipt              IS 'What was done to forget people; it names nobody';
COMMENT ON COLUMN syncd.forget_receipt.id           IS 'Identity';
COMMENT ON COLUMN syncd.forget_receipt.instance     IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.forget_receipt.hashes       IS 'What syncd.forgotten keeps of them';
COMMENT ON COLUMN syncd.forget_receipt.again        IS 'Whether they had been forgotten before, and a backup had brought them back';
COMMENT ON COLUMN syncd.forget_receipt.forgotten_at IS 'When it was asked for, by the database''s clock: from then on they are refused';
COMMENT ON COLUMN syncd.forget_receipt.finished_at  IS 'When nothing was left of them, by the database''s clock';
COMMENT ON COLUMN syncd.forget_receipt.erased       IS 'Table → rows that were deleted or emptied';
COMMENT ON COLUMN syncd.forget_receipt.in_marketo   IS 'not asked; waits (to be deleted there); deleted (or not there any more); refused (at least one of the leads)';
COMMENT ON COLUMN syncd.forget_receipt.deleted      IS 'Leads that Marketo deleted';

CREATE TABLE syncd.forget_request (
    id          bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text     NOT NULL,
    receipt_id  bigint   NOT NULL REFERENCES syncd.forget_receipt (id),
    kinds       text[]   NOT NULL,
    keys        text[]   NOT NULL,
    written_by  bigint,
    message     text,
    CHECK (cardinality(kinds) = cardinality(keys))
);
CREATE INDEX forget_request_open ON syncd.forget_request (instance, id);
COMMENT ON TABLE  syncd.forget_request            IS 'Who is being forgotten; a row goes as soon as nothing is left of them, which may have to wait until imports have settled';
COMMENT ON COLUMN syncd.forget_request.id         IS 'Identity';
COMMENT ON COLUMN syncd.forget_request.instance   IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.forget_request.receipt_id IS 'Where it is written what was done';
COMMENT ON COLUMN syncd.forget_request.kinds      IS 'Of each key: email, id, or another lookup field';
COMMENT ON COLUMN syncd.forget_request.keys       IS 'What they are found by';
COMMENT ON COLUMN syncd.forget_request.written_by IS 'All transactions that may have written them unrefused have lower numbers; null before the first erasure';
COMMENT ON COLUMN syncd.forget_request.message    IS 'Why Marketo has not deleted them yet';

CREATE FUNCTION syncd.refuse_staged(instance text, export bigint, id_column integer, email_column integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    refused bigint := 0;
BEGIN
    IF to_regclass('syncd.staging_' || export) IS NOT NULL AND EXISTS (SELECT FROM syncd.forgotten f WHERE f.instance = refuse_staged.instance) THEN
        -- The hashes of a row are made once, and looked up each by itself: as a join it was planned to hash every row for every person.
        EXECUTE format($sql$
            DELETE FROM syncd.%1$I WHERE ctid = ANY (ARRAY(
                SELECT s.place
                  FROM (SELECT t.ctid AS place, ARRAY[syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'id', t.c%2$s),
                                                    syncd.person_hash(k.inner_pad, k.outer_pad, $1, 'email', %3$s)] AS hashes
                          FROM syncd.forget_key k, syncd.%1$I t OFFSET 0) s
                 WHERE (SELECT true FROM syncd.forgotten f WHERE f.instance = $1 AND f.hash = ANY (s.hashes) LIMIT 1)))
            $sql$, 'staging_' || export, id_column, coalesce('t.c' || email_column, 'NULL::text')) USING instance;
        GET DIAGNOSTICS refused = ROW_COUNT;
    END IF;
    RETURN refused;
END
$$;
COMMENT ON FUNCTION syncd.refuse_staged(text, bigint, integer, integer) IS 'Takes forgotten people out of the staging table of an export, by its columns of ids and of addresses (null: it has none); returns how many';
