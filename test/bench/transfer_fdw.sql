-- W11 by foreign tables.
-- each client has rows of its own, as postgres_fdw gives up where others are at the same
\set from 8 * random(1, :rows / 8 - 1) - :client_id
\set to 8 * random(1, :rows / 8 - 1) - :client_id
BEGIN;
UPDATE accounts_fdw SET abalance = abalance - 1 WHERE aid = :from;
UPDATE accounts_fdw SET abalance = abalance + 1 WHERE aid = :to;
INSERT INTO events_fdw (aid, delta) VALUES (:from, -1);
COMMIT;
