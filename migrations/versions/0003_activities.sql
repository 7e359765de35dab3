-- How far the activity log has been read, and what a census of all ids has found.

CREATE TABLE syncd.activity_token (
    id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance  text        NOT NULL,
    stream    text        NOT NULL,
    looked_at timestamptz NOT NULL,
    token     text        NOT NULL,
    under_way boolean     NOT NULL DEFAULT false
);
CREATE INDEX activity_token_of_stream ON syncd.activity_token (instance, stream, id);
CREATE UNIQUE INDEX activity_token_under_way ON syncd.activity_token (instance, stream) WHERE under_way;
COMMENT ON TABLE  syncd.activity_token           IS 'Marketo''s paging tokens: where looks at its activity log have ended. The next look begins at one that is older than the overlap, as entries may be committed late';
COMMENT ON COLUMN syncd.activity_token.id        IS 'Identity; later ones were obtained later, whatever a clock did';
COMMENT ON COLUMN syncd.activity_token.instance  IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.activity_token.stream    IS 'Which entries are read: "pull NAME", "pull NAME scores", "deletions", "merges"';
COMMENT ON COLUMN syncd.activity_token.looked_at IS 'When the look began that the token ended, or the time that it was asked for: by Marketo''s clock, and what was committed before lies before it';
COMMENT ON COLUMN syncd.activity_token.token     IS 'Opaque, and of any length';
COMMENT ON COLUMN syncd.activity_token.under_way IS 'Whether it is where the next page of a look begins, moved in the transaction that writes the page';

CREATE UNLOGGED TABLE syncd.activity_seen (
    instance text        NOT NULL,
    stream   text        NOT NULL,
    guid     text        NOT NULL,
    seen_at  timestamptz NOT NULL,
    PRIMARY KEY (instance, stream, guid)
);
CREATE INDEX activity_seen_by_time ON syncd.activity_seen (instance, stream, seen_at);
COMMENT ON TABLE  syncd.activity_seen          IS 'Entries of the log that were dealt with lately, so that those of an overlap are so once; unlogged: after a crash they are dealt with twice, which does no harm';
COMMENT ON COLUMN syncd.activity_seen.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.activity_seen.stream   IS 'As in activity_token';
COMMENT ON COLUMN syncd.activity_seen.guid     IS 'Marketo''s marketoGUID of the entry';
COMMENT ON COLUMN syncd.activity_seen.seen_at  IS 'When the look began that saw it';

COMMENT ON COLUMN syncd.lead.changed_at        IS 'When email, attributes or misfits last changed here, or the lead was found deleted or there again';

-- ── census ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE syncd.census (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    started_at  timestamptz NOT NULL,
    first_at    timestamptz,
    compared_to bigint,
    finished_at timestamptz,
    leads       bigint      NOT NULL DEFAULT 0,
    missing     bigint      NOT NULL DEFAULT 0,
    surplus     bigint      NOT NULL DEFAULT 0,
    message     text
);
CREATE INDEX census_of_instance ON syncd.census (instance, id);
COMMENT ON TABLE  syncd.census             IS 'Comparisons of all ids of Marketo''s with the mirror''s, as deletions may be pruned from the log before we read of them';
COMMENT ON COLUMN syncd.census.id          IS 'Identity';
COMMENT ON COLUMN syncd.census.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.census.started_at  IS 'When it began';
COMMENT ON COLUMN syncd.census.first_at    IS 'The start of the earliest window of creation time that held a lead: there the next census begins';
COMMENT ON COLUMN syncd.census.compared_to IS 'Up to which id the mirror has been compared; null until all of Marketo''s ids have come';
COMMENT ON COLUMN syncd.census.finished_at IS 'When it ended';
COMMENT ON COLUMN syncd.census.leads       IS 'How many leads Marketo has';
COMMENT ON COLUMN syncd.census.missing     IS 'How many of them a pull lacked; they are read by their ids';
COMMENT ON COLUMN syncd.census.surplus     IS 'How many leads of the mirror Marketo no longer had; they are marked as deleted';
COMMENT ON COLUMN syncd.census.message     IS 'Why it came to nothing';

CREATE UNLOGGED TABLE syncd.census_id (
    instance text   NOT NULL,
    lead_id  bigint NOT NULL,
    PRIMARY KEY (instance, lead_id)
);
COMMENT ON TABLE  syncd.census_id          IS 'The ids that the census under way has seen; unlogged: when a crash has emptied it, the census begins anew';
COMMENT ON COLUMN syncd.census_id.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.census_id.lead_id  IS 'Marketo''s id of the lead';
