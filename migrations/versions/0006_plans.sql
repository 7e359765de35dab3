-- Plans: changes that are inserted held and wait for an operator's word.

CREATE TABLE syncd.plan (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    instance   text        NOT NULL,
    push       text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('backfill', 'revert')),
    state      text        NOT NULL DEFAULT 'making' CHECK (state IN ('making', 'waiting', 'released', 'discarded')),
    changes    bigint      NOT NULL DEFAULT 0,
    reason     text        NOT NULL,
    made_at    timestamptz NOT NULL,
    decided_at timestamptz,
    CHECK ((decided_at IS NOT NULL) = (state IN ('released', 'discarded')))
);
CREATE INDEX plan_open ON syncd.plan (instance, push, id) WHERE state IN ('making', 'waiting');
COMMENT ON TABLE  syncd.plan            IS 'Changes that syncd made by itself or for an operator, held until somebody releases them';
COMMENT ON COLUMN syncd.plan.id         IS 'Identity';
COMMENT ON COLUMN syncd.plan.instance   IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.plan.push       IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.plan.kind       IS 'backfill: what a table has already; revert: values of before our imports';
COMMENT ON COLUMN syncd.plan.state      IS 'making: its changes are still being inserted; waiting: for release or discard; released; discarded';
COMMENT ON COLUMN syncd.plan.changes    IS 'How many changes it has';
COMMENT ON COLUMN syncd.plan.reason     IS 'Why it was made';
COMMENT ON COLUMN syncd.plan.made_at    IS 'When it was begun';
COMMENT ON COLUMN syncd.plan.decided_at IS 'When it was released or discarded';

ALTER TABLE syncd.outbox ADD COLUMN plan_id bigint;
CREATE INDEX outbox_of_plan ON syncd.outbox (plan_id, id) WHERE state = 'held' AND plan_id IS NOT NULL;
COMMENT ON COLUMN syncd.outbox.plan_id IS 'The plan that it is held for, or was';
