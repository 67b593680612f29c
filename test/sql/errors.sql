--
-- Errors of the remote are errors here, with all they have; the next call works
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

\set SHOW_CONTEXT always
SELECT dbpool_exec('remote', $$
  CREATE TABLE regress.parent (id int PRIMARY KEY);
  CREATE TABLE regress.child (id int CONSTRAINT small CHECK (id < 100), parent int NOT NULL REFERENCES regress.parent, mail text UNIQUE);
  INSERT INTO regress.parent VALUES (1);
  INSERT INTO regress.child VALUES (1, 1, 'a@b');
  CREATE FUNCTION regress.divide(a int, b int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN a / b; END';
  CREATE FUNCTION regress.fail(code text) RETURNS int LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''failed with %'', code USING ERRCODE = code, DETAIL = ''the detail'', HINT = ''the hint'',
       SCHEMA = ''s'', TABLE = ''t'', COLUMN = ''c'', DATATYPE = ''d'', CONSTRAINT = ''n''; END';
$$);

-- position in the statement
SELECT dbpool_query('remote', 'SELECT 1 +  FROM nowhere');
SELECT dbpool_query('remote', 'SELECT grüß, x FROM regress.parent');
SELECT dbpool_exec('remote', 'SELECT 1; SELECT no_such_function(1)');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- detail, hint, context
SELECT dbpool_exec('remote', 'INSERT INTO regress.child VALUES (2, 7, ''c@d'')');
SELECT dbpool_exec('remote', 'INSERT INTO regress.child VALUES (2, 1, $1)', 'a@b');
SELECT dbpool_query('remote', 'SELECT regress.divide(1, 0)');
SELECT dbpool_query('remote', 'SELECT regress.fail($1)', 'XY123');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');
-- an error inside a function's own statement
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.inner() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT nocolumn FROM regress.parent); END'$$);
SELECT dbpool_query('remote', 'SELECT regress.inner()');

-- everything that GET STACKED DIAGNOSTICS knows
CREATE FUNCTION regress_try(statement text, VARIADIC params text[] DEFAULT '{}') RETURNS TABLE (item text, value text) LANGUAGE plpgsql AS $$
DECLARE
  code text; message text; detail text; hint text; context text;
  schema_ text; table_ text; column_ text; datatype text; constraint_ text;
BEGIN
  PERFORM dbpool_query('remote', statement, VARIADIC params);
  RETURN QUERY SELECT 'no', 'error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
    hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT, schema_ = SCHEMA_NAME, table_ = TABLE_NAME,
    column_ = COLUMN_NAME, datatype = PG_DATATYPE_NAME, constraint_ = CONSTRAINT_NAME;
  -- the context ends with the lines of this function
  RETURN QUERY SELECT v.* FROM (VALUES ('sqlstate', code), ('message', message), ('detail', detail), ('hint', hint),
    ('context', regexp_replace(context, '\nSQL statement "SELECT dbpool_query.*', '')), ('schema', schema_), ('table', table_),
    ('column', column_), ('datatype', datatype), ('constraint', constraint_)) v WHERE v.column2 <> '';
END $$;
SELECT * FROM regress_try('SELECT regress.fail($1)', 'XY123');
SELECT * FROM regress_try('INSERT INTO regress.child VALUES (2, 7, ''c@d'')');
SELECT * FROM regress_try('INSERT INTO regress.child VALUES (100, 1, ''c@d'')');
SELECT * FROM regress_try('INSERT INTO regress.child VALUES (2, NULL, ''c@d'')');
SELECT * FROM regress_try('INSERT INTO regress.child VALUES (2, 1, ''a@b'')');
SELECT * FROM regress_try('SELECT 1/$1::int', '0');
SELECT * FROM regress_try('SELECT nothing');
SELECT * FROM regress_try('SELECT 1');

-- caught in PL/pgSQL, by name, and the transaction goes on
DO $$
BEGIN
  CREATE TEMP TABLE kept AS SELECT 1 AS a;
  BEGIN
    INSERT INTO kept VALUES (2);
    PERFORM dbpool_exec('remote', 'INSERT INTO regress.parent VALUES (1)');
  EXCEPTION WHEN unique_violation THEN
    RAISE NOTICE 'caught: %', SQLERRM;
  END;
  BEGIN
    PERFORM dbpool_query('remote', 'SELECT 1/0');
  EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'caught: %', SQLERRM;
  END;
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.parent VALUES (2)');
END $$;
SELECT * FROM kept;
SELECT dbpool_query('remote', 'TABLE regress.parent');
-- many times over, nothing is used up
DO $$
DECLARE
  caught int := 0;
BEGIN
  FOR i IN 1..500 LOOP
    BEGIN
      PERFORM dbpool_query('remote', 'SELECT i / (50 - i) FROM generate_series(1, 100) i');
    EXCEPTION WHEN division_by_zero THEN
      caught := caught + 1;
    END;
  END LOOP;
  RAISE NOTICE 'caught % errors', caught;
END $$;
SELECT regress_wait('NOT EXISTS (SELECT FROM dbpool_requests)');
SELECT regress_wait($$(SELECT idle > 0 AND busy = 0 FROM dbpool_pools WHERE pool = 'remote' AND database = current_database())$$);

-- an error after rows have come
SELECT dbpool_query('remote', 'SELECT 1 / (100000 - i) FROM generate_series(1, 100000) i');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- timeouts and cancels on the remote, and a local one
SELECT dbpool_exec('remote', 'SET LOCAL statement_timeout = ''10ms''; SELECT pg_sleep(10)');
SET statement_timeout = '100ms';
SELECT dbpool_query('remote', 'SELECT pg_sleep(10)');
RESET statement_timeout;
SELECT dbpool_query('remote', 'SELECT ''it goes on''');
-- the remote statement was cancelled, too
SELECT regress_wait($$(SELECT n = 0 FROM dbpool_query('remote',
  'SELECT count(*) FROM pg_stat_activity WHERE query LIKE ''SELECT pg_sleep(1%'' AND state = ''active''') AS t(n int))$$);
SELECT regress_wait($$(SELECT cancelling = 0 AND resetting = 0 FROM dbpool_pools WHERE pool = 'remote' AND database = current_database())$$);

-- a remote backend that is terminated takes its own statement along, no more
SELECT value FROM regress_try('SELECT pg_terminate_backend(pg_backend_pid())') WHERE item IN ('sqlstate', 'message');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- a remote that cannot be reached, or does not want us
SELECT dbpool_create_pool('nowhere', 'host=/nonexistent port=1');
DO $$
BEGIN
  PERFORM dbpool_ping('nowhere');
EXCEPTION WHEN sqlstate '08001' THEN
  RAISE NOTICE 'caught %: %', SQLSTATE, regexp_replace(SQLERRM, ':.*', '', 's');
END $$;
SELECT connect_error LIKE '%/nonexistent/.s.PGSQL.1%' AS told FROM dbpool_pools WHERE pool = 'nowhere';
ALTER SERVER nowhere OPTIONS (SET host :'remote_host', SET port :'remote_port', ADD dbname 'nonesuch');
DO $$
BEGIN
  PERFORM dbpool_ping('nowhere');
EXCEPTION WHEN sqlstate '08001' THEN
  RAISE NOTICE 'caught %', SQLSTATE;
END $$;
SELECT connect_error LIKE '%database "nonesuch" does not exist%' AS told FROM dbpool_pools WHERE pool = 'nowhere';
ALTER SERVER nowhere OPTIONS (SET dbname 'remote');
SELECT dbpool_query('nowhere', 'SELECT ''it works now''');
SET client_min_messages = warning;
SELECT dbpool_drop_pool('nowhere');
DROP FUNCTION regress_try;

-- which errors a transaction may be run again after
SELECT s AS sqlstate, dbpool_is_retryable(s) FROM unnest(ARRAY['08001', '08006', '40001', '40P01', '53300', '55P03', '57P01', '57P02', '57P03',
  '08007', '08P01', '23505', '25006', '25P01', '40003', '53100', '53400', '57014', 'XX000', '00000', NULL]) s;
SELECT dbpool_is_retryable('4000');
SELECT dbpool_is_retryable('40p01');
SELECT dbpool_is_retryable('');
SELECT provolatile, proisstrict, proparallel FROM pg_proc WHERE proname = 'dbpool_is_retryable';
