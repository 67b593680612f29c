--
-- Values of prepared statements come in binary where both ends have the same
-- types: that may change nothing but the bytes that travel
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_create_pool('plain', :'remote_conninfo', '{"max_size": 1, "prepare_threshold": 0}');
ALTER SERVER remote OPTIONS (max_size '1', prepare_threshold '1');

CREATE FUNCTION regress_bytes(name text) RETURNS bigint LANGUAGE sql AS $$ SELECT bytes_received FROM dbpool_stat_pools WHERE pool = name $$;
-- Runs a query through the pool that prepares and the one that does not. A column is added to it whose text is twice as long as its binary form,
-- so the bytes tell the format. Tells whether the rows are the same to the bit, and shows those that are not.
CREATE FUNCTION regress_compare(columns text, sql text, OUT format text, OUT rows bigint, OUT same boolean, OUT prepared text, OUT plain text) LANGUAGE plpgsql AS $$
DECLARE
  marked text := 'SELECT decode(repeat(''00'', 4000), ''hex''), q.* FROM (' || sql || ') AS q';
  bytes bigint;
BEGIN
  -- the third run is the first that is prepared, and the remote tells its types: from the fourth on they are known
  FOR i IN 1..4 LOOP
    bytes := regress_bytes('plain') - regress_bytes('remote');
    EXECUTE format($q$
      SELECT count(*), bool_and((a.t *= b.t) IS TRUE) IS NOT FALSE,
        string_agg(a.t::text, ' ') FILTER (WHERE (a.t *= b.t) IS NOT TRUE), string_agg(b.t::text, ' ') FILTER (WHERE (a.t *= b.t) IS NOT TRUE)
      FROM (SELECT row_number() OVER () AS n, t FROM dbpool_query('remote', %1$L) AS t(mark bytea, %2$s)) AS a
        FULL JOIN (SELECT row_number() OVER () AS n, t FROM dbpool_query('plain', %1$L) AS t(mark bytea, %2$s)) AS b USING (n) $q$, marked, columns)
      INTO rows, same, prepared, plain;
    bytes := regress_bytes('plain') - regress_bytes('remote') - bytes;
  END LOOP;
  format := CASE WHEN bytes = 0 THEN 'text' WHEN bytes > 3000 * rows THEN 'binary' ELSE bytes || ' bytes' END;
  prepared := right(prepared, 200);
  plain := right(plain, 200);
EXCEPTION WHEN OTHERS THEN
  format := SQLERRM;
END $$;

-- each type that has a binary form to be relied upon
CREATE TABLE regress_samples AS SELECT type, format('SELECT unnest(array_append(%L::%s[], NULL))', list, type) AS sql FROM (VALUES
  ('boolean', ARRAY['t', 'f']),
  ('bytea', ARRAY['\x', '\x00', '\x00ff5c27220a']),
  ('smallint', ARRAY['-32768', '-1', '0', '32767']),
  ('integer', ARRAY['-2147483648', '-1', '0', '2147483647']),
  ('bigint', ARRAY['0', '-1', '-9223372036854775808', '9223372036854775807']),
  ('oid', ARRAY['0', '2147483648', '4294967295']),
  ('real', ARRAY['0', '-0', '0.1', '1.17549435e-38', '1e-45', '3.4028235e+38', 'NaN', 'Infinity', '-Infinity']),
  ('double precision', ARRAY['0', '-0', '0.1', '0.30000000000000004', '2.2250738585072014e-308', '5e-324', '1.7976931348623157e+308', 'NaN', 'Infinity', '-Infinity']),
  ('numeric', ARRAY['0', '-0.00', '0.10', '1e1000', '1e-1000', '-10000', '0.0001', 'NaN', 'Infinity', '-Infinity', '123456789012345678901234567890.123456789012345678901234567890']),
  ('numeric(10,2)', ARRAY['1.005', '-99999999.99', 'NaN']),
  ('date', ARRAY['2000-01-01', '0001-01-01 BC', '4713-01-01 BC', '5874897-12-31', 'infinity', '-infinity', '2024-02-29']),
  ('time', ARRAY['00:00:00', '24:00:00', '12:34:56.789012']),
  ('time(2)', ARRAY['12:34:56.789012']),
  ('time with time zone', ARRAY['12:34:56.789-03:30', '24:00:00+15:59', '00:00-15:59:59']),
  ('timestamp', ARRAY['2000-01-01 00:00:00', '1999-12-31 23:59:59.999999', '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59.999999', 'infinity', '-infinity']),
  ('timestamp(0)', ARRAY['1999-12-31 23:59:59.5']),
  ('timestamp with time zone', ARRAY['2000-01-01 00:00:00+00', '1883-11-18 12:03:57+00', '294276-12-31 23:59:59.999999+00', '4713-01-01 00:00:00+00 BC', 'infinity', '-infinity']),
  ('timestamp(3) with time zone', ARRAY['2000-01-01 00:00:00.123456+00']),
  ('uuid', ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '00000000-0000-0000-0000-000000000000']),
  ('text', ARRAY['', 'NULL', ' lead and trail ', E'\\ \t\n', 'grüß 😀']),
  ('character varying', ARRAY['', 'ü€𝄞']),
  ('character varying(3)', ARRAY['', 'ü€𝄞']),
  ('character(5)', ARRAY['', 'abc', 'ü€ 𝄞']),
  ('bpchar', ARRAY['', 'abc  ']),
  ('json', ARRAY['{"b":1,  "a" : [1,null],"b":2}', 'null', '"\u00e9é"']),
  ('jsonb', ARRAY['{"b":1e3,"a":[1,null,"x"]}', '0.10', 'null', '"\u0022é"', '{}']),
  ('inet', ARRAY['10.0.0.1/8', '0.0.0.0', '::1', '::ffff:1.2.3.4/128']),
  ('cidr', ARRAY['10.0.0.0/8', '2001:db8::/32', '0.0.0.0/0']),
  ('macaddr', ARRAY['08:00:2b:01:02:03']),
  -- and some that have none, or one that means another thing to another version
  ('interval', ARRAY['0', '-1 year +2 mons -3 days +04:05:06.789', '178000000 years']),
  ('money', ARRAY['0.00', '-92233720368547758.08']),
  ('name', ARRAY['', 'ü']),
  ('"char"', ARRAY['a', '']),
  ('xid', ARRAY['0', '4294967295']),
  ('point', ARRAY['(0.1,-1e-300)']),
  ('bit(5)', ARRAY['10101']),
  ('macaddr8', ARRAY['08:00:2b:01:02:03:04:05']),
  ('int4range', ARRAY['empty', '[1,5)'])
) AS s(type, list);
SELECT type, c.* FROM regress_samples, regress_compare('v ' || type, sql) AS c;
-- of those that are made of others, a domain of the remote's is what it is over
SELECT dbpool_exec('remote', 'CREATE DOMAIN regress.positive AS int CHECK (VALUE > 0); CREATE TYPE regress.mood AS ENUM (''sad'', ''ok''); CREATE TYPE regress.pair AS (a int, b text)');
CREATE DOMAIN regress_positive AS int CHECK (VALUE > 0);
CREATE TYPE regress_mood AS ENUM ('sad', 'ok');
CREATE TYPE regress_pair AS (a int, b text);
SELECT columns, sql, c.* FROM (VALUES ('v int', '7::regress.positive'), ('v regress_positive', '7'), ('v regress_positive', '-7'), ('v regress_mood', '''ok''::regress.mood'), ('v text', '''ok''::regress.mood'),
  ('v int[]', '''{1,2}''::int[]'), ('v text', '''{1,2}''::int[]'), ('v regress_pair', 'ROW(1, ''x'')::regress.pair'), ('v text', 'ROW(1, ''x'')')) AS s(columns, sql), regress_compare(columns, 'SELECT ' || sql || ' AS v') AS c;

-- the same under settings that change what text looks like, and when the session's client has another encoding than the database
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -5; SET bytea_output = 'escape'; SET client_encoding = 'LATIN1';
SELECT type, c.format, c.same FROM regress_samples, regress_compare('v ' || type, sql) AS c WHERE NOT c.same OR c.format NOT IN ('binary', 'text');
RESET datestyle; RESET intervalstyle; RESET timezone; RESET extra_float_digits; RESET bytea_output; RESET client_encoding;

-- all at once; no rows; many columns; large values, larger than the buffers
SELECT c.* FROM regress_compare('a int, b text, c timestamptz, d numeric, e jsonb', $$SELECT i, repeat('ü', i), '2024-02-29 12:00+00'::timestamptz + i * interval '1 us', i / 7.0, jsonb_build_object('k', i) FROM generate_series(1, 300) i$$) AS c;
SELECT c.* FROM regress_compare('a int, b text', 'SELECT 1, ''x'' WHERE false') AS c;
SELECT dbpool_exec('remote', (SELECT 'CREATE TABLE regress.wide AS SELECT ' || string_agg(1000000000 + i || ' AS a' || i, ', ') FROM generate_series(1, 1500) i));
SELECT c.* FROM (SELECT string_agg('c' || i || ' int', ', ') AS columns FROM generate_series(1, 1500) i) AS s, regress_compare(columns, 'TABLE regress.wide') AS c;
SELECT c.* FROM regress_compare('a text, b bytea, c json, d jsonb, e numeric',
  $$SELECT repeat('ü€', n), decode(repeat('00ff', n), 'hex'), to_json(repeat('a"', n)), to_jsonb(repeat('b"', n)), n::numeric ^ 1000 FROM unnest('{1,65535,65536,100000}'::int[]) n$$) AS c;

-- What was declared decides: another type than the remote's is made of text, and strings are alike.
SELECT columns, c.* FROM unnest('{v int,v bigint,v text,v numeric,v date,v smallint}'::text[]) AS columns, regress_compare(columns, 'SELECT 20240229') AS c;
SELECT columns, string_agg(DISTINCT format, ' ') AS format, bool_and(same) AS same
FROM unnest('{v text,v varchar,v bpchar,v varchar(6),v char(6),v name}'::text[]) AS columns, unnest('{text,varchar,bpchar,varchar(9),char(9)}'::text[]) AS type, regress_compare(columns, 'SELECT ''café''::' || type) AS c GROUP BY 1 ORDER BY 1;
-- the same text now with one list, now with another; the types of the remote change
SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (a int, b timestamptz); INSERT INTO regress.t VALUES (1234567890, ''2024-02-29 12:00:00.123456+00'')');
CREATE FUNCTION regress_run(list text, times int DEFAULT 1) RETURNS TABLE (columns text, value text, bytes bigint) LANGUAGE plpgsql AS $$
BEGIN
  columns := list;
  FOR i IN 1 .. times LOOP
    bytes := regress_bytes('remote');
    EXECUTE format('SELECT t::text FROM dbpool_query(''remote'', ''SELECT * FROM regress.t'') AS t(%s)', list) INTO value;
    bytes := regress_bytes('remote') - bytes;
    RETURN NEXT;
  END LOOP;
END $$;
SET timezone = 'UTC';
SELECT * FROM regress_run('a int, b timestamptz', 4);
SELECT r.* FROM unnest('{"a bigint, b timestamptz","a int, b timestamptz","a int, b timestamp","a text, b text","a int, b timestamptz(3)","a oid, b timestamptz"}'::text[]) AS list, regress_run(list) AS r;
SELECT * FROM regress_run('a int, b timestamptz, c int');
SELECT * FROM regress_run('a int');
SELECT * FROM regress_run('a int, b timestamptz');
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE bigint');
SELECT * FROM regress_run('a int, b timestamptz', 3);
SELECT * FROM regress_run('a bigint, b timestamptz');
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE text');
SELECT * FROM regress_run('a int, b timestamptz', 3);
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE oid USING a::oid');
SELECT * FROM regress_run('a int, b timestamptz', 3);
SELECT dbpool_exec('remote', 'ALTER TABLE regress.t ALTER COLUMN a TYPE int');
SELECT * FROM regress_run('a int, b timestamptz', 3);
-- another table of the same types; one with the columns the other way round
SELECT dbpool_exec('remote', 'DROP TABLE regress.t; CREATE TABLE regress.t AS SELECT 7 AS x, ''2000-01-01 00:00+00''::timestamptz AS y');
SELECT * FROM regress_run('a int, b timestamptz', 3);
SELECT dbpool_exec('remote', 'DROP TABLE regress.t; CREATE TABLE regress.t AS SELECT ''2000-01-01 00:00+00''::timestamptz AS y, 7 AS x');
SELECT * FROM regress_run('a int, b timestamptz');
SELECT * FROM regress_run('b timestamptz, a int', 3);
-- with no list there is no telling beforehand
SELECT regress_bytes('remote') AS before \gset
SELECT dbpool_query('remote', 'SELECT * FROM regress.t');
SELECT dbpool_query_json('remote', 'SELECT * FROM regress.t');
SELECT regress_bytes('remote') - :before AS bytes;
SELECT * FROM regress_run('b timestamptz, a int');

-- the other ways to say what is expected: a table that has lost a column, a type alone, a domain over a row
CREATE TABLE regress_here (b timestamptz, gone text, a int);
ALTER TABLE regress_here DROP gone;
CREATE DOMAIN regress_row AS regress_pair CHECK ((VALUE).a > 0);
SELECT regress_bytes('remote') AS before \gset
SELECT * FROM dbpool_query_as(NULL::regress_here, 'remote', 'SELECT * FROM regress.t');
SELECT regress_bytes('remote') - :before AS bytes;
SELECT dbpool_query_as(0, 'remote', 'SELECT 1234567890') FROM generate_series(1, 3);
SELECT regress_bytes('remote') AS before \gset
SELECT dbpool_query_as(0, 'remote', 'SELECT 1234567890');
SELECT regress_bytes('remote') - :before AS bytes;
SELECT i, r.* FROM generate_series(1000000004, 1000000000, -1) i, dbpool_query_as(NULL::regress_row, 'remote', 'SELECT $1::int, ''x'' ', i) AS r;
SELECT * FROM dbpool_query_as(NULL::regress_row, 'remote', 'SELECT $1::int, ''x'' ', 0);
RESET timezone;

-- type modifiers, and values that they do not allow: as from text
CREATE FUNCTION regress_value(pool text, type text, remote_type text, value text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  answer text;
  message text;
  context text;
BEGIN
  EXECUTE format('SELECT quote_literal(v::text) FROM dbpool_query(%L, %L, %L) AS t(v %s)', pool, 'SELECT $1::' || remote_type, value, type) INTO answer;
  RETURN answer;
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, context = PG_EXCEPTION_CONTEXT;
  RETURN format('%s: %s (%s)', SQLSTATE, message, split_part(replace(context, format(' of pool "%s"', pool), ''), E'\n', 1));
END $$;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SELECT type, remote_type, value, plain, CASE WHEN prepared IS DISTINCT FROM plain THEN prepared END AS otherwise, bytes
FROM (VALUES ('varchar(3)', 'text', 'abc'), ('varchar(3)', 'text', 'abc  '), ('varchar(3)', 'text', 'abcd'), ('varchar(3)', 'varchar(5)', 'ü€𝄞x'), ('char(3)', 'text', 'a'), ('char(3)', 'text', 'abcd'),
    ('numeric(4,1)', 'numeric', '123.45'), ('numeric(4,1)', 'numeric', '1234.5'), ('numeric(4,1)', 'numeric', 'NaN'), ('numeric(4,1)', 'numeric', 'Infinity'), ('numeric(4,1)', 'numeric(10,3)', '99.95'),
    ('timestamptz(0)', 'timestamptz', '2024-12-31 23:59:59.5+00'), ('timestamp(1)', 'timestamp', 'infinity'), ('time(1)', 'time', '23:59:59.99'), ('timetz(0)', 'timetz', '12:00:00.5+01')) AS s(type, remote_type, value),
  LATERAL (SELECT regress_value('plain', type, remote_type, value) AS plain, regress_value('remote', type, remote_type, NULL), regress_value('remote', type, remote_type, NULL), regress_value('remote', type, remote_type, NULL),
    regress_bytes('remote') AS before, regress_value('remote', type, remote_type, value) AS prepared, regress_bytes('remote') AS after) AS r, LATERAL (SELECT CASE WHEN plain NOT LIKE '22___:%' THEN after - before END AS bytes) AS b;

-- a remote of another encoding
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_binary_latin1 ENCODING ''LATIN1'' TEMPLATE template0 LC_COLLATE ''C'' LC_CTYPE ''C''');
ALTER SERVER remote OPTIONS (SET dbname 'regress_binary_latin1');
ALTER SERVER plain OPTIONS (SET dbname 'regress_binary_latin1');
SELECT c.* FROM regress_compare('a text, b varchar(3), c char(4), d json, e jsonb', $$SELECT chr(233), 'äöü', 'ÿ', '{"é": 1}'::json, '{"é": 1}'::jsonb$$) AS c;
SELECT v, octet_length(v), n FROM generate_series(1, 4) n, dbpool_query('remote', 'SELECT chr(233)') AS t(v text);
ALTER SERVER remote OPTIONS (SET dbname 'remote');
SELECT dbpool_exec('remote', 'DROP DATABASE regress_binary_latin1 WITH (FORCE)');

DROP FUNCTION regress_compare, regress_run, regress_value, regress_bytes;
DROP TABLE regress_samples, regress_here;
DROP DOMAIN regress_row, regress_positive;
DROP TYPE regress_mood, regress_pair;
SET client_min_messages = warning;
SELECT dbpool_drop_pool('plain');
