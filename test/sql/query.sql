--
-- dbpool_query: any statement, its rows with or without a column list
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- with a column definition list
SELECT * FROM dbpool_query('remote', 'SELECT 1, ''one''') AS t(id int, name text);
SELECT name, id * 10 AS ten FROM dbpool_query('remote',
  'SELECT i, ''n'' || i FROM generate_series(1, 5) i') AS t(id int, name text)
WHERE id > 2 ORDER BY id DESC;

-- without one, in a select list: columns and types are the remote's
SELECT dbpool_query('remote', 'SELECT 1, 2');
SELECT (dbpool_query('remote', 'SELECT 1, NULL::text, ''a b''')) AS row;
SELECT dbpool_query('remote', 'SELECT i, i * i FROM generate_series(1, 3) i');
SELECT row_to_json(q) FROM (SELECT dbpool_query('remote', 'SELECT 1 AS a, true AS b, ''x''::text AS c')) AS s(q);

-- once per row of the query it stands in
SELECT n, t.* FROM generate_series(1, 3) n,
  LATERAL dbpool_query('remote', 'SELECT $1::int * 2, $1::int * 3', n) AS t(double int, triple int);
SELECT n, dbpool_query('remote', 'SELECT $1::int, i FROM generate_series(1, $1) i', n) FROM generate_series(0, 2) n;

-- joined with itself and with a local table
SELECT a.x, b.y FROM dbpool_query('remote', 'SELECT generate_series(1, 2)') AS a(x int)
JOIN dbpool_query('remote', 'SELECT generate_series(2, 3)') AS b(y int) ON a.x = b.y;
SELECT relname, relkind FROM dbpool_query('remote', 'SELECT relname FROM pg_class WHERE oid = 1259') AS t(relname name)
JOIN pg_class USING (relname);

-- values that are NULL, empty, long, odd
SELECT a IS NULL AS a, b = '' AS b, c AS c, length(d) AS d, e FROM dbpool_query('remote',
  $$SELECT NULL, '', E'tab\tnew\nline\\ "quote"', repeat('x', 100000), 'grüß 😀 €'$$)
  AS t(a text, b text, c text, d text, e text);

-- no rows; no columns; neither
SELECT * FROM dbpool_query('remote', 'SELECT 1 WHERE false') AS t(a int);
SELECT dbpool_query('remote', 'SELECT 1 WHERE false');
SELECT dbpool_query('remote', 'SELECT');
SELECT count(*) FROM (SELECT dbpool_query('remote', 'SELECT FROM generate_series(1, 1000)')) t;
SELECT count(*) FROM (SELECT dbpool_query('remote', 'SELECT FROM generate_series(1, 10) WHERE false')) t;

-- statements that change data, with and without rows to show
SELECT dbpool_query('remote', 'CREATE TABLE regress.t (id int PRIMARY KEY, name text)');
SELECT * FROM dbpool_query('remote', 'INSERT INTO regress.t VALUES (1, ''one''), (2, ''two''), (3, NULL) RETURNING id, name') AS t(id int, name text);
SELECT dbpool_query('remote', 'INSERT INTO regress.t VALUES ($1, $2)', 4, 'four');
SELECT * FROM dbpool_query('remote', 'UPDATE regress.t SET name = upper(name) WHERE id < $1::int RETURNING *', 3) AS t(id int, name text);
SELECT * FROM dbpool_query('remote', 'UPDATE regress.t SET name = name WHERE false') AS t(id int);
SELECT * FROM dbpool_query('remote', 'DELETE FROM regress.t WHERE id = 1 RETURNING name') AS t(name text);
SELECT * FROM dbpool_query('remote', 'WITH d AS (DELETE FROM regress.t RETURNING id) SELECT count(*) FROM d') AS t(n bigint);
SELECT * FROM dbpool_query('remote', 'TABLE regress.t') AS t(id int, name text);

-- utility statements with rows, and without
SELECT * FROM dbpool_query('remote', 'SHOW server_encoding') AS t(v text);
SELECT * FROM dbpool_query('remote', 'EXPLAIN (COSTS OFF) SELECT 1') AS t(plan text);
SELECT dbpool_query('remote', 'VACUUM regress.t');
SELECT dbpool_query('remote', 'VALUES (1, ''a''), (2, ''b'')');
SELECT dbpool_query('remote', '-- nothing but a comment');

-- notices come to the caller
SELECT dbpool_query('remote', $sql$DO $$ BEGIN RAISE NOTICE 'hello from the remote' USING DETAIL = 'a detail', HINT = 'a hint'; END $$$sql$);
SELECT dbpool_query('remote', $sql$DO $$ BEGIN RAISE WARNING 'mind the gap'; END $$$sql$);

-- one statement only; dbpool_exec takes several
SELECT dbpool_query('remote', 'SELECT 1; SELECT 2');

-- a transaction must not be left open
SELECT dbpool_query('remote', 'BEGIN');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- no COPY data
SELECT dbpool_query('remote', 'COPY (SELECT 1) TO STDOUT');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');
SELECT dbpool_query('remote', 'COPY regress.t FROM STDIN');
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- where sets make no sense, PostgreSQL says so
SELECT 1 WHERE dbpool_query('remote', 'SELECT true') IS NOT NULL;

-- in views, CTEs, PL/pgSQL, and CREATE TABLE AS
CREATE VIEW regress_view AS SELECT * FROM dbpool_query('remote', 'SELECT i, i::text FROM generate_series(1, 3) i') AS t(id int, name text);
SELECT * FROM regress_view WHERE id = 2;
SELECT count(*) FROM regress_view;
DROP VIEW regress_view;
WITH q AS MATERIALIZED (SELECT * FROM dbpool_query('remote', 'SELECT 42') AS t(a int)) SELECT a, (SELECT max(a) FROM q) FROM q;
DO $$
DECLARE
  r record;
BEGIN
  FOR r IN SELECT * FROM dbpool_query('remote', 'SELECT i FROM generate_series(1, 3) i') AS t(i int) LOOP
    RAISE NOTICE 'row %', r.i;
  END LOOP;
END $$;
CREATE TEMP TABLE regress_copy AS SELECT * FROM dbpool_query('remote', 'SELECT i, md5(i::text) FROM generate_series(1, 1000) i') AS t(id int, hash text);
SELECT count(*), count(*) FILTER (WHERE hash = md5(id::text)) AS right FROM regress_copy;

-- a cursor that is left early, and one that goes back
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT * FROM dbpool_query('remote', 'SELECT generate_series(1, 1000)') AS t(i int);
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
FETCH LAST FROM c;
ROLLBACK;
SELECT i FROM dbpool_query('remote', 'SELECT generate_series(1, 1000)') AS t(i int) LIMIT 2;
