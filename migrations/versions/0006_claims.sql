-- A claim enters each change that it carries into every index anew. What is carried is known by its key's claim.

DROP INDEX syncd.outbox_by_key;
CREATE INDEX outbox_by_key ON syncd.outbox (instance, key_norm) WHERE state IN ('pending', 'held', 'parked');
