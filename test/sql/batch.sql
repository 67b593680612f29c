--
-- dbpool_batch and dbpool_exec_batch: many statements in one round trip
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (id int PRIMARY KEY, name text CHECK (name <> ''bad''), at timestamptz)');
-- what the remote has
CREATE FUNCTION regress_ids() RETURNS text LANGUAGE sql AS
  $$ SELECT x FROM dbpool_query('remote', 'SELECT string_agg(id::text, '','' ORDER BY id) FROM regress.t') AS t(x text) $$;
CREATE FUNCTION regress_batch(statements text[], params jsonb[] DEFAULT NULL, mode text DEFAULT 'transaction', parallel int DEFAULT 1, results boolean DEFAULT false)
RETURNS TABLE (number bigint, status text, rows bigint, result jsonb, sqlstate text, message text, timed boolean) LANGUAGE sql AS
  $$ SELECT number, status, rows, result, sqlstate, message, milliseconds >= 0 FROM dbpool_batch('remote', statements, params, mode, parallel, results) ORDER BY number $$;

-- a row for each statement
SELECT * FROM regress_batch(ARRAY[
  'INSERT INTO regress.t VALUES (1, ''one''), (2, ''two'')',
  'UPDATE regress.t SET name = ''zwei'' WHERE id = 2',
  'SELECT * FROM regress.t',
  'DELETE FROM regress.t WHERE id > 100',
  '-- nothing']);
SELECT regress_ids();
-- no statements
SELECT * FROM regress_batch('{}');
-- parameters: JSON as text, types are the remote's
SELECT * FROM regress_batch(ARRAY[
  'INSERT INTO regress.t VALUES ($1, $2, $3)',
  'INSERT INTO regress.t VALUES ($1, $2, $3)',
  'INSERT INTO regress.t VALUES ($1, $2, $3)',
  'SELECT $1::text, $2::jsonb, $3::bool, $4::numeric, $5::int[], $6::text IS NULL',
  'SELECT 1'],
  ARRAY['[3, "drei", "2024-01-01 00:00+00"]', '["4", null, null]', '[5, "", null]',
    '["it''s \"quoted\"", {"a": [1, null]}, true, 1.50, "{1,2}", null]', NULL]::jsonb[], results => true);
-- what statements return
SELECT * FROM regress_batch(ARRAY[
  'SELECT id, name FROM regress.t ORDER BY id LIMIT 2', 'SELECT id FROM regress.t WHERE false',
  'INSERT INTO regress.t VALUES (6) RETURNING id, at', 'UPDATE regress.t SET at = NULL', 'SHOW server_encoding', 'SELECT'], results => true);
-- without a wish for them, they are not kept
SELECT number, rows, result FROM regress_batch(ARRAY['SELECT repeat(''x'', 1000) FROM generate_series(1, 10000)', 'SELECT 1']);

-- all or nothing; the number of the statement is in the context
\set SHOW_CONTEXT always
SELECT * FROM regress_batch(ARRAY['INSERT INTO regress.t VALUES (10)', 'INSERT INTO regress.t VALUES (11)', 'INSERT INTO regress.t VALUES (1)', 'INSERT INTO regress.t VALUES (12)']);
SELECT number FROM dbpool_batch('remote', ARRAY['INSERT INTO regress.t VALUES (10)', 'SELEKT 1']);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1; SELECT 2']);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT $1'], ARRAY['[]']::jsonb[]);
-- a constraint that is looked at when the batch commits
SELECT dbpool_exec('remote', 'CREATE TABLE regress.d (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
SELECT number FROM dbpool_batch('remote', ARRAY['INSERT INTO regress.d VALUES (1)', 'INSERT INTO regress.d VALUES (1)', 'SELECT 1']);
\set SHOW_CONTEXT never
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT $1::int', 'SELECT $1::int'], ARRAY['[1]', '["x"]']::jsonb[]);
SELECT regress_ids();
SELECT dbpool_exec('remote', 'SELECT FROM regress.d');
-- one transaction it is
SELECT number, result FROM regress_batch(ARRAY['SET TRANSACTION ISOLATION LEVEL SERIALIZABLE', 'SELECT now() AS a INTO regress.a', 'SELECT now() = a AS same, current_setting(''transaction_isolation'') AS level FROM regress.a', 'DROP TABLE regress.a'], results => true);

-- what would end it, begin another, or divide it
SELECT number FROM regress_batch(ARRAY['SELECT 1', 'COMMIT']);
SELECT number FROM regress_batch(ARRAY[' /* /* a */ */ ; -- b
 begin']);
SELECT s, regress_batch(ARRAY[s]) FROM unnest(ARRAY['SELECT 1']) s;
DO $$
DECLARE
  s text;
BEGIN
  FOREACH s IN ARRAY ARRAY['START TRANSACTION', 'END', 'ABORT', 'rollback to a', 'SAVEPOINT a', 'RELEASE a', 'PREPARE TRANSACTION ''a''', 'COMMIT PREPARED ''a''', 'COPY regress.t FROM STDIN', 'COPY regress.t TO STDOUT'] LOOP
    BEGIN
      PERFORM dbpool_batch('remote', ARRAY[s]);
      RAISE WARNING 'it ran: %', s;
    EXCEPTION WHEN invalid_transaction_state OR feature_not_supported THEN
      RAISE INFO '%', SQLERRM;
    END;
  END LOOP;
END $$;
SELECT number FROM regress_batch(ARRAY['PREPARE regress_p AS SELECT 1', 'EXECUTE regress_p', 'DEALLOCATE regress_p']);
-- the remote refuses what cannot be in a transaction, first or last
SELECT number FROM regress_batch(ARRAY['VACUUM regress.t']);
SELECT number FROM regress_batch(ARRAY['INSERT INTO regress.t VALUES (20)', 'VACUUM regress.t']);
SELECT dbpool_exec('remote', 'CREATE PROCEDURE regress.commits() LANGUAGE plpgsql AS ''BEGIN INSERT INTO regress.t VALUES (21); COMMIT; END''');
SELECT number FROM regress_batch(ARRAY['INSERT INTO regress.t VALUES (20)', 'CALL regress.commits()']);
SELECT regress_ids();

-- each for itself: failures are rows
SELECT * FROM regress_batch(ARRAY['INSERT INTO regress.t VALUES (30)', 'INSERT INTO regress.t VALUES (1)', 'SELEKT 1', 'INSERT INTO regress.t VALUES (31)', 'VACUUM regress.t', 'CALL regress.commits()', 'SELECT $1::int'],
  ARRAY[NULL, NULL, NULL, NULL, NULL, NULL, '["x"]']::jsonb[], 'independent');
SELECT regress_ids();
-- the constraint is looked at when each commits
SELECT number, status, rows, sqlstate FROM regress_batch(ARRAY['INSERT INTO regress.d VALUES (1)', 'INSERT INTO regress.d VALUES (1)', 'INSERT INTO regress.d VALUES (2)'], mode => 'independent');
SELECT number, status, result FROM regress_batch(ARRAY['SELECT 1 AS a', 'SELECT 1/0', 'SELECT 2 AS a'], mode => 'independent', results => true);
-- what is returned after a setting has changed its form is not passed on; what was done stays
SELECT * FROM regress_batch(ARRAY['SET datestyle = ''German''', 'SELECT date ''2024-01-02'' AS d', 'INSERT INTO regress.t VALUES (32)', 'SELECT 1 AS one WHERE false', 'SELECT 1/0', 'SELECT 3'], mode => 'independent', results => true);
SELECT number, status, rows FROM regress_batch(ARRAY['SELECT set_config(''datestyle'', ''German'', false)', 'SELECT date ''2024-01-02'' AS d'], mode => 'independent');
SELECT * FROM regress_batch(ARRAY['SELECT date ''2024-01-02'' AS d'], mode => 'independent', results => true);
SELECT dbpool_exec('remote', 'DELETE FROM regress.t WHERE id = 32');
-- over several connections
SELECT count(*), sum(rows), min(status), max(status), count(DISTINCT number) FROM regress_batch(ARRAY(SELECT format('INSERT INTO regress.t VALUES (%s)', i) FROM generate_series(1001, 2000) i), mode => 'independent', parallel => 4);
SELECT dbpool_exec('remote', 'SELECT FROM regress.t WHERE id > 1000');
SELECT count(DISTINCT result->0->>'pid') > 1 AS several FROM regress_batch(ARRAY(SELECT 'SELECT pg_backend_pid() AS pid, pg_sleep(0.01)' FROM generate_series(1, 20)), mode => 'independent', parallel => 4, results => true);
-- more than the pool has
SELECT dbpool_create_pool('small', :'remote_conninfo', '{"max_size": 2, "acquire_timeout": 100}');
SELECT count(*), min(status), max(status) FROM dbpool_batch('small', ARRAY(SELECT 'SELECT pg_sleep(0.02)' FROM generate_series(1, 40)), mode => 'independent', parallel => 10);
-- nothing can be run: that is an error
SELECT dbpool_create_pool('nowhere', 'host=127.0.0.1 port=1');
\set VERBOSITY sqlstate
SELECT number FROM dbpool_batch('nowhere', ARRAY['SELECT 1', 'SELECT 2'], mode => 'independent', parallel => 2);
SELECT number FROM dbpool_batch('nowhere', ARRAY['SELECT 1', 'SELECT 2']);
\set VERBOSITY default
SELECT number FROM dbpool_batch('nothing', ARRAY['SELECT 1']);
SELECT number FROM dbpool_batch('nothing', '{}');

-- arguments
SELECT number FROM dbpool_batch('remote', NULL);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1', NULL]);
SELECT number FROM dbpool_batch('remote', ARRAY[['SELECT 1'], ['SELECT 2']]);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], '{}');
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], ARRAY['{"a": 1}']::jsonb[]);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], ARRAY['1']::jsonb[]);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], mode => 'some');
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], mode => NULL);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], parallel => 2);
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1'], parallel => 0, mode => 'independent');

-- what a statement leaves behind is put away
SELECT number, status FROM regress_batch(ARRAY['SET work_mem = ''123kB''', 'CREATE TEMP TABLE regress_temp ()', 'SELECT set_config($1, ''1'', false)', 'SELECT pg_advisory_lock(1)'], ARRAY[NULL, NULL, '["regress.a"]', NULL]::jsonb[]);
SELECT regress_wait($$(SELECT busy + cancelling + resetting = 0 FROM dbpool_pools WHERE pool = 'remote')$$);
SELECT * FROM dbpool_query('remote', 'SELECT current_setting(''work_mem'') = ''123kB'', to_regclass(''pg_temp.regress_temp''), current_setting(''regress.a'', true), (SELECT count(*) FROM pg_locks WHERE locktype = ''advisory'')') AS t(w bool, t text, s text, l bigint);
-- read-only transactions
BEGIN READ ONLY;
SET LOCAL dbpool.inherit_read_only = on;
SELECT number, status, rows FROM regress_batch(ARRAY['SELECT 1', 'SELECT 2']);
SAVEPOINT a;
SELECT number FROM regress_batch(ARRAY['SELECT 1', 'INSERT INTO regress.t VALUES (40)']);
ROLLBACK TO a;
SELECT number, status, sqlstate FROM regress_batch(ARRAY['SELECT 1', 'INSERT INTO regress.t VALUES (40)'], mode => 'independent');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', ARRAY[40]);
ROLLBACK;

-- notices of all statements
SELECT number FROM regress_batch(ARRAY['DROP TABLE IF EXISTS regress.none', 'DROP TABLE IF EXISTS regress.nothing']);
-- counted as statements
SELECT dbpool_stat_reset('remote');
SELECT count(*) FROM dbpool_batch('remote', ARRAY(SELECT 'SELECT 1' FROM generate_series(1, 100)));
SELECT count(*) FROM dbpool_batch('remote', ARRAY['SELECT 1', 'SELECT 1/0'], mode => 'independent');
SELECT statements, errors FROM dbpool_stat_pools WHERE pool = 'remote';

-- one statement for many rows: of an array
SELECT dbpool_exec('remote', 'TRUNCATE regress.t');
CREATE TABLE regress_rows (id int, name text, gone int, at timestamptz);
ALTER TABLE regress_rows DROP gone;
INSERT INTO regress_rows SELECT i, nullif('name ' || i, 'name 3'), '2024-01-01 12:00+00' FROM generate_series(1, 5) i;
SET datestyle = 'SQL, DMY';
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2, $3)', (SELECT array_agg(r) FROM regress_rows r));
RESET datestyle;
SELECT * FROM regress_rows JOIN dbpool_query_as(NULL::regress_rows, 'remote', 'SELECT id, name, at FROM regress.t') AS t USING (id, at) ORDER BY id;
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2)', ARRAY[ROW(6, 'six'), ROW(7, NULL)]);
SELECT dbpool_exec_batch('remote', 'UPDATE regress.t SET name = ''many'' WHERE id <= $1', rows => ARRAY[2, 3]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES (8, $1)', ARRAY[NULL]::text[]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', '{}'::int[]);
SELECT dbpool_exec_batch('remote', 'SELECT $1::int FROM generate_series(1, 10)', ARRAY[1, 2]);
-- of a query; a literal without a type is one
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2)', 'SELECT i, ''x'' || i FROM generate_series(11, 1010) i');
SELECT dbpool_exec_batch('remote', 'DELETE FROM regress.t WHERE id = $1', query => 'VALUES (11), (12)');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', 'SELECT 1 WHERE false');
BEGIN;
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1 + 2000)', 'DELETE FROM regress_rows RETURNING id');
ROLLBACK;
SELECT dbpool_exec('remote', 'DELETE FROM regress.t WHERE id > 2000');
-- all or nothing; the number of the row is in the context
\set SHOW_CONTEXT always
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2)', 'SELECT i, CASE i WHEN 5017 THEN ''bad'' END FROM generate_series(5001, 5100) i');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2)', ARRAY[ROW(5001, 'a'), ROW(5002)]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.d VALUES ($1)', ARRAY[7, 7]);
\set SHOW_CONTEXT never
SELECT dbpool_exec('remote', 'SELECT FROM regress.t WHERE id > 5000');
-- rows of several shapes
SELECT dbpool_exec_batch('remote', 'SELECT $1::int', (SELECT array_agg(CASE i % 2 WHEN 0 THEN ROW(i) ELSE (SELECT r FROM (SELECT i AS b) r) END) FROM generate_series(1, 1001) i));
-- wrong ones
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', '{1,2}');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', NULL);
SELECT dbpool_exec_batch('remote', NULL, ARRAY[1]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', ARRAY[[1], [2]]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', ARRAY[ROW(1), NULL]);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', 'DELETE FROM regress_rows');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', 'SELECT 1; SELECT 2');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', 'SELECT $1');
SELECT dbpool_exec_batch('remote', 'COMMIT', ARRAY[1]);

-- large statements, and more than a ring holds
SELECT count(*), sum(rows) FROM dbpool_batch('remote', ARRAY(SELECT format('SELECT length(%L)', repeat('x', 1000 * i)) FROM generate_series(1, 200) i));
SELECT sum((result->0->>'length')::int) FROM dbpool_batch('remote', ARRAY(SELECT 'SELECT length($1)' FROM generate_series(1, 3)), ARRAY(SELECT jsonb_build_array(repeat('x', 1000000 * i)) FROM generate_series(1, 3) i), results => true);
SELECT sum((result->0->>'length')::int) FROM dbpool_batch('remote', ARRAY(SELECT 'SELECT length($1)' FROM generate_series(1, 3)), ARRAY(SELECT jsonb_build_array(repeat('x', 1000000 * i)) FROM generate_series(1, 3) i), 'independent', results => true);
-- answers larger than a ring
SELECT number, rows, jsonb_array_length(result) FROM dbpool_batch('remote', ARRAY['SELECT repeat(''x'', 100000) AS x FROM generate_series(1, 10)', 'SELECT i FROM generate_series(1, 10000) i'], results => true);

-- in a transaction over several calls: bound to the local one
SET dbpool.transaction = bound;
SELECT dbpool_exec('remote', 'TRUNCATE regress.t');
BEGIN;
SELECT number, status FROM dbpool_batch('remote', ARRAY['INSERT INTO regress.t VALUES (1)', 'INSERT INTO regress.t VALUES (2)']);
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', ARRAY[3, 4]);
SAVEPOINT a;
SELECT number FROM dbpool_batch('remote', ARRAY['INSERT INTO regress.t VALUES (5)', 'INSERT INTO regress.t VALUES (1)', 'INSERT INTO regress.t VALUES (6)']);
ROLLBACK TO a;
SELECT number, result FROM dbpool_batch('remote', ARRAY['SELECT count(*) FROM regress.t'], results => true);
SAVEPOINT b;
SELECT number FROM dbpool_batch('remote', ARRAY['SELECT 1', 'SELECT 2'], mode => 'independent');
ROLLBACK TO b;
ROLLBACK;
SELECT regress_ids();
BEGIN;
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1)', 'SELECT i FROM generate_series(1, 3) i');
COMMIT;
SELECT regress_ids();
RESET dbpool.transaction;
-- begun by name
SELECT dbpool_begin('remote', 'load');
SELECT number, status FROM dbpool_batch('load', ARRAY['INSERT INTO regress.t VALUES (4)', 'INSERT INTO regress.t VALUES (5)']);
SELECT dbpool_exec_batch('load', 'INSERT INTO regress.t VALUES ($1)', '{}'::int[]);
SELECT regress_ids();
SELECT dbpool_commit('load');
SELECT regress_ids();
