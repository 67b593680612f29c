--
-- Values arrive unharmed although the settings of both ends differ
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- a server may lack XML
CREATE FUNCTION regress_xml() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  expression text := 'xmlparse(content ''text, <a/> and <b>more</b>'')';
BEGIN
  EXECUTE 'SELECT ' || expression;
  RETURN expression;
EXCEPTION WHEN feature_not_supported THEN
  RETURN '''''::text';
END $$;
-- the same values at both ends, made while all settings agree
SELECT replace($$SELECT
  '2003-04-05'::date AS d, '0044-03-15 BC'::date AS bc, '-infinity'::date AS inf,
  '2003-04-05 06:07:08.123456'::timestamp AS ts, '2003-04-05 06:07:08.123456+00'::timestamptz AS tz,
  '1800-01-01 00:00:00+00'::timestamptz AS old, '12:34:56.789'::time AS t, '12:34:56.789-03:30'::timetz AS tt,
  '-1 year +2 months -3 days +04:05:06.7'::interval AS i, '-00:00:00.000001'::interval AS i2,
  '1 mon -1 day'::interval AS i3, '-2 days -03:04:05'::interval AS i4,
  '\x00275c8aff'::bytea AS b, '0.30000000000000004'::float8 AS f,
  '5e-324'::float8 AS f2, '1.7976931348623157e308'::float8 AS f3, '1.17549435e-38'::float4 AS f4,
  '-1234567.89'::money AS m, XML AS x, ARRAY[date '2003-04-05', NULL, 'infinity'] AS da,
  '[2003-04-05,)'::daterange AS dr, '["2003-04-05 06:07:08+00","2004-04-05 06:07:08+00")'::tstzrange AS tr,
  ARRAY[interval '1 day', interval '-1 mon +2 days'] AS ia, '(0.1,-1e-300)'::point AS p,
  ARRAY[bytea '\x5c22', ''] AS ba, ARRAY['1.50', '-2.25']::money[] AS ma,
  '{[2003-04-05,2003-04-07),[2004-01-01,infinity)}'::datemultirange AS mr, E'a\\b''c"d'::text AS s$$, 'XML', regress_xml()) AS values \gset
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE TABLE regress_values AS :values;
SELECT dbpool_exec('remote', 'SET intervalstyle = ''postgres''; CREATE TABLE regress.values AS ' || :'values');

-- the remote has settings of its own for every new session
SELECT dbpool_exec('remote', $$
  ALTER DATABASE remote SET datestyle = 'German';
  ALTER DATABASE remote SET intervalstyle = 'sql_standard';
  ALTER DATABASE remote SET timezone = 'Asia/Kathmandu';
  ALTER DATABASE remote SET bytea_output = 'escape';
  ALTER DATABASE remote SET extra_float_digits = -15;
  ALTER DATABASE remote SET xmloption = 'document';
  ALTER DATABASE remote SET array_nulls = on;
$$);
SELECT dbpool_reset('remote') LIKE 'reset, %' AS reset;
SELECT * FROM dbpool_query('remote', $$SELECT setting FROM pg_settings WHERE name IN ('TimeZone', 'bytea_output') ORDER BY 1$$) AS t(setting text);

-- For each value: its binary form here, on the remote, of the value that was
-- read, and, computed there, of the value that was sent. Returns those columns
-- where the four are not equal.
CREATE FUNCTION regress_differences() RETURNS TABLE (col name, here text, remote text, read text, sent text) LANGUAGE plpgsql AS $$
DECLARE
  type text;
  send text;
BEGIN
  FOR col, type, send IN SELECT attname, format_type(atttypid, NULL), typsend::oid::regproc FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
      WHERE attrelid = 'regress_values'::regclass AND attnum > 0 ORDER BY attnum LOOP
    EXECUTE format('SELECT encode(%s(%I), ''hex'') FROM regress_values', send, col) INTO here;
    EXECUTE format('SELECT v FROM dbpool_query(''remote'', $1) AS t(v text)') INTO remote
      USING format('SELECT encode(%s(%I), ''hex'') FROM regress.values', send, col);
    EXECUTE format('SELECT encode(%s(v), ''hex'') FROM dbpool_query(''remote'', $1) AS t(v %s)', send, type) INTO read
      USING format('SELECT %I FROM regress.values', col);
    BEGIN
      EXECUTE format('SELECT t.v FROM regress_values, dbpool_query(''remote'', $1, %I) AS t(v text)', col) INTO sent
        USING format('SELECT encode(%s($1::%s), ''hex'')', send, type);
    EXCEPTION WHEN OTHERS THEN
      sent := SQLERRM;
    END;
    IF (here = remote AND here = read AND here = sent) IS NOT TRUE THEN
      RETURN NEXT;
    END IF;
  END LOOP;
END $$;
SELECT count(*) FROM pg_attribute WHERE attrelid = 'regress_values'::regclass AND attnum > 0;
SELECT * FROM regress_differences();

-- and with all kinds of settings here
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'iso_8601';
SET timezone = 'America/St_Johns';
SET bytea_output = 'escape';
SET extra_float_digits = -15;
SET xmloption = 'document';
SELECT * FROM regress_differences();
SET datestyle = 'Postgres, MDY';
SET intervalstyle = 'sql_standard';
SELECT * FROM regress_differences();
SET intervalstyle = 'postgres_verbose';
-- where the machine has such a locale
DO $$
BEGIN
  SET lc_monetary = 'de_DE.UTF-8';
EXCEPTION WHEN OTHERS THEN
  NULL;
END $$;
SELECT * FROM regress_differences();

-- the caller's settings are left as they were, after errors, too
SELECT d, i3, b FROM regress_values;
SELECT * FROM dbpool_query('remote', 'SELECT d, i3, b FROM regress.values') AS t(d date, i3 interval, b bytea);
SELECT dbpool_query('remote', 'SELECT 1/0');
SELECT * FROM dbpool_query('remote', 'SELECT ''no date''') AS t(d date);
SHOW datestyle;
SHOW intervalstyle;
SHOW xmloption;
SHOW extra_float_digits;
BEGIN;
SAVEPOINT s;
SELECT * FROM dbpool_query('remote', 'SELECT ''no date''') AS t(d date);
ROLLBACK TO s;
SHOW datestyle;
COMMIT;

-- what the pool needs is not undone by a statement of its user's, nor by a reset
SELECT dbpool_exec('remote', 'SET datestyle = ''SQL''; SET intervalstyle = ''iso_8601''; SET extra_float_digits = -15; SET xmloption = document; SET lc_monetary = ''C''');
SELECT * FROM regress_differences();
-- nor by a function of theirs
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.set_style() RETURNS int LANGUAGE plpgsql AS
  'BEGIN PERFORM set_config(''datestyle'', ''SQL, DMY'', false), set_config(''intervalstyle'', ''sql_standard'', false); RETURN 1; END'$$);
SELECT dbpool_query('remote', 'SELECT regress.set_style()');
-- what the hint says does help
SELECT dbpool_exec('remote', $$CREATE FUNCTION regress.with_style() RETURNS text LANGUAGE sql SET datestyle = 'SQL, DMY' AS
  'SELECT ''31/12/2000''::date::text'$$);
SELECT dbpool_query('remote', 'SELECT regress.with_style()');
SELECT * FROM regress_differences();

RESET ALL;
SELECT dbpool_exec('remote', 'ALTER DATABASE remote RESET ALL');
SELECT dbpool_reset('remote') LIKE 'reset, %' AS reset;
DROP FUNCTION regress_differences, regress_xml;
DROP TABLE regress_values;

-- versions: what is loaded is what the objects are for
SELECT library = extension AS same, extension = (SELECT extversion FROM pg_extension WHERE extname = 'dbpool') AS known,
  libpq ~ '^\d+\.\d+$' AS libpq, split_part(server, '.', 1) = split_part(current_setting('server_version'), '.', 1) AS server
FROM dbpool_version();
