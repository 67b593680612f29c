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
SELECT version, status FROM dbpool_rollback('target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)', 'DROP TABLE one');
SELECT version, status FROM dbpool_rollback('target');
SELECT version, status FROM dbpool_migrate('target');
SELECT dbpool_add_migration('target', 1, 'one', 'CREATE TABLE one (a int)');
SELECT version, status FROM dbpool_rollback('target');
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
SELECT dbpool_migration_forget('target');
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

SELECT dbpool_drop_pool('target');
DELETE FROM dbpool_migrations WHERE pool = 'target';
DELETE FROM dbpool_migration_history WHERE pool = 'target';
SELECT dbpool_exec('remote', 'DROP DATABASE regress_target WITH (FORCE)');
DROP FUNCTION regress_history;
