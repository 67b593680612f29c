--
-- Parameters: $1, $2, ... of any type, with NULLs, VARIADIC arrays
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT * FROM dbpool_query('remote', 'SELECT $1::int, $2::text, $3::bool', 42, 'x', true) AS t(a int, b text, c bool);

-- the remote infers types from what a parameter is used for
SELECT * FROM dbpool_query('remote', 'SELECT i FROM generate_series($1::int, $2::int) i WHERE i % $3 = 0', 1, 10, 4) AS t(i int);
SELECT dbpool_query('remote', 'SELECT $1', 'text when nothing says otherwise'::text);

-- NULLs, typed and not
SELECT * FROM dbpool_query('remote', 'SELECT $1::int IS NULL, $2::text IS NULL, $3::int[] IS NULL, $4', NULL, NULL::text, NULL::int[], 'no null') AS t(a bool, b bool, c bool, d text);

-- many types
SELECT * FROM dbpool_query('remote',
  'SELECT $1::numeric, $2::float8, $3::date, $4::timestamptz = ''2020-02-02 02:02:02+00'', $5::interval, $6::uuid, $7::jsonb, $8::bytea, $9::int[], $10::text[], $11::int4range, $12::inet, $13::char(3), $14::bit(3)',
  1234567890.123456789, 0.1::float8 + 0.2::float8, date '2024-02-29', timestamptz '2020-02-02 02:02:02+00', interval '1 day 02:03:04',
  uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', jsonb '{"a": [1, null]}', '\x00ff00'::bytea, ARRAY[1, NULL, 3], ARRAY['a,b', '"', NULL, ''],
  int4range(1, 5), inet '10.0.0.1/8', 'ab'::char(3), B'101')
  AS t(a numeric, b float8, c date, d bool, e interval, f uuid, g jsonb, h bytea, i int[], j text[], k int4range, l inet, m char(3), n bit(3)) \gx

-- text that would be SQL if it were put into the statement
SELECT * FROM dbpool_query('remote', 'SELECT $1', $$'; DROP TABLE x; --$$) AS t(a text);

-- the elements of a VARIADIC array
SELECT * FROM dbpool_query('remote', 'SELECT $1::int + $2::int + coalesce($3::int, 0)', VARIADIC ARRAY[1, 2, NULL]) AS t(sum int);
SELECT * FROM dbpool_query('remote', 'SELECT $1 || $2', VARIADIC ARRAY['a', 'b']) AS t(a text);
SELECT dbpool_query('remote', 'SELECT 1', VARIADIC '{}'::int[]);
SELECT dbpool_query('remote', 'SELECT $1', VARIADIC NULL::text[]);
SELECT dbpool_query('remote', 'SELECT $1', VARIADIC 'no array'::text);
-- an array that is one parameter
SELECT dbpool_query('remote', 'SELECT $1::int[]', ARRAY[1, 2, 3]);
-- of two dimensions
SELECT * FROM dbpool_query('remote', 'SELECT $1 || $2 || $3 || $4', VARIADIC ARRAY[['a', 'b'], ['c', 'd']]) AS t(a text);

-- as many as the protocol can count, and one more
SELECT n, last FROM dbpool_query('remote',
  (SELECT format('SELECT cardinality(a), a[65535] FROM (SELECT ARRAY[%s]) AS s(a)', string_agg('$' || i, ', ')) FROM generate_series(1, 65535) i),
  VARIADIC (SELECT array_agg(i::text ORDER BY i) FROM generate_series(1, 65535) i)) AS t(n int, last text);
SELECT a FROM dbpool_query('remote', 'SELECT $1', VARIADIC (SELECT array_agg(i::text ORDER BY i) FROM generate_series(1, 65536) i)) AS t(a text);

-- too few, too many, of a type that does not fit
SELECT dbpool_query('remote', 'SELECT $1::int + $2::int', 1);
SELECT dbpool_query('remote', 'SELECT $1::int', 1, 2);
SELECT dbpool_query('remote', 'SELECT $1::int', 'one');
SELECT dbpool_query('remote', 'SELECT $1::int', 1);

-- to the other functions
SELECT dbpool_query_as(NULL::int, 'remote', 'SELECT $1::int + 1', 1);
SELECT dbpool_query_json('remote', 'SELECT $1::int AS a, $2 AS b', 1, NULL::text);
SELECT dbpool_exec('remote', 'CREATE TABLE regress.p (a int, b text)');
SELECT dbpool_exec('remote', 'INSERT INTO regress.p SELECT i, $2 FROM generate_series(1, $1) i', 5, 'x');
SELECT dbpool_exec('remote', 'DELETE FROM regress.p WHERE a = ANY ($1)', ARRAY[1, 2, 99]);

-- of user-defined types, by their text
CREATE TYPE regress_mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE regress_pair AS (x int, y text);
CREATE DOMAIN regress_positive AS int CHECK (VALUE > 0);
SELECT * FROM dbpool_query('remote', 'SELECT $1, $2, $3', 'ok'::regress_mood, ROW(1, 'a "b"')::regress_pair, 7::regress_positive) AS t(a regress_mood, b regress_pair, c regress_positive);
DROP TYPE regress_mood, regress_pair;
DROP DOMAIN regress_positive;
