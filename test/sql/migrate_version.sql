--
-- Versions of several parts, and repeatable migrations
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup
\set SHOW_CONTEXT errors
SET client_min_messages = warning;

--
-- The type
--
SELECT v::dbpool_migration_version FROM unnest('{0,007,17.1,17.0,17.0.0,0.0,1.010.2,9223372036854775807,1.9223372036854775807,R__views,R__a b.c}'::text[]) WITH ORDINALITY u(v, n) ORDER BY n;
-- by their parts, as numbers; repeatable ones last
SELECT v FROM unnest('{R__b,2,10,1.10,1.9,1,R__a,1.9.1,20240101120000,1.0.1,0,0.1}'::dbpool_migration_version[]) v ORDER BY v;
SELECT max(v), min(v) FROM unnest('{2,1.10,10,9.9}'::dbpool_migration_version[]) v;
SELECT v FROM (VALUES ('1.0'::dbpool_migration_version), ('1'), ('01'), ('1.0.0')) t(v) GROUP BY v;
SELECT '1.2'::dbpool_migration_version < '1.10', '1.2'::dbpool_migration_version <= '1.2.0', '1'::dbpool_migration_version = 1, 3 > '2.9'::dbpool_migration_version,
  '1'::dbpool_migration_version <> '1.1', '1.1'::dbpool_migration_version >= 2::bigint;
SELECT 17::dbpool_migration_version, '17'::dbpool_migration_version::bigint, '17.1'::dbpool_migration_version::text;
-- a text is one only where that is meant: elsewhere a comparison stays what it was
SELECT '1.0'::text = 1;
SELECT 3 IN ('1'::text, '2');
SELECT '1'::dbpool_migration_version = '1.0'::text::dbpool_migration_version;
SELECT '17.1'::dbpool_migration_version::bigint;
SELECT 'R__a'::dbpool_migration_version::bigint;
SELECT ''::dbpool_migration_version;
SELECT '-1'::dbpool_migration_version;
SELECT (-1)::dbpool_migration_version;
SELECT '1.'::dbpool_migration_version;
SELECT '.1'::dbpool_migration_version;
SELECT '1..2'::dbpool_migration_version;
SELECT '1.-2'::dbpool_migration_version;
SELECT '1a'::dbpool_migration_version;
SELECT ' 1'::dbpool_migration_version;
SELECT 'R__'::dbpool_migration_version;
SELECT '9223372036854775808'::dbpool_migration_version;
SELECT '1.00000000000000000000000009223372036854775808'::dbpool_migration_version;
SELECT repeat('1.', 100)::dbpool_migration_version;
SELECT (repeat('1.', 100) || '1')::dbpool_migration_version;
SELECT ('R__' || repeat('x', 256))::dbpool_migration_version;

--
-- Running them
--
SELECT set_config('regress.conninfo', :'remote_conninfo', false) \g /dev/null
SELECT dbpool_exec('remote', 'DROP SCHEMA IF EXISTS mig_parts CASCADE; CREATE SCHEMA mig_parts') \g /dev/null
SELECT dbpool_create_pool('parts', current_setting('regress.conninfo') || ' options=''-c search_path=mig_parts''');
CREATE FUNCTION regress_version_status() RETURNS TABLE (version text, status text) LANGUAGE sql AS $$ SELECT version, status FROM dbpool_migration_status('parts') $$;
CREATE FUNCTION regress_version_add(version dbpool_migration_version, name text, up_sql text, down_sql text DEFAULT NULL) RETURNS void LANGUAGE sql
AS $$ SELECT dbpool_add_migration('parts', version, name, up_sql, down_sql) $$;
SELECT regress_version_add('1.10', 'ten', 'INSERT INTO log VALUES (''1.10'')', 'DELETE FROM log WHERE v = ''1.10''');
SELECT regress_version_add('1.9', 'nine', 'INSERT INTO log VALUES (''1.9'')', 'DELETE FROM log WHERE v = ''1.9''');
SELECT regress_version_add(1, 'one', 'CREATE TABLE log (v text, n int GENERATED ALWAYS AS IDENTITY)', 'DROP TABLE log');
SELECT regress_version_add('R__b', 'b', 'CREATE OR REPLACE VIEW b AS SELECT 1 AS x FROM a');
SELECT regress_version_add('R__a', 'a', 'CREATE OR REPLACE VIEW a AS SELECT 1 AS x');
SELECT regress_version_add('R__c', 'not c', 'SELECT 1');
SELECT regress_version_add('R__c', 'c', 'SELECT 1', 'SELECT 1');
SELECT * FROM regress_version_status();
-- up to one of them; the repeatable ones come with the last
SELECT version, name, status FROM dbpool_migrate('parts', '1.9');
SELECT version, name, status FROM dbpool_migrate('parts', dry_run => true);
SELECT version, name, status FROM dbpool_migrate('parts');
SELECT v FROM dbpool_query('parts', 'SELECT v FROM log ORDER BY n') AS t(v text);
SELECT version, name, status FROM dbpool_migrate('parts');
SELECT * FROM regress_version_status();
-- a name of as many characters as one may have, and more bytes
SELECT length(set_config('regress.name', repeat('ä', 255), false)), ('R__' || current_setting('regress.name'))::dbpool_migration_version::text = 'R__' || current_setting('regress.name') AS same;
DO $$ BEGIN PERFORM regress_version_add(('R__' || current_setting('regress.name'))::dbpool_migration_version, current_setting('regress.name'), 'SELECT 1'); END $$;
SELECT length(version::text), status FROM dbpool_migrate('parts');
SELECT length(version), status FROM regress_version_status() WHERE version LIKE 'R__ä%';
SELECT dbpool_drop_migration('parts', ('R__' || current_setting('regress.name'))::dbpool_migration_version);
-- between those that were applied: out of order
SELECT regress_version_add('1.9.5', 'between', 'INSERT INTO log VALUES (''1.9.5'')', 'DELETE FROM log WHERE v = ''1.9.5''');
SELECT version, name, status FROM dbpool_migrate('parts');
SELECT dbpool_drop_migration('parts', '1.9.5');
-- a text that has changed runs again, in place of the old one, and one that was not there before
SELECT regress_version_add('R__a', 'a', 'CREATE OR REPLACE VIEW a AS SELECT 1 AS x, 2 AS y');
SELECT regress_version_add(2, 'two', 'INSERT INTO log VALUES (''2'')', 'DELETE FROM log WHERE v = ''2''');
SELECT * FROM regress_version_status();
SELECT version, name, status FROM dbpool_migrate('parts');
SELECT x, y FROM dbpool_query('parts', 'SELECT x, y FROM a') AS t(x int, y int);
-- line ends alone are no change
SELECT regress_version_add('R__a', 'a', E'CREATE OR REPLACE VIEW a AS\r\nSELECT 1 AS x, 2 AS y');
SELECT version, status FROM dbpool_migrate('parts');
SELECT regress_version_add('R__a', 'a', E'CREATE OR REPLACE VIEW a AS\nSELECT 1 AS x, 2 AS y');
SELECT version, status FROM dbpool_migrate('parts');
-- one that fails runs again next time
SELECT regress_version_add('R__b', 'b', 'SELECT 1 / 0');
SELECT version, status FROM dbpool_migrate('parts');
SELECT regress_version_add('R__b', 'b', 'CREATE OR REPLACE VIEW b AS SELECT 1 AS x FROM a');
SELECT version, status FROM dbpool_migrate('parts');
-- back: only what has a way back
SELECT version, status FROM dbpool_migration_rollback('parts');
SELECT version, status FROM dbpool_migration_rollback('parts', target => '1.9');
SELECT version, status FROM dbpool_migrate('parts', '1.8');
SELECT version, status FROM dbpool_migrate('parts', 'R__a');
SELECT version, status FROM dbpool_migrate('parts', 'one');
SELECT version, status FROM dbpool_migrate_all('{parts}', '1.10');
-- a repeatable one can be taken out, and is not missed
SELECT dbpool_drop_migration('parts', 'R__b');
SELECT version, name, status FROM dbpool_migrate('parts');
-- as both histories have it
SELECT version, name, direction FROM dbpool_query('parts', 'SELECT version, name, direction FROM dbpool_migration_history ORDER BY id') AS t(version text, name text, direction text);
SELECT version, direction, status FROM dbpool_migration_history WHERE pool = 'parts' AND mode <> 'dry run' ORDER BY id;
SELECT version FROM dbpool_migrations WHERE pool = 'parts' ORDER BY version;
-- a baseline of several parts
SELECT dbpool_exec('parts', 'DROP TABLE dbpool_migration_history') \g /dev/null
\set VERBOSITY terse
SELECT * FROM dbpool_migrate('parts');
\set VERBOSITY default
SELECT dbpool_migration_baseline('parts', '1.10');
SELECT * FROM regress_version_status();
SELECT dbpool_migration_baseline('parts', 'R__a');
SELECT dbpool_migration_repair('parts', '1.11');
-- histories of others have whole numbers
SELECT dbpool_exec('remote', 'DROP SCHEMA IF EXISTS mig_whole CASCADE; CREATE SCHEMA mig_whole') \g /dev/null
SELECT dbpool_create_pool('whole', current_setting('regress.conninfo') || ' options=''-c search_path=mig_whole''', '{"history_format": "refinery"}');
SELECT dbpool_add_migration('whole', 1, 'one', 'CREATE TABLE one ()');
SELECT dbpool_add_migration('whole', '1.1', 'part', 'CREATE TABLE part ()');
SELECT * FROM dbpool_migrate('whole');
SELECT dbpool_drop_migration('whole', '1.1');
SELECT dbpool_add_migration('whole', 'R__a', 'a', 'SELECT 1');
SELECT * FROM dbpool_migrate('whole');
ALTER SERVER whole OPTIONS (SET history_format 'sqlx');
SELECT * FROM dbpool_migrate('whole');
SELECT dbpool_migration_checksum('refinery', '1.1', 'x', 'SELECT 1');
SELECT dbpool_migration_checksum('dbpool', '1.1', 'x', 'SELECT 1') = dbpool_migration_checksum('dbpool', 2, 'y', 'SELECT 1');

SELECT dbpool_exec('remote', 'DROP SCHEMA mig_parts, mig_whole CASCADE') \g /dev/null
DROP FUNCTION regress_version_status, regress_version_add;
DROP SERVER parts CASCADE;
DROP SERVER whole CASCADE;
DELETE FROM dbpool_migrations WHERE pool IN ('parts', 'whole');
DELETE FROM dbpool_migration_history WHERE pool IN ('parts', 'whole');
