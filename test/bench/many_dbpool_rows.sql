-- W10 by a pool, as one statement for a thousand rows.
SELECT dbpool_exec_batch('remote', 'INSERT INTO events (aid, delta) VALUES ($1, 1)',
  ARRAY(SELECT generate_series(1, 1000)));
