-- What operators have paused, and import jobs by the time of their submission.

CREATE TABLE syncd.pause (
    instance  text        NOT NULL,
    direction text        NOT NULL CHECK (direction IN ('both', 'in', 'out')),
    name      text        NOT NULL,
    until     timestamptz,
    paused_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (instance, direction, name),
    CHECK (direction <> 'both' OR name = '')
);
COMMENT ON TABLE  syncd.pause           IS 'What operators have paused, as they asked for it: it covers pulls and pushes that come into the YAML later, too';
COMMENT ON COLUMN syncd.pause.instance  IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.pause.direction IS 'in (pulls), out (pushes), or both';
COMMENT ON COLUMN syncd.pause.name      IS 'The one pull or push, as named in the YAML; empty: all of the direction';
COMMENT ON COLUMN syncd.pause.until     IS 'When the daemon ends it; null: when an operator does';
COMMENT ON COLUMN syncd.pause.paused_at IS 'When it was asked for';

-- those that were paused by hand before there was a command
INSERT INTO syncd.pause (instance, direction, name) SELECT instance, 'in', pull FROM syncd.pull WHERE state = 'paused';
INSERT INTO syncd.pause (instance, direction, name) SELECT instance, 'out', push FROM syncd.push WHERE state = 'paused';

CREATE INDEX import_job_ended ON syncd.import_job (instance, submitted_at, id) WHERE state IN ('settled', 'lost', 'absent', 'refused');
