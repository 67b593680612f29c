--
-- How the text of a migration is divided into statements
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

CREATE FUNCTION regress_split(sql text) RETURNS TABLE (at text, kind text, statement text) LANGUAGE sql
  AS $$ SELECT line || ':' || "column", kind, statement FROM dbpool_migration_statements(sql) $$;

-- semicolons, empty statements, and a last one without
SELECT * FROM regress_split('SELECT 1; SELECT 2;; ; SELECT 3');
SELECT * FROM regress_split('');
SELECT * FROM regress_split(E' ;\n -- nothing\n /* at all */ ; ');
-- comments around a statement are not part of it, within they are
SELECT * FROM regress_split(E'-- one; two\n/* a; /* nested; */ b */ SELECT -- x;\n 1 /* y; */ + 2 -- z;\n;SELECT 3 --');
-- lines end by LF or CR LF; columns are characters
SELECT * FROM regress_split(E'SELECT 1;\r\nSELECT ''äöü''; SELECT 2;\n\n  SELECT 3');

-- strings of all kinds
SELECT * FROM regress_split($a$ SELECT ';'; SELECT 'it''s; \'; SELECT "a;""b"; SELECT E'\';'; SELECT E'\\'; SELECT e'a''\';' $a$);
SELECT * FROM regress_split($a$ SELECT $$;'"$$; SELECT $x$ ; $$ ; $y$ ; $x$; SELECT $_ä1$;$_ä1$; SELECT a$$, b$x$, $1; SELECT 1 $a$);
SELECT * FROM regress_split($a$ SELECT N';', B'1;', x'1;', U&';\', U&"a;\"; SELECT 1 $a$);
-- one that goes on in the next line stays of its kind
SELECT * FROM regress_split(E'SELECT E''a''\n  ''\\'';''; SELECT E''a'' -- x\n-- y\n''\\'';''; SELECT ''a''\n''\\''; SELECT E''a'' ''\\''; SELECT 1');
-- and backslashes are read as was set before
SELECT * FROM regress_split($a$ SELECT '\'; SET standard_conforming_strings = off; SELECT '\';'; Set Session Standard_Conforming_Strings to 'true'; SELECT '\'; SET LOCAL "standard_conforming_strings" TO NO; SELECT '\';'; RESET ALL; SELECT '\'; SELECT 1 $a$);
SELECT * FROM regress_split($a$ SELECT pg_catalog . set_config ('standard_conforming_strings', 'off', false); SELECT '\';'; set standard_conforming_strings to default; SELECT '\'; select set_config('standard_conforming_strings', '0', false) ; SELECT '\';'; DISCARD ALL; SELECT '\'; SELECT 1 $a$);
SELECT * FROM regress_split($a$ SET my.standard_conforming_strings = off; SELECT '\'; SET standard_conforming_strings = 'odd'; SELECT '\'; SELECT 1 $a$);
-- or in the only way in which the text has an end
SELECT * FROM regress_split($a$ SELECT 'it\'s; one'; SELECT 2 $a$);
-- marks of a tool's blocks end statements
SELECT * FROM regress_split(E'-- +goose StatementBegin\nSELECT (1\n  --+goose statementend\r\nSELECT 2; SELECT 3\n-- +migrate StatementBegin\nSELECT 4; SELECT 5 -- +goose StatementEnd\n+ 6;-- +migrate StatementEnd\n  -- +migrate StatementEnd\n + 7\n-- +goose NO TRANSACTION\n + 8');
-- operators that end where a comment begins
SELECT * FROM regress_split(E'SELECT 1 +-- x;\n 2; SELECT 3 */* ; */ 4; SELECT a->>b, c::d, e:=f, g||h');
-- numbers that this server may not know, and others
SELECT * FROM regress_split('SELECT 0xFF, 1_000, 1.5e10, .5, 1., 1..2, 0b1; SELECT $1$$;$$; SELECT .5.a$$; SELECT 1');

-- parentheses
SELECT * FROM regress_split('CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO a VALUES (1); INSERT INTO b VALUES (2);); SELECT (1); )SELECT 2; SELECT ((3); SELECT 4');
-- bodies of functions in standard SQL
SELECT * FROM regress_split('CREATE OR REPLACE FUNCTION f(begin int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1. END; SELECT (CASE 1 WHEN 2 THEN 3 END); SELECT 1 AS end, t.case, t."end" FROM t; END; SELECT 2');
SELECT * FROM regress_split(E'create procedure p() begin -- x\n atomic insert into t values (1); end; select 2');
SELECT * FROM regress_split('CREATE FUNCTION begin() RETURNS int RETURN 1; SELECT 2');
-- which are nowhere else
SELECT * FROM regress_split('CREATE VIEW v AS SELECT begin atomic FROM t; SELECT 1; BEGIN ATOMIC; SELECT 2; END');

-- control of transactions
SELECT statement, kind FROM dbpool_migration_statements($a$
  BEGIN; begin work; Begin Transaction; BEGIN ISOLATION LEVEL SERIALIZABLE; START TRANSACTION; START TRANSACTION READ ONLY; START;
  COMMIT; commit work; END; END TRANSACTION; COMMIT AND CHAIN; COMMIT PREPARED 'x';
  ROLLBACK; ROLLBACK WORK; ABORT; ROLLBACK AND NO CHAIN; ROLLBACK PREPARED 'x';
  ROLLBACK TO s; ROLLBACK WORK TO SAVEPOINT s; ROLLBACK TRANSACTION TO s; SAVEPOINT s; RELEASE s;
  PREPARE TRANSACTION 'x'; PREPARE p AS SELECT 1; "begin"; /* x */ commit; DO $$BEGIN END$$; SET TRANSACTION READ ONLY $a$);

-- texts that end too soon
SELECT * FROM regress_split(E'SELECT 1;\n\n  SELECT ''abc; SELECT 2');
SELECT * FROM regress_split(E'SELECT E''abc\\''; SELECT 2');
SELECT * FROM regress_split(E'SELECT ''abc''\n ''def');
SELECT * FROM regress_split(E'ä "abc; SELECT 2');
SELECT * FROM regress_split('SELECT $x$ abc $$ $y$');
SELECT * FROM regress_split(E'SELECT 1;\n /* /* */ SELECT 2');
SELECT * FROM regress_split('SELECT $a$');
SELECT * FROM regress_split(E'SELECT E''\\');
-- within parentheses it is for the remote to say
SELECT * FROM regress_split('SELECT (1; SELECT 2');

-- what only psql knows
SELECT * FROM regress_split(E'SELECT 1;\n\\i other.sql\n');
SELECT * FROM regress_split('SELECT 1 \gset');
SELECT * FROM regress_split(E'\\connect äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü');
SELECT * FROM regress_split(E'SELECT 1;\nCOPY t FROM STDIN;\n1\t2\n\\.\n');
SELECT * FROM regress_split('copy (select stdin from t) to stdout');
SELECT * FROM regress_split('COPY t FROM ''/tmp/stdin''; COPY t TO PROGRAM ''stdout''; SELECT from stdin; COPY (SELECT a FROM stdin) TO ''x''');
-- and a nice long identifier makes no notice
SELECT length(statement) FROM dbpool_migration_statements('SELECT ' || repeat('x', 100));

-- a long text takes time and memory by its length
SELECT count(*), max(line), max("column") FROM dbpool_migration_statements(repeat('SELECT 1, ''a;b'';', 100000));
SELECT count(*), max(line), max("column") FROM dbpool_migration_statements(repeat(E'SELECT 1;\n', 100000));
SELECT count(*), max(length(statement)) FROM dbpool_migration_statements('SELECT ' || repeat(E'''a;''\n', 100000) || repeat('/*', 100000) || repeat('*/', 100000));
SELECT count(*), max(length(statement)) FROM dbpool_migration_statements('SELECT ' || repeat('$a$b$', 100000) || '$a$');

DROP FUNCTION regress_split;
