-- W8: a statement of 5 ms that needs no processor, by a pool.
SELECT * FROM dbpool_query('remote', 'SELECT pg_sleep(0.005)') AS t(x text);
