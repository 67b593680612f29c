-- W11 by a pool, bound to the local transaction.
\set from random(1, :rows)
\set to random(1, :rows)
BEGIN;
SELECT dbpool_exec('remote', 'UPDATE accounts SET abalance = abalance - 1 WHERE aid = $1', :from::int);
SELECT dbpool_exec('remote', 'UPDATE accounts SET abalance = abalance + 1 WHERE aid = $1', :to::int);
SELECT dbpool_exec('remote', 'INSERT INTO events (aid, delta) VALUES ($1, -1)', :from::int);
COMMIT;
