\set ECHO none
-- What every test begins with: the extension, and one pool, "remote", whose
-- address comes from the environment. "remote_conninfo" is that address.
\getenv remote_host DBPOOL_REMOTE_HOST
\getenv remote_port DBPOOL_REMOTE_PORT
\set remote_conninfo 'host=' :remote_host ' port=' :remote_port ' dbname=remote'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dbpool;
DO $$
DECLARE
  server name;
BEGIN
  FOR server IN SELECT srvname FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = srvfdw WHERE fdwname = 'dbpool' LOOP
    EXECUTE format('DROP SERVER %I CASCADE', server);
  END LOOP;
END $$;
SELECT dbpool_create_pool('remote', :'remote_conninfo') \g /dev/null
SELECT dbpool_exec('remote', 'DROP SCHEMA IF EXISTS regress CASCADE; CREATE SCHEMA regress') \g /dev/null
-- Waits until a condition holds, for what the workers do beside the session.
CREATE OR REPLACE FUNCTION regress_wait(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  met boolean;
  until timestamptz := clock_timestamp() + interval '20s';
BEGIN
  LOOP
    PERFORM pg_stat_clear_snapshot();
    EXECUTE 'SELECT ' || condition INTO met;
    IF met THEN RETURN 'it is so'; END IF;
    IF clock_timestamp() > until THEN RETURN 'it never was so'; END IF;
  END LOOP;
END $$;
RESET client_min_messages;
\set ECHO all
