-- W10 by a pool, a call for each row.
DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM dbpool_exec('remote', 'INSERT INTO events (aid, delta) VALUES ($1, 1)', i); END LOOP; END $$;
