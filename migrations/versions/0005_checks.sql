-- Changes that wait for a field of Marketo, and live changes by their key.

ALTER TABLE syncd.outbox ADD COLUMN lacks text;
COMMENT ON COLUMN syncd.outbox.lacks IS 'The field that it was parked for, as describe did not list it; stays when it is pending again';

CREATE INDEX outbox_lacking ON syncd.outbox (instance, push, lacks, id) WHERE state = 'parked' AND lacks IS NOT NULL;
CREATE INDEX outbox_by_key  ON syncd.outbox (instance, key_norm);
