-- W11 by dblink, with BEGIN and COMMIT sent by hand over a connection that the session keeps.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
-- each client has rows of its own, as postgres_fdw gives up where others are at the same
\set from 8 * random(1, :rows / 8 - 1) - :client_id
\set to 8 * random(1, :rows / 8 - 1) - :client_id
BEGIN;
SELECT dblink_exec('c', 'BEGIN');
SELECT dblink_exec('c', 'UPDATE accounts SET abalance = abalance - 1 WHERE aid = ' || :from);
SELECT dblink_exec('c', 'UPDATE accounts SET abalance = abalance + 1 WHERE aid = ' || :to);
SELECT dblink_exec('c', 'INSERT INTO events (aid, delta) VALUES (' || :from || ', -1)');
SELECT dblink_exec('c', 'COMMIT');
COMMIT;
