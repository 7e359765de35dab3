-- Reverts: their changes have the places of those that they revert.

COMMENT ON COLUMN syncd.outbox.retry_of         IS 'The failed change that it sends again, or the one that it reverts (of several tries the first), whose place it has among the changes of its key; null: its own';
COMMENT ON COLUMN syncd.change_history.retry_of IS 'The failed change that it sent again, or the one that it reverted (of several tries the first), whose place it has among the changes of its key; null: its own';
COMMENT ON COLUMN syncd.change.retry_of         IS 'The failed change that it sends again, or the one that it reverts (of several tries the first); null: it is neither';
