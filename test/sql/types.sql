--
-- Every built-in type: what a pool gives is what the remote has, both ways
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- Samples of each type, as expressions. What has no input function that takes
-- anything (it is made by the planner or the like) is taken from a catalog.
CREATE TABLE regress_samples (type text, sample text);
INSERT INTO regress_samples SELECT type, format('%L::%s', v, type) FROM (VALUES
  ('boolean', ARRAY['t', 'f']),
  ('bytea', ARRAY['\x', '\x00', '\x00ff5c27220a']),
  ('"char"', ARRAY['a', '', '"']),
  ('name', ARRAY['x', 'a "b"', 'ü']),
  ('smallint', ARRAY['-32768', '32767']),
  ('integer', ARRAY['-2147483648', '2147483647']),
  ('bigint', ARRAY['0', '-9223372036854775808', '9223372036854775807']),
  ('int2vector', ARRAY['1 2 3', '']),
  ('oidvector', ARRAY['1 2 4294967295', '']),
  ('oid', ARRAY['0', '4294967295']),
  ('tid', ARRAY['(0,1)', '(4294967295,65535)']),
  ('xid', ARRAY['0', '4294967295']),
  ('cid', ARRAY['0', '4294967295']),
  ('xid8', ARRAY['0', '18446744073709551615']),
  ('text', ARRAY['', '\ " '' { } , ( )', 'NULL', ' lead and trail ', 'grüß 😀', E'two\nlines\tand a tab']),
  ('character varying', ARRAY['', 'abc']),
  ('character varying(3)', ARRAY['abc']),
  ('character(5)', ARRAY['', 'abc', 'a b ']),
  ('json', ARRAY['{"b":1,  "a" : [1,null],"b":2}', 'null', '"\u00e9"']),
  ('jsonb', ARRAY['{"b":1e3,"a":[1,null,"x"]}', '0.10', 'null', '"\u0022"']),
  ('jsonpath', ARRAY['$.a[*] ? (@.b > 1)', 'strict $']),
  ('xml', ARRAY['<a b="1">&lt;<!-- c --></a>', 'no <b/> document', '']),
  ('point', ARRAY['(0.1,-1e-300)', '(Infinity,NaN)']),
  ('lseg', ARRAY['[(0,0),(1,0.1)]']),
  ('path', ARRAY['((0,0),(1,1))', '[(0,0),(1,1),(2,0)]']),
  ('box', ARRAY['(1,1),(0,-0.1)']),
  ('polygon', ARRAY['((0,0),(1,1),(2,0))']),
  ('line', ARRAY['{1,-1,0.1}']),
  ('circle', ARRAY['<(0.1,0),2>']),
  ('real', ARRAY['0', '-0', '0.1', '1.17549435e-38', '1e-45', '3.4028235e+38', 'NaN', 'Infinity', '-Infinity']),
  ('double precision', ARRAY['0', '-0', '0.1', '0.30000000000000004', '2.2250738585072014e-308', '5e-324', '1.7976931348623157e+308', 'NaN', 'Infinity', '-Infinity']),
  ('money', ARRAY['0.00', '-92233720368547758.08', '92233720368547758.07']),
  ('numeric', ARRAY['0', '-0.00', '1e100', '1e-100', 'NaN', 'Infinity', '-Infinity', '123456789012345678901234567890.123456789012345678901234567890']),
  ('numeric(10,2)', ARRAY['1.005', '-99999999.99']),
  ('macaddr', ARRAY['08:00:2b:01:02:03']),
  ('macaddr8', ARRAY['08:00:2b:01:02:03:04:05']),
  ('inet', ARRAY['10.0.0.1/8', '::1', '::ffff:1.2.3.4/128']),
  ('cidr', ARRAY['10.0.0.0/8', '2001:db8::/32', '0.0.0.0/0']),
  ('date', ARRAY['2000-01-01', '0001-01-01 BC', '4713-01-01 BC', '5874897-12-31', 'infinity', '-infinity', '2024-02-29']),
  ('time without time zone', ARRAY['00:00:00', '24:00:00', '12:34:56.789012']),
  ('time(2) without time zone', ARRAY['12:34:56.789012']),
  ('time with time zone', ARRAY['12:34:56.789-03:30', '24:00:00+15:59']),
  ('timestamp without time zone', ARRAY['2000-01-01 00:00:00', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999', 'infinity', '-infinity']),
  ('timestamp with time zone', ARRAY['2000-01-01 00:00:00+00', '1883-11-18 12:03:57+00', '294276-12-31 23:59:59.999999+00', '4713-01-01 00:00:00+00 BC', 'infinity', '-infinity']),
  ('timestamp(3) with time zone', ARRAY['2000-01-01 00:00:00.123456+00']),
  ('interval', ARRAY['0', '-1 year +2 mons -3 days +04:05:06.789', '178000000 years', '-00:00:00.000001', '1 mon -1 day']),
  ('interval day to second', ARRAY['1 day 02:03:04']),
  ('bit(5)', ARRAY['10101']),
  ('bit varying', ARRAY['', '1', '10101010101']),
  ('uuid', ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']),
  ('tsvector', ARRAY['', '''a'':1A,2 ''it''''s'':3B', 'fat:2,4C cat:3']),
  ('tsquery', ARRAY['', 'a & !b | c:*', '''it''''s'' <2> x:AB']),
  ('pg_lsn', ARRAY['0/0', 'FFFFFFFF/FFFFFFFF']),
  ('txid_snapshot', ARRAY['10:20:10,14,15']),
  ('pg_snapshot', ARRAY['10:20:10,14,15']),
  ('refcursor', ARRAY['', 'c']),
  ('regproc', ARRAY['int4pl', '-']),
  ('regprocedure', ARRAY['sum(bigint)', '-']),
  ('regoper', ARRAY['pg_catalog.||/', '0']),
  ('regoperator', ARRAY['+(integer,integer)', '-(NONE,integer)']),
  ('regclass', ARRAY['pg_class', 'information_schema.tables', '-']),
  ('regtype', ARRAY['integer', 'time with time zone', '"char"', '-']),
  ('regcollation', ARRAY['"C"', '-']),
  ('regconfig', ARRAY['english', '-']),
  ('regdictionary', ARRAY['simple', '-']),
  ('regnamespace', ARRAY['pg_catalog', '-']),
  ('int4range', ARRAY['empty', '[1,5)', '(,)', '[1,)']),
  ('int8range', ARRAY['empty', '[-9223372036854775808,9223372036854775807)']),
  ('numrange', ARRAY['empty', '(0.1,1e10]', '[NaN,NaN]']),
  ('tsrange', ARRAY['empty', '["2000-01-01 00:00:00",infinity)']),
  ('tstzrange', ARRAY['empty', '("2000-01-01 00:00:00+00",)']),
  ('daterange', ARRAY['empty', '[2000-01-01,infinity)']),
  ('int4multirange', ARRAY['{}', '{[1,3),[5,8)}', '{(,)}']),
  ('int8multirange', ARRAY['{[1,3),[5,)}']),
  ('nummultirange', ARRAY['{(0.1,1],[2,2]}']),
  ('tsmultirange', ARRAY['{["2000-01-01 00:00:00","2001-01-01 00:00:00"]}']),
  ('tstzmultirange', ARRAY['{["2000-01-01 00:00:00+00",)}']),
  ('datemultirange', ARRAY['{[2000-01-01,2000-02-01),[2001-01-01,infinity)}']),
  -- arrays: empty, of several dimensions, with lower bounds, with odd elements
  ('integer[]', ARRAY['{}', '{1,NULL,3}', '{{1,2},{3,NULL}}', '[0:1]={1,2}', '[-1:0][5:5]={{1},{2}}']),
  ('text[]', ARRAY['{}', '{NULL,"NULL","","a,b","{","\\"," "}']),
  ('box[]', ARRAY['{(1,1),(0,0);(2,2),(1,1)}']),
  ('double precision[]', ARRAY['{NaN,-0,5e-324}']),
  ('timestamp with time zone[]', ARRAY['{infinity,"2000-01-01 00:00:00+00"}'])
) AS s(type, list), unnest(list) v;
INSERT INTO regress_samples VALUES
  ('aclitem', 'makeaclitem(10, 10, ''SELECT'', true)'),
  ('pg_node_tree', '(SELECT ev_action FROM pg_rewrite WHERE ev_class = ''pg_user''::regclass)'),
  ('pg_ndistinct', '(SELECT stxdndistinct FROM pg_statistic_ext_data JOIN pg_statistic_ext ON oid = stxoid WHERE stxname = ''regress_stats'')'),
  ('pg_dependencies', '(SELECT stxddependencies FROM pg_statistic_ext_data JOIN pg_statistic_ext ON oid = stxoid WHERE stxname = ''regress_stats'')'),
  ('pg_mcv_list', '(SELECT stxdmcv FROM pg_statistic_ext_data JOIN pg_statistic_ext ON oid = stxoid WHERE stxname = ''regress_stats'')'),
  -- these have no values outside of index pages
  ('pg_brin_bloom_summary', 'NULL::pg_brin_bloom_summary'), ('pg_brin_minmax_multi_summary', 'NULL::pg_brin_minmax_multi_summary'), ('gtsvector', 'NULL::gtsvector'),
  ('regrole', '10::oid::regrole');
SELECT dbpool_exec('remote', $$
  CREATE TABLE regress.t AS SELECT i % 3 AS a, i % 3 AS b FROM generate_series(1, 100) i;
  CREATE STATISTICS regress.regress_stats ON a, b FROM regress.t; ANALYZE regress.t
$$);
SELECT count(*) FROM regress_samples;

-- a server may lack XML
DO $$
BEGIN
  PERFORM xmlparse(content '');
EXCEPTION WHEN feature_not_supported THEN
  UPDATE regress_samples SET sample = 'NULL::xml' WHERE type = 'xml';
END $$;

-- Is there a type that has no sample? Ranges, multiranges and their arrays too.
SELECT format_type(oid, NULL) AS untested FROM pg_type
WHERE oid < 16384 AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A'
  AND typnamespace = 'pg_catalog'::regnamespace AND format_type(oid, NULL) NOT IN (
    SELECT format_type(type::regtype, NULL) FROM regress_samples);

-- Types whose text is no input for the same type
CREATE FUNCTION regress_one_way(type regtype) RETURNS boolean LANGUAGE sql AS $$
  SELECT $1::text IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector') $$;

-- For a sample: its text as the remote sees it, the text here of the value that
-- was read with its type declared, with no type declared, and of the value that
-- went there as a parameter and came back. Tells those that are not the same.
CREATE FUNCTION regress_differences(type text, sample text) RETURNS TABLE (remote text, read text, undeclared text, sent text) LANGUAGE plpgsql AS $$
DECLARE
  one_way boolean := regress_one_way(type::regtype) OR regress_one_way(rtrim(type, '[]')::regtype);
  same boolean;
BEGIN
  EXECUTE 'SELECT v FROM dbpool_query(''remote'', $1) AS t(v text)'
    INTO remote USING format('SELECT CASE WHEN num_nulls(%1$s) = 0 THEN format(''%%s'', %1$s) END', sample);
  EXECUTE format('SELECT CASE WHEN num_nulls(v) = 0 THEN format(''%%s'', v) END FROM dbpool_query(''remote'', $1) AS t(v %s)', CASE WHEN one_way THEN 'text' ELSE type END)
    INTO read USING 'SELECT ' || sample;
  EXECUTE 'SELECT dbpool_query(''remote'', $1)::text' INTO undeclared USING 'SELECT ' || sample;
  sent := remote;
  IF NOT one_way THEN
    EXECUTE format('SELECT CASE WHEN num_nulls(v) = 0 THEN format(''%%s'', v) END FROM dbpool_query(''remote'', $1, %L::%s) AS t(v %2$s)', remote, type)
      INTO sent USING format('SELECT $1::%s', type);
  END IF;
  same := remote IS NOT DISTINCT FROM read AND remote IS NOT DISTINCT FROM sent AND undeclared = ROW(remote)::text;
  IF NOT same THEN
    RETURN NEXT;
  END IF;
EXCEPTION WHEN OTHERS THEN
  sent := SQLERRM;
  RETURN NEXT;
END $$;
-- so that both ends write the same text
SET intervalstyle = 'postgres';
SET datestyle = 'ISO';
SELECT set_config('timezone', v, false) FROM dbpool_query('remote', 'SHOW timezone') AS t(v text) \g /dev/null
SET client_min_messages = warning;
SELECT s.type, s.sample, d.* FROM regress_samples s, regress_differences(s.type, s.sample) d;

-- NULLs, and arrays of all of them
SELECT s.type, d.* FROM (SELECT DISTINCT type FROM regress_samples) s, regress_differences(s.type, 'NULL::' || s.type) d;
SELECT s.type, d.* FROM (SELECT type, format('ARRAY[%s, NULL]', string_agg(sample, ', ')) AS list FROM regress_samples WHERE type NOT LIKE '%[]' GROUP BY type) s
  JOIN pg_type t ON t.oid = s.type::regtype AND t.typarray <> 0,
  regress_differences(regexp_replace(s.type, '$', '[]'), s.list) d;

-- read into a column of its type, a value stays what it is: binary forms
SELECT * FROM dbpool_query('remote', $$SELECT '-0'::float8, '-0'::float4, 'NaN'::float8, 5e-324::float8, '\x00ff00'::bytea, '-0.00'::numeric$$) AS t(a float8, b float4, c float8, d float8, e bytea, f numeric),
  LATERAL (SELECT encode(float8send(a), 'hex') AS a, encode(float4send(b), 'hex') AS b, c = 'NaN' AS c, encode(float8send(d), 'hex') AS d, length(e) AS e, scale(f) AS f) AS x(ax, bx, cx, dx, ex, fx);

-- types that users make: enums, domains, composites, ranges, arrays of them
SELECT dbpool_exec('remote', $$
  CREATE TYPE regress.mood AS ENUM ('sad', 'very happy', 'o"k');
  CREATE DOMAIN regress.positive AS int CHECK (VALUE > 0);
  CREATE TYPE regress.pair AS (x int, y text, z regress.mood[]);
  CREATE TYPE regress.floats AS RANGE (subtype = float8, multirange_type_name = regress.floats_multirange);
$$);
CREATE SCHEMA regress;
CREATE TYPE regress.mood AS ENUM ('o"k', 'very happy', 'sad');
CREATE DOMAIN regress.positive AS int CHECK (VALUE > 0);
CREATE TYPE regress.pair AS (x int, y text, z regress.mood[]);
CREATE TYPE regress.floats AS RANGE (subtype = float8, multirange_type_name = regress.floats_multirange);
SELECT s.type, s.sample, d.* FROM (VALUES
  ('regress.mood', $$'o"k'::regress.mood$$), ('regress.mood[]', $$ARRAY['sad', 'o"k', NULL]::regress.mood[]$$), ('regress.positive', '7::regress.positive'),
  ('regress.positive[]', 'ARRAY[1, 2]::regress.positive[]'), ('regress.pair', $$ROW(1, 'a, "b" (c) \', ARRAY['very happy']::regress.mood[])::regress.pair$$),
  ('regress.pair', 'ROW(NULL, NULL, NULL)::regress.pair'), ('regress.pair', $$ROW(NULL, '', '{}')::regress.pair$$),
  ('regress.pair[]', $$ARRAY[ROW(1, '', NULL), NULL, ROW(2, '{', '{"o\"k"}')]::regress.pair[]$$),
  ('regress.floats', $$'[5e-324,0.1]'::regress.floats$$), ('regress.floats', $$'(0.1,Infinity]'::regress.floats$$), ('regress.floats_multirange', $$'{[0.1,0.2],[1,)}'::regress.floats_multirange$$)) s(type, sample),
  regress_differences(s.type, s.sample) d;
SELECT * FROM dbpool_query('remote', $$SELECT ROW(1, 'a', ARRAY['sad']::regress.mood[])::regress.pair, 'sad'::regress.mood < 'o"k'$$) AS t(p regress.pair, less bool);
-- names of what only the remote has, and rows without a type of their own, come as text
SELECT dbpool_exec('remote', 'CREATE TABLE regress.only_there (a int)');
SELECT dbpool_query('remote', $$SELECT 'regress.only_there'::regclass, ARRAY['regress.only_there'::regclass], 'regress.mood'::regtype, 'regress'::regnamespace$$);
SELECT dbpool_query_json('remote', $$SELECT 'regress.only_there'::regclass AS c, ARRAY['regress.only_there'::regclass] AS a$$);
SELECT dbpool_query('remote', $$SELECT ROW(1, 'a b', NULL), ARRAY[ROW(1, 2)]$$);

DROP SCHEMA regress CASCADE;
DROP FUNCTION regress_differences, regress_one_way;
DROP TABLE regress_samples;
