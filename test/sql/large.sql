--
-- Large values and large results
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- 64 MB there, and back, and both ways
SELECT length(v), md5(v) = md5(repeat('0123456789abcdef', 4 * 1024 * 1024)) AS same
FROM dbpool_query('remote', 'SELECT repeat(''0123456789abcdef'', 4 * 1024 * 1024)') AS t(v text);
SELECT * FROM dbpool_query('remote', 'SELECT length($1), md5($1)', repeat('x', 64 * 1024 * 1024)) AS t(length int, md5 text);
SELECT md5(repeat('x', 64 * 1024 * 1024));
SELECT length(v), md5(v) = md5(decode(repeat('00ff', 16 * 1024 * 1024), 'hex')) AS same
FROM dbpool_query('remote', 'SELECT $1::bytea', decode(repeat('00ff', 16 * 1024 * 1024), 'hex')) AS t(v bytea);
-- a statement of 20 MB
SELECT * FROM dbpool_query('remote', 'SELECT length(''' || repeat('y', 20 * 1024 * 1024) || ''')') AS t(length int);
SELECT dbpool_exec('remote', 'SELECT 1; -- ' || repeat('z', 20 * 1024 * 1024));

-- several such values in a row, several such rows
SELECT count(*), sum(length(a)), sum(length(b)) FROM dbpool_query('remote',
  'SELECT repeat(''a'', 8000000), repeat(''b'', i) FROM generate_series(8000001, 8000004) i') AS t(a text, b text);

-- values whose lengths are around the sizes of the buffers on their way
SELECT count(*), count(*) FILTER (WHERE length(v) = n AND v = repeat(chr(33 + n % 90), n)) AS right
FROM dbpool_query('remote', $$SELECT n, repeat(chr(33 + n % 90), n) FROM (
  SELECT (1 << p) + d FROM generate_series(0, 18) p, generate_series(-20, 20) d) AS s(n) WHERE n >= 0$$) AS t(n int, v text);
SELECT count(*), count(*) FILTER (WHERE t.length = n) AS right
FROM (SELECT (1 << p) + d FROM generate_series(4, 18) p, generate_series(-3, 3) d) AS s(n),
  LATERAL dbpool_query('remote', 'SELECT length($1)', repeat('v', n)) AS t(length int);

-- 100,000 rows of which most go to disk
SET work_mem = '64kB';
SELECT count(*), sum(i), count(DISTINCT v) FROM dbpool_query('remote', 'SELECT i, md5(i::text) FROM generate_series(1, 100000) i') AS t(i int, v text);
-- there are temporary files of this session while the rows are read
SELECT bool_or(f.name LIKE 'pgsql_tmp' || pg_backend_pid() || '.%') AS spilt
FROM dbpool_query('remote', 'SELECT repeat(''x'', 100) FROM generate_series(1, 10000)') AS t(v text) LEFT JOIN LATERAL (SELECT name FROM pg_ls_tmpdir() WHERE length(t.v) > 0 LIMIT 5) f ON true;
RESET work_mem;

-- the order of rows is the remote's
SELECT count(*), count(*) FILTER (WHERE i = before + 1) AS next FROM (SELECT i, lag(i) OVER () AS before FROM dbpool_query('remote', 'SELECT i FROM generate_series(1, 100000) i') AS t(i int)) s;
SELECT count(*) FROM (SELECT dbpool_query_json('remote', 'SELECT i, i::text AS t FROM generate_series(1, 20000) i')) t;

-- the caller leaves while rows are on their way
BEGIN;
SET LOCAL statement_timeout = '200ms';
SELECT count(*) FROM dbpool_query('remote', 'SELECT generate_series(1, 100000000), repeat(''x'', 1000)') AS t(i int, v text);
ROLLBACK;
SELECT count(*) FROM dbpool_query('remote', 'SELECT i, CASE WHEN i = 50000 THEN ''x'' ELSE i::text END FROM (SELECT generate_series(1, 100000000)) AS s(i)') AS t(i int, v int);
SELECT dbpool_query('remote', 'SELECT ''it goes on''');

-- what carried a large message of another kind than rows and errors is given up, too
SELECT dbpool_create_pool('narrow', :'remote_conninfo', '{"max_size": 1}');
SET client_min_messages = warning;
SELECT pid FROM dbpool_query('narrow', 'SELECT pg_backend_pid()') AS t(pid int) \gset
SELECT dbpool_exec('narrow', $$DO $do$ BEGIN RAISE NOTICE '%', repeat('x', 1000); END $do$ $$);
SELECT pid = :pid AS same FROM dbpool_query('narrow', 'SELECT pg_backend_pid()') AS t(pid int);
SELECT dbpool_exec('narrow', $$DO $do$ BEGIN RAISE NOTICE '%', repeat('x', 1000000); END $do$ $$);
SELECT pid = :pid AS same FROM dbpool_query('narrow', 'SELECT pg_backend_pid()') AS t(pid int);
RESET client_min_messages;
