--
-- What a statement leaves behind in the remote session is not seen by the next one
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

ALTER SERVER remote OPTIONS (max_size '1');
-- one connection, and which one it is
CREATE FUNCTION regress_pid() RETURNS int LANGUAGE sql AS $$ SELECT v FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int) $$;
-- what is found there
CREATE FUNCTION regress_found() RETURNS TABLE (what text) LANGUAGE sql AS $$
  SELECT what FROM dbpool_query('remote', $q$
    SELECT 'setting ' || name FROM pg_settings WHERE name = 'work_mem' AND source = 'session'
      UNION ALL SELECT 'custom setting' WHERE current_setting('my.thing', true) <> ''
      UNION ALL SELECT 'time zone' FROM pg_settings WHERE name = 'TimeZone' AND source = 'session'
      UNION ALL SELECT 'role ' || current_user WHERE current_user <> session_user
      UNION ALL SELECT 'session user ' || session_user WHERE session_user LIKE 'regress%'
      UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'
      UNION ALL SELECT 'advisory lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() GROUP BY 1
      UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() c
      UNION ALL SELECT 'statement ' || name FROM pg_prepared_statements WHERE from_sql
      UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE is_holdable
    ORDER BY 1 $q$) AS t(what text) $$;
SELECT dbpool_exec('remote', 'DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ''regress_dbpool_role'') THEN CREATE ROLE regress_dbpool_role; END IF; END $$');
CREATE TABLE regress_leftovers (n int, sql text);
INSERT INTO regress_leftovers VALUES
  (1, 'SET work_mem = ''1MB'''), (2, 'SELECT set_config(''work_mem'', ''1MB'', false)'), (3, 'SET my.thing = 1'), (4, 'SET TIME ZONE ''Asia/Tokyo'''),
  (5, 'SET ROLE regress_dbpool_role'), (6, 'SET SESSION AUTHORIZATION regress_dbpool_role'), (7, 'CREATE TEMP TABLE left_behind (a int)'),
  (8, 'SELECT 1 AS a INTO TEMPORARY left_behind'), (9, 'CREATE TABLE pg_temp.left_behind (a int)'), (10, 'CREATE TEMP TABLE left_behind AS SELECT 1'),
  (11, 'SELECT pg_advisory_lock(1)'), (12, 'SELECT pg_try_advisory_lock_shared(1, 2)'), (13, 'LISTEN channel'), (14, 'PREPARE left_behind AS SELECT 1'),
  (15, 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1'), (16, 'DO $do$ BEGIN SET work_mem = ''1MB''; END $do$'), (17, 'SELECT 1; SET work_mem = ''1MB''; SELECT 2'),
  (18, 'BEGIN; SET work_mem = ''1MB''; COMMIT'), (19, 'SELECT pg_catalog.set_config(''my.thing'', ''1'', false), pg_advisory_lock(5)'),
  (20, 'BEGIN; CREATE TEMP TABLE left_behind (a int) ON COMMIT DELETE ROWS; COMMIT; SELECT 1'),
  (21, 'UPDATE pg_settings SET setting = ''1024'' WHERE name = ''work_mem'''), (22, 'UPDATE pg_catalog."pg_settings" SET setting = ''1024'' WHERE name = ''work_mem'''),
  (23, $$SELECT query_to_xml(E'select \x73et_config(''work_mem'', ''1MB'', false)', false, false, '')$$), (24, 'SELECT 1 AS a INTO pg_temp.left_behind'),
  (25, $$SELECT * FROM regress.crosstab(E'select ''a''::text, ''b''::text, \x73et_config(''work_mem'', ''1MB'', false)') AS t(a text, b text)$$);
SELECT dbpool_exec('remote', 'CREATE EXTENSION tablefunc SCHEMA regress');
-- runs each and tells what the next one finds, and whether it has the same connection
CREATE FUNCTION regress_leave() RETURNS TABLE (n int, left_behind text[]) LANGUAGE plpgsql AS $$
DECLARE
  l regress_leftovers;
  pid int := regress_pid();
BEGIN
  FOR l IN SELECT * FROM regress_leftovers ORDER BY 1 LOOP
    PERFORM dbpool_exec('remote', l.sql);
    n := l.n;
    SELECT array_agg(what) INTO left_behind FROM regress_found();
    IF left_behind IS NOT NULL THEN RETURN NEXT; END IF;
    -- always in the same session
    IF regress_pid() <> pid THEN RAISE 'another connection after %', l.sql; END IF;
    -- a clean slate for the next one
    PERFORM dbpool_exec('remote', 'DISCARD ALL');
  END LOOP;
END $$;

-- smart: resets where something was left behind
SELECT * FROM regress_leave();
-- always
ALTER SERVER remote OPTIONS (ADD reset 'always');
SELECT * FROM regress_leave();
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.hidden() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN set_config(''my.thing'', ''1'', false); END'$$);
SELECT dbpool_query('remote', 'SELECT regress.hidden()');
SELECT * FROM regress_found();
-- never: it is all there
ALTER SERVER remote OPTIONS (SET reset 'never');
SELECT * FROM regress_leave();
-- and is gone when the policy changes, since the connection is
SELECT dbpool_exec('remote', 'SET work_mem = ''1MB''');
SELECT * FROM regress_found();
ALTER SERVER remote OPTIONS (DROP reset);
SELECT * FROM regress_found();

-- an open transaction never stays, whatever the policy
ALTER SERVER remote OPTIONS (ADD reset 'never');
SELECT dbpool_exec('remote', 'BEGIN; SET work_mem = ''1MB''; CREATE TABLE regress.uncommitted ()');
SELECT dbpool_query('remote', 'SELECT to_regclass(''regress.uncommitted'')');
SELECT dbpool_exec('remote', 'BEGIN; SELECT 1/0');
SELECT dbpool_query('remote', 'SELECT 1');

ALTER SERVER remote OPTIONS (DROP reset);

-- what no reset puts away: the session ends
CREATE FUNCTION regress_ended_by(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  pid int := regress_pid();
BEGIN
  PERFORM dbpool_exec('remote', sql);
  RETURN regress_pid() <> pid;
END $$;
SELECT n, regress_ended_by(sql) FROM (VALUES (1, 'LOAD ''plpgsql'''), (2, 'SELECT 1; LOAD ''plpgsql'''), (3, 'DO $do$ BEGIN LOAD ''plpgsql''; END $do$'), (4, 'SELECT setseed(0.5)'),
  (5, $$SELECT U&"set\005Fconfig"('work_mem', '1MB', false)$$), (6, $$SELECT u&"set!005Fconfig" UESCAPE '!' ('my.thing', '1', false)$$),
  (7, $$SELECT slot_name FROM pg_create_physical_replication_slot('regress_left', false, true)$$),
  (8, $$SELECT slot_name FROM pg_copy_physical_replication_slot('nobody', 'regress_left', true) WHERE false$$),
  (9, 'SELECT 1 AS load'), (10, 'SELECT 1'), (11, 'LOAD E''plpgsql'''),
  (12, (SELECT call FROM dbpool_query('remote', $$SELECT CASE WHEN current_setting('server_version_num')::int < 150000
    THEN 'SELECT pg_start_backup(''regress'', true, false)' ELSE 'SELECT pg_backup_start(''regress'', true)' END$$) AS t(call text)))) v(n, sql);
-- the temporary slot is gone with it
SELECT * FROM dbpool_query('remote', 'SELECT count(*) FROM pg_replication_slots') AS t(n int);
SELECT * FROM regress_found();
-- what sequences gave to others is not to be had; within a call it is
SELECT dbpool_exec('remote', 'CREATE SEQUENCE regress.s; CREATE TABLE regress.ids (id int DEFAULT nextval(''regress.s''))');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids DEFAULT VALUES');
SELECT dbpool_query('remote', 'SELECT lastval()');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids DEFAULT VALUES');
SELECT dbpool_query('remote', 'SELECT currval(''regress.s'')');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids DEFAULT VALUES; SELECT currval(''regress.s'')');
SELECT dbpool_query('remote', 'SELECT nextval(''regress.s''), currval(''regress.s''), "lastval"()');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids SELECT lastval()');
SELECT dbpool_query('remote', $$SELECT U&"last\0076al"()$$);
ALTER SERVER remote OPTIONS (ADD reset 'always');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids DEFAULT VALUES');
SELECT dbpool_query('remote', 'SELECT lastval()');
ALTER SERVER remote OPTIONS (SET reset 'never');
SELECT dbpool_exec('remote', 'INSERT INTO regress.ids DEFAULT VALUES');
SELECT dbpool_query('remote', 'SELECT lastval()');
ALTER SERVER remote OPTIONS (DROP reset);
DROP FUNCTION regress_ended_by;
-- what a function is told to do by its parameters is seen in those
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.run(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE $1; RETURN ''done''; END'$$);
SELECT dbpool_query('remote', 'SELECT regress.run($1)', 'SELECT set_config(''my.thing'', ''1'', false)');
SELECT * FROM regress_found();

SELECT dbpool_exec('remote', 'DROP ROLE regress_dbpool_role');
DROP FUNCTION regress_pid, regress_found, regress_leave;
DROP TABLE regress_leftovers;
