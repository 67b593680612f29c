--
-- Migrations that went wrong can go on: other texts, another database, hints
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;

CREATE FUNCTION regress_history() RETURNS TABLE (version bigint, direction text, mode text, status text) LANGUAGE sql AS
$$ SELECT version, direction, mode, status FROM dbpool_migration_history WHERE pool = 'target' ORDER BY id $$;
SELECT dbpool_exec('remote', 'DROP DATABASE IF EXISTS regress_target');
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_target');
SELECT dbpool_create_pool('target', :'remote_conninfo' || ' dbname=regress_target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)', 'DROP TABLE ones');
SELECT version, status FROM dbpool_migrate('target');

-- the way back of what has been applied can be corrected
SELECT version, status FROM dbpool_migration_rollback('target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)', 'DROP TABLE one');
SELECT version, status FROM dbpool_migration_rollback('target');
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)');
SELECT version, status FROM dbpool_migration_rollback('target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)', 'DROP TABLE one');
SELECT dbpool_add_migration('target', 1, 'one', E'CREATE TABLE one (a int)\r\n', 'DROP TABLE one');
-- what was applied only on demand, which the history shows
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int) -- the first');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int) -- the first', 'DROP TABLE one', '{"replace_applied": "yes"}');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int) -- the first', 'DROP TABLE one', '{"replace_applied": true}');
SELECT version, status FROM dbpool_migration_status('target');
SELECT version, status FROM dbpool_migrate('target');
SELECT version, action FROM dbpool_migration_repair('target');
SELECT version, action FROM dbpool_migration_repair('target', force => true);
SELECT version, status FROM dbpool_migration_status('target');
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM regress_history();
-- a table's owner cannot get around that
UPDATE dbpool_migrations SET up_sql = 'SELECT 1' WHERE pool = 'target';

-- the database is dropped and made again
SELECT dbpool_exec('remote', 'DROP DATABASE regress_target WITH (FORCE)');
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_target');
\set VERBOSITY terse
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (b int)', 'DROP TABLE one');
SELECT version, status FROM dbpool_migrate('target');
\set VERBOSITY default
CREATE FUNCTION regress_hint(sql text) RETURNS text LANGUAGE plpgsql AS
$$ DECLARE hint text; BEGIN EXECUTE sql; RETURN NULL;
   EXCEPTION WHEN object_not_in_prerequisite_state THEN GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT; RETURN hint; END $$;
SELECT regress_hint($$ SELECT dbpool_migrate('target') $$) AS hint \gset
\echo :hint
SELECT (regexp_match(:'hint', 'SELECT dbpool_migration_forget[^ ]*\)'))[1] AS forget \gset
:forget;
SELECT dbpool_migration_forget('target');
SELECT dbpool_migration_forget(NULL);
SELECT dbpool_migration_forget('nobody');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (b int)', 'DROP TABLE one');
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM regress_history() OFFSET 5;
CREATE ROLE regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT dbpool_migration_forget('target');
RESET ROLE;
DROP ROLE regress_dbpool_user;

-- what pg_dump puts around is left out
SELECT dbpool_add_migration('target', 2, 'dump', E'\\restrict abcDEF123\n\nCREATE TABLE two (a text);\n\\unrestrict abcDEF123\n\\restrict x\nINSERT INTO two VALUES (''\\restrict y'');\nINSERT INTO two VALUES (''z'');\n\\unrestrict x\n');
SELECT line, kind, statement FROM dbpool_migration_statements(E'\\restrict abc\nSELECT 1;\n\\unrestrict abc');
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM dbpool_migration_statements(E'SELECT 1; \\restrict abc');
SELECT * FROM dbpool_migration_statements(E'\\restricted abc');
SELECT * FROM dbpool_migration_statements(E'SELECT\n\\unrestrict abc');

-- hints
SELECT dbpool_add_migration('target', 3, 'value', 'CREATE TYPE mood AS ENUM (''sad''); CREATE TABLE moods (m mood)');
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 4, 'another value', 'ALTER TYPE mood ADD VALUE ''glad''');
SELECT dbpool_add_migration('target', 5, 'use it', 'INSERT INTO moods VALUES (''glad'')');
SELECT version, status FROM dbpool_migrate('target', dry_run => true);
SELECT version, status FROM dbpool_migrate('target', grouped => true);
SELECT version, status FROM dbpool_migrate('target', 4);
SELECT version, status FROM dbpool_migrate('target', grouped => true);
SELECT dbpool_add_migration('target', 6, 'outside', E'-- no-transaction\nCREATE TABLE outside (a int)');
SELECT dbpool_add_migration('target', 7, 'needs it', 'INSERT INTO outside VALUES (1)');
SELECT version, status FROM dbpool_migrate('target', dry_run => true);
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 8, 'commits', 'DO $$ BEGIN COMMIT; END $$');
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 8, 'commits', E'-- no-transaction\nDO $$ BEGIN COMMIT; END $$');
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 9, 'writes', 'CREATE TABLE nine ()');
ALTER SERVER target OPTIONS (ADD options '-c default_transaction_read_only=on');
SELECT version, status FROM dbpool_migrate('target');
ALTER SERVER target OPTIONS (DROP options);


-- how strings are read changes within a text
SELECT dbpool_exec('remote', 'DROP DATABASE regress_target WITH (FORCE)');
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_target');
SELECT dbpool_migration_forget('target');
DELETE FROM dbpool_migrations WHERE pool = 'target';
CREATE FUNCTION regress_strings() RETURNS TABLE (i int, a text) LANGUAGE sql AS
$$ SELECT * FROM dbpool_query('target', 'SELECT i, a FROM strings ORDER BY i, a') AS t(i int, a text) $$;
SELECT dbpool_add_migration('target', 1, 'strings', $$
CREATE TABLE strings (i int, a text);
INSERT INTO strings VALUES (1, 'C:\'); INSERT INTO strings VALUES (1, 'x;');
SET standard_conforming_strings = off;
INSERT INTO strings VALUES (2, 'it\'s; one'); INSERT INTO strings VALUES (2, 'a\\b');
SET standard_conforming_strings TO 'on';
INSERT INTO strings VALUES (3, 'D:\'); INSERT INTO strings VALUES (3, ';');
SELECT pg_catalog.set_config('standard_conforming_strings', 'off', true);
INSERT INTO strings VALUES (4, '\';');
RESET standard_conforming_strings;
INSERT INTO strings VALUES (5, '\');
$$);
-- and by what no text shows
SELECT dbpool_add_migration('target', 2, 'hidden', $$BEGIN;
INSERT INTO strings VALUES (6, '\\');
DO $x$ BEGIN EXECUTE 'SET standard_' || 'conforming_strings = off'; END $x$;
INSERT INTO strings VALUES (7, '\\'); INSERT INTO strings VALUES (7, '\';');
COMMIT;
$$);
SELECT dbpool_add_migration('target', 3, 'rolled back', $$
INSERT INTO strings VALUES (7, 'b'); INSERT INTO strings VALUES (7, 'c'); INSERT INTO strings VALUES (7, 'd');
SELECT set_config(name, 'off', true) FROM pg_settings WHERE name = 'standard_conforming_strings';
INSERT INTO strings VALUES (7, 'e'); INSERT INTO strings VALUES (7, 'f\\'); INSERT INTO strings VALUES (7, '\\');
SELECT set_config(name, 'on', true) FROM pg_settings WHERE name = 'standard_conforming_strings';
SAVEPOINT s; SET standard_conforming_strings = off; ROLLBACK TO s;
INSERT INTO strings VALUES (8, 'a\\'); INSERT INTO strings VALUES (8, '\');
INSERT INTO strings VALUES (8, ';');
$$);
SELECT dbpool_add_migration('target', 4, 'alone', $$-- no-transaction
INSERT INTO strings VALUES (9, '\');
SET standard_conforming_strings = off;
INSERT INTO strings VALUES (10, 'it\'s; one');
DO $x$ BEGIN EXECUTE 'SET standard_' || 'conforming_strings = on'; END $x$;
INSERT INTO strings VALUES (11, '\\');
$$);
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM regress_strings();
-- the remote's own default
SELECT dbpool_exec('remote', 'ALTER DATABASE regress_target SET standard_conforming_strings = off');
SELECT dbpool_add_migration('target', 5, 'old', $$INSERT INTO strings VALUES (12, 'it\'s; one'); INSERT INTO strings VALUES (12, '\\');$$);
SELECT dbpool_add_migration('target', 6, 'old', $$BEGIN; INSERT INTO strings VALUES (13, 'a\'; COMMIT'); COMMIT;$$);
SELECT dbpool_add_migration('target', 7, 'new', $$-- no-transaction
SET standard_conforming_strings = on; INSERT INTO strings VALUES (14, '\'); RESET ALL; INSERT INTO strings VALUES (15, '\'');$$);
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM regress_strings() WHERE i > 11;
-- where no way is right
SELECT dbpool_add_migration('target', 8, 'neither', $$SELECT 'a\'b'c$$);
SELECT dbpool_add_migration('target', 8, 'neither', $$SELECT E'a\'b$$);
SELECT dbpool_add_migration('target', 8, 'other', $$SELECT 'a\'; SELECT 1$$);
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_exec('remote', 'ALTER DATABASE regress_target RESET standard_conforming_strings');

-- what goose and sql-migrate send as one stays one: all or nothing
SELECT dbpool_add_migration('target', 8, 'blocks', $$-- no-transaction
INSERT INTO strings VALUES (20, 'alone');
  -- +goose StatementBegin
INSERT INTO strings VALUES (20, 'first');
INSERT INTO strings VALUES (20, 1/(pg_current_xact_id()::text::int - pg_current_xact_id()::text::int));
-- +goose StatementEnd
$$);
SELECT version, status FROM dbpool_migrate('target');
SELECT * FROM regress_strings() WHERE i > 19;
SELECT dbpool_migration_resolve('target', 8, 'pending');
SELECT dbpool_add_migration('target', 8, 'blocks', $$-- no-transaction
-- +goose StatementBegin
INSERT INTO strings VALUES (21, pg_current_xact_id());
INSERT INTO strings VALUES (21, pg_current_xact_id())
-- +goose StatementEnd
INSERT INTO strings VALUES (22, pg_current_xact_id());
-- +migrate StatementBegin
INSERT INTO strings VALUES (23, pg_current_xact_id());
INSERT INTO strings VALUES (23, pg_current_xact_id());
-- +migrate StatementEnd
-- +goose statementbegin
INSERT INTO strings VALUES (24, pg_current_xact_id());
-- +goose statementend
INSERT INTO strings VALUES (25, pg_current_xact_id());
INSERT INTO strings VALUES (25, pg_current_xact_id());
$$);
SELECT version, status FROM dbpool_migrate('target');
SELECT i, count(DISTINCT a) FROM regress_strings() WHERE i > 20 GROUP BY i ORDER BY i;

SELECT dbpool_drop_pool('target');
DELETE FROM dbpool_migrations WHERE pool = 'target';
DELETE FROM dbpool_migration_history WHERE pool = 'target';
SELECT dbpool_exec('remote', 'DROP DATABASE regress_target WITH (FORCE)');
DROP FUNCTION regress_history;
DROP FUNCTION regress_hint, regress_strings;
