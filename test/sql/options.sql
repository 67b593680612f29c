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
ALTER SERVER s OPTIONS (ADD retry_attempts '0');
ALTER SERVER s OPTIONS (ADD retry_attempts '101');
ALTER SERVER s OPTIONS (ADD retry_on 'serialisation');
ALTER SERVER s OPTIONS (ADD max_waiting '-1');
ALTER SERVER s OPTIONS (ADD max_waiting '1000001');
ALTER SERVER s OPTIONS (ADD shed 'some');
ALTER SERVER s OPTIONS (ADD max_waiting '1000000', ADD shed 'on');
ALTER SERVER s OPTIONS (SET max_waiting '0', SET shed 'off');
ALTER SERVER s OPTIONS (ADD fallback_server '');
ALTER SERVER s OPTIONS (ADD fallback_server 'a name that has some more bytes than the name of a server may have');
ALTER SERVER s OPTIONS (ADD fallback_server 'pg_other');
ALTER SERVER s OPTIONS (DROP fallback_server);
ALTER SERVER s OPTIONS (ADD read_only_when_degraded 'perhaps');
ALTER SERVER s OPTIONS (ADD read_only_when_degraded 'on');
ALTER SERVER s OPTIONS (ADD read_only 'perhaps');
ALTER SERVER s OPTIONS (ADD read_only 'on');
ALTER SERVER s OPTIONS (ADD retry_attempts '1', ADD retry_on 'serialization', ADD read_only 'true', SET reset 'always');
ALTER SERVER s OPTIONS (SET reset 'never');
-- reads are spread over hosts where nothing writes
ALTER SERVER s OPTIONS (ADD load_balance 'least-busy');
ALTER SERVER s OPTIONS (ADD load_balance 'least_busy');
ALTER SERVER s OPTIONS (SET read_only 'off');
ALTER SERVER s OPTIONS (DROP read_only);
ALTER SERVER s OPTIONS (SET load_balance 'random');
ALTER SERVER s OPTIONS (SET load_balance 'off', SET read_only 'off');
ALTER SERVER s OPTIONS (SET load_balance 'random');
ALTER SERVER s OPTIONS (ADD max_lag '5s');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '5');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '-5s');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '5 miles');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '1us');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '5000TB');
ALTER SERVER s OPTIONS (SET read_only 'on', ADD max_lag '0.5s');
ALTER SERVER s OPTIONS (SET max_lag '16MB');
ALTER SERVER s OPTIONS (SET max_lag '16mb');
ALTER SERVER s OPTIONS (SET read_only 'off');
ALTER SERVER s OPTIONS (SET read_only 'off', SET max_lag '0');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', hedge '95%');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a', read_only 'on', hedge '95%');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '95');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '49.9%');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '100%');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '99.99%');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '5s');
CREATE SERVER hedged FOREIGN DATA WRAPPER dbpool OPTIONS (host 'a,b', read_only 'on', hedge '99.9%');
ALTER SERVER hedged OPTIONS (SET hedge '50%');
ALTER SERVER hedged OPTIONS (SET read_only 'off');
ALTER SERVER hedged OPTIONS (SET host 'a');
ALTER SERVER hedged OPTIONS (SET hedge 'off', SET host 'a', SET read_only 'off');
DROP SERVER hedged;
ALTER SERVER s OPTIONS (SET retry_on 'off', DROP retry_attempts, SET read_only 'off', SET reset 'never');
-- numbers are decimal, and times may have a unit
ALTER SERVER s OPTIONS (SET max_size '0x10');
ALTER SERVER s OPTIONS (SET acquire_timeout '0x10');
ALTER SERVER s OPTIONS (SET acquire_timeout '');
ALTER SERVER s OPTIONS (SET min_size '000', SET max_size '010', SET acquire_timeout '010', SET connect_timeout ' 010 ', SET validate_after '-01');
SELECT min_size, max_size FROM dbpool_pools WHERE pool = 's';
ALTER SERVER s OPTIONS (SET min_size '9');
ALTER SERVER s OPTIONS (SET min_size '011');
-- lists of hosts, addresses and ports
ALTER SERVER s OPTIONS (SET host 'a,b,c', SET port '1,2', DROP hostaddr);
ALTER SERVER s OPTIONS (SET host 'a', SET port '1,2', DROP hostaddr);
ALTER SERVER s OPTIONS (SET host 'a,b', SET hostaddr '127.0.0.1');
ALTER SERVER s OPTIONS (DROP host, DROP hostaddr);
ALTER SERVER s OPTIONS (SET host 'a,b,c', SET hostaddr '::1,::2,::3', SET port '1,,3');
ALTER SERVER s OPTIONS (SET host '', SET hostaddr '::1,::2', SET port '1');
DO $$ BEGIN EXECUTE format('ALTER SERVER s OPTIONS (SET host %L, DROP hostaddr)', repeat('a,', 64)); END $$;
ALTER SERVER s OPTIONS (SET host 'a;password=secret', DROP hostaddr);
ALTER SERVER s OPTIONS (SET host 'a b', DROP hostaddr);
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
SELECT regress_try('ALTER SERVER s OPTIONS (ADD nothing_like_it ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD passwd ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD sslmod ''x'')');
SELECT regress_try('ALTER SERVER s OPTIONS (ADD servicefile ''x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD nothing_like_it ''x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD username ''x'')');
SELECT regress_try('ALTER USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (ADD max_sice ''x'')');
SELECT regress_try('ALTER FOREIGN DATA WRAPPER dbpool OPTIONS (ADD nothing_like_it ''x'')');
SELECT regress_try('ALTER FOREIGN DATA WRAPPER dbpool OPTIONS (ADD host ''x'')');
SELECT regress_try('ALTER FOREIGN DATA WRAPPER dbpool OPTIONS (ADD max_size ''1'')');
-- values that libpq would refuse when it connects; those that it takes
CREATE FUNCTION regress_set(option text, VARIADIC tried text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  value text;
  hint text;
  detail text;
BEGIN
  EXECUTE 'CREATE SERVER o FOREIGN DATA WRAPPER dbpool';
  FOREACH value IN ARRAY tried LOOP
    BEGIN
      EXECUTE format('ALTER SERVER o OPTIONS (ADD %I %L)', option, value);
      RETURN NEXT format('%s %L is taken', option, value);
      EXECUTE format('ALTER SERVER o OPTIONS (DROP %I)', option);
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT, detail = PG_EXCEPTION_DETAIL;
      RETURN NEXT concat_ws(' ', SQLSTATE || ':', SQLERRM || '.', nullif(detail, ''), nullif(hint, ''));
    END;
  END LOOP;
  EXECUTE 'DROP SERVER o';
END $$;
\pset format unaligned
SELECT regress_set('sslmode', 'required', 'REQUIRE', 'verify_full', 'on', '', 'disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full');
SELECT regress_set('target_session_attrs', 'primry', 'master', 'any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby');
SELECT regress_set('port', '99999', '0', '-1', 'http', '5432;5433', '5432 5433', '5432,65536', '5432, x', '0x1538', '5432', ' 5432 ', '5432,,5433');
SELECT regress_set('hostaddr', 'localhost', '1.2.3', '127.0.0.1:5432', '127.0.0.1,db', '127.0.0.1', '::1', '127.0.0.1,::1', 'fe80::1%eth0');
SELECT regress_set('gssencmode', 'off', 'disable', 'prefer', 'require');
SELECT regress_set('channel_binding', 'requires', 'disable', 'prefer', 'require');
SELECT regress_set('ssl_min_protocol_version', 'TLS1.2', '1.2', 'TLSv1.4', 'tlsv1.2', 'TLSv1', 'TLSv1.3');
SELECT regress_set('ssl_max_protocol_version', 'SSLv3', 'TLSv1.3');
SELECT regress_set('keepalives', 'on', '0', '1');
SELECT regress_set('keepalives_idle', '10s', '-1', '99999999999', '10');
SELECT regress_set('keepalives_interval', '1.5', '10');
SELECT regress_set('keepalives_count', 'many', '3');
SELECT regress_set('tcp_user_timeout', '10 s', '10000');
SELECT regress_set('sslcompression', 'yes', '0', '1');
SELECT regress_set('sslsni', 'true', '0', '1');
-- those that came with libpq 16 and 17, where they are
SELECT count(*) AS wrong FROM (VALUES ('load_balance_hosts', 'randm'), ('require_auth', 'scram'), ('require_auth', 'md5,!scram-sha-256'), ('require_auth', '!none,md5'), ('sslcertmode', 'yes'),
  ('sslnegotiation', 'driect'), ('sslnegotiation', 'direct'), ('gssdelegation', 'on'), ('min_protocol_version', '4.0')) v(option, value), regress_set(option, value) AS r WHERE r LIKE '%is taken';
SELECT count(*) AS wrong FROM (VALUES ('load_balance_hosts', 'random'), ('require_auth', 'scram-sha-256'), ('require_auth', 'md5,scram-sha-256'), ('require_auth', '!none,!md5'), ('sslcertmode', 'allow'),
  ('sslnegotiation', 'postgres'), ('gssdelegation', '1'), ('min_protocol_version', '3.0')) v(option, value), regress_set(option, value) AS r WHERE r LIKE 'HV024%';
\pset format aligned
ALTER SERVER s OPTIONS (ADD ssl_min_protocol_version 'TLSv1.3', ADD ssl_max_protocol_version 'TLSv1.2');
ALTER SERVER s OPTIONS (ADD ssl_min_protocol_version 'TLSv1.2', ADD ssl_max_protocol_version 'tlsv1.3');
DROP FUNCTION regress_set;
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
-- makes a pool, tells of it, drops it
CREATE FUNCTION regress_make(conninfo text) RETURNS TABLE (server text[], mapping text[]) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dbpool_create_pool('made', conninfo);
  RETURN QUERY SELECT * FROM regress_pool('made');
  PERFORM dbpool_drop_pool('made');
END $$;
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
SELECT dbpool_create_pool('p', 'password=secret passfle=x');
SELECT dbpool_create_pool('p', 'max_size=8 host=h password=secret');
SELECT dbpool_create_pool('p', 'host=h user=u frobnicate=1 password=secret');
SELECT dbpool_create_pool('p', 'password_required=false host=h');
SELECT dbpool_create_pool('p', 'postgresql://u:secret@h/d?sslmod=require');
SELECT dbpool_create_pool('p', 'postgresql://u:secret@h/d?max_size=8');
SELECT dbpool_create_pool('p', 'postgresql://h/d?connect_timeout=3&frobnicate=1');
-- what may be a piece of a password is not repeated either
SELECT dbpool_create_pool('p', 'host=h password=my pieceofit=x');
SELECT dbpool_create_pool('p', 'host=h password=my sslmodepieceofit=x');
SELECT dbpool_create_pool('p', 'host=h password=my sslmod=x');
SELECT dbpool_create_pool('p', 'host=h password=''my'' pieceofit');
SELECT dbpool_create_pool('p', 'postgresql://u:secret?pieceofit=x@h/d?y@z');
SELECT dbpool_create_pool('p', 'postgresql://u:secret@pieceofit?a=b@h/d?x=y');
SELECT dbpool_create_pool('p', 'postgresql://h/d?password=a&pieceofit=b');
SELECT dbpool_create_pool('p', 'secret=password host=h');
SELECT dbpool_create_pool('p', 'password1 = password');
SELECT dbpool_create_pool('p', 'Secret99=1');
SELECT dbpool_create_pool('p', 'mysql://u:secret@h/d');
SELECT dbpool_create_pool('p', 'password=''secret');
SELECT regress_try($$SELECT dbpool_create_pool('p', 'service=x')$$);
SELECT regress_try($$SELECT dbpool_create_pool('p', 'client_encoding=LATIN1')$$);
-- what could be a piece of a password is not taken for a place
SELECT dbpool_create_pool('p', 'postgresql://app:p/ssword@127.0.0.1:5432/app');
SELECT dbpool_create_pool('p', 'postgresql://app:p@ssword@127.0.0.1:5432/app');
SELECT dbpool_create_pool('p', 'postgresql://app:ssword');
SELECT dbpool_create_pool('p', 'postgresql://h/a/b');
SELECT dbpool_create_pool('p', 'host=h;port=1;password=secret');
SELECT dbpool_create_pool('p', 'dbname=postgres://u:secret@h/d');
-- while these are clear
SELECT regress_make(uri) FROM (VALUES ('postgresql://u:p%2Fss%40w%3Ford@h:1/d'), ('postgresql://u@h'), ('postgresql://[::1]:5433,[fe80::1%25eth0]/d'),
  ('postgresql://u:p?w@h1:1,h2,h3:3/d?sslmode=require'), ('postgresql:///d?host=/tmp'), ('postgresql://%2Ftmp:5433/d'), ('postgresql://h:5432?application_name=a/b:c'),
  ('host=/tmp,@abstract,::1,h_1.example.com'), ('postgresql://h/d%2Fe')) v(uri);
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
-- one that is there may stay as it is
SET client_min_messages = notice;
SELECT dbpool_create_pool('p', 'host=h user=u', '{"max_size": 3}', if_not_exists => true);
SELECT dbpool_create_pool('p', 'host=i user=v', '{"max_size": 4}', if_not_exists => true);
SELECT * FROM regress_pool('p');
DROP USER MAPPING FOR CURRENT_USER SERVER p;
SELECT dbpool_create_pool('p', 'host=i user=v', if_not_exists => true);
SELECT * FROM regress_pool('p');
SELECT dbpool_create_pool('p', 'host=i user=v');
SET client_min_messages = warning;
SELECT dbpool_drop_pool('p');
CREATE FOREIGN DATA WRAPPER regress_other;
CREATE SERVER p FOREIGN DATA WRAPPER regress_other;
SELECT dbpool_create_pool('p', 'host=i user=v', if_not_exists => true);
DROP FOREIGN DATA WRAPPER regress_other CASCADE;
-- the schema of a history
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (history_schema '');
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (history_schema 'pg_temp');
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (history_schema 'information_schema');
DO $$ BEGIN EXECUTE format('CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (history_schema %L)', repeat('a', 64)); END $$;
SELECT dbpool_create_pool('p', 'host=h user=u', jsonb_build_object('history_schema', repeat('ä', 31)));
SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'p';
SELECT dbpool_drop_pool('p');
-- a pool that does not exist: the nearest, of whatever case
SELECT dbpool_create_pool('Sales EU', 'host=h user=u'), dbpool_create_pool('sales', 'host=h user=u');
SELECT dbpool_ping('sales eu');
SELECT dbpool_ping('SALES');
SELECT dbpool_ping('slaes');
SELECT dbpool_ping('purchases');
-- a connection string is no name, and may have a password
SELECT dbpool_ping('postgresql://app:s3cret@h/app');
SELECT dbpool_query('host=h password=s3cret', 'SELECT 1');
CREATE SERVER "a=b" FOREIGN DATA WRAPPER dbpool;
SELECT dbpool_pause('a=b');
SELECT dbpool_resume('a=b');
DROP SERVER "a=b";
-- what other programs call it
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (database 'app');
SELECT dbpool_create_pool('p', 'host=h password=x database=app');
SELECT dbpool_create_pool('p', 'postgresql://h?database=app');
SELECT dbpool_pause('Sale');
SELECT dbpool_drop_pool('salles');
SELECT dbpool_drop_pool('sales'), dbpool_drop_pool('Sales EU');
-- what is slow
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (slow_query_threshold '-1');
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (slow_query_threshold '5 miles');
CREATE SERVER p FOREIGN DATA WRAPPER dbpool OPTIONS (slow_query_threshold '1.5s');
DROP SERVER p;
DROP FUNCTION regress_try, regress_pool, regress_make;
