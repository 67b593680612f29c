-- W5: a read that takes 50 ms, by dblink; the connection is read_dblink.sql's.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
\set aid random(1, :rows)
SELECT * FROM dblink('c', 'SELECT abalance FROM accounts, pg_sleep(0.05) WHERE aid = ' || :aid) AS t(abalance int);
