--
-- dbpool_query_json: each row a JSON object
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT * FROM dbpool_query_json('remote', $$SELECT 1 AS id, 'Ada' AS name, NULL::int AS none$$);
SELECT q->>'name' FROM dbpool_query_json('remote', 'SELECT i AS id, ''n'' || i AS name FROM generate_series(1, 3) i') q WHERE (q->>'id')::int > 1;
SELECT dbpool_query_json('remote', 'SELECT $1::int AS a', 5);
SELECT dbpool_query_json('remote', 'CREATE TABLE regress.t (a int, b text)');
SELECT dbpool_query_json('remote', 'INSERT INTO regress.t VALUES (1, ''x''), (2, NULL) RETURNING *');

-- numbers stay numbers, JSON stays JSON, arrays and booleans become what JSON has
SELECT jsonb_pretty(q) FROM dbpool_query_json('remote', $$SELECT 1::int2 AS i, 1.50::numeric AS n, 1e100::float8 AS f, 'NaN'::float8 AS nan,
  true AS b, ARRAY[1, NULL, 3] AS ia, ARRAY[['a', 'b'], ['c', 'd']] AS ta, '{"k": [1, 2]}'::jsonb AS j, '[1,  2]'::json AS js,
  date '2024-02-29' AS d, timestamp '2024-02-29 12:00:00.5' AS ts, '\x00ff'::bytea AS by, interval '1 day' AS iv,
  int4range(1, 3) AS r, 'a "quoted" \ text'::text AS t, B'101' AS bits, 'x'::"char" AS c, point(1, 2) AS p$$) q;
-- types of the remote's own come as text
SELECT dbpool_exec('remote', $$CREATE TYPE regress.mood AS ENUM ('sad', 'ok'); CREATE TYPE regress.pair AS (a int, b text)$$);
SELECT dbpool_query_json('remote', $$SELECT 'ok'::regress.mood AS mood, ROW(1, 'b')::regress.pair AS pair, 'pg_class'::regclass AS class$$);

-- unnamed and equal names
SELECT dbpool_query_json('remote', 'SELECT 1, 2');
SELECT dbpool_query_json('remote', 'SELECT 1 AS a, 2 AS a');
SELECT dbpool_query_json('remote', 'SELECT');
-- different shapes in one query
SELECT dbpool_query_json('remote', s) FROM (VALUES ('SELECT 1 AS a'), ('SELECT 2 AS b, 3 AS c')) v(s);
-- no rows
SELECT dbpool_query_json('remote', 'SELECT 1 WHERE false');
SELECT dbpool_query_json('remote', 'SET work_mem = ''1MB''');
-- a time zone of the session's own
SET timezone = 'Asia/Kolkata';
SELECT dbpool_query_json('remote', $$SELECT timestamptz '2024-01-01 00:00:00+00' AS t$$);
RESET timezone;
