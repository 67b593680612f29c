--
-- Migrations: what is registered here is run there, in order, once, with a
-- history at both ends
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup
\set SHOW_CONTEXT errors
-- The notices that tell how long a migration took have their own test.
SET client_min_messages = warning;

-- Each part of this test has a pool, whose remote is a schema of the same name:
-- so it has a history of its own.
SELECT set_config('regress.conninfo', :'remote_conninfo', false) \g /dev/null
CREATE PROCEDURE regress_remote(pool name, of text DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
  schema text := 'mig_' || coalesce(of, pool);
BEGIN
  IF of IS NULL THEN
    PERFORM dbpool_exec('remote', format('DROP SCHEMA IF EXISTS %I CASCADE; CREATE SCHEMA %I', schema, schema));
  END IF;
  PERFORM dbpool_create_pool(pool, format('%s options=''-c search_path=%s''', current_setting('regress.conninfo'), schema));
END $$;
-- the status of a pool's migrations, without times and names
CREATE FUNCTION regress_status(pool name) RETURNS TABLE (version bigint, name text, status text, at boolean, by boolean, took boolean, detail text)
LANGUAGE sql AS $$
  SELECT version, name, status, applied_at BETWEEN now() - interval '1 day' AND now() + interval '1 day', applied_by IS NOT NULL, duration >= '0',
    regexp_replace(detail, ' of \S+ at \w+ \w+ \d+ [0-9:]+ \d+ \w+', ' of SOMEBODY at SOME TIME')
  FROM dbpool_migration_status(pool) $$;
-- the history there, the history here
CREATE FUNCTION regress_there(pool name) RETURNS TABLE (version bigint, name text, direction text, state text, text_of text) LANGUAGE sql AS $$
  SELECT h.version, h.name, h.direction, h.state,
    CASE WHEN h.checksum = 'sha256:' || encode(sha256(convert_to(m.up_sql, 'UTF8')), 'hex') THEN 'registered' WHEN h.checksum ~ '^sha256:[0-9a-f]{64}$' THEN 'another' ELSE h.checksum END
  FROM dbpool_query(pool, 'SELECT id, version, name, direction, state, checksum FROM dbpool_migration_history WHERE applied_at > now() - interval ''1 day'' AND applied_by = session_user')
    AS h(id bigint, version bigint, name text, direction text, state text, checksum text)
  LEFT JOIN dbpool_migrations m ON m.pool = $1 AND m.version = h.version
  ORDER BY h.id $$;
CREATE FUNCTION regress_here(of name) RETURNS TABLE (version bigint, name text, direction text, mode text, status text, took boolean, sqlstate text, error text) LANGUAGE sql AS $$
  SELECT version, name, direction, mode, status, duration >= '0', sqlstate, error FROM dbpool_migration_history
  WHERE pool = of AND executed_by = current_user AND pid = pg_backend_pid() AND started_at BETWEEN now() - interval '1 day' AND clock_timestamp() ORDER BY id $$;
-- what tables are there
CREATE FUNCTION regress_tables(pool name) RETURNS text LANGUAGE sql AS $$
  SELECT string_agg(name, ' ' ORDER BY name COLLATE "C") FROM dbpool_query(pool, 'SELECT relname FROM pg_class WHERE relnamespace = (''mig_'' || $1)::regnamespace AND relkind = ''r''', pool) AS t(name text) $$;
CREATE PROCEDURE regress_add(pool name, version bigint, name text, up_sql text, down_sql text DEFAULT NULL, options jsonb DEFAULT '{}') LANGUAGE plpgsql AS
  $$ BEGIN PERFORM dbpool_add_migration(pool, version, name, up_sql, down_sql, options); END $$;
-- the same past all checks, as it may come out of a dump
CREATE PROCEDURE regress_put(pool name, version bigint, name text, up_sql text, down_sql text DEFAULT NULL, transaction boolean DEFAULT true, file text DEFAULT NULL) LANGUAGE sql AS $$
  INSERT INTO dbpool_migrations (pool, version, name, up_sql, down_sql, transaction, file) VALUES (pool, version, name, up_sql, down_sql, transaction, file) $$;

--
-- Up, by targets
--
CALL regress_remote('a');
SELECT * FROM dbpool_migration_status('a');
SELECT * FROM dbpool_migrate('a');
SELECT regress_tables('a');
DO $do$ BEGIN PERFORM dbpool_add_migration('a', v, 'make_t' || v, format('CREATE TABLE t%s (i int)', v), format('DROP TABLE t%s', v)) FROM unnest('{10,30,40,20,50}'::bigint[]) v; END $do$;
SELECT * FROM regress_status('a');
-- exactly
SELECT version, name, direction, status, duration > '0' AS took FROM dbpool_migrate('a', 10);
SELECT * FROM regress_status('a');
-- where it is
SELECT * FROM dbpool_migrate('a', target => 10);
SELECT * FROM dbpool_migrate('a', target => 19);
-- in between
SELECT version, name, direction, status FROM dbpool_migrate('a', target => 35);
-- to where it was
SELECT * FROM dbpool_migrate('a', target => 20);
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('a', target => 0);
SELECT * FROM dbpool_migrate('a', target => -1);
SELECT regress_tables('a');
-- all, higher than all
SELECT version, name, direction, status FROM dbpool_migrate('a', target => 40);
SELECT version, name, direction, status FROM dbpool_migrate('a', target => 1000);
SELECT version, name, direction, status FROM dbpool_migrate('a');
SELECT regress_tables('a');
SELECT * FROM regress_status('a');
SELECT * FROM regress_there('a');
SELECT * FROM regress_here('a');
SET client_min_messages = notice;
SELECT * FROM dbpool_migrate('a');
SET client_min_messages = warning;
-- target 0 of a remote that has nothing
CALL regress_remote('zero');
CALL regress_add('zero', 1, 'one', 'CREATE TABLE t()');
SELECT * FROM dbpool_migrate('zero', 0);
SELECT regress_tables('zero');

--
-- Down, by steps and by targets
--
SELECT * FROM dbpool_migration_rollback('a', target => 50);
SELECT version, name, direction, status, duration > '0' AS took FROM dbpool_migration_rollback('a');
SELECT version, name, direction, status FROM dbpool_migration_rollback('a', 2);
SELECT * FROM regress_status('a');
SELECT version, name, direction, status FROM dbpool_migrate('a');
SELECT version, name, direction, status FROM dbpool_migration_rollback('a', target => 35);
SELECT version, name, direction, status FROM dbpool_migration_rollback('a', target => 20);
SELECT version, name, direction, status FROM dbpool_migration_rollback('a', target => 0);
SELECT regress_tables('a');
SELECT * FROM dbpool_migration_rollback('a');
SET client_min_messages = notice;
SELECT * FROM dbpool_migration_rollback('a');
SET client_min_messages = warning;
-- more than there are
SELECT version, status FROM dbpool_migrate('a', 20);
SELECT version, status FROM dbpool_migration_rollback('a', 100);
SELECT * FROM dbpool_migration_rollback('a', 0);
SELECT * FROM dbpool_migration_rollback('a', target => -1);
SELECT version, direction, state, text_of FROM regress_there('a');
SELECT version, direction, mode, status FROM regress_here('a');
-- grouped and dry
SELECT version, status FROM dbpool_migrate('a');
SELECT version, direction, status, duration > '0' AS took FROM dbpool_migration_rollback('a', 3, dry_run => true);
SELECT regress_tables('a');
SELECT version, direction, status FROM dbpool_migration_rollback('a', 3, grouped => true);
SELECT regress_tables('a');
-- no way back, and nothing on the way to it is undone
CALL regress_add('a', 15, 'one_way', 'CREATE TABLE t15 ()', options => '{"out_of_order": true}');
SELECT version, status FROM dbpool_migrate('a', 40);
SELECT * FROM dbpool_migration_rollback('a', target => 10);
\echo :SQLSTATE
SELECT regress_tables('a');
SELECT version, status FROM dbpool_migration_rollback('a', target => 15);
SELECT * FROM dbpool_migration_rollback('a');
-- a way back that fails: the first stays undone, the second is as it was
CALL regress_remote('down');
CALL regress_add('down', 1, 'one', 'CREATE TABLE t1 ()', 'DROP TABLE t1');
CALL regress_add('down', 2, 'two', 'CREATE TABLE t2 ()', E'DROP TABLE t2;\n\n  DROP TABLE nonesuch');
CALL regress_add('down', 3, 'three', 'CREATE TABLE t3 ()', 'DROP TABLE t3');
CALL regress_add('down', 4, 'four', 'SELECT 4', '-- nothing to do');
SELECT version, status FROM dbpool_migrate('down');
SELECT version, status FROM dbpool_migration_rollback('down', 3);
\echo :SQLSTATE
SELECT regress_tables('down');
SELECT * FROM regress_status('down');
SELECT * FROM regress_there('down');
SELECT version, direction, mode, status, sqlstate, error FROM regress_here('down') WHERE direction = 'down';
-- all or nothing
SELECT version, status FROM dbpool_migrate('down');
SELECT version, status FROM dbpool_migration_rollback('down', 3, grouped => true);
SELECT regress_tables('down');
SELECT version, direction, mode, status, sqlstate, error FROM regress_here('down') WHERE mode = 'grouped';

--
-- Statuses
--
CALL regress_remote('s');
DO $do$ BEGIN PERFORM dbpool_add_migration('s', v, 'make_t' || v, format('CREATE TABLE t%s (i int)', v), format('DROP TABLE t%s', v)) FROM generate_series(2, 8, 2) v; END $do$;
SELECT version, status FROM dbpool_migrate('s', 6);
-- The same remote, as another database sees it: what it has registered is less in one place, other in the next, and more.
CALL regress_remote('s2', 's');
CALL regress_add('s2', 2, 'make_t2', 'CREATE TABLE t2 (i int)', 'DROP TABLE t2');
CALL regress_add('s2', 3, 'three', 'CREATE TABLE t3 (i int)');
CALL regress_add('s2', 4, 'make_t4', 'CREATE TABLE t4 (i bigint)', 'DROP TABLE t4');
CALL regress_add('s2', 5, 'five', 'CREATE TABLE t5 (i int)', 'DROP TABLE t5', '{"out_of_order": true}');
CALL regress_add('s2', 7, 'seven', 'CREATE TABLE t7 (i no_such_type)', 'DROP TABLE t7');
CALL regress_add('s2', 9, 'nine', 'CREATE TABLE t9 (i int)', 'DROP TABLE t9');
SELECT * FROM regress_status('s2');
-- each is a reason to stop, by itself
SELECT * FROM dbpool_migrate('s2');
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('s2', allow_divergent => true);
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('s2', allow_missing => true);
CALL regress_add('s2', 6, 'make_t6', 'CREATE TABLE t6 (i int)', 'DROP TABLE t6');
SELECT * FROM dbpool_migrate('s2', allow_divergent => true);
\echo :SQLSTATE
-- a dry run looks too
SELECT * FROM dbpool_migrate('s2', dry_run => true);
SELECT regress_tables('s');
-- all the same
SELECT version, status FROM dbpool_migrate('s2', allow_divergent => true, allow_missing => true);
\echo :SQLSTATE
SELECT * FROM regress_status('s2');
SELECT * FROM regress_here('s2');
CALL regress_add('s2', 7, 'seven', 'CREATE TABLE t7 (i int)', 'DROP TABLE t7');
SELECT version, status FROM dbpool_migrate('s2', allow_divergent => true);
SELECT * FROM regress_status('s2');
-- what is missing here can be rolled back by nobody but who has it
SELECT * FROM dbpool_migration_rollback('s', 1);
SELECT * FROM dbpool_migrate('s');
SELECT * FROM regress_status('s');
-- what diverges can be rolled back with the same word
SELECT * FROM dbpool_migration_rollback('s2', target => 3);
SELECT version, status FROM dbpool_migration_rollback('s2', target => 3, allow_divergent => true);
SELECT regress_tables('s');
-- too many to name
CALL regress_remote('many');
DO $do$ BEGIN PERFORM dbpool_add_migration('many', v, 'm' || v, 'SELECT 1') FROM generate_series(1, 14) v; END $do$;
SELECT count(*) FROM dbpool_migrate('many');
CALL regress_remote('many2', 'many');
SELECT * FROM dbpool_migrate('many2');

--
-- Options
--
CALL regress_remote('o');
CALL regress_add('o', 1, 'one', 'CREATE TABLE t1 (i int); INSERT INTO t1 VALUES (1)', 'DROP TABLE t1');
CALL regress_add('o', 2, 'two', 'ALTER TABLE t1 ADD j int', 'ALTER TABLE t1 DROP j');
-- dry: nothing stays
SELECT version, name, direction, status, duration > '0' AS took FROM dbpool_migrate('o', dry_run => true);
SELECT regress_tables('o');
SELECT * FROM regress_status('o');
SELECT * FROM regress_here('o');
-- what would fail is told
CALL regress_add('o', 3, 'three', E'CREATE TABLE t3 (i int);\nINSERT INTO t3 SELECT 1/0');
SELECT * FROM dbpool_migrate('o', dry_run => true);
\echo :SQLSTATE
SELECT regress_tables('o');
SELECT version, status FROM dbpool_migrate('o', 2, dry_run => true);
SELECT version, mode, status, sqlstate, error FROM regress_here('o');
-- a dry run that failed does not make a migration one that failed
SELECT * FROM regress_status('o');
-- grouped: all or nothing
SELECT * FROM dbpool_migrate('o', grouped => true);
\echo :SQLSTATE
SELECT regress_tables('o');
SELECT * FROM regress_status('o');
SELECT version, status FROM dbpool_migrate('o', 2, grouped => true);
SELECT regress_tables('o');
SELECT version, direction, state FROM regress_there('o');
-- not grouped: what is before stays
CALL regress_add('o', 3, 'three', 'CREATE TABLE t3 (i int)');
CALL regress_add('o', 4, 'four', 'CREATE TABLE t3 (i int)');
CALL regress_add('o', 5, 'five', 'CREATE TABLE t5 (i int)');
SELECT version, status FROM dbpool_migrate('o');
\echo :SQLSTATE
SELECT regress_tables('o');
SELECT * FROM regress_status('o');
-- fake: noted, not run
SELECT version, name, direction, status FROM dbpool_migrate('o', target => 4, fake => true);
SELECT regress_tables('o');
SELECT version, direction, state, text_of FROM regress_there('o');
SELECT version, mode, status, sqlstate FROM regress_here('o') WHERE mode NOT IN ('dry run');
SELECT * FROM regress_status('o');
SELECT * FROM dbpool_migrate('o', dry_run => true, fake => true);
\echo :SQLSTATE

--
-- Texts
--
CALL regress_remote('x');
-- nothing at all, and nothing but remarks
CALL regress_put('x', 1, 'empty', '');
CALL regress_put('x', 2, 'blank', E' \n\t\r\n ');
CALL regress_put('x', 3, 'semicolons', '; ;; -- x');
CALL regress_add('x', 4, 'remarks', E'-- nothing /*\n/* at /* all */; */\n--', E'-- no way back /* ;\n');
-- a transaction around it is left out
CALL regress_add('x', 5, 'around', E'BEGIN;\nCREATE TABLE around (i int);\nCOMMIT;\n', E'start transaction;\nDROP TABLE around;\nend transaction');
CALL regress_add('x', 6, 'around_nothing', 'BEGIN; COMMIT', 'BEGIN WORK; COMMIT WORK');
-- what looks like the end of a statement and is none
CALL regress_add('x', 7, 'quotes', $sql$
CREATE TABLE "a;b" (i int, "x""; y" text DEFAULT 'it''s; COMMIT;');
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  -- COMMIT; '
  RETURN (SELECT count(*) FROM "a;b"); /* $body$ ; */
END;
$$;
CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $body$ SELECT $$;$$ || E'\';' $body$;
CREATE RULE r AS ON DELETE TO "a;b" DO ALSO (INSERT INTO "a;b" VALUES (1); INSERT INTO "a;b" VALUES (2));
DO $$ BEGIN INSERT INTO "a;b" VALUES (0); END $$;
INSERT INTO "a;b" VALUES (3, U&'d!0061t;a' UESCAPE '!'), (4, 'a'
  'b;');
SAVEPOINT s; INSERT INTO "a;b" VALUES (5); ROLLBACK TO s; RELEASE s;
$sql$, 'DROP FUNCTION f(), g(); DROP TABLE "a;b"');
-- the same text twice is two statements, and each has an effect
CALL regress_add('x', 8, 'twice', 'INSERT INTO "a;b" VALUES (6, g()); INSERT INTO "a;b" VALUES (6, g())', 'DELETE FROM "a;b"');
-- line ends
CALL regress_add('x', 9, 'crlf', E'-- remark\r\nCREATE TABLE crlf (t text\r\n);\r\nINSERT INTO crlf VALUES (''a\r\nb'');\r\n', E'DROP TABLE crlf\r\n;\r\n');
SELECT version, name, status FROM dbpool_migrate('x');
SELECT regress_tables('x');
SELECT * FROM dbpool_query('x', 'SELECT i, "x""; y" FROM "a;b" ORDER BY i') AS t(i int, xy text);
SELECT * FROM dbpool_query('x', 'SELECT f(), (SELECT encode(convert_to(t, ''UTF8''), ''escape'') FROM crlf)') AS t(f int, crlf text);
SELECT * FROM regress_there('x');
SELECT version, status FROM dbpool_migration_rollback('x', target => 3);
SELECT regress_tables('x');

-- Texts that cannot be run, each as the one migration of a pool
CALL regress_remote('ends');
CREATE FUNCTION regress_ends(VARIADIC texts text[]) RETURNS TABLE (up_sql text, state text, message text, "where" text) LANGUAGE plpgsql AS $$
BEGIN
  FOREACH up_sql IN ARRAY texts LOOP
    DELETE FROM dbpool_migrations m WHERE m.pool = 'ends';
    CALL regress_put('ends', 1, 'one', up_sql);
    BEGIN
      PERFORM dbpool_migrate('ends');
      state := 'none';
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, "where" = PG_EXCEPTION_CONTEXT;
      "where" := substring("where" FROM 'migration 1[^\n]*');
    END;
    RETURN NEXT;
  END LOOP;
END $$;
\x on
\t on
\pset format unaligned
-- the end of a transaction in the middle
SELECT * FROM regress_ends('CREATE TABLE t (); COMMIT; CREATE TABLE u ()', 'CREATE TABLE t (); END', E'CREATE TABLE t ();\n ROLLBACK', 'BEGIN; CREATE TABLE t ()',
  'BEGIN; CREATE TABLE t (); COMMIT; CREATE TABLE u ()', 'BEGIN; COMMIT; BEGIN; COMMIT', 'BEGIN; CREATE TABLE t (); ROLLBACK', 'CREATE TABLE t (); ABORT WORK AND CHAIN',
  'CREATE TABLE t (); PREPARE TRANSACTION ''x''', 'COMMIT PREPARED ''x''', 'CREATE TABLE t (); DO $$BEGIN COMMIT; END$$', 'BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; COMMIT',
  'BEGIN; CREATE TABLE t (); COMMIT AND CHAIN', 'CREATE TABLE t (); SET TRANSACTION READ ONLY');
-- the end of a text in the middle
SELECT * FROM regress_ends(E'CREATE TABLE t ();\n SELECT ''x', 'SELECT $x$ $y$', 'SELECT 1; /* x /* */', 'SELECT "x');
-- what only a client could give, or take
SELECT * FROM regress_ends('CREATE TABLE t (); COPY t FROM STDIN', E'CREATE TABLE t ();\nCOPY t TO STDOUT;', 'COPY (SELECT 1) TO stdout (FORMAT csv)');
-- psql's commands
SELECT * FROM regress_ends('CREATE TABLE t (); \d', E'\\i other.sql\n');
\pset format aligned
\t off
\x off
-- nothing of all these is there
SELECT regress_tables('ends');
-- those that cannot be divided are told of before they are registered
CALL regress_add('ends', 2, 'copy', E'CREATE TABLE t (); COPY t FROM STDIN;\n1\n\\.\n');
CALL regress_add('ends', 2, 'commit', 'CREATE TABLE t (); COMMIT;');
-- COPY with something of the remote's is its own business
SELECT * FROM regress_ends('CREATE TABLE t (); COPY (SELECT 1) TO PROGRAM ''cat > /dev/null''');
SELECT regress_tables('ends');

--
-- Errors: code, statement, line and column
--
CALL regress_remote('e');
CALL regress_put('e', 1, 'umlauts', E'-- Äpfel €\n/* ü */ CREATE TABLE "Bäume" ("Größe" int); -- ß\n  INSERT INTO "Bäume" ("Größe", "Höhe")\n    VALUES (1, 2);\n', file => 'V1__umlauts.sql');
SELECT * FROM dbpool_migrate('e');
\echo :SQLSTATE
SELECT version, status, sqlstate, error FROM regress_here('e');
-- a syntax error, behind others in the same line
CALL regress_add('e', 1, 'umlauts', E'CREATE TABLE "Bäume" ("Größe" int); /* € */ INSERT INTO "Bäume" VALUES (1) /* ä */ RETURNIN "Größe"; SELECT 1;\n');
SELECT * FROM dbpool_migrate('e');
-- one without a position, and all that an error may have
CALL regress_add('e', 1, 'all', E'CREATE TABLE "Bäume" ("Größe" int);\n\n/* ä€ */ DO $$ BEGIN RAISE EXCEPTION ''not so'' USING ERRCODE = ''XY123'', DETAIL = ''the detail'', HINT = ''the hint''; END $$;\nSELECT 1');
SELECT * FROM dbpool_migrate('e');
\echo :SQLSTATE
-- in a function's own statement
CALL regress_add('e', 1, 'inner', E'CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT nocolumn FROM pg_class); END $$;\n\tSELECT f();');
SELECT * FROM dbpool_migrate('e');
-- at the end of the transaction
CALL regress_add('e', 1, 'deferred', 'CREATE TABLE p (i int PRIMARY KEY); CREATE TABLE c (i int REFERENCES p DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1);');
SELECT * FROM dbpool_migrate('e');
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('e', dry_run => true);
SELECT regress_tables('e');
-- in the middle of many portions: each statement has its line
CREATE FUNCTION regress_inserts(first int, last int) RETURNS text LANGUAGE sql AS
  $$ SELECT string_agg(format(E'\nINSERT INTO long VALUES (%s, ''%s'');', i, repeat('ü', 400)), '') FROM generate_series(first, last) i $$;
CALL regress_add('e', 1, 'long', 'CREATE TABLE long (i int, t text);' || regress_inserts(1, 1000) || E'\n   INSERT INTO long VALUES (''x'', ''y'');' || regress_inserts(1001, 2000));
SELECT * FROM dbpool_migrate('e');
CALL regress_add('e', 1, 'long', 'CREATE TABLE long (i int PRIMARY KEY, t text);' || regress_inserts(1, 1776) || ' /* € */ INSERT INTO long VALUES (1000);' || regress_inserts(1777, 2000));
SELECT * FROM dbpool_migrate('e');
-- a statement longer than a portion, with the error near its end; it is not shown
CALL regress_add('e', 1, 'long', E'CREATE TABLE long (t text);\n INSERT INTO long VALUES (''' || repeat('€', 100000) || E''')\n RETURNING x; SELECT 1');
SELECT * FROM dbpool_migrate('e');
SELECT regress_tables('e');
-- and all of it, when it is right
CALL regress_add('e', 1, 'long', 'CREATE TABLE long (i int, t text);' || regress_inserts(1, 2000));
SELECT version, status FROM dbpool_migrate('e');
SELECT * FROM dbpool_query('e', 'SELECT count(*), count(DISTINCT i), sum(length(t)) FROM long') AS t(n bigint, i bigint, length bigint);

--
-- What cannot run in a transaction
--
CALL regress_remote('n');
CALL regress_add('n', 1, 'one', 'CREATE TABLE t (i int, j int); INSERT INTO t VALUES (1, 1), (1, 2)', 'DROP TABLE t');
CALL regress_add('n', 2, 'two', 'CREATE INDEX CONCURRENTLY t_i ON t (i)');
SELECT version, status FROM dbpool_migrate('n');
\echo :SQLSTATE
CALL regress_add('n', 2, 'two', E'-- no-transaction\nCREATE INDEX CONCURRENTLY t_i ON t (i);\nVACUUM t;', E'-- no-transaction\nDROP INDEX CONCURRENTLY t_i');
SELECT version, transaction FROM dbpool_migrations WHERE pool = 'n' ORDER BY 1;
-- neither dry nor grouped
SET client_min_messages = notice;
SELECT version, status, duration FROM dbpool_migrate('n', dry_run => true);
SET client_min_messages = warning;
SELECT * FROM dbpool_migrate('n', grouped => true);
\echo :SQLSTATE
SELECT version, status FROM dbpool_migrate('n');
SELECT version, direction, state, text_of FROM regress_there('n');
SELECT version, direction, mode, status, sqlstate FROM regress_here('n');
-- back, with a dry run before
SELECT version, status FROM dbpool_migration_rollback('n', dry_run => true);
SELECT version, status FROM dbpool_migration_rollback('n');
SELECT version, direction, state, text_of FROM regress_there('n');
-- one that fails in the middle, and leaves an index that is not valid
CALL regress_add('n', 2, 'two', E'-- no-transaction\nCREATE TABLE u ();\nCREATE UNIQUE INDEX CONCURRENTLY t_i ON t (i);', E'DROP INDEX t_i; DROP TABLE u');
SELECT version, status FROM dbpool_migrate('n');
\echo :SQLSTATE
SELECT * FROM regress_status('n');
SELECT version, direction, state FROM regress_there('n');
-- the next run says what to look for; so do others
SELECT version, status FROM dbpool_migrate('n');
\echo :SQLSTATE
SELECT version, status FROM dbpool_migrate('n', fake => true);
SELECT version, status FROM dbpool_migration_rollback('n');
-- it has been undone
SELECT dbpool_exec('n', 'DROP INDEX t_i; DROP TABLE u');
SELECT dbpool_migration_resolve('n', 1, 'pending');
\echo :SQLSTATE
SELECT dbpool_migration_resolve('n', 3, 'pending');
\echo :SQLSTATE
SELECT dbpool_migration_resolve('n', 2, 'done');
\echo :SQLSTATE
SELECT dbpool_migration_resolve('n', 2, NULL);
SELECT dbpool_migration_resolve('n', 2, 'pending');
SELECT * FROM regress_status('n');
SELECT dbpool_migration_resolve('n', 2, 'pending');
-- and is tried again, fails again
SELECT version, status FROM dbpool_migrate('n');
-- somebody ends it by hand
SELECT dbpool_exec('n', 'DELETE FROM t WHERE j = 2');
SELECT dbpool_exec('n', 'REINDEX INDEX t_i');
SELECT dbpool_migration_resolve('n', 2, 'applied');
SELECT * FROM regress_status('n');
CALL regress_add('n', 3, 'three', E'\n  --no-transaction  \nSELECT 1');
SELECT version, status FROM dbpool_migrate('n');
SELECT version, direction, state, text_of FROM regress_there('n');
SELECT version, name, direction, mode, status, sqlstate, error FROM regress_here('n');
-- the way back fails in the middle
CALL regress_remote('back');
CALL regress_add('back', 1, 'one', E'CREATE TABLE t (i int); CREATE INDEX t_i ON t (i)', E'-- no-transaction\nDROP INDEX CONCURRENTLY t_i;\n DROP TABLE nonesuch; DROP TABLE t');
SELECT version, status FROM dbpool_migrate('back');
SELECT version, status FROM dbpool_migration_rollback('back');
\echo :SQLSTATE
SELECT * FROM regress_status('back');
SELECT version, status FROM dbpool_migration_rollback('back');
SELECT dbpool_migration_resolve('back', 1, 'applied');
SELECT * FROM regress_status('back');
SELECT version, status FROM dbpool_migration_rollback('back');
SELECT dbpool_migration_resolve('back', 1, 'pending');
SELECT * FROM regress_status('back');
SELECT version, direction, state FROM regress_there('back');
-- by the option, not the text; BEGIN and COMMIT are its own then
CALL regress_remote('own');
CALL regress_add('own', 1, 'own', 'CREATE TABLE t (); BEGIN; CREATE TABLE u (); ROLLBACK; BEGIN; CREATE TABLE v (); COMMIT; VACUUM t', 'DROP TABLE t', '{"transaction": false}');
CALL regress_add('own', 2, 'open', 'BEGIN; CREATE TABLE w ()', NULL, '{"transaction": false}');
SELECT version, status FROM dbpool_migrate('own');
\echo :SQLSTATE
SELECT regress_tables('own');
SELECT dbpool_migration_resolve('own', 2, 'pending');
SELECT version, status FROM dbpool_migration_rollback('own', dry_run => true);
-- faked all the same
SELECT version, status FROM dbpool_migrate('own', fake => true);
SELECT version, direction, state FROM regress_there('own');

--
-- What a migration leaves in its session is not there for the next
--
CALL regress_remote('settings');
SELECT dbpool_exec('remote', 'DROP ROLE IF EXISTS regress_migrator; CREATE ROLE regress_migrator; GRANT CREATE ON DATABASE remote TO regress_migrator; GRANT ALL ON SCHEMA mig_settings TO regress_migrator') \g /dev/null
CALL regress_add('settings', 1, 'läßt zurück', $$
  CREATE TABLE seen (version int, item text, value text);
  CREATE TEMP TABLE pg_temp_table (i int);
  PREPARE p AS SELECT 1;
  DECLARE c CURSOR WITH HOLD FOR SELECT 1;
  LISTEN regress;
  SET work_mem = '1234kB';
  SET search_path = pg_catalog;
  SET statement_timeout = '1h';
  SET standard_conforming_strings = off;
  SET TIME ZONE 'Asia/Tokyo';
  SET client_encoding = 'LATIN1';
  SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE;
  SET ROLE regress_migrator
$$, $$ DROP TABLE seen; SET ROLE regress_migrator; SET search_path = pg_catalog $$);
SELECT format($$ INSERT INTO seen SELECT %%s, * FROM (VALUES ('role', current_user = session_user), ('path', current_setting('search_path') = 'mig_settings'), ('temp', to_regclass('pg_temp_table') IS NULL),
   ('memory', current_setting('work_mem') <> '1234kB'), ('timeout', current_setting('statement_timeout') <> '1h'), ('strings', current_setting('standard_conforming_strings') = 'on'),
   ('zone', current_setting('TimeZone') <> 'Asia/Tokyo'), ('encoding', current_setting('client_encoding') = 'UTF8'), ('isolation', current_setting('transaction_isolation') <> 'serializable'),
   ('prepared', NOT EXISTS (SELECT FROM pg_prepared_statements)), ('cursors', NOT EXISTS (SELECT FROM pg_cursors WHERE name = 'c')), ('listening', NOT EXISTS (SELECT pg_listening_channels()))) $$) AS looks \gset
CALL regress_add('settings', 2, 'look', format(:'looks', 2) || 'AS t', 'SELECT 1');
-- nor for one that runs outside of a transaction, and nor is what that one leaves there
CALL regress_add('settings', 3, 'alone', E'-- no-transaction\n' || format(:'looks', 3) || $$ AS t; CREATE TEMP TABLE pg_temp_table (i int); PREPARE p AS SELECT 1; SET ROLE regress_migrator; SET search_path = pg_catalog $$, '-- nothing');
CALL regress_add('settings', 4, 'look', format(:'looks', 4) || 'AS t', 'SELECT 1');
SELECT version, status FROM dbpool_migrate('settings');
SELECT * FROM dbpool_query('settings', 'SELECT version, string_agg(item, '' '' ORDER BY item) FILTER (WHERE value = ''true''), string_agg(item, '' '') FILTER (WHERE value = ''false'') FROM seen GROUP BY 1 ORDER BY 1')
  AS t(version int, new text, left_over text);
SELECT version, name, direction, state FROM regress_there('settings');
SELECT version, status FROM dbpool_migration_rollback('settings', 4);
-- Within one transaction settings go from one to the next as the role does not: the history is written as what the session was
SELECT version, status FROM dbpool_migrate('settings', 1, grouped => true);
SELECT dbpool_exec('remote', 'DROP SCHEMA mig_settings CASCADE; REVOKE ALL ON DATABASE remote FROM regress_migrator; DROP ROLE regress_migrator') \g /dev/null
-- the transaction has run nothing yet, so it can be what a migration wants
CALL regress_remote('isolation');
CALL regress_add('isolation', 1, 'one', 'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; CREATE TABLE t AS SELECT current_setting(''transaction_isolation'') AS isolation');
CALL regress_add('isolation', 2, 'two', 'INSERT INTO t SELECT current_setting(''transaction_isolation'')');
SELECT version, status FROM dbpool_migrate('isolation');
SELECT * FROM dbpool_query('isolation', 'TABLE t') AS t(isolation text);
-- a migration that lets go of the lock: nothing is run without
CALL regress_remote('lock');
CALL regress_add('lock', 1, 'unlock', 'CREATE TABLE t1 (); SELECT pg_advisory_unlock_all()');
CALL regress_add('lock', 2, 'two', 'CREATE TABLE t2 ()');
SELECT version, status FROM dbpool_migrate('lock');
\echo :SQLSTATE
SELECT * FROM regress_status('lock');

-- a COMMIT that is none as the text is read before it runs
CALL regress_remote('inside');
CALL regress_add('inside', 1, 'one', $$
  SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('standard_conforming_strings', 'escape_string_warning');
  SELECT '\''; COMMIT; --';
\unrestrict x
  CREATE TABLE never () $$);
SELECT version, status FROM dbpool_migrate('inside');
\echo :SQLSTATE
SELECT * FROM regress_status('inside');
SELECT * FROM dbpool_query('inside', 'SELECT to_regclass(''never'')') AS t(never text);

-- The pool's own sessions keep none of it; and what they have prepared fits the new tables.
CALL regress_remote('prepared');
CALL regress_add('prepared', 1, 'one', 'CREATE TABLE t (i int); INSERT INTO t VALUES (1)', 'DROP TABLE t');
CALL regress_add('prepared', 2, 'two', 'ALTER TABLE t ALTER i TYPE text; ALTER TABLE t ADD j int DEFAULT 2', 'ALTER TABLE t DROP j; ALTER TABLE t ALTER i TYPE int USING i::int');
SELECT version, status FROM dbpool_migrate('prepared', 1);
SELECT count(*) FROM generate_series(1, 10) i, dbpool_query('prepared', 'SELECT *, $1::int FROM t', i) AS t(i int, j int);
SELECT version, status FROM dbpool_migrate('prepared');
SELECT DISTINCT t.i, t.j FROM generate_series(1, 10) i, dbpool_query('prepared', 'SELECT *, $1::int FROM t', i) AS t(i text, j int, k int);
SELECT version, status FROM dbpool_migration_rollback('prepared');
SELECT DISTINCT t.i FROM generate_series(1, 10) i, dbpool_query('prepared', 'SELECT *, $1::int FROM t', i) AS t(i int, k int);

--
-- Messages of the remote come through
--
CALL regress_remote('m');
CALL regress_add('m', 1, 'notices', E'DO $$ BEGIN RAISE NOTICE ''a note'' USING DETAIL = ''its detail'', HINT = ''its hint''; RAISE WARNING ''a warning''; RAISE LOG ''not for us''; END $$;\nDROP TABLE IF EXISTS nonesuch;\nSELECT 1/0');
SET client_min_messages = notice;
SELECT * FROM dbpool_migrate('m');
SET client_min_messages = warning;
SELECT * FROM dbpool_migrate('m');

--
-- The caller's transaction
--
CALL regress_remote('t');
CALL regress_add('t', 1, 'one', 'CREATE TABLE t1 ()', 'DROP TABLE t1');
BEGIN;
CREATE TABLE regress_local ();
SELECT version, status FROM dbpool_migrate('t');
-- what it did is seen at once, as it is no part of the transaction
SELECT * FROM regress_here('t');
ROLLBACK;
SELECT regress_tables('t');
SELECT version, direction, mode, status FROM regress_here('t');
SELECT * FROM regress_status('t');
-- what it has registered is there for it, and gone with it
BEGIN;
CALL regress_add('t', 2, 'two', 'CREATE TABLE t2 ()');
SELECT version, status FROM dbpool_migrate('t');
ROLLBACK;
SELECT * FROM regress_status('t');
-- one that fails does not keep the transaction from going on, and is remembered
DO $$
BEGIN
  CALL regress_add('t', 2, 'two', 'CREATE TABLE t2 ()');
  CALL regress_add('t', 3, 'three', 'CREATE TABLE t1 ()');
  BEGIN
    PERFORM dbpool_migrate('t');
  EXCEPTION WHEN duplicate_table THEN
    RAISE WARNING 'caught: %', SQLERRM;
  END;
  RAISE EXCEPTION 'enough';
END $$;
SELECT version, direction, mode, status, sqlstate, error FROM regress_here('t');
-- in a transaction that may not write, and one of another isolation level
BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM dbpool_migration_history WHERE pool = 't';
SELECT version, status FROM dbpool_migration_rollback('t', allow_divergent => true);
ROLLBACK;
SELECT dbpool_drop_migration('t', 1);
\echo :SQLSTATE
-- as a part of a query
CALL regress_remote('q');
CALL regress_add('q', 1, 'one', 'CREATE TABLE t1 ()', 'DROP TABLE t1');
CALL regress_add('q', 2, 'two', 'CREATE TABLE t2 ()', 'DROP TABLE t2');
SELECT m.version, m.status FROM (VALUES (1), (2)) v(target), LATERAL dbpool_migrate('q', target) m;
SELECT (dbpool_migration_rollback('q')).status FROM generate_series(1, 3);
SELECT version, status FROM dbpool_migrate('q') LIMIT 1;
SELECT regress_tables('q');

--
-- A database that was there before: baseline
--
CALL regress_remote('b');
DO $$ BEGIN PERFORM dbpool_add_migration('b', v, 'make_t' || v, format('CREATE TABLE t%s (i int)', v), format('DROP TABLE t%s', v)) FROM generate_series(1, 4) v; END $$;
SELECT dbpool_exec('b', 'CREATE TABLE t1 (); CREATE TABLE t2 ()');
SELECT dbpool_migration_baseline('b', -1);
SELECT dbpool_migration_baseline('b', NULL);
SELECT dbpool_migration_baseline('b', 2);
SELECT * FROM regress_status('b');
SELECT * FROM regress_there('b');
SELECT * FROM regress_here('b');
SELECT version, status FROM dbpool_migrate('b');
SELECT dbpool_migration_baseline('b', 4);
\echo :SQLSTATE
SELECT * FROM dbpool_migration_rollback('b', target => 1);
\echo :SQLSTATE
SELECT version, status FROM dbpool_migration_rollback('b', target => 2);
SELECT * FROM dbpool_migration_rollback('b');
SELECT regress_tables('b');
-- at a version that is not registered
CALL regress_remote('b2');
CALL regress_add('b2', 5, 'five', 'CREATE TABLE t5 ()', 'DROP TABLE t5');
CALL regress_add('b2', 15, 'fifteen', 'CREATE TABLE t15 ()', 'DROP TABLE t15');
SELECT dbpool_migration_baseline('b2', 10);
SELECT * FROM regress_status('b2');
SELECT version, status FROM dbpool_migrate('b2');
-- once all is rolled back that can be, it may have another
SELECT version, status FROM dbpool_migration_rollback('b2');
SELECT dbpool_migration_baseline('b2', 15);

--
-- Divergent by line ends, and otherwise: repair
--
CALL regress_remote('r');
CALL regress_add('r', 1, 'one', E'CREATE TABLE t1 (\n);\n');
CALL regress_add('r', 2, 'two', E'CREATE TABLE t2 (\r\n);\r\n');
CALL regress_add('r', 3, 'three', E'CREATE TABLE t3 (\n);\n');
SELECT version, status FROM dbpool_migrate('r');
SELECT * FROM dbpool_migration_repair('r');
CALL regress_remote('r2', 'r');
CALL regress_add('r2', 1, 'one', E'CREATE TABLE t1 (\r\n);\r\n');
CALL regress_add('r2', 2, 'two', E'CREATE TABLE t2 (\n);\n');
CALL regress_add('r2', 3, 'three', E'CREATE TABLE t3 (\n);\n');
SELECT * FROM regress_status('r2');
SELECT * FROM dbpool_migrate('r2');
SELECT * FROM dbpool_migration_repair('r2', 3);
SELECT * FROM dbpool_migration_repair('r2', 4);
\echo :SQLSTATE
SELECT * FROM dbpool_migration_repair('r2', 1);
SELECT * FROM dbpool_migrate('r2');
SELECT * FROM dbpool_migration_repair('r2');
SELECT * FROM dbpool_migrate('r2');
SELECT * FROM regress_status('r2');
SELECT version, direction, state, text_of FROM regress_there('r2');
SELECT version, direction, mode, status FROM regress_here('r2');
-- the first one sees that
SELECT version, status, detail FROM regress_status('r');
CALL regress_add('r2', 4, 'four', 'CREATE TABLE t4 ()');
SELECT version, status FROM dbpool_migrate('r2');
CALL regress_add('r', 4, 'four', 'CREATE TABLE t4 (i int)');
SELECT * FROM dbpool_migrate('r');
SELECT * FROM dbpool_migration_repair('r');
SELECT * FROM dbpool_migration_repair('r', 4, force => true);
SELECT version, status, detail FROM regress_status('r');
-- nothing to repair where nothing is
CALL regress_remote('r3');
SELECT * FROM dbpool_migration_repair('r3');
SELECT regress_tables('r3');

--
-- Many remotes
--
CALL regress_remote('all1');
CALL regress_remote('all2');
CALL regress_remote('all3');
SELECT dbpool_create_pool('away2', 'host=/nonesuch port=1');
CALL regress_add('all1', 1, 'one', 'CREATE TABLE t1 ()');
CALL regress_add('all1', 2, 'two', 'CREATE TABLE t2 ()');
CALL regress_add('all2', 1, 'one', 'CREATE TABLE t1 ()');
CALL regress_add('all2', 2, 'two', 'SELECT 1/0');
CALL regress_add('all2', 3, 'three', 'CREATE TABLE t3 ()');
CALL regress_add('all3', 1, 'one', 'CREATE TABLE t1 ()');
SELECT pool, status, migrations, version, duration > '0' AS took, sqlstate, error FROM dbpool_migrate_all('{all1,all2,all3}', dry_run => true);
SELECT pool, status, migrations, version, sqlstate, error FROM dbpool_migrate_all('{all1}', target => 1);
SET client_min_messages = notice;
SELECT pool, status, migrations, version, sqlstate, error FROM dbpool_migrate_all('{away2}');
SET client_min_messages = warning;
SELECT pool, status, migrations, version, sqlstate, error FROM dbpool_migrate_all('{all1,all2,nonesuch,all3}', stop_on_error => true);
SELECT pool, status, migrations, version, sqlstate, error FROM dbpool_migrate_all('{all1,all2,nonesuch,all3,all1}');
SELECT pool, version, status, sqlstate FROM dbpool_migration_history WHERE pool LIKE 'all_' AND mode <> 'dry run' ORDER BY id;
SELECT pool, status, migrations, version, sqlstate, error FROM dbpool_migrate_all('{}');
SELECT * FROM dbpool_migrate_all('{all1,NULL}');
SELECT * FROM dbpool_migrate_all('{all1}', target => -1);
SELECT * FROM dbpool_migrate_all('{all1}', lock_timeout => NULL);
-- all that have some
SELECT dbpool_drop_pool(srvname) FROM pg_foreign_server WHERE srvname !~ '^(remote|zero|all.)$' \g /dev/null
SELECT pool, status, migrations, version, sqlstate FROM dbpool_migrate_all();

--
-- Arguments
--
\set VERBOSITY terse
SELECT * FROM dbpool_migrate(NULL);
SELECT * FROM dbpool_migrate('nonesuch');
SELECT * FROM dbpool_migration_rollback('nonesuch');
SELECT * FROM dbpool_migration_status('nonesuch');
SELECT * FROM dbpool_migration_status(NULL);
SELECT * FROM dbpool_migration_repair('nonesuch');
SELECT * FROM dbpool_migration_resolve('nonesuch', 1, 'applied');
SELECT * FROM dbpool_migration_baseline('nonesuch', 1);
SELECT * FROM dbpool_migrate('zero', lock_timeout => NULL);
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('zero', lock_timeout => '-1 s');
SELECT * FROM dbpool_migrate('zero', lock_timeout => '25 days');
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('zero', NULL, NULL, NULL, NULL, '0', NULL, NULL);
\set VERBOSITY default
-- a remote that is not there
SELECT dbpool_create_pool('away', 'host=/nonesuch port=1');
SELECT * FROM dbpool_migrate('away');
\echo :SQLSTATE
SELECT * FROM dbpool_migration_status('away');
-- a remote without a schema
SELECT dbpool_create_pool('noschema', :'remote_conninfo' || ' options=''-c search_path=nonesuch''');
SELECT * FROM dbpool_migration_status('noschema');
CALL regress_add('noschema', 1, 'one', 'SELECT 1');
SELECT * FROM dbpool_migrate('noschema');
\echo :SQLSTATE
-- a name that is taken
CALL regress_remote('taken');
SELECT dbpool_exec('taken', 'CREATE VIEW dbpool_migration_history AS SELECT 1 AS version');
CALL regress_add('taken', 1, 'one', 'CREATE TABLE t ()');
SELECT version, status FROM dbpool_migration_status('taken');
SELECT * FROM dbpool_migrate('taken');
\echo :SQLSTATE
SELECT * FROM dbpool_migrate('taken', dry_run => true);

-- what was registered by a role that may do so no longer is not run, as it would
-- be with others' rights
CREATE ROLE regress_dbpool_former;
CALL regress_remote('former');
ALTER SERVER former OWNER TO regress_dbpool_former;
ALTER USER MAPPING FOR CURRENT_USER SERVER former OPTIONS (ADD password_required 'false');
SET ROLE regress_dbpool_former;
SELECT dbpool_add_migration('former', 1, 'one', 'CREATE TABLE one ()', 'DROP TABLE one');
SELECT dbpool_add_migration('former', 2, 'two', 'CREATE TABLE two ()', 'DROP TABLE two');
RESET ROLE;
SELECT version, status FROM dbpool_migrate('former', 1);
ALTER SERVER former OWNER TO CURRENT_USER;
SELECT * FROM dbpool_migrate('former');
SELECT * FROM dbpool_migrate('former', dry_run => true);
SELECT * FROM dbpool_migration_rollback('former');
SELECT pool, status, sqlstate FROM dbpool_migrate_all('{former}');
SELECT regress_tables('former');
-- but has been looked at when somebody registers the same again
CALL regress_add('former', 2, 'two', 'CREATE TABLE two ()', 'DROP TABLE two');
SELECT version, added_by = current_user AS mine FROM dbpool_migrations WHERE pool = 'former' ORDER BY 1;
SELECT version, status FROM dbpool_migrate('former');
SELECT version, status FROM dbpool_migration_rollback('former', 2);
CALL regress_add('former', 1, 'one', 'CREATE TABLE one ()', 'DROP TABLE one');
SELECT version, status FROM dbpool_migration_rollback('former', 2);
-- a grant is a right, too
GRANT EXECUTE ON FUNCTION dbpool_add_migration TO regress_dbpool_former;
SET ROLE regress_dbpool_former;
SELECT dbpool_add_migration('former', 3, 'three', 'CREATE TABLE three ()');
RESET ROLE;
SELECT version, status FROM dbpool_migrate('former', 3);
REVOKE EXECUTE ON FUNCTION dbpool_add_migration FROM regress_dbpool_former;
-- a role that is gone has no right
DROP SERVER former CASCADE;
CALL regress_remote('former');
CALL regress_put('former', 4, 'four', 'SELECT 4');
UPDATE dbpool_migrations SET added_by = 'regress_dbpool_former' WHERE pool = 'former' AND version = 4;
DROP ROLE regress_dbpool_former;
SELECT * FROM dbpool_migrate('former');
-- and nothing of it comes back with the name of the server
CALL regress_add('former', 5, 'five', 'SELECT 5');
DROP SERVER former CASCADE;
CALL regress_remote('former');
SELECT * FROM dbpool_migrate('former');
SELECT * FROM dbpool_migration_status('former');

-- the progress view and no connection are left
SELECT count(*) FROM dbpool_progress_migrate;
SELECT regress_wait($$ (SELECT n = 0 FROM dbpool_query('remote', 'SELECT count(*) FROM pg_stat_activity WHERE application_name = ''dbpool migration''') AS t(n bigint)) $$);
SELECT regress_wait($$ NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'dbpool recorder') $$);

SET client_min_messages = error;
DO $$
DECLARE
  name name;
BEGIN
  FOR name IN SELECT n FROM dbpool_query('remote', 'SELECT nspname FROM pg_namespace WHERE nspname LIKE ''mig\_%''') AS t(n name) LOOP
    PERFORM dbpool_exec('remote', format('DROP SCHEMA %I CASCADE', name));
  END LOOP;
END $$;
