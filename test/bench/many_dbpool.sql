-- W10 by a pool, as one batch of a thousand statements.
SELECT count(*) FROM dbpool_batch('remote',
  ARRAY(SELECT 'INSERT INTO events (aid, delta) VALUES ($1, 1)' FROM generate_series(1, 1000)),
  ARRAY(SELECT jsonb_build_array(i) FROM generate_series(1, 1000) AS i));
