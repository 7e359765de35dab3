-- An urgent change passes a chunk that has its key only when it is later than all that the chunk has of the key. Of claims from before,
-- nobody knows: urgent changes of their keys wait for those chunks.

ALTER TABLE syncd.key_claim ADD COLUMN place bigint;
COMMENT ON COLUMN syncd.key_claim.place IS 'The latest place, among the changes of the key, of what the chunk or sync batch has of it';
