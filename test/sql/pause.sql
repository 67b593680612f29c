--
-- dbpool_pause, dbpool_resume and dbpool_reset
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_ping('remote') IS NOT NULL AS pong;
SELECT dbpool_pause('remote');
SELECT state, waiting FROM dbpool_pools WHERE pool = 'remote' AND database = current_database();
-- what comes waits, up to acquire_timeout
ALTER SERVER remote OPTIONS (acquire_timeout '100ms');
CREATE FUNCTION regress_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
  hint text;
BEGIN
  PERFORM dbpool_query('remote', sql);
  RETURN 'it ran';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN format(E'%s: %s\n%s\n%s', SQLSTATE, SQLERRM, detail, hint);
END $$;
SELECT regress_try('SELECT 1');
SELECT regress_try('SELECT 1');
SELECT timeouts FROM dbpool_stat_pools WHERE pool = 'remote' AND database = current_database();
-- to pause twice is to pause; a cancel ends the wait
SELECT dbpool_pause('remote');
ALTER SERVER remote OPTIONS (SET acquire_timeout '30s');
SET statement_timeout = '100ms';
SELECT dbpool_ping('remote');
RESET statement_timeout;
-- ALTER SERVER and dbpool_reset do not end it, dbpool_resume does
SELECT dbpool_reset('remote');
SELECT state FROM dbpool_pools WHERE pool = 'remote' AND database = current_database();
SELECT dbpool_resume('remote');
SELECT state FROM dbpool_pools WHERE pool = 'remote' AND database = current_database();
SELECT regress_try('SELECT 1');
SELECT dbpool_resume('remote');
SELECT regress_try('SELECT 1');

-- it can be resumed from another session, which is one of a pool here
SELECT dbpool_pause('remote');
SELECT dbpool_create_pool('here', format('host=%s port=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
SELECT dbpool_exec('here', 'SELECT dbpool_resume(''remote'')');
SELECT regress_try('SELECT 1');

-- other pools are not concerned
SELECT dbpool_pause('remote');
SELECT dbpool_query('here', 'SELECT ''not paused''');
SELECT dbpool_resume('remote');

-- pools of the same server and other mappings are paused with it, also one that is first used then
CREATE ROLE regress_dbpool_user;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_user;
CREATE USER MAPPING FOR regress_dbpool_user SERVER remote OPTIONS (password_required 'false');
SELECT format('ALTER USER MAPPING FOR regress_dbpool_user SERVER remote OPTIONS (ADD user %L)', current_user) \gexec
ALTER SERVER remote OPTIONS (SET acquire_timeout '100ms');
SELECT dbpool_pause('remote');
SET ROLE regress_dbpool_user;
SELECT split_part(regress_try('SELECT 1'), E'\n', 1);
RESET ROLE;
ALTER SERVER remote OPTIONS (SET acquire_timeout '30s');
SELECT dbpool_resume('remote');
SET ROLE regress_dbpool_user;
SELECT regress_try('SELECT 1');
RESET ROLE;
DROP USER MAPPING FOR regress_dbpool_user SERVER remote;
REVOKE USAGE ON FOREIGN SERVER remote FROM regress_dbpool_user;
DROP ROLE regress_dbpool_user;

-- dbpool_reset gives new connections
SELECT v AS pid FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int) \gset
SELECT v = :pid AS same FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int);
SELECT dbpool_reset('remote');
SELECT v = :pid AS same FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int);

-- one that nobody has used is paused as well, and for whoever uses it first
SELECT dbpool_create_pool('cold', :'remote_conninfo', '{"acquire_timeout": "100ms"}');
SELECT dbpool_pause('cold');
SELECT state FROM dbpool_pools WHERE pool = 'cold' AND database = current_database();
SELECT dbpool_pause('cold');
SELECT count(*) FROM dbpool_stat_pools WHERE pool = 'cold';
SELECT dbpool_ping('cold');
SELECT state FROM dbpool_pools WHERE pool = 'cold' AND database = current_database();
ALTER SERVER cold OPTIONS (SET acquire_timeout '30s');
SELECT dbpool_resume('cold');
SELECT dbpool_ping('cold') IS NOT NULL AS pong;
SELECT dbpool_resume('cold');
SELECT dbpool_reset('cold');
SELECT dbpool_reset('cold');

-- only for the server's owner
CREATE ROLE regress_dbpool_user;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT dbpool_pause('remote');
SELECT dbpool_resume('remote');
SELECT dbpool_reset('remote');
SELECT dbpool_drop_pool('remote');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER remote FROM regress_dbpool_user;
-- a pool that was paused is dropped and made again: not paused
SELECT dbpool_pause('remote');
SET client_min_messages = warning;
DROP SERVER remote CASCADE;
RESET client_min_messages;
SELECT dbpool_create_pool('remote', :'remote_conninfo');
SELECT regress_try('SELECT 1');

SET client_min_messages = warning;
SELECT dbpool_drop_pool('here');
SELECT dbpool_drop_pool('cold');
DROP FUNCTION regress_try;
DROP ROLE regress_dbpool_user;
