-- Which way the leads of a pull come: through windows of extracts or of pages, through the activity log, or one by one by their ids.

ALTER TABLE syncd.pull
    ADD source       text,
    ADD by_creation  boolean NOT NULL DEFAULT false,
    ADD ids_only     boolean NOT NULL DEFAULT false,
    ADD follows      text    NOT NULL DEFAULT 'windows' CHECK (follows IN ('windows', 'activities')),
    ADD route_reason text,
    ADD routed_at    timestamptz,
    ADD closings     integer NOT NULL DEFAULT 0,
    ADD closes_from  timestamptz;
COMMENT ON COLUMN syncd.pull.source       IS 'Where its leads came from when it was last registered; another one goes on where this one was';
COMMENT ON COLUMN syncd.pull.by_creation  IS 'Its extracts select by createdAt, for Marketo refuses updatedAt (1035); activities tell what changed';
COMMENT ON COLUMN syncd.pull.ids_only     IS 'Its extracts bring ids only; the leads are then read by their ids';
COMMENT ON COLUMN syncd.pull.follows      IS 'How it hears of news once filled: by windows of update time, or by the activity log';
COMMENT ON COLUMN syncd.pull.route_reason IS 'Why this way';
COMMENT ON COLUMN syncd.pull.routed_at    IS 'When the way was chosen; null for soap, and before';
COMMENT ON COLUMN syncd.pull.closings     IS 'So many extracts are to follow those of the fill, for what was updated out of a window before its turn came';
COMMENT ON COLUMN syncd.pull.closes_from  IS 'From where on the next of them asks';

ALTER TABLE syncd.pull_window
    DROP CONSTRAINT pull_window_source_check,
    ADD CONSTRAINT pull_window_source_check CHECK (source IN ('soap', 'bulk_extract')),
    ADD by_creation boolean NOT NULL DEFAULT false,
    ADD ids_only    boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN syncd.pull_window.by_creation IS 'Its times are those of creation, not of update';
COMMENT ON COLUMN syncd.pull_window.ids_only    IS 'Its extract brings ids, which lead_due then holds until the leads are read; it is done when all are';

CREATE TABLE syncd.lead_due (
    instance  text        NOT NULL,
    pull      text        NOT NULL,
    lead_id   bigint      NOT NULL,
    reason    text        NOT NULL CHECK (reason IN ('changed', 'winner', 'overtaken', 'listed', 'census')),
    noted_at  timestamptz NOT NULL,
    window_id bigint,
    PRIMARY KEY (instance, pull, lead_id)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000);
CREATE INDEX lead_due_in_order  ON syncd.lead_due (instance, pull, noted_at, lead_id);
CREATE INDEX lead_due_of_window ON syncd.lead_due (window_id) WHERE window_id IS NOT NULL;
COMMENT ON TABLE  syncd.lead_due           IS 'Leads that are to be read by their ids, each once for a pull however often it changed meanwhile';
COMMENT ON COLUMN syncd.lead_due.instance  IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lead_due.pull      IS 'The pull, as named in the YAML, whose fields are to be read';
COMMENT ON COLUMN syncd.lead_due.lead_id   IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.lead_due.reason    IS 'changed (an activity tells), winner (of a merge), overtaken (a later answer of another pull met an extract), listed (an extract of ids), census';
COMMENT ON COLUMN syncd.lead_due.noted_at  IS 'When it became due; a later reason moves it, so that an answer asked for before does not satisfy it';
COMMENT ON COLUMN syncd.lead_due.window_id IS 'The window of ids that waits for it';

CREATE TABLE syncd.lead_gone (
    instance    text        NOT NULL,
    lead_id     bigint      NOT NULL,
    gone_at     timestamptz NOT NULL,
    merged_into bigint,
    noted_at    timestamptz NOT NULL,
    PRIMARY KEY (instance, lead_id)
);
CREATE INDEX lead_gone_by_time ON syncd.lead_gone (instance, gone_at);
COMMENT ON TABLE  syncd.lead_gone             IS 'Leads that were deleted or merged away lately: what was asked for before may still bring them; forgotten after 30 days';
COMMENT ON COLUMN syncd.lead_gone.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.lead_gone.lead_id     IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.lead_gone.gone_at     IS 'The end of the second in which it went, by our clock: only what was asked for later can bring it back';
COMMENT ON COLUMN syncd.lead_gone.merged_into IS 'The lead it was merged into; null when it was deleted';
COMMENT ON COLUMN syncd.lead_gone.noted_at    IS 'When we heard of it';
