-- W11 by dblink, with BEGIN and COMMIT sent by hand over a connection that the session keeps.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
\set from random(1, :rows)
\set to random(1, :rows)
BEGIN;
SELECT dblink_exec('c', 'BEGIN');
SELECT dblink_exec('c', 'UPDATE accounts SET abalance = abalance - 1 WHERE aid = ' || :from);
SELECT dblink_exec('c', 'UPDATE accounts SET abalance = abalance + 1 WHERE aid = ' || :to);
SELECT dblink_exec('c', 'INSERT INTO events (aid, delta) VALUES (' || :from || ', -1)');
SELECT dblink_exec('c', 'COMMIT');
COMMIT;
