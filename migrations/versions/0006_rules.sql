-- Leads that Marketo has deleted, by their address: pushes do not bring them back.

CREATE INDEX lead_deleted ON syncd.lead (instance, lower(email)) WHERE deleted_at IS NOT NULL;

COMMENT ON COLUMN syncd.chunk.lookup_field IS 'What the keys of its changes are values of; the first of its columns is the import''s lookupField';
