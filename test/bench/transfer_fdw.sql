-- W11 by foreign tables.
\set from random(1, :rows)
\set to random(1, :rows)
BEGIN;
UPDATE accounts_fdw SET abalance = abalance - 1 WHERE aid = :from;
UPDATE accounts_fdw SET abalance = abalance + 1 WHERE aid = :to;
INSERT INTO events_fdw (aid, delta) VALUES (:from, -1);
COMMIT;
