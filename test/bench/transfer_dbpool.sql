-- W11 by a pool, bound to the local transaction.
-- each client has rows of its own, as postgres_fdw gives up where others are at the same
\set from 8 * random(1, :rows / 8 - 1) - :client_id
\set to 8 * random(1, :rows / 8 - 1) - :client_id
BEGIN;
SELECT dbpool_exec('remote', 'UPDATE accounts SET abalance = abalance - 1 WHERE aid = $1', :from::int);
SELECT dbpool_exec('remote', 'UPDATE accounts SET abalance = abalance + 1 WHERE aid = $1', :to::int);
SELECT dbpool_exec('remote', 'INSERT INTO events (aid, delta) VALUES ($1, -1)', :from::int);
COMMIT;
