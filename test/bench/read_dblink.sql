-- W1 by dblink with a connection that the session keeps. dblink has no
-- parameters, so the statement is put together, as its users do.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
\set aid random(1, :rows)
SELECT * FROM dblink('c', 'SELECT abalance FROM accounts WHERE aid = ' || :aid) AS t(abalance int);
