-- Export jobs of Marketo's, and the staging of their files.
DO $$ BEGIN END $$;
