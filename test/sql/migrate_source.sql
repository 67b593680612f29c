--
-- Migrations as registered in the database: what may be, by whom, and what stays
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;
DELETE FROM dbpool_migration_history WHERE pool IN ('m', 'n', 'renamed');
DELETE FROM dbpool_migrations WHERE pool IN ('m', 'n', 'renamed');
CREATE ROLE regress_dbpool_owner;
CREATE ROLE regress_dbpool_member IN ROLE regress_dbpool_owner;
CREATE ROLE regress_dbpool_granted;
CREATE ROLE regress_dbpool_other;
CREATE SERVER m FOREIGN DATA WRAPPER dbpool;
ALTER SERVER m OWNER TO regress_dbpool_owner;
CREATE SERVER n FOREIGN DATA WRAPPER dbpool;
RESET client_min_messages;
CREATE FUNCTION regress_done(pool name, version bigint, direction text, status text DEFAULT 'done', mode text DEFAULT 'single') RETURNS void LANGUAGE sql
  AS $$ INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid)
        VALUES ($1, $2, $3, $5, $4, now(), current_user, pg_backend_pid()) $$;
CREATE VIEW regress_registered AS
  SELECT pool, version, name, up_sql, down_sql, transaction AS t, out_of_order AS o, file, added_by = session_user AS mine FROM dbpool_migrations WHERE pool IN ('m', 'n', 'renamed') ORDER BY 1, 2;

-- checksums
\set persons 'CREATE TABLE persons (\n    id int,\n    name varchar(255),\n    city varchar(255)\n);\n'
SELECT dbpool_migration_checksum('refinery', 1, 'initial', :'persons') AS refinery, dbpool_migration_checksum('refinery int8', 1, 'initial', :'persons') AS int8;
SELECT dbpool_migration_checksum('dbpool', 1, 'initial', :'persons') = 'sha256:' || encode(sha256(convert_to(:'persons', 'UTF8')), 'hex') AS dbpool, dbpool_migration_checksum('sqlx', 1, 'initial', :'persons') = encode(sha384(convert_to(:'persons', 'UTF8')), 'hex') AS sqlx;
SELECT dbpool_migration_checksum('refinery int8', 20240101120000, 'ä', ''), dbpool_migration_checksum('sqlx', 1, '', 'ä') = encode(sha384('\xc3a4'), 'hex') AS utf8;
SELECT dbpool_migration_checksum('refinery', 20240101120000, 'initial', :'persons');
SELECT dbpool_migration_checksum('flyway', 1, 'initial', :'persons');
SELECT dbpool_migration_checksum('dbpool', 1, NULL, 'x') IS NULL AS strict;

-- registering
SELECT dbpool_add_migration('m', 1, 'initial', :'persons');
SELECT dbpool_add_migration('m', 20240101120000, 'add users', 'CREATE TABLE users ()', 'DROP TABLE users', '{"out_of_order": true}');
SELECT dbpool_add_migration('m', 3, 'index', E'/* a */\n -- No-Transaction \nCREATE INDEX CONCURRENTLY i ON users (id)', E'-- no-transaction\nDROP INDEX CONCURRENTLY i');
SELECT dbpool_add_migration('m', 4, 'vacuum', 'BEGIN; COMMIT; VACUUM', options => '{"transaction": false}');
SELECT dbpool_add_migration('n', 1, 'begin', 'BEGIN; SELECT 1; COMMIT;', 'START TRANSACTION; END');
SELECT dbpool_add_migration('n', 2, 'ünïcode', '-- only a comment', '');
SELECT * FROM regress_registered;
-- the same again, and another
SELECT dbpool_add_migration('m', 1, 'initial', :'persons');
SELECT dbpool_add_migration('m', 1, 'initial', 'CREATE TABLE persons ()', 'DROP TABLE persons');
SELECT dbpool_add_migration('m', 1, 'initial', E'CREATE TABLE persons ();\r\n', E'DROP TABLE persons;\n');
SELECT up_sql, down_sql FROM regress_registered WHERE pool = 'm' AND version = 1;

-- what cannot be
SELECT dbpool_add_migration(NULL, 1, 'a', 'SELECT 1');
SELECT dbpool_add_migration('nonesuch', 1, 'a', 'SELECT 1');
SELECT dbpool_add_migration('m', NULL, 'a', 'SELECT 1');
SELECT dbpool_add_migration('m', 9, NULL, 'SELECT 1');
SELECT dbpool_add_migration('m', 9, 'a', NULL);
SELECT dbpool_add_migration('m', -1, 'a', 'SELECT 1');
SELECT dbpool_add_migration('m', 9, '', 'SELECT 1');
SELECT dbpool_add_migration('m', 9, repeat('ä', 256), 'SELECT 1');
SELECT dbpool_add_migration('m', 9, E'a\nb', 'SELECT 1');
SELECT dbpool_add_migration('m', 9, 'a', E' \r\n\t');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', options => '{"transactional": false}');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', options => '{"transaction": "no"}');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', options => '{"transaction": {"a": 1}}');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', options => '["transaction"]');
\set SHOW_CONTEXT errors
SELECT dbpool_add_migration('m', 9, 'a', E'SELECT 1;\nSELECT ''2;');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', 'SELECT "2;');
SELECT dbpool_add_migration('m', 9, 'a', E'SELECT 1;\n  COMMIT;\nSELECT 2');
\set SHOW_CONTEXT never
SELECT dbpool_add_migration('m', 9, 'a', 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT');
SELECT dbpool_add_migration('m', 9, 'a', 'BEGIN; SELECT 1');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1; COMMIT');
SELECT dbpool_add_migration('m', 9, 'a', 'BEGIN; SELECT 1; COMMIT AND CHAIN');
SELECT dbpool_add_migration('m', 9, 'a', 'BEGIN; SELECT 1; COMMIT; BEGIN; SELECT 2; COMMIT');
SELECT dbpool_add_migration('m', 9, 'a', 'ROLLBACK');
SELECT dbpool_add_migration('m', 9, 'a', 'PREPARE TRANSACTION ''x''');
SELECT dbpool_add_migration('m', 9, 'a', 'SELECT 1', 'ABORT');
SELECT dbpool_add_migration('m', 9, 'a', E'-- no-transaction\nCOMMIT', options => '{"transaction": true}');
SELECT dbpool_add_migration('m', 9, 'a', E'SELECT 1;\n-- no-transaction\nCOMMIT');
SELECT dbpool_add_migration('m', 9, 'a', E'\n-- no-transaction please\nCOMMIT');
SELECT dbpool_add_migration('m', 9, 'a', 'COPY t FROM STDIN');
-- both directions in one text
\set SHOW_CONTEXT errors
SELECT dbpool_add_migration('m', 9, 'a', E'CREATE TABLE a ();\n  -- //@UNDO\n-- drop it\nDROP TABLE a;');
SELECT dbpool_add_migration('m', 9, 'a', E'CREATE TABLE a ()', E'DROP TABLE a;\n--- up: ---\nCREATE TABLE a ()');
\set SHOW_CONTEXT never
SELECT dbpool_add_migration('m', 9, 'a', E'-- migrate:up\nCREATE TABLE a ();\n-- migrate:down transaction:false\nDROP TABLE a;');
SELECT dbpool_add_migration('m', 9, 'a', E'CREATE TABLE a ();\n-- @undo the table above\nDROP TABLE a;');
SELECT dbpool_add_migration('m', 9, 'a', E'CREATE TABLE a ();\n-- down');
SELECT dbpool_drop_migration('m', 9);
-- none of that was registered
SELECT count(*) FROM regress_registered WHERE version = 9;
-- sqlx looks at the beginning only
SELECT dbpool_add_migration('n', 9, 'a', E'-- no-transaction, as it is long\nCOMMIT');
SELECT dbpool_drop_migration('n', 9);
-- the way back can be without a transaction by itself
SELECT dbpool_add_migration('n', 9, 'a', 'SELECT 1', E'-- no-transaction\nCOMMIT');
SELECT transaction FROM dbpool_migrations WHERE pool = 'n' AND version = 9;
SELECT dbpool_drop_migration('n', 9);

-- applied: it stays
SELECT regress_done('m', 1, 'up', 'failed'), regress_done('m', 1, 'up', 'done', 'dry run');
SELECT dbpool_add_migration('m', 1, 'initial', E'CREATE TABLE persons (a int);\n', 'DROP TABLE persons');
SELECT regress_done('m', 1, 'up');
SELECT dbpool_add_migration('m', 1, 'initial', E'CREATE TABLE persons (a int);\n', 'DROP TABLE persons');
SELECT dbpool_add_migration('m', 1, 'initial', 'CREATE TABLE persons (b int)', NULL);
SELECT dbpool_add_migration('m', 1, 'first', E'CREATE TABLE persons (a int);\n', 'DROP TABLE persons', '{"transaction": false, "out_of_order": true}');
SELECT dbpool_add_migration('m', 1, 'initial', E'CREATE TABLE persons (a int);\r\n', 'DROP TABLE persons');
SELECT dbpool_drop_migration('m', 1);
-- whoever tries
UPDATE dbpool_migrations SET file = 'x' WHERE pool = 'm' AND version = 1;
UPDATE dbpool_migrations SET name = name WHERE pool = 'm';
DELETE FROM dbpool_migrations WHERE pool = 'm' AND version = 1;
TRUNCATE dbpool_migrations;
-- others can be changed
UPDATE dbpool_migrations SET file = 'x' WHERE pool = 'm' AND version = 4;
SELECT dbpool_drop_migration('m', 4);
SELECT dbpool_drop_migration('m', 4);
SELECT dbpool_drop_migration('m', NULL);
SELECT dbpool_drop_migration('nonesuch', 4);
-- rolled back, it can be changed again
SELECT regress_done('m', 1, 'down', 'failed'), regress_done('m', 1, 'down', 'done', 'dry run');
SELECT dbpool_add_migration('m', 1, 'initial', 'CREATE TABLE persons (b int)');
SELECT regress_done('m', 1, 'down');
SELECT dbpool_add_migration('m', 1, 'initial', 'CREATE TABLE persons (b int)');
SELECT regress_done('m', 1, 'baseline');
SELECT dbpool_drop_migration('m', 1);
SELECT regress_done('m', 1, 'down'), regress_done('m', 1, 'adopted');
SELECT dbpool_drop_migration('m', 1);
-- another pool's version is another
SELECT dbpool_add_migration('n', 1, 'one', 'SELECT 1');
-- rows follow a server that gets another name, and a new one of the old name has none of them
SELECT count(*) AS n FROM dbpool_migration_history WHERE pool = 'm' \gset
ALTER SERVER m RENAME TO renamed;
SELECT pool, count(*), bool_and(serverid = (SELECT oid FROM pg_foreign_server WHERE srvname = 'renamed')) FROM dbpool_migrations WHERE pool IN ('m', 'renamed') GROUP BY 1;
SELECT pool, count(*) = :n FROM dbpool_migration_history WHERE pool IN ('m', 'renamed') GROUP BY 1;
SELECT dbpool_drop_migration('renamed', 1);
CREATE SERVER m FOREIGN DATA WRAPPER dbpool;
SELECT dbpool_drop_migration('m', 1);
SELECT dbpool_migration_forget('m');
DROP SERVER m;
BEGIN;
ALTER SERVER renamed RENAME TO m;
SELECT DISTINCT pool FROM dbpool_migrations WHERE pool IN ('m', 'renamed');
ROLLBACK;
SELECT DISTINCT pool FROM dbpool_migrations WHERE pool IN ('m', 'renamed');
ALTER SERVER renamed RENAME TO m;

-- rights: the owner of the server, and who is a member
SET ROLE regress_dbpool_owner;
SELECT dbpool_add_migration('m', 5, 'owner', 'SELECT ''a secret of the owner''');
SELECT added_by, name FROM dbpool_migrations WHERE pool = 'm' AND version = 5;
SELECT dbpool_add_migration('n', 5, 'owner', 'SELECT 5');
SET ROLE regress_dbpool_member;
SELECT dbpool_add_migration('m', 6, 'member', 'SELECT 6');
SELECT dbpool_drop_migration('m', 6);
-- they see theirs
SELECT DISTINCT pool FROM dbpool_migrations;
SELECT DISTINCT pool FROM dbpool_migration_history;
-- and write by functions only
INSERT INTO dbpool_migrations (pool, version, name, up_sql) VALUES ('m', 7, 'x', 'x');
UPDATE dbpool_migrations SET name = 'x';
DELETE FROM dbpool_migrations;
TRUNCATE dbpool_migrations;
INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid) VALUES ('m', 7, 'up', 'x', 'done', now(), 'x', 1);
DELETE FROM dbpool_migration_history;
-- others see nothing, may nothing
SET ROLE regress_dbpool_other;
SELECT dbpool_add_migration('m', 7, 'other', 'SELECT 7');
SELECT dbpool_drop_migration('m', 5);
SELECT count(*) FROM dbpool_migrations;
SELECT count(*) FROM dbpool_migration_history;
-- USAGE of the server does not change that
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER m TO regress_dbpool_other;
SET ROLE regress_dbpool_other;
SELECT dbpool_add_migration('m', 7, 'other', 'SELECT 7');
SELECT count(*) FROM dbpool_migrations;
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER m FROM regress_dbpool_other;
-- nor do rights of others, or a grant to PUBLIC
GRANT EXECUTE ON FUNCTION dbpool_add_migration TO regress_dbpool_granted, PUBLIC;
SET ROLE regress_dbpool_other;
SELECT dbpool_add_migration('m', 7, 'other', 'SELECT 7');
-- a grant does, to oneself or a role one is a member of, for the one function
SET ROLE regress_dbpool_granted;
SELECT dbpool_add_migration('m', 7, 'granted', 'SELECT 7');
SELECT dbpool_drop_migration('m', 7);
-- but shows nothing but one's own attempts
SELECT count(*) FROM dbpool_migrations;
RESET ROLE;
SELECT added_by, name FROM dbpool_migrations WHERE pool = 'm' AND version = 7;
INSERT INTO dbpool_migration_history (pool, version, direction, mode, status, started_at, executed_by, pid) VALUES ('m', 7, 'up', 'single', 'failed', now(), 'regress_dbpool_granted', 1);
SET ROLE regress_dbpool_granted;
SELECT pool, version, status FROM dbpool_migration_history;
RESET ROLE;
GRANT regress_dbpool_granted TO regress_dbpool_other;
SET ROLE regress_dbpool_other;
SELECT dbpool_add_migration('m', 7, 'member of granted', 'SELECT 7');
RESET ROLE;
REVOKE regress_dbpool_granted FROM regress_dbpool_other;
-- a role that does not inherit has the rights of its groups only when it becomes them
SET client_min_messages = warning;
ALTER ROLE regress_dbpool_other NOINHERIT;
GRANT regress_dbpool_granted TO regress_dbpool_other;
RESET client_min_messages;
SET ROLE regress_dbpool_other;
SELECT dbpool_add_migration('m', 7, 'member that does not inherit', 'SELECT 7');
RESET ROLE;
REVOKE regress_dbpool_granted FROM regress_dbpool_other;
REVOKE EXECUTE ON FUNCTION dbpool_add_migration FROM regress_dbpool_granted;
SET ROLE regress_dbpool_granted;
SELECT dbpool_add_migration('m', 7, 'granted', 'SELECT 7');
RESET ROLE;
-- without EXECUTE, not even the owner
REVOKE EXECUTE ON FUNCTION dbpool_add_migration FROM PUBLIC;
SET ROLE regress_dbpool_owner;
SELECT dbpool_add_migration('m', 7, 'owner', 'SELECT 7');
RESET ROLE;
GRANT EXECUTE ON FUNCTION dbpool_add_migration TO PUBLIC;
-- the caller is oneself again afterwards, also after an error
SET ROLE regress_dbpool_owner;
DO $$ BEGIN PERFORM dbpool_drop_migration('m', 99); EXCEPTION WHEN undefined_object THEN RAISE NOTICE '% %', current_user, current_setting('search_path'); END $$;
SELECT dbpool_drop_migration('m', 7), current_user, current_setting('search_path');
RESET ROLE;
-- functions of a hostile search_path are not called
CREATE SCHEMA regress_evil;
CREATE FUNCTION regress_evil.equal(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'operator of regress_evil was called'; END $$;
CREATE FUNCTION regress_evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'function of regress_evil was called'; END $$;
CREATE OPERATOR regress_evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = regress_evil.equal);
CREATE TABLE regress_evil.dbpool_migrations (); CREATE TABLE regress_evil.pg_foreign_server ();
CREATE DOMAIN regress_evil.text AS int;
GRANT USAGE ON SCHEMA regress_evil TO PUBLIC;
SET search_path = regress_evil, pg_catalog, public;
SET ROLE regress_dbpool_owner;
SELECT public.dbpool_add_migration('m', 8, 'a', 'SELECT 8');
SELECT public.dbpool_add_migration('m', 8, 'a', 'SELECT 9');
SELECT count(*) FROM public.dbpool_migrations WHERE version = 8;
SELECT public.dbpool_drop_migration('m', 8);
SELECT version > 20240101120000 AS later FROM public.dbpool_create_migration('x');
RESET ROLE;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_evil CASCADE;
RESET client_min_messages;

-- new ones
SELECT version::text ~ '^20\d{12}$' AS version, file_name = version || '_add_users_to_it.up.sql' AS file, abs(extract(epoch FROM to_timestamp(version || '+00', 'YYYYMMDDHH24MISSTZH') - now())) < 10 AS now, split_part(up_sql, E'\n', 1) AS up, split_part(down_sql, E'\n', 1) AS down FROM dbpool_create_migration('  Add users,  to "it"!');
SELECT (SELECT count(*) FROM dbpool_migration_statements(up_sql)), (SELECT count(*) FROM dbpool_migration_statements(down_sql)) FROM dbpool_create_migration('x');
-- after all that are registered
SELECT dbpool_add_migration('n', 29991231235959, 'far', 'SELECT 1');
SELECT version, file_name FROM dbpool_create_migration('x');
SELECT dbpool_drop_migration('n', 29991231235959);
-- if they look like a time
SELECT dbpool_add_migration('n', 29991331235960, 'farther', 'SELECT 1'), dbpool_add_migration('n', 1000000000000000, 'no time', 'SELECT 1');
SELECT version FROM dbpool_create_migration('x');
SELECT dbpool_create_migration('');
SELECT dbpool_create_migration('..!');
SELECT dbpool_create_migration(NULL);

-- the trigger's function is for the trigger
SELECT dbpool_guard_migrations();

SELECT dbpool_guard_migration_history();

-- what was registered for a server goes with it: another one of that name has
-- nothing of it, nor does its owner see it
CREATE FUNCTION regress_of_n() RETURNS TABLE (what text, tied boolean, n bigint) LANGUAGE sql AS $$
  SELECT 'registered', serverid <> 0, count(*) FROM dbpool_migrations WHERE pool = 'n' GROUP BY 2
  UNION ALL SELECT 'history', serverid <> 0, count(*) FROM dbpool_migration_history WHERE pool = 'n' GROUP BY 2 ORDER BY 1, 2 $$;
SELECT regress_done('n', 1, 'up');
SELECT * FROM regress_of_n();
BEGIN;
DROP SERVER n;
SELECT * FROM regress_of_n();
ROLLBACK;
SELECT * FROM regress_of_n();
DROP SERVER n;
CREATE SERVER n FOREIGN DATA WRAPPER dbpool;
ALTER SERVER n OWNER TO regress_dbpool_owner;
SELECT * FROM regress_of_n();
SET ROLE regress_dbpool_owner;
SELECT count(*) FROM dbpool_migrations WHERE pool = 'n';
SELECT count(*) FROM dbpool_migration_history WHERE pool = 'n';
SELECT dbpool_migration_forget('n');
SELECT dbpool_drop_migration('n', 1);
SELECT dbpool_add_migration('n', 1, 'one', 'SELECT 1');
RESET ROLE;
SELECT pool, version, name, added_by FROM dbpool_migrations WHERE pool = 'n' AND serverid <> 0;
SELECT dbpool_drop_migration('n', 1);
-- a superuser can give it to the new one, as a dump that is restored does
UPDATE dbpool_migrations SET pool = pool WHERE pool = 'n' AND version = 1;
SELECT * FROM regress_of_n();
INSERT INTO dbpool_migrations (pool, version, name, up_sql, serverid) VALUES ('n', 2, 'by hand', 'SELECT 2', 1);
INSERT INTO dbpool_migrations (pool, version, name, up_sql, serverid) VALUES ('nonesuch', 2, 'by hand', 'SELECT 2', (SELECT oid FROM pg_foreign_server WHERE srvname = 'n'));
SELECT pool, version, serverid = 0 AS none, serverid = (SELECT oid FROM pg_foreign_server WHERE srvname = 'n') AS n FROM dbpool_migrations WHERE name = 'by hand' ORDER BY 1;
DELETE FROM dbpool_migrations WHERE pool = 'nonesuch';
-- in an order that a drop of all can have
BEGIN;
DROP OWNED BY regress_dbpool_owner CASCADE;
SELECT count(*) FROM pg_foreign_server WHERE srvname = 'n';
ROLLBACK;
BEGIN;
SET client_min_messages = error;
DROP EXTENSION dbpool CASCADE;
ROLLBACK;
DROP FUNCTION regress_of_n();
DROP VIEW regress_registered;
DROP FUNCTION regress_done;
DROP SERVER m; DROP SERVER n;
DELETE FROM dbpool_migrations WHERE pool IN ('m', 'n');
DELETE FROM dbpool_migration_history WHERE pool IN ('m', 'n');
DROP ROLE regress_dbpool_owner, regress_dbpool_member, regress_dbpool_granted, regress_dbpool_other;
