-- W5: a read that takes 50 ms, by a pool.
\set aid random(1, :rows)
SELECT * FROM dbpool_query('remote', 'SELECT abalance FROM accounts, pg_sleep(0.05) WHERE aid = $1', :aid::int) AS t(abalance int);
