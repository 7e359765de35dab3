-- Verifications: Marketo's leads read back and held against the mirror, and against what pushes applied last.

CREATE TABLE syncd.verification (
    id          bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance    text        NOT NULL,
    wanted      integer     CHECK (wanted > 0),
    asked_at    timestamptz NOT NULL DEFAULT now(),
    drawn_at    timestamptz,
    read_to     bigint      NOT NULL DEFAULT 0,
    read_at     timestamptz,
    finished_at timestamptz,
    leads       bigint      NOT NULL DEFAULT 0,
    drifted     bigint      NOT NULL DEFAULT 0,
    calls       bigint      NOT NULL DEFAULT 0,
    message     text
);
CREATE UNIQUE INDEX verification_under_way ON syncd.verification (instance) WHERE finished_at IS NULL;
CREATE INDEX verification_finished ON syncd.verification (instance, id) WHERE finished_at IS NOT NULL;
COMMENT ON TABLE  syncd.verification             IS 'Comparisons of leads at Marketo''s with the mirror and with what pushes applied last, ordered by syncd verify';
COMMENT ON COLUMN syncd.verification.id          IS 'Identity';
COMMENT ON COLUMN syncd.verification.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.verification.wanted      IS 'How many leads of the mirror, drawn by chance; null: all';
COMMENT ON COLUMN syncd.verification.asked_at    IS 'When it was ordered';
COMMENT ON COLUMN syncd.verification.drawn_at    IS 'When the last of its leads was drawn; null for all';
COMMENT ON COLUMN syncd.verification.read_to     IS 'Of all leads: those up to this id have been looked at once';
COMMENT ON COLUMN syncd.verification.read_at     IS 'When all leads had been looked at once';
COMMENT ON COLUMN syncd.verification.finished_at IS 'When it ended';
COMMENT ON COLUMN syncd.verification.leads       IS 'Leads looked at: of the mirror, or of Marketo where the mirror has none';
COMMENT ON COLUMN syncd.verification.drifted     IS 'Those of them that drifted';
COMMENT ON COLUMN syncd.verification.calls       IS 'What it has cost';
COMMENT ON COLUMN syncd.verification.message     IS 'Why it came to nothing, or the last fault';

CREATE TABLE syncd.verification_lead (
    verification_id bigint   NOT NULL,
    lead_id         bigint   NOT NULL,
    looks           smallint NOT NULL DEFAULT 0,
    seen_at         timestamptz,
    digest          bytea,
    PRIMARY KEY (verification_id, lead_id),
    CHECK ((looks = 0) = (seen_at IS NULL))
);
CREATE INDEX verification_lead_next ON syncd.verification_lead (verification_id, looks, lead_id);
COMMENT ON TABLE  syncd.verification_lead                 IS 'Leads that a verification is still to look at: drawn, or seen to differ and looked at again';
COMMENT ON COLUMN syncd.verification_lead.verification_id IS 'The verification';
COMMENT ON COLUMN syncd.verification_lead.lead_id         IS 'Marketo''s id of the lead';
COMMENT ON COLUMN syncd.verification_lead.looks           IS 'How often Marketo has been asked for it';
COMMENT ON COLUMN syncd.verification_lead.seen_at         IS 'When it was asked for last';
COMMENT ON COLUMN syncd.verification_lead.digest          IS 'Of what it answered then, by which a lead that moves meanwhile is known';

CREATE TABLE syncd.verification_drift (
    verification_id bigint   NOT NULL,
    cause           text     NOT NULL CHECK (cause IN ('mirror_behind', 'mirror_wrong', 'push_overwritten', 'push_not_arrived',
                                                       'missing_in_marketo', 'missing_in_mirror')),
    field           text     NOT NULL,
    leads           bigint   NOT NULL,
    examples        bigint[] NOT NULL,
    PRIMARY KEY (verification_id, cause, field)
);
COMMENT ON TABLE  syncd.verification_drift                 IS 'What verifications found to differ, by cause and field';
COMMENT ON COLUMN syncd.verification_drift.verification_id IS 'The verification';
COMMENT ON COLUMN syncd.verification_drift.cause           IS 'mirror_behind (Marketo''s value is newer than what the pulls have brought), mirror_wrong (they have brought what was later), push_overwritten (somebody has changed what a push applied), push_not_arrived (nobody has, and Marketo does not have it), missing_in_marketo, missing_in_mirror';
COMMENT ON COLUMN syncd.verification_drift.field           IS 'The field by its REST name; empty where it is about the lead as a whole';
COMMENT ON COLUMN syncd.verification_drift.leads           IS 'How many leads';
COMMENT ON COLUMN syncd.verification_drift.examples        IS 'The ids of up to five of them';
