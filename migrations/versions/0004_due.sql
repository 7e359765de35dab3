-- News are read before what a fill has listed.
CREATE INDEX lead_due_news ON syncd.lead_due (instance, pull, noted_at, lead_id) WHERE reason IN ('changed', 'winner', 'overtaken');
