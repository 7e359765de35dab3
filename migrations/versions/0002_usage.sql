-- What strangers spend of the shared quota.

CREATE TABLE syncd.api_user (
    instance text        NOT NULL,
    day      date        NOT NULL,
    user_id  text        NOT NULL,
    calls    bigint      NOT NULL CHECK (calls >= 0),
    seen_at  timestamptz NOT NULL,
    PRIMARY KEY (instance, day, user_id)
);
COMMENT ON TABLE  syncd.api_user          IS 'REST calls per API user and quota day, ours among them, as Marketo tells them; forgotten after 8 days';
COMMENT ON COLUMN syncd.api_user.instance IS 'The Marketo subscription, as named in the YAML';
COMMENT ON COLUMN syncd.api_user.day      IS 'Quota day: from midnight to midnight in America/Chicago';
COMMENT ON COLUMN syncd.api_user.user_id  IS 'The API user as Marketo names it, mostly an address';
COMMENT ON COLUMN syncd.api_user.calls    IS 'REST calls of that user on that day, by seen_at';
COMMENT ON COLUMN syncd.api_user.seen_at  IS 'When Marketo was asked';
