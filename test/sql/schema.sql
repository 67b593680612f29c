--
-- The extension in a schema of its own, and functions that others plant beside it
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup
\set VERBOSITY default

SET client_min_messages = warning;
CREATE ROLE regress_dbpool_user;
CREATE SCHEMA "regress own";
DROP EXTENSION dbpool CASCADE;
CREATE EXTENSION dbpool SCHEMA "regress own";
SELECT count(*) FROM pg_proc WHERE proname LIKE 'dbpool\_%' AND pronamespace = 'public'::regnamespace;
SELECT to_regclass('dbpool_pools') IS NULL AS not_found;
-- with its schema, and with none of it in the search_path
SELECT "regress own".dbpool_create_pool('remote', :'remote_conninfo');
SELECT * FROM "regress own".dbpool_query('remote', 'SELECT 42') AS t(a int);
SELECT "regress own".dbpool_bulk_insert('remote', 'regress.nowhere', 'SELECT 1');
SELECT pool, state FROM "regress own".dbpool_pools WHERE database = current_database();
SELECT "regress own".dbpool_add_migration('remote', 1, 'one', 'CREATE TABLE regress.one ()', 'DROP TABLE regress.one');
SELECT version, status FROM "regress own".dbpool_migrate('remote');
SELECT version, status FROM "regress own".dbpool_migration_status('remote');
SELECT version, status FROM "regress own".dbpool_migration_history;
SELECT version, status FROM "regress own".dbpool_migration_rollback('remote');
SELECT "regress own".dbpool_drop_pool('remote');
SELECT "regress own".dbpool_query('remotes', 'SELECT 1');

-- nobody's function is called in place of ours, where others may create some
GRANT CREATE, USAGE ON SCHEMA "regress own" TO regress_dbpool_user;
CREATE SCHEMA regress_theirs AUTHORIZATION regress_dbpool_user;
SET ROLE regress_dbpool_user;
CREATE FUNCTION "regress own".dbpool_exec(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'captured' $$;
CREATE FUNCTION "regress own".dbpool_query(text, text, int) RETURNS text LANGUAGE sql AS $$ SELECT 'captured' $$;
CREATE FUNCTION "regress own".dbpool_create_pool(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'captured' $$;
CREATE PROCEDURE "regress own".dbpool_ping(text) LANGUAGE sql AS $$ SELECT 'captured' $$;
CREATE AGGREGATE "regress own".dbpool_ping(text) (sfunc = textcat, stype = text);
CREATE FUNCTION regress_theirs.dbpool_exec(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'captured' $$;
ALTER FUNCTION regress_theirs.dbpool_exec SET SCHEMA "regress own";
CREATE FUNCTION "regress own".innocent(text, text) RETURNS text LANGUAGE sql AS $$ SELECT 'captured' $$;
ALTER FUNCTION "regress own".innocent RENAME TO dbpool_exec;
-- nor a type, which is written like a function of one argument where it is a cast
CREATE FUNCTION regress_theirs.spy(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'captured'; RETURN true; END $$;
CREATE DOMAIN "regress own".dbpool_ping AS text CHECK (regress_theirs.spy(value));
CREATE DOMAIN "regress own".innocent_text AS text CHECK (regress_theirs.spy(value));
ALTER DOMAIN "regress own".innocent_text RENAME TO dbpool_ping;
CREATE DOMAIN regress_theirs.dbpool_reset AS text CHECK (regress_theirs.spy(value));
ALTER DOMAIN regress_theirs.dbpool_reset SET SCHEMA "regress own";
CREATE TYPE "regress own".dbpool_migrate AS ENUM ('captured');
CREATE TYPE "regress own".dbpool_migrate AS RANGE (subtype = text);
-- nor an operator, which would fit a number better
CREATE FUNCTION regress_theirs.spy("regress own".dbpool_migration_version, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'captured'; RETURN true; END $$;
CREATE OPERATOR "regress own".= (leftarg = "regress own".dbpool_migration_version, rightarg = int, function = regress_theirs.spy);
CREATE OPERATOR regress_theirs.= (leftarg = "regress own".dbpool_migration_version, rightarg = int, function = regress_theirs.spy);
ALTER OPERATOR regress_theirs.= ("regress own".dbpool_migration_version, int) SET SCHEMA "regress own";
-- other names are free
CREATE DOMAIN "regress own".dbpool_text AS text;
CREATE TABLE "regress own".dbpool_resume (a int);
CREATE FUNCTION "regress own".dbpool_mine(text) RETURNS text LANGUAGE sql AS $$ SELECT 'mine' $$;
RESET ROLE;
SELECT "regress own".dbpool_ping('nobody');
SELECT "regress own".dbpool_reset('nobody');
SELECT "regress own".dbpool_migrate('nobody');
SELECT 1 OPERATOR("regress own".=) '2'::"regress own".dbpool_migration_version, '1'::"regress own".dbpool_migration_version OPERATOR("regress own".=) 2;
SET client_min_messages = error;
DROP EXTENSION dbpool CASCADE;
SET client_min_messages = warning;

-- nor was there before
CREATE EXTENSION dbpool SCHEMA "regress own";
DROP FUNCTION "regress own".dbpool_mine;
CREATE EXTENSION dbpool SCHEMA "regress own";
DROP DOMAIN "regress own".dbpool_text;
CREATE EXTENSION dbpool SCHEMA "regress own";
DROP EXTENSION dbpool;
SET client_min_messages = error;
DROP SCHEMA "regress own", regress_theirs CASCADE;
DROP ROLE regress_dbpool_user;
CREATE EXTENSION dbpool;
