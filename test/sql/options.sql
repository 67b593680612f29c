--
-- Options of servers and user mappings; what becomes of live pools when they change
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- every option has a place, and a range
CREATE SERVER s FOREIGN DATA WRAPPER dbpool OPTIONS (min_size '0', max_size '10', acquire_timeout '30s', connect_timeout '10',
  idle_timeout '10min', max_lifetime '30min', validate_after '500ms', health_check_interval '30s', reset 'smart',
  host 'a,b', port '5432,5433', dbname 'd', hostaddr '127.0.0.1,::1', sslmode 'verify-full', target_session_attrs 'read-write',
  application_name 'x', options '-c geqo=off', keepalives '1', tcp_user_timeout '1000');
CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'u', password 'p', password_required 'true');
SELECT srvoptions FROM pg_foreign_server WHERE srvname = 's';
-- every option of the pool takes a new value: those that this list lacks fail the test
DO $$
DECLARE
  o record;
BEGIN
  FOR o IN SELECT * FROM (VALUES ('acquire_timeout', '1ms'), ('connect_timeout', '2min'), ('health_check_interval', '0'), ('idle_timeout', '1d'),
      ('max_lifetime', '1 h'), ('max_size', '100'), ('min_size', '5'), ('reset', 'never'), ('validate_after', '-1')) v(name, value) LOOP
    EXECUTE format('ALTER SERVER s OPTIONS (SET %I %L)', o.name, o.value);
  END LOOP;
END $$;
SELECT min_size, max_size FROM dbpool_pools WHERE pool = 's';

-- values
ALTER SERVER s OPTIONS (SET max_size 'many');
ALTER SERVER s OPTIONS (SET max_size '0');
ALTER SERVER s OPTIONS (SET max_size '10001');
ALTER SERVER s OPTIONS (SET max_size '10s');
ALTER SERVER s OPTIONS (SET max_size '');
ALTER SERVER s OPTIONS (SET min_size '-1');
ALTER SERVER s OPTIONS (SET min_size '101');
ALTER SERVER s OPTIONS (SET max_size '4');
ALTER SERVER s OPTIONS (SET acquire_timeout '0');
ALTER SERVER s OPTIONS (SET acquire_timeout '1 fortnight');
ALTER SERVER s OPTIONS (SET acquire_timeout 'soon');
ALTER SERVER s OPTIONS (SET acquire_timeout '30 days');
ALTER SERVER s OPTIONS (SET acquire_timeout '1.5s');
ALTER SERVER s OPTIONS (SET connect_timeout '0');
ALTER SERVER s OPTIONS (SET connect_timeout '500ms');
ALTER SERVER s OPTIONS (SET connect_timeout '-1');
ALTER SERVER s OPTIONS (SET idle_timeout '-1');
ALTER SERVER s OPTIONS (SET idle_timeout '1h 30min');
ALTER SERVER s OPTIONS (SET validate_after '-2');
ALTER SERVER s OPTIONS (SET reset 'sometimes');
ALTER SERVER s OPTIONS (SET reset 'ALWAYS');
ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (SET password_required 'perhaps');
-- places and names; the lists of valid ones depend on libpq, so only that they name some is shown
CREATE FUNCTION regress_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  hint text;
BEGIN
  EXECUTE sql;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
  RETURN format(E'%s: %s\n%s', SQLSTATE, SQLERRM, CASE WHEN hint LIKE 'Valid options%' THEN
    (SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(ARRAY['host', 'dbname', 'sslmode', 'max_size', 'user', 'password', 'password_required', 'service', 'client_encoding', 'replication']) o WHERE hint ~ ('\m' || o || '\M'))
    ELSE hint END);
END $$;
SELECT regress_try('ALTER SERVER s OPTIONS (ADD maxsize ''1'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD "HOST" ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD password ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD user ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD password_required ''false'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD service ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD client_encoding ''LATIN1'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD replication ''true'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD fallback_application_name ''x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD host ''x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD max_size ''1'')');
SELECT regress_try('ALTER FOREIGN DATA WRAPPER dbpool OPTIONS (ADD host ''x'')');
SELECT regress_try('ALTER FOREIGN DATA WRAPPER dbpool OPTIONS (ADD max_size ''1'')');
SET client_min_messages = warning;
DROP SERVER s CASCADE;
RESET client_min_messages;

-- superusers only: what names files of the server's machine, and password_required
CREATE ROLE regress_dbpool_user;
GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
CREATE SERVER s FOREIGN DATA WRAPPER dbpool OPTIONS (host 'h', sslmode 'require');
CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'u', password 'p');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD passfile ''/x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD sslrootcert ''/x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD sslcrl ''/x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD sslcrldir ''/x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD sslkey ''/x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD sslcert ''/x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD password_required ''false'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD password_required ''true'')');
SELECT regress_try($$SELECT dbpool_create_pool('p', 'host=h passfile=/x')$$);
RESET ROLE;
ALTER SERVER s OPTIONS (ADD sslrootcert '/x', ADD passfile '/x');
-- what a superuser has set, its owner may keep but not change
SET ROLE regress_dbpool_user;
SELECT regress_try('ALTER SERVER s OPTIONS (SET sslrootcert ''/y'')');
RESET ROLE;
SET client_min_messages = warning;
DROP OWNED BY regress_dbpool_user CASCADE;
RESET client_min_messages;
DROP ROLE regress_dbpool_user;

-- dbpool_create_pool: keywords, URIs, and options as JSON
CREATE FUNCTION regress_pool(name) RETURNS TABLE (server text[], mapping text[]) LANGUAGE sql AS $$
  SELECT (SELECT array_agg(format('%s=%s', (o).option_name, (o).option_value) ORDER BY (o).option_name COLLATE "C") FROM pg_options_to_table(srvoptions) o),
    (SELECT array_agg(format('%s=%s', (o).option_name, (o).option_value) ORDER BY (o).option_name COLLATE "C") FROM pg_options_to_table(umoptions) o)
  FROM pg_foreign_server s JOIN pg_user_mappings m ON m.srvid = s.oid WHERE s.srvname = $1 $$;
SELECT dbpool_create_pool('p', 'host=h port=1 dbname=d user=u password=''a b''');
SELECT * FROM regress_pool('p');
SELECT dbpool_create_pool('p', '');
SET client_min_messages = warning;
SELECT dbpool_drop_pool('p');
SELECT dbpool_create_pool('p', 'postgresql://u:p%40ss@h1:1,h2:2/d?sslmode=require&target_session_attrs=read-only', '{"max_size": 8, "idle_timeout": "5min", "reset": "always", "password_required": false}');
SELECT * FROM regress_pool('p');
SELECT dbpool_drop_pool('p');
SELECT dbpool_create_pool('p', 'postgres://', NULL);
SELECT * FROM regress_pool('p');
SELECT dbpool_drop_pool('p');
-- connect_timeout in a connection string is one of the pool's
SELECT dbpool_create_pool('p', 'host=h connect_timeout=3');
SELECT * FROM regress_pool('p');
SELECT dbpool_drop_pool('p');
-- wrong ones; the password is not repeated
SELECT dbpool_create_pool('p', 'postgresql://u:secret@h/%zz');
SELECT dbpool_create_pool('p', 'host=h passwort=secret');
SELECT dbpool_create_pool('p', 'mysql://u:secret@h/d');
SELECT dbpool_create_pool('p', 'password=''secret');
SELECT regress_try($$SELECT dbpool_create_pool('p', 'service=x')$$);
SELECT regress_try($$SELECT dbpool_create_pool('p', 'client_encoding=LATIN1')$$);
SELECT dbpool_create_pool('p', '', '{"max_size": "x"}');
SELECT dbpool_create_pool('p', '', '{"max_size": null}');
SELECT dbpool_create_pool('p', '', '{"max_size": [1]}');
SELECT dbpool_create_pool('p', '', '{"max_size": {"a": 1}}');
SELECT dbpool_create_pool('p', '', '[1]');
SELECT dbpool_create_pool('p', '', '"x"');
SELECT dbpool_create_pool('p', 'host=h', '{"host": "i"}');
SELECT dbpool_create_pool('p', 'host=h', '{"user": "u", "password": "p"}');
SELECT * FROM regress_pool('p');
SELECT dbpool_drop_pool('p');
SELECT regress_try($$SELECT dbpool_create_pool('p', '', '{"maxsize": 1}')$$);
SELECT count(*) FROM pg_foreign_server WHERE srvname = 'p';
DROP FUNCTION regress_try, regress_pool;
