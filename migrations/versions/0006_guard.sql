-- The guard of a push: its canary, and what it holds.

CREATE TABLE syncd.guard (
    instance    text        NOT NULL,
    push        text        NOT NULL,
    digest      text        NOT NULL,
    canary      text        NOT NULL DEFAULT 'none' CHECK (canary IN ('none', 'under_way', 'good', 'bad')),
    why         text        NOT NULL DEFAULT 'first' CHECK (why IN ('first', 'mapping', 'surge')),
    canary_ids  bigint[]    NOT NULL DEFAULT '{}',
    begun_at    timestamptz,
    ended_at    timestamptz,
    failed      integer     NOT NULL DEFAULT 0,
    surge_since timestamptz,
    surge_after bigint,
    surge_upto  bigint,
    held_at     timestamptz,
    held_why    text,
    PRIMARY KEY (instance, push),
    CHECK (canary = 'none' OR begun_at IS NOT NULL),
    CHECK ((surge_since IS NULL) = (surge_after IS NULL) AND (surge_since IS NULL) = (surge_upto IS NULL)),
    CHECK ((held_at IS NULL) = (held_why IS NULL))
);
COMMENT ON TABLE  syncd.guard             IS 'What the guard of each push knows';
COMMENT ON COLUMN syncd.guard.instance    IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.guard.push        IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.guard.digest      IS 'Of the settings that the canary is for';
COMMENT ON COLUMN syncd.guard.canary      IS 'none: one is to go first; under_way: nothing but it goes; good: all may go; bad: the push is held';
COMMENT ON COLUMN syncd.guard.why         IS 'What the last canary was for: the first import, another mapping, or a surge';
COMMENT ON COLUMN syncd.guard.canary_ids  IS 'The changes of the last canary';
COMMENT ON COLUMN syncd.guard.begun_at    IS 'When the last canary began';
COMMENT ON COLUMN syncd.guard.ended_at    IS 'When it had its verdict, or an operator gave it one';
COMMENT ON COLUMN syncd.guard.failed      IS 'How many of it were rejected, unverified or parked';
COMMENT ON COLUMN syncd.guard.surge_since IS 'Changes made since then are being held; null: no surge is being held';
COMMENT ON COLUMN syncd.guard.surge_after IS 'Up to this id they are';
COMMENT ON COLUMN syncd.guard.surge_upto  IS 'Up to this id they are to be; what came later is judged anew';
COMMENT ON COLUMN syncd.guard.held_at     IS 'Since when it holds changes; null when none of them is left';
COMMENT ON COLUMN syncd.guard.held_why    IS 'Why it holds them';

-- The rate of changes goes by when they were made, so that what has gone is to be counted by that.
CREATE TABLE syncd.guard_count (
    instance text        NOT NULL,
    push     text        NOT NULL,
    minute   timestamptz NOT NULL,
    changes  integer     NOT NULL DEFAULT 0,
    created  integer     NOT NULL DEFAULT 0,
    PRIMARY KEY (instance, push, minute)
);
COMMENT ON TABLE  syncd.guard_count          IS 'What guards have let go, by the minute, for some days';
COMMENT ON COLUMN syncd.guard_count.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.guard_count.push     IS 'The push, as named in the YAML';
COMMENT ON COLUMN syncd.guard_count.minute   IS 'The minute';
COMMENT ON COLUMN syncd.guard_count.changes  IS 'Changes let go that were made in it';
COMMENT ON COLUMN syncd.guard_count.created  IS 'Leads that changes let go in it were to create, by the mirror';

ALTER TABLE syncd.outbox ADD COLUMN admitted boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN syncd.outbox.admitted IS 'It, or an operator for it, has passed the guard: it is not held again';
