--
-- dbpool_bulk_insert: rows of a local query into a remote table, all or none
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', $$
  CREATE TABLE regress.t (id int PRIMARY KEY, name text CHECK (name <> 'bad'), at timestamptz DEFAULT '2024-01-01 00:00+00');
  CREATE TABLE regress."Odd ""Name" ("a b" int, "SELECT" text);
$$);
CREATE TABLE regress_source AS SELECT i AS id, 'name ' || i AS name, timestamptz '2024-01-01 12:00+00' + i * interval '1 s' AS at FROM generate_series(1, 10000) i;
-- what the remote has in a table
CREATE FUNCTION regress_count(name text) RETURNS bigint LANGUAGE sql AS
  $$ SELECT n FROM dbpool_query('remote', 'SELECT count(*) FROM regress.' || name) AS t(n bigint) $$;

SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT * FROM regress_source');
SELECT count(*) FROM regress_source JOIN dbpool_query_as(NULL::regress_source, 'remote', 'TABLE regress.t') AS t USING (id, name, at);
-- some columns; the others get their defaults
SELECT dbpool_bulk_insert('remote', 'regress.t', 'VALUES (''x'', 0)', '{name,id}');
SELECT dbpool_bulk_insert('remote', 'REGRESS . T', 'VALUES (-1)', columns => '{id}');
SELECT * FROM dbpool_query('remote', 'SELECT * FROM regress.t WHERE id <= 0 ORDER BY id') AS t(id int, name text, at timestamptz);
-- no rows
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT * FROM regress_source WHERE false');
-- odd names; as columns they are taken as they are
SELECT dbpool_bulk_insert('remote', 'regress."Odd ""Name"', 'SELECT 1, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress."Odd ""Name"', 'SELECT ''y'', 2', ARRAY['SELECT', 'a b']);
SELECT dbpool_query('remote', 'SELECT * FROM regress."Odd ""Name"');
-- nothing gets out of a name
SELECT dbpool_bulk_insert('remote', 't" FROM STDIN; DROP TABLE regress.t; --', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', '"t"" FROM STDIN; DROP TABLE regress.t; --"', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1', ARRAY['id") FROM STDIN; DROP TABLE regress.t; --']);
SELECT regress_count('t');

-- the local query: any one statement that returns rows
TRUNCATE regress_source;
CREATE TEMP TABLE regress_temp AS SELECT 20000 AS id;
SELECT dbpool_bulk_insert('remote', 'regress.t', 'TABLE regress_temp', '{id}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'WITH w AS (SELECT id + 1 AS id FROM regress_temp) SELECT id FROM w', '{id}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'INSERT INTO regress_source VALUES (30000, ''here'', ''2024-01-01'') RETURNING id, name', '{id,name}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'DELETE FROM regress_source RETURNING id + 1', '{id}');
SELECT dbpool_query('remote', 'SELECT id, name FROM regress.t WHERE id >= 20000 ORDER BY id');
SELECT count(*) FROM regress_source;
-- and none that does not
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1; SELECT 2');
SELECT dbpool_bulk_insert('remote', 'regress.t', '-- nothing');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'DELETE FROM regress_source');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1 INTO regress_new');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'EXPLAIN SELECT 1');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SHOW work_mem');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'COPY regress_source TO STDOUT');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT $1');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT nonesuch');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELEC 1');

-- arguments
SELECT dbpool_bulk_insert(NULL, 'regress.t', 'SELECT 1');
SELECT dbpool_bulk_insert('nonesuch', 'regress.t', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', NULL, 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'regress.t', NULL);
SELECT dbpool_bulk_insert('remote', '', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'a b', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'a..b', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', '"a', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'db.regress.t', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'regress.t(id, name)', 'SELECT 1, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1', '{}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1', '{NULL}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1, 2', '{{id},{name}}');
-- columns that do not match the query
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1, ''x''', '{id}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1', '{nonesuch}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1, 1', '{id,id}');
SELECT dbpool_bulk_insert('remote', 'regress.nonesuch', 'SELECT 1');

-- what the remote refuses comes with its place; nothing of it stays
\set SHOW_CONTEXT errors
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 40000 + i, CASE i WHEN 700 THEN ''bad'' ELSE ''good'' END FROM generate_series(1, 1000) i', '{id,name}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT i FROM generate_series(40000, 1, -1) i', '{id}');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 40000 + i, ''x'', CASE i WHEN 3 THEN ''x'' ELSE ''2024-01-01'' END FROM generate_series(1, 1000) i');
\set SHOW_CONTEXT never
SELECT regress_count('t WHERE id >= 40000');
-- long before the last row: this query would go on for hours (and so be worth compiling)
SET jit = off;
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 40000 + i, CASE i WHEN 100000 THEN ''bad'' ELSE ''good'' END FROM (SELECT generate_series(1, 10000000000)) AS s(i)', '{id,name}');
-- the local query fails on its way
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 40000 + i + 0 / (50000 - i) FROM (SELECT generate_series(1, 100000)) AS s(i)', '{id}');
SELECT regress_count('t WHERE id >= 40000');
-- as it does within a block that catches it, which goes on with the pool
DO $$
BEGIN
  FOR i IN 1..3 LOOP
    BEGIN
      PERFORM dbpool_bulk_insert('remote', 'regress.t', 'SELECT 40000 + i + 0 / (5000 - i) FROM generate_series(1, 10000) i', '{id}');
    EXCEPTION WHEN division_by_zero THEN
      RAISE NOTICE 'caught; % more', dbpool_bulk_insert('remote', 'regress.t', format('SELECT %s', 50000 + i), '{id}');
    END;
  END LOOP;
END $$;
SELECT regress_count('t WHERE id >= 40000');
-- timeout
SET statement_timeout = '200ms';
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 100000 + i FROM (SELECT generate_series(1, 10000000000)) AS s(i)', '{id}');
RESET statement_timeout;
SELECT regress_count('t WHERE id >= 100000');

-- Rows go in the binary format of COPY where all types are the same at both ends, and in its text format where not: regress.text and
-- regress.astext get the same rows, in the one format and the other.  What text escapes, at all places with regard to the machine's words:
CREATE TABLE regress_text AS
SELECT row_number() OVER () AS n, repeat('x', before) || c || repeat('y', after) AS v
FROM unnest(ARRAY['', E'\\', E'\n', E'\r', E'\t', E'\\N', E'\\.', E'\r\n', E'\b\f\v', E'\x01\x7f', 'ü', '€', '𝄞', E'\\\\\\\\\\\\\\\\\\', E'\t\t\t\t\t\t\t\t\t']) AS c, generate_series(0, 17) AS before, generate_series(0, 9) AS after;
SELECT dbpool_exec('remote', 'CREATE TABLE regress.text (n bigint, v text); CREATE TABLE regress.astext (n numeric, v text)');
SELECT t, dbpool_bulk_insert('remote', t, 'TABLE regress_text') FROM unnest('{regress.text,regress.astext}'::text[]) t;
SELECT t, count(*), count(*) FILTER (WHERE here.v = there.v) AS same FROM unnest('{regress.text,regress.astext}'::text[]) t, dbpool_query_as(NULL::regress_text, 'remote', 'TABLE ' || t) AS there JOIN regress_text here USING (n) GROUP BY 1 ORDER BY 1;
-- nulls and empty strings
SELECT dbpool_exec('remote', 'TRUNCATE regress.text, regress.astext');
SELECT t, dbpool_bulk_insert('remote', t, $$VALUES (1::bigint, NULL), (NULL, ''), (NULL, NULL), (2, '\N'), (3, 'NULL')$$) FROM unnest('{regress.text,regress.astext}'::text[]) t;
SELECT dbpool_query('remote', 'SELECT n, v, v IS NULL, length(v) FROM regress.text ORDER BY n, v');
SELECT dbpool_query('remote', 'TABLE regress.text EXCEPT TABLE regress.astext');
-- all widths from nothing to more than the buffers
SELECT dbpool_exec('remote', 'TRUNCATE regress.text, regress.astext');
SELECT t, dbpool_bulk_insert('remote', t, 'SELECT n::bigint, repeat(chr(33 + n % 90), n) FROM (SELECT (1 << p) + d FROM generate_series(0, 18) p, generate_series(-20, 20) d) AS s(n) WHERE n >= 0') FROM unnest('{regress.text,regress.astext}'::text[]) t;
SELECT t, there.* FROM unnest('{regress.text,regress.astext}'::text[]) t, dbpool_query('remote', 'SELECT count(*), count(*) FILTER (WHERE v = repeat(chr((33 + n % 90)::int), n::int)) FROM ' || t) AS there(n bigint, right_ones bigint);
-- one of 100 MB, half of it escaped
SELECT dbpool_exec('remote', 'TRUNCATE regress.text, regress.astext');
SELECT t, dbpool_bulk_insert('remote', t, $$SELECT 1::bigint, repeat(E'\\x', 50 * 1024 * 1024)$$) FROM unnest('{regress.text,regress.astext}'::text[]) t;
SELECT t, there.* FROM unnest('{regress.text,regress.astext}'::text[]) t, dbpool_query('remote', 'SELECT length(v), md5(v) = md5(repeat(E''\\x'', 50 * 1024 * 1024)) FROM ' || t) AS there(length int, same bool);

-- types
CREATE DOMAIN regress_domain AS text CHECK (VALUE <> 'bad');
CREATE TYPE regress_enum AS ENUM ('red', 'green "or" blue');
CREATE TYPE regress_pair AS (a int, b text);
CREATE TABLE regress_types (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric(20, 5), b bool, o oid, m money, d date, ti time, tz timetz, ts timestamp, tt timestamptz, iv interval, u uuid, by bytea,
  ch char(5), vc varchar(9), nm name, j json, jb jsonb, ip inet, bi varbit, pt point, r int4range, x xml, dom regress_domain, en regress_enum, pair regress_pair,
  ai int[], at text[], ap regress_pair[], tsv tsvector);
INSERT INTO regress_types VALUES (-32768, -2147483648, -9223372036854775808, 1.1, 0.1, 12345.678, true, 4294967295, 1234.56, '2024-02-29', '23:59:59.999999', '12:00+05:30', 'infinity', '0044-03-15 12:00:00 BC', '-1 year 2 days -03:04:05.6', '00112233-4455-6677-8899-aabbccddeeff', '\x00ff5c0a09',
  'ab', E'a\\b\tc', 'a name', E'{"a":\n"\\\\"}', '{"a": "\\"}', '10.0.0.1/8', B'10101', '(1.5,-2)', '[1,10)', '<a>&amp;\</a>', E'd\\', 'green "or" blue', ROW(1, E'a "\\" \t b'),
  '{{1,NULL},{3,4}}', ARRAY['', NULL, E'\\', '"', E',\n', 'NULL'], ARRAY[ROW(1, 'x,"y"')::regress_pair, NULL], 'a:1 b:2'),
  (32767, 2147483647, 9223372036854775807, 'NaN', '-Infinity', 'NaN', false, 0, -0.01, '-infinity', '00:00', '24:00-15', '1999-12-31 23:59:59.5', '294276-12-31 23:59:59.999999+00', '178000000 years', '00000000-0000-0000-0000-000000000000', '',
  '', '', '', '[]', '[]', '::1', B'', '(0,0)', 'empty', '', '', 'red', ROW(NULL, NULL), '{}', '{}', '{}', '');
INSERT INTO regress_types (i2) VALUES (NULL);
SELECT dbpool_exec('remote', $$
  CREATE TYPE regress.domain_base AS ENUM ('red', 'green "or" blue'); CREATE TYPE regress.pair AS (a int, b text); CREATE DOMAIN regress.dom AS text CHECK (VALUE <> 'bad');
  CREATE TABLE regress.types (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric(20, 5), b bool, o oid, m money, d date, ti time, tz timetz, ts timestamp, tt timestamptz, iv interval, u uuid, by bytea,
    ch char(5), vc varchar(9), nm name, j json, jb jsonb, ip inet, bi varbit, pt point, r int4range, x xml, dom regress.dom, en regress.domain_base, pair regress.pair,
    ai int[], at text[], ap regress.pair[], tsv tsvector) $$);
-- under the settings of this session, under those that the text is made with, and under others
SELECT dbpool_bulk_insert('remote', 'regress.types', 'TABLE regress_types');
SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET lc_monetary = 'C';
SELECT dbpool_bulk_insert('remote', 'regress.types', 'TABLE regress_types');
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -5; SET bytea_output = 'escape'; SET xmloption = 'document';
-- the query itself sees the session's settings
SELECT dbpool_bulk_insert('remote', 'regress.text', $$SELECT 7, '2024-02-01'::date::text || current_setting('datestyle') FROM regress_types LIMIT 1$$);
SELECT dbpool_bulk_insert('remote', 'regress.types', 'TABLE regress_types');
SHOW datestyle;
RESET datestyle; RESET intervalstyle; RESET lc_monetary; RESET timezone; RESET extra_float_digits; RESET bytea_output; RESET xmloption;
SELECT dbpool_query('remote', 'SELECT v FROM regress.text WHERE n = 7');
SELECT there.i4 IS NOT DISTINCT FROM here.i4 AS found, count(*), bool_and(there::text = here::text) AS same
FROM dbpool_query_as(NULL::regress_types, 'remote', 'TABLE regress.types') AS there LEFT JOIN regress_types here ON here.i2 IS NOT DISTINCT FROM there.i2 GROUP BY 1;
SELECT there::text FROM dbpool_query_as(NULL::regress_types, 'remote', 'TABLE regress.types') AS there EXCEPT SELECT here::text FROM regress_types here;
-- those with a binary form that can be relied upon
CREATE TABLE regress_binary AS SELECT i2, i4, i8, f4, f8, n, b, o, d, ti, tz, ts, tt, u, by, ch, vc, vc::text AS tx, j, jb, ip, ip::cidr AS net, macaddr '08:00:2b:01:02:03' AS mac FROM regress_types WHERE ip IS DISTINCT FROM '10.0.0.1/8';
INSERT INTO regress_binary SELECT i2, i4, i8, f4, f8, n, b, o, d, ti, tz, ts, tt, u, by, ch, vc, 'ü€𝄞', j, jb, ip, NULL, NULL FROM regress_types;
SELECT dbpool_exec('remote', $$CREATE TABLE regress.binary (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, n numeric(20, 5), b bool, o oid, d date, ti time, tz timetz, ts timestamp, tt timestamptz, u uuid, by bytea, ch char(5), vc varchar(9), tx varchar, j json, jb jsonb, ip inet, net cidr, mac macaddr)$$);
SET client_encoding = 'LATIN1';
SELECT dbpool_bulk_insert('remote', 'regress.binary', 'SELECT * FROM regress_binary WHERE tx LIKE ''%'' || chr(8364) || ''%''');
RESET client_encoding;
SELECT dbpool_bulk_insert('remote', 'regress.binary', 'SELECT * FROM regress_binary WHERE (tx LIKE ''%'' || chr(8364) || ''%'') IS NOT TRUE');
SELECT there::text FROM dbpool_query_as(NULL::regress_binary, 'remote', 'TABLE regress.binary') AS there EXCEPT ALL SELECT here::text FROM regress_binary here;
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.binary');
DROP TABLE regress_binary;
-- of the same length, but not the same: as text, so that nobody takes a day for a number
SELECT dbpool_exec('remote', 'CREATE TABLE regress.number (i int, f real)');
SELECT dbpool_bulk_insert('remote', 'regress.number', 'SELECT date ''2024-01-01''', '{i}');
SELECT dbpool_bulk_insert('remote', 'regress.number', 'SELECT 5, 7');
SELECT dbpool_bulk_insert('remote', 'regress.number', 'SELECT 6::bigint, 8', '{i,f}');
SELECT dbpool_bulk_insert('remote', 'regress.number', 'SELECT 1.5::float4', '{i}');
SELECT dbpool_query('remote', 'TABLE regress.number');
-- a value that does not fit the column's modifier
SELECT dbpool_exec('remote', 'CREATE TABLE regress.narrow (v varchar(3), n numeric(3, 1), c char(4))');
SELECT dbpool_bulk_insert('remote', 'regress.narrow', 'SELECT ''long'', 1.25::numeric, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress.narrow', 'SELECT ''abc'', 1.25::numeric, ''x''::text');
SELECT dbpool_bulk_insert('remote', 'regress.narrow', 'SELECT ''abc'', 100::numeric, ''x''');
SELECT dbpool_query('remote', 'SELECT *, length(c) FROM regress.narrow');
-- views and partitions
SELECT dbpool_exec('remote', $$CREATE TABLE regress.parted (i int, v text) PARTITION BY LIST (i); CREATE TABLE regress.part1 PARTITION OF regress.parted FOR VALUES IN (1); CREATE TABLE regress.part2 (v text, gone int, i int); ALTER TABLE regress.part2 DROP gone; ALTER TABLE regress.parted ATTACH PARTITION regress.part2 FOR VALUES IN (2); CREATE VIEW regress.view AS TABLE regress.parted$$);
SELECT dbpool_bulk_insert('remote', 'regress.parted', 'SELECT 1 + generate_series(1, 10) % 2, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress.part2', 'SELECT ''y'', 2');
SELECT dbpool_bulk_insert('remote', 'regress.parted', 'SELECT 3, ''x''');
SELECT dbpool_bulk_insert('remote', 'regress.view', 'SELECT 1, ''x''');
SELECT dbpool_query('remote', 'SELECT i, v, count(*) FROM regress.parted GROUP BY 1, 2 ORDER BY 1, 2');

-- the remote's types decide
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT ''60001''::text, 5, ''2024-01-01''::date');
SELECT dbpool_query('remote', 'SELECT id, name FROM regress.t WHERE id = 60001');

-- generated and identity columns
SELECT dbpool_exec('remote', 'CREATE TABLE regress.made (id int GENERATED ALWAYS AS IDENTITY, a int, twice int GENERATED ALWAYS AS (2 * a) STORED, d text DEFAULT ''default'')');
SELECT dbpool_bulk_insert('remote', 'regress.made', 'SELECT 21', '{a}');
SELECT dbpool_bulk_insert('remote', 'regress.made', 'SELECT 100, 4, ''d''');
SELECT dbpool_bulk_insert('remote', 'regress.made', 'SELECT 1', '{twice}');
SELECT dbpool_query('remote', 'SELECT * FROM regress.made');
-- a trigger that leaves out rows, and says so; the remote's count is returned
SELECT dbpool_exec('remote', $$
  CREATE TABLE regress.picky (a int);
  CREATE FUNCTION regress.picky() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN IF new.a % 2 = 0 THEN RETURN new; END IF; IF new.a % 5000 = 1 THEN RAISE NOTICE 'left out %', new.a; END IF; RETURN NULL; END $t$;
  CREATE TRIGGER picky BEFORE INSERT ON regress.picky FOR EACH ROW EXECUTE FUNCTION regress.picky();
$$);
SELECT dbpool_bulk_insert('remote', 'regress.picky', 'SELECT generate_series(1, 20000)');
SELECT regress_count('picky');
-- so many notices that they fill the way back
SELECT dbpool_exec('remote', $$CREATE OR REPLACE FUNCTION regress.picky() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN RAISE NOTICE 'row % %', new.a, repeat('.', 1000); RETURN new; END $t$ $$);
SET client_min_messages = warning;
SELECT dbpool_bulk_insert('remote', 'regress.picky', 'SELECT generate_series(1, 20000)');
SELECT dbpool_exec('remote', $$CREATE OR REPLACE FUNCTION regress.picky() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN RAISE NOTICE 'row % %', new.a, repeat('.', 1000); IF new.a = 20000 THEN RAISE 'enough'; END IF; RETURN new; END $t$ $$);
SELECT dbpool_bulk_insert('remote', 'regress.picky', 'SELECT generate_series(1, 20000)');
RESET client_min_messages;
-- a trigger's setting is put back
SELECT dbpool_exec('remote', $$CREATE OR REPLACE FUNCTION regress.picky() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN SET timezone = 'Asia/Kathmandu'; RETURN new; END $t$ $$);
SELECT zone AS zone_before FROM dbpool_query('remote', 'SHOW timezone') AS t(zone text) \gset
SELECT dbpool_bulk_insert('remote', 'regress.picky', 'SELECT generate_series(1, 20000)');
SELECT zone = :'zone_before' AS same FROM dbpool_query('remote', 'SHOW timezone') AS t(zone text);

-- within a function, for each of several rows, and with the query using pools
SELECT dbpool_exec('remote', 'TRUNCATE regress.text, regress.astext');
SELECT i, dbpool_bulk_insert('remote', 'regress.text', format('SELECT generate_series(1, %s), %L', i, 'of ' || i)) FROM generate_series(1, 3) i;
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT n + 10, v FROM dbpool_query(''remote'', ''TABLE regress.text'') AS t(n bigint, v text)');
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT dbpool_bulk_insert(''remote'', ''regress.text'', ''SELECT 100, ''''inner'''''') + 100, ''outer''');
SELECT dbpool_query('remote', 'SELECT * FROM regress.text ORDER BY n, v');
-- with one connection the query cannot have another
SELECT dbpool_create_pool('one', :'remote_conninfo', '{"max_size": 1, "acquire_timeout": "300ms"}');
\set VERBOSITY terse
SELECT dbpool_bulk_insert('one', 'regress.text', 'SELECT dbpool_bulk_insert(''one'', ''regress.text'', ''SELECT 1000, ''''inner'''''') + 1000, ''outer''');
SELECT dbpool_bulk_insert('one', 'regress.text', 'SELECT 1000, ''alone''');
SELECT regress_count('text WHERE n >= 1000');
\set VERBOSITY default
-- the local transaction has no say
BEGIN;
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT 2000, ''stays''');
ROLLBACK;
SELECT regress_count('text WHERE n >= 2000');
-- a read-only one may not write here, but there
BEGIN READ ONLY;
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT 2000, ''stays''');
SELECT dbpool_bulk_insert('remote', 'regress.t', 'INSERT INTO regress_source VALUES (30000, ''here'', ''2024-01-01'') RETURNING id', '{id}');
ROLLBACK;

-- rights: of the caller here, of the pool's user there
CREATE ROLE regress_dbpool_bulk;
SET ROLE regress_dbpool_bulk;
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 1');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_bulk;
CREATE USER MAPPING FOR regress_dbpool_bulk SERVER remote OPTIONS (password_required 'false');
SET ROLE regress_dbpool_bulk;
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT id, name FROM regress_source');
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT 1, ''x''');
RESET ROLE;

-- progress, seen by the query itself and by others
SELECT dbpool_exec('remote', 'CREATE TABLE regress.seen (pid int, datname name, pool name, target text, phase text, bytes bigint, tuples bigint, started bool, sql text)');
CREATE FUNCTION regress_progress(int) RETURNS dbpool_progress_bulk_insert LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT p FROM dbpool_progress_bulk_insert p WHERE pid = pg_backend_pid()); END $$;
SELECT dbpool_bulk_insert('remote', 'regress.seen', $$SELECT p.pid, p.datname, p.pool, p.target, p.phase, p.bytes_processed, p.tuples_processed, p.started_at <= clock_timestamp(), (SELECT query FROM dbpool_requests WHERE pid = pg_backend_pid() AND state = 'running')
  FROM (SELECT generate_series(1, 10000)) AS s(i), LATERAL regress_progress(i) AS p$$);
SELECT * FROM dbpool_query('remote', 'SELECT pid = $1, datname = $2, pool, target, phase, min(bytes), max(bytes) BETWEEN 0.9 * sum(length(t::text)) AND 1.1 * sum(length(t::text)), min(tuples), max(tuples) BETWEEN 9000 AND 9999, count(DISTINCT tuples) > 50, bool_and(started), sql FROM regress.seen t GROUP BY 1, 2, 3, 4, 5, sql', pg_backend_pid(), current_database())
  AS t(pid bool, datname bool, pool name, target text, phase text, least bigint, most bool, first_tuples bigint, last_tuples bool, different bool, started bool, sql text) \gx
SELECT count(*) FROM dbpool_progress_bulk_insert;
CREATE FUNCTION regress_look() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN (SELECT string_agg(target, ',') FROM dbpool_progress_bulk_insert); END $$;
GRANT EXECUTE ON FUNCTION regress_look TO PUBLIC;
ALTER FUNCTION regress_look() OWNER TO regress_dbpool_bulk;
SELECT dbpool_exec('remote', 'TRUNCATE regress.text, regress.astext');
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT 1, regress_look()');
GRANT pg_read_all_stats TO regress_dbpool_bulk;
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT 2, regress_look()');
SELECT dbpool_query('remote', 'SELECT * FROM regress.text ORDER BY n');

-- statistics; looking at the types is a statement of its own
SELECT dbpool_stat_reset('remote');
SELECT dbpool_bulk_insert('remote', 'regress.text', 'SELECT i, repeat(''x'', 90) FROM generate_series(1, 1000) i');
SELECT statements, errors, rows, bytes_sent BETWEEN 90000 AND 110000 AS sent FROM dbpool_stat_pools WHERE pool = 'remote' AND database = current_database() AND user_name = current_user;

SET client_min_messages = warning;
SELECT dbpool_drop_pool('one');
DROP FUNCTION regress_look, regress_progress;
DROP USER MAPPING FOR regress_dbpool_bulk SERVER remote;
DROP OWNED BY regress_dbpool_bulk;
DROP ROLE regress_dbpool_bulk;
DROP FUNCTION regress_count;
DROP TABLE regress_source, regress_temp, regress_text, regress_types;
DROP TYPE regress_pair, regress_enum;
DROP DOMAIN regress_domain;
