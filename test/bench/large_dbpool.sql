-- W3 by a pool.
SELECT count(id), count(v) FROM dbpool_query('remote', 'SELECT id, v FROM wide, generate_series(1, $1)', :times::int) AS t(id int, v text);
