-- What the stress test has on the local server; run by a superuser.

-- The local part of transactions in two phases.
CREATE TABLE stress_here (session int NOT NULL, serial int NOT NULL);
GRANT ALL ON stress_here TO stress_a, stress_b;

-- sql writes the row of that part; p1 to p4 are the parameters of writes.
CREATE FUNCTION stress_bound(pool name, sql text, p1 text, p2 text, p3 text, p4 text, error text) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  n int;
BEGIN
  PERFORM set_config('dbpool.transaction', 'bound', true);
  PERFORM dbpool_exec(pool, sql, p1, p2, p3, p4, 0);
  BEGIN
    PERFORM dbpool_exec(pool, sql, p1, p2, p3, p4, 7);
    PERFORM 1 / 0;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  BEGIN
    PERFORM dbpool_exec(pool, sql, p1, p2, p3, p4, 1);
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
  n := dbpool_value(NULL::int, pool, 'SELECT count(*) FROM stress_log WHERE session = $1 AND serial = $2', p1, p2);
  IF n <> 2 THEN
    RAISE EXCEPTION 'it sees % rows of its own', n;
  END IF;
  IF error IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = error;
  END IF;
  RETURN p2;
END $$;

CREATE FUNCTION stress_named(pool name, sql text, p1 text, p2 text, p3 text, p4 text, error text) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dbpool_begin(pool, 'stress');
  PERFORM dbpool_exec('stress', sql, p1, p2, p3, p4, 0);
  PERFORM dbpool_savepoint('stress', 'a');
  PERFORM dbpool_exec('stress', sql, p1, p2, p3, p4, 7);
  PERFORM dbpool_rollback_to('stress', 'a');
  PERFORM count(*) FROM dbpool_batch('stress', ARRAY[sql, 'SELECT 1'], ARRAY[jsonb_build_array(p1, p2, p3, p4, 1), NULL]);
  IF error IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = error;
  END IF;
  PERFORM dbpool_commit('stress');
  RETURN p2;
END $$;

CREATE FUNCTION stress_two_phase(pool name, sql text, p1 text, p2 text, p3 text, p4 text, error text) RETURNS int
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('dbpool.transaction', 'two_phase', true);
  INSERT INTO stress_here VALUES (p1::int, p2::int);
  PERFORM dbpool_exec(pool, sql, p1, p2, p3, p4, 0);
  PERFORM dbpool_exec('small', sql, p1, p2, p3, p4, 1);
  PERFORM dbpool_exec('small', 'INSERT INTO stress_there VALUES ($1, $2)', p1, p2);
  IF error IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = error;
  END IF;
  RETURN p2;
END $$;

CREATE FUNCTION stress_batch(pool name, sql text, p1 text, p2 text, p3 text, p4 text, n text, last text) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  ended int;
BEGIN
  SELECT count(*) INTO ended FROM dbpool_batch(pool,
    array_fill(sql, ARRAY[n::int]) || coalesce(last, 'SELECT 1'),
    ARRAY(SELECT jsonb_build_array(p1, p2, p3, p4, i) FROM generate_series(0, n::int - 1) AS i) || NULL::jsonb)
  WHERE status = 'ok';
  IF ended <> n::int + 1 THEN
    RAISE EXCEPTION '% statements have ended', ended;
  END IF;
  RETURN p2;
END $$;

CREATE FUNCTION stress_independent(pool name, sql text, p1 text, p2 text, p3 text, p4 text) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  s record;
  n int := 0;
BEGIN
  FOR s IN SELECT * FROM dbpool_batch(pool, ARRAY['SELECT 1', sql, 'SELECT 2', 'SELECT 3'],
                                      ARRAY[NULL, jsonb_build_array(p1, p2, p3, p4, 0), NULL, NULL],
                                      'independent', 2) LOOP
    n := n + 1;
    IF s.status <> 'ok' AND s.number = 2 THEN
      RAISE EXCEPTION USING ERRCODE = s.sqlstate, MESSAGE = s.message;
    END IF;
  END LOOP;
  IF n <> 4 THEN
    RAISE EXCEPTION '% statements have a row', n;
  END IF;
  RETURN p2;
END $$;

CREATE FUNCTION stress_exec_batch(pool name, sql text, p1 text, p2 text, p3 text, p4 text, n text) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
  affected bigint;
BEGIN
  affected := dbpool_exec_batch(pool, sql,
    format('SELECT %L, %L, %L, %L, i FROM generate_series(0, %s - 1) AS i', p1, p2, p3, p4, n));
  IF affected <> n::int THEN
    RAISE EXCEPTION '% rows are affected', affected;
  END IF;
  RETURN p2;
END $$;
