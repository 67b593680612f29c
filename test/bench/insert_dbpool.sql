-- W9 by a pool.
\set aid random(1, :rows)
SELECT * FROM dbpool_query('remote', 'INSERT INTO events (aid, delta) VALUES ($1, 1) RETURNING id', :aid::int) AS t(id bigint);
