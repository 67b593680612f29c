-- W1 by dblink with a connection per call, which is its shortest form.
\set aid random(1, :rows)
SELECT * FROM dblink(:conn, 'SELECT abalance FROM accounts WHERE aid = ' || :aid) AS t(abalance int);
