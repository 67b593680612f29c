-- W11 over two remotes, both bound to the local transaction, or in two phases.
\set from 8 * random(1, :rows / 8 - 1) - :client_id
\set to 8 * random(1, :rows / 8 - 1) - :client_id
BEGIN;
SELECT dbpool_exec('remote', 'UPDATE accounts SET abalance = abalance - 1 WHERE aid = $1', :from::int);
SELECT dbpool_exec('remote2', 'UPDATE accounts SET abalance = abalance + 1 WHERE aid = $1', :to::int);
SELECT dbpool_exec('remote', 'INSERT INTO events (aid, delta) VALUES ($1, -1)', :from::int);
COMMIT;
