--
-- connect_sql: what runs in each session of a pool before it serves anybody
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;
SELECT dbpool_exec('remote', $$
  DO $do$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'regress_dbpool_app') THEN CREATE ROLE regress_dbpool_app; END IF;
  END $do$;
  GRANT ALL ON SCHEMA regress TO regress_dbpool_app;
  CREATE TABLE regress.log (pid int DEFAULT pg_backend_pid(), what text);
  GRANT ALL ON regress.log TO regress_dbpool_app;
  CREATE TABLE regress.here (a text);
  INSERT INTO regress.here VALUES ('found by search_path');
  GRANT SELECT ON regress.here TO regress_dbpool_app$$);
ALTER SERVER remote OPTIONS (max_size '1', connect_sql '');
-- what a call finds there
CREATE FUNCTION regress_found(OUT role text, OUT path text, OUT setting text, OUT memory text, OUT temp text, OUT prepared text, OUT pid int) LANGUAGE sql AS $$
  SELECT * FROM dbpool_query('remote', 'SELECT current_user, current_setting(''search_path''), current_setting(''my.app'', true), current_setting(''work_mem''),
    to_regclass(''pg_temp.scratch'')::text, (SELECT string_agg(name, '' '') FROM pg_prepared_statements WHERE from_sql), pg_backend_pid()')
  AS t(a text, b text, c text, d text, e text, f text, g int) $$;
CREATE FUNCTION regress_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  d text;
  h text;
BEGIN
  EXECUTE sql;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
  RETURN format(E'%s: %s\n%s\n%s', SQLSTATE, SQLERRM, regexp_replace(regexp_replace(d, 'connection to server at [^:]*: ', 'at that place: '), 'in [0-9.]+ s', 'soon'), h);
END $$;
CREATE FUNCTION regress_sql(sql text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('ALTER SERVER remote OPTIONS (SET connect_sql %L)', sql); END $$;
\pset format unaligned

-- an empty one is none
SELECT role = current_user AS role, path, setting, memory, temp, prepared FROM regress_found();
-- several statements, one of which gives rows; a change replaces connections
SELECT regress_sql($$SET ROLE regress_dbpool_app; SET search_path = regress, public; SET my.app = 'shop'; SELECT 1 AS dbpool_prepared, set_config('work_mem', '1234kB', false);
  CREATE TEMP TABLE scratch (a int); PREPARE mine AS SELECT 1; INSERT INTO log VALUES (DEFAULT, 'begins')$$);
SELECT role, path, setting, memory, temp, prepared FROM regress_found();
SELECT * FROM dbpool_query('remote', 'SELECT a FROM here') AS t(a text);
-- what a call has changed is put back to that, in the same session
CREATE TABLE regress_changes (n int, sql text);
INSERT INTO regress_changes VALUES (1, 'SET ROLE NONE'), (2, 'RESET ALL'), (3, 'SET search_path = nowhere'), (4, 'DISCARD ALL'), (5, 'DROP TABLE pg_temp.scratch; SET my.app = 1'),
  (6, 'CREATE TEMP TABLE other (a int); LISTEN channel; SELECT pg_advisory_lock(1)'), (7, 'DEALLOCATE ALL'), (8, 'SET datestyle = german'), (9, 'DEALLOCATE mine; SET xmloption = document'),
  (10, 'SET default_transaction_read_only = on');
DO $$
DECLARE
  c regress_changes;
  before text := regress_found();
BEGIN
  FOR c IN SELECT * FROM regress_changes ORDER BY n LOOP
    BEGIN
      PERFORM dbpool_exec('remote', c.sql);
    EXCEPTION WHEN OTHERS THEN
      RAISE 'after %: %', c.sql, SQLERRM;
    END;
    IF regress_found()::text <> before THEN
      RAISE 'after %: %, not %', c.sql, regress_found(), before;
    END IF;
  END LOOP;
END $$;
-- nor is anything left by a call that fails, and leaves a transaction open
SELECT regress_try($$SELECT dbpool_exec('remote', 'BEGIN; SET work_mem = 64; DROP TABLE pg_temp.scratch')$$);
SELECT role, path, setting, memory, temp, prepared FROM regress_found();
-- it has run again for each of them
SELECT * FROM dbpool_query('remote', 'SELECT count(DISTINCT pid), count(*) > 10 FROM regress.log') AS t(sessions int, often boolean);
-- a read-only local transaction makes the session read-only, and then it is as it was
BEGIN READ ONLY;
SET LOCAL dbpool.inherit_read_only = on;
SELECT * FROM dbpool_query('remote', 'SHOW default_transaction_read_only') AS t(read_only text);
COMMIT;
SELECT role, path, setting, memory, temp, prepared FROM regress_found();
SELECT regress_sql('SET default_transaction_read_only = on');
BEGIN READ ONLY;
SET LOCAL dbpool.inherit_read_only = on;
SELECT * FROM dbpool_query('remote', 'SHOW default_transaction_read_only') AS t(read_only text);
COMMIT;
SELECT * FROM dbpool_query('remote', 'SHOW default_transaction_read_only') AS t(read_only text);
-- our own settings are as always, and so are those that are not our business
SELECT regress_sql('SET datestyle = german; SET intervalstyle = iso_8601; SET extra_float_digits = 0; SET xmloption = document; SET timezone = ''Asia/Tokyo''');
SELECT * FROM dbpool_query('remote', 'SELECT date ''2026-11-29'', interval ''1 day'', 0.1::float8 + 0.2, current_setting(''xmloption''), current_setting(''timezone'')')
  AS t(a text, b text, c text, d text, e text);
-- our settings come before it, too
SELECT regress_sql($$SET my.app = ''; SELECT set_config('my.app', date '2026-11-29' || ' ' || interval '1 day', false)$$);
SELECT setting FROM regress_found();
-- nothing in it runs into what is ours
SELECT regress_sql('SET my.app = 1 -- the first');
SELECT setting FROM regress_found();
SELECT regress_sql('-- nothing at all');
SELECT setting FROM regress_found();
SELECT regress_sql('SET my.app = ''1');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SET my.app = 1 /* ');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
-- transactions of its own, and what is left behind
SELECT regress_sql('BEGIN; SET my.app = 2; COMMIT');
SELECT setting FROM regress_found();
SELECT regress_sql('BEGIN; SET my.app = 2');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('BEGIN; COMMIT AND CHAIN');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
-- what is refused
SELECT regress_sql('SET client_encoding = latin1');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SELECT set_config(''client_encoding'', ''win1252'', false)');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SET NAMES ''UTF8''');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('COPY regress.log FROM STDIN');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SET my.app = 1; COPY regress.log TO STDOUT');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SET my.app = 1; SELEKT');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SELECT * FROM regress.nowhere');
SELECT regress_try('SELECT dbpool_exec(''remote'', ''SELECT 1'')');
SELECT regress_sql('SELECT 1 / 0');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SELECT repeat(''x'', 60000)');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_sql('SELECT repeat(''x'', 262200)');
-- the row is seen to be too long, or all of it to be too much, as the pieces come
SELECT regexp_replace(regress_try('SELECT dbpool_ping(''remote'')'), 'sent (a row of [0-9]+ bytes, .* at most|more than 262144 bytes in answer to connect_sql)', 'sent too much') AS regress_try;
SELECT regress_sql('SELECT pg_terminate_backend(pg_backend_pid())');
SELECT split_part(regress_try('SELECT dbpool_ping(''remote'')'), E'\n', 2) ~ 'connect_sql failed: FATAL:  terminating connection' AS says_so;
-- all that speaks against the pool, and not against the server
SELECT state, failures_in_row FROM dbpool_endpoints WHERE port = :'remote_port' AND host = :'remote_host';
-- one that is refused what it wants to write
ALTER SERVER remote OPTIONS (ADD read_only 'true');
SELECT regress_sql('INSERT INTO regress.log VALUES (0)');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
-- a pool that is read-only stays so
SELECT regress_sql('SET default_transaction_read_only = off');
SELECT regress_try($$SELECT dbpool_exec('remote', 'INSERT INTO regress.log VALUES (0)')$$);
ALTER SERVER remote OPTIONS (DROP read_only);
-- a role that the pool is for is not one that connect_sql may make of the session
ALTER SERVER remote OPTIONS (ADD target_session_attrs 'read-write');
SELECT regress_sql('SET default_transaction_read_only = on');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
ALTER SERVER remote OPTIONS (DROP target_session_attrs);
-- back again
SELECT regress_sql('SET my.app = 3');
SELECT setting FROM regress_found();

-- when a pool is made
SELECT regress_try(format('SELECT dbpool_create_pool(%L, %L, %L, false, true)', 'p', :'remote_conninfo', '{"connect_sql": "SELECT wrong"}'));
SELECT dbpool_create_pool('p', :'remote_conninfo', '{"connect_sql": "SET my.app = 4"}', "check" => true);
SELECT * FROM dbpool_query('p', 'SHOW my.app') AS t(a text);
SELECT srvoptions[array_length(srvoptions, 1)] FROM pg_foreign_server WHERE srvname = 'p';
-- it has a length
DO $$ BEGIN PERFORM regress_sql('SET my.app = ' || repeat('1', 4083)); END $$;
SELECT length(setting) FROM regress_found();
DO $$ BEGIN PERFORM regress_sql('SET my.app = ' || repeat('1', 4084)); END $$;
ALTER USER MAPPING FOR CURRENT_USER SERVER p OPTIONS (ADD connect_sql 'SELECT 1');

-- the owner of a server does not run SQL with rights of others that no password of theirs gives
CREATE ROLE regress_dbpool_alice;
CREATE ROLE regress_dbpool_bob;
ALTER SERVER p OWNER TO regress_dbpool_alice;
GRANT USAGE ON FOREIGN SERVER p TO regress_dbpool_bob;
CREATE USER MAPPING FOR regress_dbpool_bob SERVER p OPTIONS (user :'USER', password_required 'false');
CREATE USER MAPPING FOR regress_dbpool_alice SERVER p OPTIONS (user :'USER', password_required 'false');
SET ROLE regress_dbpool_bob;
SELECT dbpool_ping('p');
SET ROLE regress_dbpool_alice;
SELECT * FROM dbpool_query('p', 'SHOW my.app') AS t(a text);
ALTER SERVER p OPTIONS (SET connect_sql '');
SET ROLE regress_dbpool_bob;
SELECT dbpool_ping('p') IS NOT NULL AS pong;
RESET ROLE;
ALTER SERVER p OPTIONS (SET connect_sql 'SET my.app = 5');
DROP SERVER p CASCADE;
DROP ROLE regress_dbpool_alice, regress_dbpool_bob;

SELECT regress_sql('');
SELECT dbpool_exec('remote', 'DROP SCHEMA regress CASCADE; DROP ROLE regress_dbpool_app');
DROP TABLE regress_changes;
DROP FUNCTION regress_found, regress_try, regress_sql;
