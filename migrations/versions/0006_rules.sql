-- Leads that Marketo has deleted, by their address: pushes do not bring them back.

CREATE INDEX lead_deleted ON syncd.lead (instance, lower(email)) WHERE deleted_at IS NOT NULL;
