-- Windows that are split, lists and keys that are walked, backfills, and the history of leads.

-- ── windows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

ALTER TABLE syncd.pull ALTER planned_until DROP NOT NULL, ADD configured boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN syncd.pull.configured    IS 'Whether the YAML has it; one that comes back goes on where it was';
COMMENT ON COLUMN syncd.pull.planned_until IS 'Windows exist for all update times before this; the watermark is the start of the first unfinished one. Of a list or of keys: when the last complete walk began, null before';

ALTER TABLE syncd.pull_window
    ADD parent_id   bigint,
    ADD depth       smallint NOT NULL DEFAULT 0,
    ADD backfill_id bigint,
    ADD keys        text[],
    ADD dropped     bigint NOT NULL DEFAULT 0;
DROP INDEX syncd.pull_window_open;
CREATE INDEX pull_window_open ON syncd.pull_window (instance, pull, (backfill_id IS NOT NULL), starts_at, id) WHERE state IN ('open', 'blocked');
CREATE INDEX pull_window_of_backfill ON syncd.pull_window (backfill_id) WHERE backfill_id IS NOT NULL;
CREATE INDEX pull_window_of_walk ON syncd.pull_window (instance, pull) WHERE starts_at IS NULL;
COMMENT ON TABLE  syncd.pull_window             IS 'Spans of update time, lists, or up to 100 keys, each walked by one stream of pages; the position moves in the transaction that writes the page';
COMMENT ON COLUMN syncd.pull_window.starts_at   IS 'First update time of the window (to the second); null for a list and for keys';
COMMENT ON COLUMN syncd.pull_window.ends_at     IS 'Last update time of the window (to the second); null for a list and for keys';
COMMENT ON COLUMN syncd.pull_window.parent_id   IS 'The window that was split into this one and others';
COMMENT ON COLUMN syncd.pull_window.depth       IS 'How many times what it was once part of has been split';
COMMENT ON COLUMN syncd.pull_window.backfill_id IS 'The backfill that it belongs to; null for what is walked anyway';
COMMENT ON COLUMN syncd.pull_window.keys        IS 'The keys to ask for; erased when the window is finished';
COMMENT ON COLUMN syncd.pull_window.dropped     IS 'Leads of this walk that the pull''s `where` did not let into the mirror';

CREATE TABLE syncd.backfill (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    pull        text        NOT NULL,
    since       timestamptz,
    reason      text        NOT NULL,
    asked_at    timestamptz NOT NULL DEFAULT now(),
    planned_at  timestamptz,
    finished_at timestamptz,
    CHECK (finished_at IS NULL OR planned_at IS NOT NULL)
);
CREATE INDEX backfill_unplanned ON syncd.backfill (instance, pull) WHERE planned_at IS NULL;
CREATE INDEX backfill_unfinished ON syncd.backfill (instance, pull) WHERE finished_at IS NULL;
COMMENT ON TABLE  syncd.backfill             IS 'Spans that are to be pulled once more beside the news: asked for by hand, or because a pull asks for other fields';
COMMENT ON COLUMN syncd.backfill.id          IS 'Identity';
COMMENT ON COLUMN syncd.backfill.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.backfill.pull        IS 'The pull, as named in the YAML';
COMMENT ON COLUMN syncd.backfill.since       IS 'Leads updated at or after this; null = all that the pull selects';
COMMENT ON COLUMN syncd.backfill.reason      IS 'Why';
COMMENT ON COLUMN syncd.backfill.asked_at    IS 'When it was asked for';
COMMENT ON COLUMN syncd.backfill.planned_at  IS 'When the daemon planned its windows';
COMMENT ON COLUMN syncd.backfill.finished_at IS 'When the last of its windows was finished';

-- ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.list_membership (
    instance  text        NOT NULL,
    list      text        NOT NULL,
    lead_id   bigint      NOT NULL,
    joined_at timestamptz NOT NULL,
    seen_at   timestamptz NOT NULL,
    left_at   timestamptz,
    walk      bigint      NOT NULL,
    PRIMARY KEY (instance, list, lead_id)
) WITH (fillfactor = 80);
CREATE INDEX list_membership_of_lead ON syncd.list_membership (instance, lead_id);
COMMENT ON TABLE  syncd.list_membership           IS 'Who is, or was, a member of the static lists that pulls walk';
COMMENT ON COLUMN syncd.list_membership.instance  IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.list_membership.list      IS 'The list as the YAML names it: its name, or its id';
COMMENT ON COLUMN syncd.list_membership.lead_id   IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.list_membership.joined_at IS 'When the lead was first seen in the list, or seen again after it had left';
COMMENT ON COLUMN syncd.list_membership.seen_at   IS 'When it was last seen in the list';
COMMENT ON COLUMN syncd.list_membership.walk      IS 'The window of the latest walk that saw it';
COMMENT ON COLUMN syncd.list_membership.left_at   IS 'When a whole walk of the list had come to its end without it; null while it is a member';

-- ── history ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.lead_history (
    instance text        NOT NULL,
    lead_id  bigint      NOT NULL,
    pull     text        NOT NULL,
    seen_at  timestamptz NOT NULL,
    field    text        NOT NULL,
    old      jsonb,
    new      jsonb
) PARTITION BY LIST (instance);
CREATE INDEX lead_history_of_lead ON syncd.lead_history (instance, lead_id, seen_at);
COMMENT ON TABLE  syncd.lead_history          IS 'What changed of each lead, field by field; a partition per instance and day (UTC), kept as long as the YAML''s `history` says';
COMMENT ON COLUMN syncd.lead_history.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lead_history.lead_id  IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.lead_history.pull     IS 'The pull that saw the change';
COMMENT ON COLUMN syncd.lead_history.seen_at  IS 'When it was written to the mirror';
COMMENT ON COLUMN syncd.lead_history.field    IS 'The field, as in lead.attributes; email for the lead''s address';
COMMENT ON COLUMN syncd.lead_history.old      IS 'The value before; null = none';
COMMENT ON COLUMN syncd.lead_history.new      IS 'The value since; null = none';

CREATE FUNCTION syncd.ensure_lead_history(instance text, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    of_instance text := 'lead_history_i_' || instance;
    of_day      text := 'lead_history_d' || to_char(day, 'YYYYMMDD') || '_' || instance;
BEGIN
    IF to_regclass('syncd.' || quote_ident(of_day)) IS NOT NULL THEN
        RETURN;
    END IF;
    -- made apart and attached, because CREATE … PARTITION OF would lock out every reader of the history
    IF to_regclass('syncd.' || quote_ident(of_instance)) IS NULL THEN
        EXECUTE format('CREATE TABLE syncd.%I (LIKE syncd.lead_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (seen_at)', of_instance);
        EXECUTE format('ALTER TABLE syncd.lead_history ATTACH PARTITION syncd.%I FOR VALUES IN (%L)', of_instance, instance);
    END IF;
    EXECUTE format('CREATE TABLE syncd.%I (LIKE syncd.lead_history INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', of_day);
    EXECUTE format('ALTER TABLE syncd.%I ATTACH PARTITION syncd.%I FOR VALUES FROM (%L) TO (%L)', of_instance, of_day,
                   day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
EXCEPTION WHEN duplicate_table OR unique_violation THEN
    RETURN;  -- another session was faster
END
$$;
COMMENT ON FUNCTION syncd.ensure_lead_history(text, date) IS 'Makes the partition of lead_history for an instance and a day (UTC) when it is missing';

CREATE FUNCTION syncd.drop_lead_history(instance text, before date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    old     text;
    dropped integer := 0;
BEGIN
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = to_regclass('syncd.' || quote_ident('lead_history_i_' || instance))
           AND substr(c.relname, 15, 8) < to_char(before, 'YYYYMMDD')
         ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE syncd.%I', old);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
COMMENT ON FUNCTION syncd.drop_lead_history(text, date) IS 'Drops an instance''s partitions of lead_history for days before `before`; returns how many';
