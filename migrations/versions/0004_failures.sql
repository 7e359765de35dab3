-- Failures, and what was made of them: a retry is a new change that keeps the place of the one it retries.

ALTER TABLE syncd.outbox ADD COLUMN retry_of bigint;
COMMENT ON COLUMN syncd.outbox.retry_of IS 'The failed change that it sends again (of several tries the first), whose place it has among the changes of its key; null: its own';

ALTER TABLE syncd.change_history
    ADD COLUMN retry_of   bigint,
    ADD COLUMN retried_at timestamptz,
    ADD COLUMN retried_as bigint,
    ADD CHECK (retried_as IS NULL OR retried_at IS NOT NULL),
    ADD CHECK (retried_at IS NULL OR state IN ('rejected', 'unverified'));
COMMENT ON COLUMN syncd.change_history.retry_of   IS 'The failed change that it sent again (of several tries the first), whose place it has among the changes of its key; null: its own';
COMMENT ON COLUMN syncd.change_history.retried_at IS 'When an operator had this failure retried, or enqueued it mended; null: it waits for somebody';
COMMENT ON COLUMN syncd.change_history.retried_as IS 'The change that was made of it; null where later changes had set all its fields';

-- what failures are found by, the newest first
CREATE INDEX change_history_failed ON syncd.change_history (instance, settled_at, id) WHERE state IN ('rejected', 'unverified');

CREATE OR REPLACE VIEW syncd.change AS
    SELECT o.id, o.instance, o.push, o.key, o.fields, o.state, o.reason,
           (SELECT max(j.id) FROM syncd.import_job j WHERE j.chunk_id = o.chunk_id) AS import_job_id,
           o.sync_batch_id, o.created_at, NULL::timestamptz AS settled_at,
           o.retry_of, NULL::timestamptz AS retried_at, NULL::bigint AS retried_as
      FROM syncd.outbox o
    UNION ALL
    SELECT h.id, h.instance, h.push, h.key, h.fields, h.state, h.reason, h.import_job_id, h.sync_batch_id, h.created_at, h.settled_at,
           h.retry_of, h.retried_at, h.retried_as
      FROM syncd.change_history h;
COMMENT ON COLUMN syncd.change.retry_of   IS 'The failed change that it sends again (of several tries the first); null: it is no retry';
COMMENT ON COLUMN syncd.change.retried_at IS 'When this failure was retried, or enqueued mended; null otherwise';
COMMENT ON COLUMN syncd.change.retried_as IS 'The change that was made of it then; null where later changes had set all its fields';
