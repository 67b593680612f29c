--
-- dbpool_value: one value of a type that the caller names
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_value(NULL::bigint, 'remote', 'SELECT count(*) FROM generate_series(1, 42)') AS n, pg_typeof(dbpool_value(NULL::bigint, 'remote', 'SELECT 1'));
SELECT dbpool_value(NULL::text, 'remote', 'SELECT $1::int + $2::int', 40, 2) || '!' AS t;
SELECT dbpool_value(NULL::numeric, 'remote', 'SELECT 0.1') * 3;
-- no row, a null, a statement without rows
SELECT dbpool_value(NULL::int, 'remote', 'SELECT 1 WHERE false') IS NULL AS no_row, dbpool_value(7, 'remote', 'SELECT NULL::int') IS NULL AS is_null,
  dbpool_value(7, 'remote', 'SET LOCAL work_mem = ''1MB''') IS NULL AS no_rows;
-- arrays, jsonb, long values, domains
SELECT dbpool_value(NULL::text[], 'remote', $$SELECT ARRAY['a', NULL, 'c,d']$$);
SELECT dbpool_value(NULL::jsonb, 'remote', $$SELECT '{"a": [1, 2]}'::jsonb$$) -> 'a' ->> 1 AS second;
SELECT length(dbpool_value(NULL::text, 'remote', $$SELECT repeat('x', 1000000)$$));
CREATE DOMAIN regress_even AS int CHECK (VALUE % 2 = 0);
SELECT dbpool_value(NULL::regress_even, 'remote', 'SELECT 2');
SELECT dbpool_value(NULL::regress_even, 'remote', 'SELECT 3');
-- composite types: one row
CREATE TYPE regress_pair AS (a int, b text);
CREATE DOMAIN regress_low_pair AS regress_pair CHECK ((VALUE).a < 10);
SELECT dbpool_value(NULL::regress_pair, 'remote', $$SELECT 1, 'x'$$), (dbpool_value(NULL::regress_pair, 'remote', $$SELECT 1, 'x'$$)).b;
SELECT * FROM dbpool_value(NULL::regress_pair, 'remote', $$SELECT 1, 'x'$$);
SELECT dbpool_value(NULL::regress_low_pair, 'remote', $$SELECT 1, 'x'$$);
SELECT dbpool_value(NULL::regress_low_pair, 'remote', $$SELECT 10, 'x'$$);
SELECT dbpool_value(NULL::regress_pair, 'remote', $$SELECT 1, 'x' WHERE false$$) IS NULL AS no_row;
SELECT dbpool_value(NULL::regress_pair, 'remote', 'SELECT 1');
SELECT * FROM dbpool_value(NULL::record, 'remote', $$SELECT 1, 'x'$$) AS t(a int, b text);
SELECT dbpool_value(NULL::record, 'remote', $$SELECT 1, 'x'$$);
DROP DOMAIN regress_even, regress_low_pair;
DROP TYPE regress_pair;

-- more than one row or column, a value that is none of the type, no type
SELECT dbpool_value(NULL::int, 'remote', 'SELECT generate_series(1, 2)');
SELECT dbpool_value(NULL::int, 'remote', 'SELECT i FROM generate_series(1, 10000000) i');
SELECT dbpool_value(NULL::int, 'remote', 'SELECT 1, 2');
SELECT dbpool_value(NULL::int, 'remote', 'SELECT');
SELECT dbpool_value(NULL::int, 'remote', 'SELECT ''x''');
SELECT dbpool_value(NULL::int, 'remote', 'SELECT 1/0');
SELECT dbpool_value(NULL, 'remote', 'SELECT 1');
SELECT dbpool_value(NULL::int, NULL, 'SELECT 1');
SELECT dbpool_value(NULL::int, 'remote', NULL);
SELECT dbpool_value(NULL::int, 'remote', 'SELECT ''it goes on''');
SELECT dbpool_value(NULL::text, 'remote', 'SELECT ''it goes on''');

-- once per row; prepared, and so in binary; and as an expression anywhere
SELECT sum(dbpool_value(NULL::bigint, 'remote', 'SELECT $1::bigint * 2', i)) FROM generate_series(1, 1000) i;
SELECT sum(dbpool_value(NULL::text, 'remote', 'SELECT $1::bigint * 2', i)::int) FROM generate_series(1, 10) i;
SELECT i FROM generate_series(1, 5) i WHERE dbpool_value(false, 'remote', 'SELECT $1::int % 2 = 0', i) ORDER BY i;
DO $$
DECLARE
  n int := dbpool_value(NULL::int, 'remote', 'SELECT 5');
BEGIN
  RAISE NOTICE '%', n + dbpool_value(n, 'remote', 'SELECT 6');
END $$;

-- what people try with dbpool_query() first
SELECT dbpool_query('remote', 'SELECT 1')::int;
SELECT dbpool_query('remote', 'SELECT 1') + 1;
SELECT (dbpool_query('remote', 'SELECT 1')).*;
SELECT * FROM dbpool_query('remote', 'SELECT 1');

-- parameters of drivers come without types: an array gives them one
PREPARE untyped AS SELECT * FROM dbpool_query('remote', 'SELECT $1', $1) AS t(a int);
PREPARE q AS SELECT * FROM dbpool_query('remote', 'SELECT $1::int + 1, $2::text, $3::date', VARIADIC $1::text[]) AS t(a int, b text, c date);
EXECUTE q('{41,NULL,2024-02-29}');
EXECUTE q('{}');
EXECUTE q(NULL);
PREPARE q_as AS SELECT dbpool_query_as(NULL::int, 'remote', 'SELECT $1::int', VARIADIC $1::int[]);
EXECUTE q_as('{42}');
PREPARE q_json AS SELECT dbpool_query_json('remote', 'SELECT $1::text AS a', VARIADIC $1::text[]);
EXECUTE q_json('{"a,b"}');
PREPARE q_exec AS SELECT dbpool_exec('remote', 'SELECT $1::int, $2::text', VARIADIC $1::text[]);
EXECUTE q_exec('{1,NULL}');
PREPARE q_value AS SELECT dbpool_value(NULL::text, 'remote', 'SELECT $1::text || $2::int', VARIADIC ARRAY[$1, $2]::text[]);
EXECUTE q_value('a', '1');
PREPARE q_cast AS SELECT dbpool_value(NULL::text, 'remote', 'SELECT $1::text || $2::int', $1::text, $2::int);
EXECUTE q_cast('a', '1');
PREPARE q_jsonb AS SELECT dbpool_query('remote', 'SELECT $1::int + 1, $2::text, $3::jsonb -> 0', VARIADIC ARRAY(SELECT jsonb_array_elements_text($1)));
EXECUTE q_jsonb('[41, null, ["x"]]');
DEALLOCATE ALL;
