-- W1 by a pool.
\set aid random(1, :rows)
SELECT * FROM dbpool_query('remote', 'SELECT abalance FROM accounts WHERE aid = $1', :aid::int) AS t(abalance int);
