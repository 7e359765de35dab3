-- How far the activity log has been read.
DO $$ BEGIN END $$;
