--
-- Results that do not have the shape or the values that the caller expects
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

\set SHOW_CONTEXT always
-- too few and too many columns
SELECT * FROM dbpool_query('remote', 'SELECT 1 AS a, 2 AS b') AS t(a int);
SELECT * FROM dbpool_query('remote', 'SELECT 1 AS a, ''x''::varchar(5) AS "B c"') AS t(a int, "B c" varchar(5), c numeric(10,2));
SELECT * FROM dbpool_query('remote', 'SELECT FROM generate_series(1, 3)') AS t(a int);
-- also when there is no row
SELECT * FROM dbpool_query('remote', 'SELECT 1 AS a, 2 AS b WHERE false') AS t(a int);

-- a value that does not fit
SELECT * FROM dbpool_query('remote', 'SELECT i, CASE i WHEN 3 THEN ''x'' ELSE i::text END FROM generate_series(1, 5) i') AS t(id int, n int);
SELECT * FROM dbpool_query('remote', 'SELECT 3000000000') AS t(n int);
SELECT * FROM dbpool_query('remote', 'SELECT ''abcdef''') AS t(s varchar(3));
SELECT * FROM dbpool_query('remote', 'SELECT 123.456') AS t(n numeric(4,2));
SELECT * FROM dbpool_query('remote', 'SELECT ''no-uuid''') AS t(u uuid);
SELECT * FROM dbpool_query('remote', 'SELECT 1') AS t("odd name" bool[]);
-- the column that comes after is not to blame
SELECT * FROM dbpool_query('remote', 'SELECT ''x'', ''x''') AS t(a text, b int);

-- one that fits after conversion
SELECT * FROM dbpool_query('remote', 'SELECT 1, 2.5, ''3'', true, ''ab''') AS t(a text, b float8, c int, d text, e char(4));
SELECT * FROM dbpool_query('remote', 'SELECT 123.456, time ''12:00:00.123456''') AS t(n numeric(6,1), t time(1));

-- domains
CREATE DOMAIN regress_named AS text NOT NULL CHECK (VALUE <> '');
SELECT * FROM dbpool_query('remote', 'SELECT ''x''') AS t(a regress_named);
SELECT * FROM dbpool_query('remote', 'SELECT NULL') AS t(a regress_named);
SELECT * FROM dbpool_query('remote', 'SELECT ''''') AS t(a regress_named);
CREATE TABLE regress_row (id int, name regress_named);
SELECT * FROM dbpool_query_as(NULL::regress_row, 'remote', 'SELECT 1, ''x''');
SELECT * FROM dbpool_query_as(NULL::regress_row, 'remote', 'SELECT 1, NULL');
DROP TABLE regress_row;
DROP DOMAIN regress_named;

-- in a select list, shapes that differ from call to call
SELECT dbpool_query('remote', s) FROM (VALUES ('SELECT 1'), ('SELECT 2')) v(s);
SELECT dbpool_query('remote', s) FROM (VALUES ('SELECT 1'), ('SELECT 1, 2')) v(s);
SELECT dbpool_query('remote', s) FROM (VALUES ('SELECT 1'), ('SELECT ''x''')) v(s);
SELECT dbpool_query('remote', s) FROM (VALUES ('SELECT 1'), ('SET work_mem = ''1MB''')) v(s);
-- from query to query they may
PREPARE p(text) AS SELECT dbpool_query('remote', $1);
EXECUTE p('SELECT 1');
EXECUTE p('SELECT ''x'', 2');
DEALLOCATE p;

-- no list where one is needed
SELECT * FROM dbpool_query('remote', 'SELECT 1');

-- as many columns as a row can have, and more
SELECT length(q::text) FROM (SELECT dbpool_query('remote', 'SELECT ' || string_agg(i::text, ', ')) FROM generate_series(1, 1600) i) t(q);
SELECT length(q::text) FROM (SELECT dbpool_query('remote', 'SELECT ' || string_agg(i::text, ', ')) FROM generate_series(1, 1664) i) t(q);

-- after all that the pool still works
SELECT dbpool_query('remote', 'SELECT ''it goes on''');
SELECT regress_wait($$(SELECT idle > 0 AND busy = 0 FROM dbpool_pools WHERE pool = 'remote' AND database = current_database())$$);
