--
-- Texts that come often are prepared at the remote: what that may not change
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

ALTER SERVER remote OPTIONS (max_size '1');
-- what dbpool has prepared there; asked by another text each time, which is not
CREATE FUNCTION regress_prepared() RETURNS TABLE (statement text) LANGUAGE sql AS $$
  SELECT s FROM dbpool_query('remote', $q$
    SELECT statement FROM pg_prepared_statements WHERE name LIKE 'dbpool\_%' AND name <> 'dbpool_number' AND NOT from_sql ORDER BY 1 -- $q$ || clock_timestamp()) AS t(s text) $$;
-- runs a statement so many times and gives the last answer
CREATE FUNCTION regress_run(sql text, param text, times int DEFAULT 10) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
BEGIN
  FOR i IN 1 .. times LOOP
    SELECT string_agg(j::text, ' ') INTO answer FROM dbpool_query_json('remote', sql, param) j;
  END LOOP;
  RETURN answer;
END $$;
SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (a int, b text); INSERT INTO regress.t VALUES (1, ''one''), (2, ''two'')');

-- after prepare_threshold uses, not before
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'one', 5);
SELECT regress_prepared();
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 1);
SELECT regress_prepared();
SELECT prepared FROM dbpool_connections;
-- what was learned is not learned again: at once on another connection
SELECT dbpool_reset('remote') LIKE 'reset, %' AS reset;
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 1);
SELECT regress_prepared();
-- never
ALTER SERVER remote OPTIONS (ADD prepare_threshold '0');
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 20);
SELECT regress_prepared();
ALTER SERVER remote OPTIONS (SET prepare_threshold '2', ADD statement_cache_size '0');
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 20);
SELECT regress_prepared();

-- no more than statement_cache_size, and those that were used last
ALTER SERVER remote OPTIONS (SET statement_cache_size '5');
SELECT count(regress_run(format('SELECT %s + $1::int', i), '1')) FROM generate_series(1, 15) i;
SELECT regress_prepared();
SELECT regress_run('SELECT 12 + $1::int', '1');
SELECT count(regress_run(format('SELECT %s + $1::int', i), '1')) FROM generate_series(21, 24) i;
SELECT regress_prepared();
SELECT prepared FROM dbpool_connections;
-- more texts than the pool can know
SELECT count(regress_run(format('SELECT %s + $1::int', i), '1', 4)) FROM generate_series(1, 600) i;
SELECT count(*) FROM regress_prepared();
SELECT regress_run('SELECT 7 + $1::int', '1', 4);
ALTER SERVER remote OPTIONS (DROP statement_cache_size);

-- the result's shape changes
SELECT regress_run('SELECT * FROM regress.t WHERE b = $1', 'one');
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ADD COLUMN c int DEFAULT 3');
SELECT regress_run('SELECT * FROM regress.t WHERE b = $1', 'one', 1);
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN c TYPE text');
SELECT regress_run('SELECT * FROM regress.t WHERE b = $1', 'one', 1);
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t DROP COLUMN c');
SELECT regress_run('SELECT * FROM regress.t WHERE b = $1', 'one', 1);
SELECT repeats FROM dbpool_stat_pools;
-- a parameter's type changes
SELECT regress_run('SELECT b FROM regress.t WHERE a = $1', '1');
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE text');
SELECT regress_run('SELECT b FROM regress.t WHERE a = $1', '1', 1);
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (''x'', ''a letter'')');
SELECT regress_run('SELECT b FROM regress.t WHERE a = $1', 'x', 1);
SELECT dbpool_exec('remote', 'DELETE FROM regress.t WHERE a = ''x''; ALTER TABLE regress.t ALTER COLUMN a TYPE int USING a::int');
SELECT regress_run('SELECT b FROM regress.t WHERE a = $1', '2', 1);
-- a parameter that is stored takes the new type as well
SELECT regress_run('UPDATE regress.t SET a = $1 WHERE b = ''one'' RETURNING a', '7');
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE numeric');
SELECT regress_run('UPDATE regress.t SET a = $1 WHERE b = ''one'' RETURNING a', '7.5', 1);
-- a parameter's type goes, and another one of its name comes
SELECT dbpool_exec('remote', $$CREATE TYPE regress.st AS ENUM ('new', 'old'); CREATE TABLE regress.typed (a int, s regress.st);
  INSERT INTO regress.typed VALUES (1, 'new'), (2, 'old')$$);
SELECT regress_run('SELECT a FROM regress.typed WHERE s = $1', 'new'), regress_run('SELECT a FROM regress.typed WHERE s = ANY ($1)', '{new,old}'),
  regress_run('INSERT INTO regress.typed VALUES (3, $1) RETURNING a', 'new', 8), regress_run('SELECT $1::regress.st AS s', 'old');
SELECT dbpool_exec('remote', $$ALTER TYPE regress.st RENAME TO st_old; CREATE TYPE regress.st AS ENUM ('new', 'old', 'newer');
  ALTER TABLE regress.typed ALTER s TYPE regress.st USING s::text::regress.st; DROP TYPE regress.st_old$$);
SELECT regress_run('SELECT a FROM regress.typed WHERE s = $1 AND a < 3', 'new', 1), regress_run('SELECT a FROM regress.typed WHERE s = $1', 'old', 1),
  regress_run('SELECT a FROM regress.typed WHERE s = ANY ($1)', '{old}', 1), regress_run('INSERT INTO regress.typed VALUES (4, $1) RETURNING a', 'newer', 1),
  regress_run('SELECT $1::regress.st AS s', 'newer', 1);
-- the same of a domain, a composite type, a range, a table's row type; with their schema, in one go
SELECT dbpool_exec('remote', $$CREATE SCHEMA regress_types; CREATE DOMAIN regress_types.d AS int; CREATE TYPE regress_types.c AS (x int, y text);
  CREATE TYPE regress_types.r AS RANGE (subtype = int); CREATE TABLE regress_types.t (x int, y text); CREATE TYPE regress_types.e AS ENUM ('one')$$);
CREATE VIEW regress_typed AS SELECT t, p, format('SELECT %L AS t, $1::regress_types.%s AS v', t, t) AS sql
  FROM (VALUES ('d', '1'), ('c', '(1,a)'), ('r', '[1,2)'), ('t', '(1,a)'), ('e', 'one'), ('d[]', '{1}'), ('c[]', '{"(1,a)"}'), ('r[]', '{"[1,2)"}'), ('t[]', '{"(1,a)"}'), ('e[]', '{one}')) v(t, p);
SELECT regress_run(sql, p) FROM regress_typed;
SELECT dbpool_exec('remote', $$SET client_min_messages = warning; DROP SCHEMA regress_types CASCADE;
  CREATE SCHEMA regress_types; CREATE DOMAIN regress_types.d AS int; CREATE TYPE regress_types.c AS (x int, y text);
  CREATE TYPE regress_types.r AS RANGE (subtype = int); CREATE TABLE regress_types.t (x int, y text); CREATE TYPE regress_types.e AS ENUM ('one')$$);
SELECT regress_run(sql, p, 1) FROM regress_typed;
SELECT regress_run(sql, p, 1) FROM regress_typed WHERE t = 'e';
-- and of an extension
SELECT dbpool_exec('remote', 'SET client_min_messages = warning; DROP SCHEMA regress_types CASCADE; CREATE SCHEMA regress_types; CREATE EXTENSION IF NOT EXISTS citext SCHEMA regress_types');
SELECT regress_run('SELECT $1::regress_types.citext = ''ABC'' AS v', 'abc');
SELECT dbpool_exec('remote', 'DROP EXTENSION citext; CREATE EXTENSION citext SCHEMA regress_types');
SELECT regress_run('SELECT $1::regress_types.citext = ''ABC'' AS v', 'abc', 1);
-- gone for good: the error of a statement that is prepared anew
SELECT dbpool_exec('remote', 'SET client_min_messages = warning; DROP SCHEMA regress_types CASCADE');
SELECT regress_run('SELECT $1::regress_types.citext = ''ABC'' AS v', 'abc', 1);
DROP VIEW regress_typed;
-- dropped, and made anew
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two');
SELECT dbpool_exec('remote', 'DROP TABLE regress.t');
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 1);
SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (b text, a numeric); INSERT INTO regress.t VALUES (''two'', 22)');
SELECT regress_run('SELECT a FROM regress.t WHERE b = $1', 'two', 1);

-- the search path decides at each use
SELECT dbpool_exec('remote', 'CREATE TABLE regress.here (a int); INSERT INTO regress.here VALUES (1);
  CREATE SCHEMA regress_other; CREATE TABLE regress_other.here (a int); INSERT INTO regress_other.here VALUES (2)');
ALTER SERVER remote OPTIONS (ADD options '-c search_path=regress,regress_other');
SELECT regress_run('SELECT a, $1 AS p FROM here', 'x');
SELECT dbpool_exec('remote', 'DROP TABLE regress.here');
SELECT regress_run('SELECT a, $1 AS p FROM here', 'x', 1);
SELECT dbpool_exec('remote', 'SET search_path = pg_catalog');
SELECT regress_run('SELECT a, $1 AS p FROM here', 'x', 1);
SELECT dbpool_exec('remote', 'DROP SCHEMA regress_other CASCADE');
ALTER SERVER remote OPTIONS (DROP options);

-- somebody takes them away
SELECT regress_run('SELECT $1 || ''!''', 'x');
SELECT dbpool_exec('remote', 'DISCARD ALL');
SELECT regress_run('SELECT $1 || ''!''', 'x', 1);
SELECT dbpool_exec('remote', 'DEALLOCATE ALL');
SELECT regress_run('SELECT $1 || ''!''', 'x', 1);
SELECT dbpool_exec('remote', 'SELECT 1; DEALLOCATE ALL; SELECT 2');
SELECT regress_run('SELECT $1 || ''!''', 'x', 1);
SELECT dbpool_exec('remote', 'DO $$ BEGIN EXECUTE ''DEALLOCATE ALL''; END $$');
SELECT regress_run('SELECT $1 || ''!''', 'x', 1);
-- one's own are gone with the call, dbpool's stay through a reset
SELECT dbpool_exec('remote', 'SET work_mem = ''1MB''');
SELECT regress_prepared();
SELECT dbpool_exec('remote', 'PREPARE mine AS SELECT 1; EXECUTE mine');
SELECT dbpool_exec('remote', 'EXECUTE mine');
SELECT regress_run('SELECT $1 || ''!''', 'x', 1);

-- errors are those of the statement
SELECT regress_run('SELECT 10 / $1::int AS q', '5');
SELECT regress_run('SELECT 10 / $1::int AS q', '0', 1);
SELECT regress_run('SELECT 10 / $1::int AS q', 'five', 1);
SELECT regress_run('SELECT 10 / $1::int AS q', '2', 1);
SELECT regress_run('SELECT 10 / $1::int AS q', NULL, 1);
-- also that of one that cannot be prepared, again and again
SELECT dbpool_query('remote', 'SELECT nothing FROM regress.nowhere');
SELECT dbpool_query('remote', 'SELECT nothing FROM regress.nowhere');
SELECT dbpool_query('remote', 'SELECT nothing FROM regress.nowhere');
SELECT dbpool_query('remote', 'SELECT nothing FROM regress.nowhere');
-- what a function says of a prepared statement is its own affair
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.run(name text) RETURNS text LANGUAGE plpgsql AS
  'BEGIN IF name <> '''' THEN EXECUTE ''EXECUTE '' || name; END IF; RETURN ''done''; END'$$);
SELECT regress_run('SELECT regress.run($1)', '');
SELECT dbpool_stat_reset();
SELECT regress_run('SELECT regress.run($1)', 'nobody', 1);
SELECT repeats FROM dbpool_stat_pools;
-- the same text with other parameters than it has; the message names the statement
\set VERBOSITY sqlstate
SELECT dbpool_query('remote', 'SELECT $1 || ''!''', 'a', 'b');
SELECT dbpool_query('remote', 'SELECT $1 || ''!''');
\set VERBOSITY default
SELECT dbpool_query('remote', 'SELECT $1 || ''!''', 'a');

DROP FUNCTION regress_prepared, regress_run;
