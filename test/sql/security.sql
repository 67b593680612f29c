--
-- Who may use a pool, by which password, and what nobody gets to see
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;
CREATE ROLE regress_dbpool_alice;
CREATE ROLE regress_dbpool_bob;
SELECT dbpool_exec('remote', $$DO $do$ BEGIN
  DROP ROLE IF EXISTS regress_dbpool_reader;
  CREATE ROLE regress_dbpool_reader LOGIN;
END $do$ $$);

-- USAGE on the server is the right to use the pool
SET ROLE regress_dbpool_alice;
SELECT dbpool_query('remote', 'SELECT 1');
SELECT dbpool_ping('remote');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_alice;
-- and a user mapping is needed
SET ROLE regress_dbpool_alice;
SELECT dbpool_query('remote', 'SELECT 1');
-- so a hint names the pool only where there is one
SELECT dbpool_query('nonesuch', 'SELECT 1');
-- which has to have a password
CREATE USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (user 'regress_dbpool_reader');
SELECT dbpool_query('remote', 'SELECT 1');
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (ADD password '');
SELECT dbpool_query('remote', 'SELECT 1');
-- that the remote asks for, which this one does not
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (SET password 'regress-secret');
\set VERBOSITY terse
SELECT dbpool_query('remote', 'SELECT 1');
SELECT dbpool_ping('remote');
\set VERBOSITY default
-- and so has PUBLIC's
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_bob;
CREATE USER MAPPING FOR PUBLIC SERVER remote;
SET ROLE regress_dbpool_bob;
SELECT dbpool_query('remote', 'SELECT 1');
RESET ROLE;
DROP USER MAPPING FOR PUBLIC SERVER remote;
REVOKE USAGE ON FOREIGN SERVER remote FROM regress_dbpool_bob;
-- unless a superuser allows it
ALTER USER MAPPING FOR regress_dbpool_alice SERVER remote OPTIONS (ADD password_required 'false');
SET ROLE regress_dbpool_alice;
SELECT * FROM dbpool_query('remote', 'SELECT current_user') AS t(who name);
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (SET user 'regress_dbpool_reader');
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (DROP password_required);
\set VERBOSITY terse
SELECT dbpool_query('remote', 'SELECT 1');
\set VERBOSITY default
RESET ROLE;
ALTER USER MAPPING FOR regress_dbpool_alice SERVER remote OPTIONS (ADD password_required 'false');
-- rights that are taken away are gone at once
REVOKE USAGE ON FOREIGN SERVER remote FROM regress_dbpool_alice;
SET ROLE regress_dbpool_alice;
SELECT dbpool_query('remote', 'SELECT 1');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_alice, regress_dbpool_bob;

-- connections are never shared across user mappings
SET ROLE regress_dbpool_alice;
SELECT v AS alice_pid FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int) \gset
RESET ROLE;
SELECT v <> :alice_pid AS another FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int);
-- those of PUBLIC's mapping are one pool
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user 'regress_dbpool_reader', password 'regress-secret', password_required 'false');
SET ROLE regress_dbpool_bob;
SELECT dbpool_query('nonesuch', 'SELECT 1');
SELECT v AS bob_pid, who FROM dbpool_query('remote', 'SELECT pg_backend_pid(), current_user') AS t(v int, who name) \gset
SELECT :'who' AS who, :bob_pid <> :alice_pid AS another;
SELECT user_name FROM dbpool_pools WHERE pool = 'remote' AND database = current_database() AND state = 'active' ORDER BY user_name = 'public' DESC, user_name = 'regress_dbpool_alice' DESC LIMIT 2;
RESET ROLE;

-- superusers need no password of their own; a member is not the role
GRANT regress_dbpool_alice TO regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT v = :bob_pid AS publics FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int);
RESET ROLE;

-- SECURITY DEFINER functions use their owner's mapping
CREATE FUNCTION regress_definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS $$ SELECT v FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int) $$;
ALTER FUNCTION regress_definer() OWNER TO regress_dbpool_alice;
SET ROLE regress_dbpool_bob;
SELECT regress_definer() = :alice_pid AS owners;
SELECT v = :bob_pid AS publics FROM dbpool_query('remote', 'SELECT pg_backend_pid()') AS t(v int);
RESET ROLE;
DROP FUNCTION regress_definer;
-- a view does not: its rights are the owner's, but functions run as the caller
CREATE VIEW regress_view AS SELECT * FROM dbpool_query('remote', 'SELECT current_user') AS t(who name);
GRANT SELECT ON regress_view TO regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT * FROM regress_view;
RESET ROLE;
DROP VIEW regress_view;

-- other people's statements are hidden
SELECT dbpool_query('remote', 'SELECT ''a secret of the superuser''') \g /dev/null
SET ROLE regress_dbpool_alice;
SELECT dbpool_query('remote', 'SELECT ''a secret of alice''') \g /dev/null
SELECT user_name = 'regress_dbpool_alice' AS mine, query FROM dbpool_connections WHERE pool = 'remote' AND database = current_database() AND user_name <> 'public' ORDER BY 1;
SET ROLE regress_dbpool_bob;
SELECT count(*) FROM dbpool_connections WHERE query LIKE '%superuser%';
RESET ROLE;
REVOKE regress_dbpool_alice FROM regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT DISTINCT query FROM dbpool_connections WHERE pool = 'remote' AND database = current_database() AND user_name <> 'public' ORDER BY 1;
RESET ROLE;
GRANT pg_read_all_stats TO regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT query FROM dbpool_connections WHERE pool = 'remote' AND database = current_database() AND user_name <> 'public' ORDER BY 1;
RESET ROLE;
REVOKE pg_read_all_stats FROM regress_dbpool_bob;
-- of what is not theirs, people see that it is there: these columns
CREATE FUNCTION regress_columns(view text, which text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
  RETURN QUERY EXECUTE format('SELECT DISTINCT (SELECT string_agg(key || CASE WHEN value #>> ''{}'' = ''<insufficient privilege>'' THEN '' (hidden)'' ELSE '''' END, '', '' ORDER BY key)
    FROM jsonb_each(jsonb_strip_nulls(to_jsonb(v)))) FROM %I v WHERE %s', view, which);
END $$;
CREATE FUNCTION regress_look(view text, which text) RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT string_agg(x, ' | ' ORDER BY x) FROM regress_columns(view, which) x $$;
ALTER FUNCTION regress_look OWNER TO regress_dbpool_bob;
CREATE TABLE regress_seen (n int, seen text);
SELECT dbpool_create_pool('here', format('host=%s port=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
SELECT dbpool_query('here', 'SELECT 1');
SELECT dbpool_bulk_insert('here', 'regress_seen', format($$SELECT 1, regress_look('dbpool_requests', 'pid = %1$s')
  UNION ALL SELECT 2, regress_look('dbpool_progress_bulk_insert', 'pid = %1$s')
  UNION ALL SELECT 3, string_agg(x, ' | ') FROM regress_columns('dbpool_requests', 'pid = %1$s') x
  UNION ALL SELECT 4, string_agg(x, ' | ') FROM regress_columns('dbpool_progress_bulk_insert', 'pid = %1$s') x$$, pg_backend_pid()));
SELECT * FROM regress_seen ORDER BY n;
\set others 'database = current_database() AND NOT coalesce(user_name = ''public'', false)'
SELECT regress_look('dbpool_connections', :'others') AS connections;
SELECT regress_look('dbpool_stat_pools', :'others') AS stat_pools;
-- of pools of this database, names and sizes are in the catalogs
SELECT regress_look('dbpool_pools', 'pool = ''here''') AS pools;
-- the owner of the server sees them, but for the texts
ALTER SERVER here OWNER TO regress_dbpool_bob;
ALTER USER MAPPING FOR CURRENT_USER SERVER here OPTIONS (ADD password_required 'false');
SELECT dbpool_query('here', 'SELECT 2');
SET ROLE regress_dbpool_bob;
SELECT pool, user_name IS NOT NULL AS user_name, address IS NOT NULL AS address, query FROM dbpool_connections WHERE pool = 'here' AND database = current_database();
SELECT pool, statements > 0 AS statements FROM dbpool_stat_pools WHERE pool = 'here' AND database = current_database();
RESET ROLE;
SELECT dbpool_drop_pool('here');
DROP TABLE regress_seen;
DROP FUNCTION regress_look, regress_columns;
-- why connecting failed is for those who may use the pool
ALTER SERVER remote OPTIONS (SET dbname 'regress_nonesuch');
DO $$ BEGIN PERFORM dbpool_ping('remote'); EXCEPTION WHEN sqlstate '08001' THEN NULL; END $$;
SELECT count(connect_error) FROM dbpool_pools WHERE pool = 'remote' AND database = current_database() AND connect_error LIKE '%regress_nonesuch%';
REVOKE USAGE ON FOREIGN SERVER remote FROM regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT count(connect_error) FROM dbpool_pools WHERE pool = 'remote' AND database = current_database();
RESET ROLE;
ALTER SERVER remote OPTIONS (SET dbname 'remote');
-- statistics may be reset by those who were granted it
SET ROLE regress_dbpool_alice;
SELECT dbpool_stat_reset('remote');
SELECT dbpool_create_pool('p', '');
RESET ROLE;

-- the password is nowhere to be seen
CREATE FUNCTION regress_secrets() RETURNS TABLE (seen_in text, n bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOR seen_in IN SELECT oid::regclass::text FROM pg_class WHERE relname LIKE 'dbpool\_%' AND relkind = 'v'
      UNION ALL VALUES ('pg_stat_activity'), ('pg_foreign_server'), ('pg_user_mappings'), ('pg_locks'), ('pg_settings')
      UNION ALL VALUES ('information_schema.user_mapping_options'), ('information_schema.foreign_server_options') LOOP
    EXECUTE format('SELECT count(*) FROM %s v WHERE v::text LIKE ''%%'' || ''regress-'' || ''secret%%''', seen_in) INTO n;
    IF n > 0 THEN RETURN NEXT; END IF;
  END LOOP;
  SELECT count(*) INTO n FROM dbpool_query('remote', 'SELECT query || application_name FROM pg_stat_activity') AS t(v text) WHERE v LIKE '%regress-' || 'secret%';
  IF n > 0 THEN seen_in := 'remote'; RETURN NEXT; END IF;
END $$;
-- by one who may use the pool but whose mapping it is not
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_bob;
SET ROLE regress_dbpool_bob;
SELECT * FROM regress_secrets();
RESET ROLE;
-- a superuser sees it where PostgreSQL shows it, and nowhere else
SELECT seen_in FROM regress_secrets() ORDER BY 1;
-- nor does an event trigger or an error see the connection string
CREATE FUNCTION regress_trigger() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING '% in: %', tg_tag, regexp_replace(current_query(), 'dbpool_create_pool.*', 'dbpool_create_pool...'); END $$;
CREATE EVENT TRIGGER regress_trigger ON ddl_command_end WHEN tag IN ('CREATE SERVER', 'CREATE USER MAPPING') EXECUTE FUNCTION regress_trigger();
SELECT dbpool_create_pool('p', 'host=h user=u password=regress-secret');
DROP EVENT TRIGGER regress_trigger;
DROP FUNCTION regress_trigger, regress_secrets;

-- a hostile search_path
CREATE SCHEMA regress_evil;
GRANT USAGE ON SCHEMA regress_evil TO PUBLIC;
DO $$
DECLARE
  f record;
BEGIN
  -- everything that the extension's objects might name without a schema
  FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, format_type(prorettype, NULL) AS result FROM pg_proc p
      WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset AND provariadic = 0 AND proargmodes IS NULL
        AND proname IN ('current_database', 'pg_options_to_table', 'now', 'has_server_privilege', 'pg_has_role', 'oideq', 'nameeq', 'int4eq', 'format_type', 'lower', 'to_jsonb', 'date_in', 'int4in') LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION regress_evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.proname, f.args, f.result, 'BEGIN RAISE EXCEPTION ''function of regress_evil was called''; END');
    EXCEPTION WHEN invalid_function_definition OR feature_not_supported OR undefined_object OR syntax_error THEN NULL;
    END;
  END LOOP;
END $$;
CREATE FUNCTION regress_evil.equal(oid, oid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'operator of regress_evil was called'; END $$;
CREATE FUNCTION regress_evil.equal(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'operator of regress_evil was called'; END $$;
CREATE FUNCTION regress_evil.equal(name, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'operator of regress_evil was called'; END $$;
CREATE FUNCTION regress_evil.equal(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'operator of regress_evil was called'; END $$;
CREATE OPERATOR regress_evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = regress_evil.equal);
CREATE OPERATOR regress_evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = regress_evil.equal);
CREATE OPERATOR regress_evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = regress_evil.equal);
CREATE OPERATOR regress_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_evil.equal);
CREATE TABLE regress_evil.pg_foreign_server (); CREATE TABLE regress_evil.pg_database (); CREATE TABLE regress_evil.pg_user_mapping ();
CREATE TABLE regress_evil.pg_roles (); CREATE TABLE regress_evil.pg_foreign_data_wrapper (); CREATE TABLE regress_evil.dbpool_pools ();
CREATE TYPE regress_evil.int4 AS ENUM ('evil'); CREATE DOMAIN regress_evil.text AS pg_catalog.int4; CREATE DOMAIN regress_evil.name AS pg_catalog.int4;
CREATE FUNCTION regress_evil.dbpool_get_pools(OUT a int) LANGUAGE sql AS 'SELECT 1 / 0';
SET search_path = regress_evil, pg_catalog, public;
-- the trap is set
SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text;
SELECT now();
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM public.dbpool_pools;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM public.dbpool_stat_pools;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM public.dbpool_connections;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>=) 0 AS some FROM public.dbpool_requests;
SELECT pg_catalog.count(*) OPERATOR(pg_catalog.>) 0 AS some FROM public.dbpool_workers;
SELECT public.dbpool_query('remote', 'SELECT 1, ''x''::text, now() IS NOT NULL');
SELECT public.dbpool_query('remote', 'SELECT $1, $2::int + 1', 'a'::pg_catalog.text, 2);
SELECT * FROM public.dbpool_query('remote', 'SELECT 1, ''x'', date ''2000-01-01''') AS t(a pg_catalog.int4, b pg_catalog.text, c date);
SELECT public.dbpool_query_json('remote', 'SELECT 1 AS a, ''x'' AS b, date ''2000-01-01'' AS c');
SELECT public.dbpool_query_as(NULL::pg_catalog.int4, 'remote', 'SELECT 1');
SELECT public.dbpool_exec('remote', 'SELECT 1');
SELECT public.dbpool_ping('remote') IS NOT NULL AS pong;
SELECT public.dbpool_ping('nonesuch');
SELECT public.dbpool_create_pool('q', 'host=h user=u', '{"max_size": 3}');
SELECT public.dbpool_pause('remote'), public.dbpool_resume('remote'), public.dbpool_reset('remote') LIKE 'reset%' AS reset, public.dbpool_stat_reset('remote'), public.dbpool_stat_reset();
SELECT public.dbpool_drop_pool('q');
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_evil CASCADE;

DROP SERVER p CASCADE;
DROP SERVER remote CASCADE;
SELECT dbpool_create_pool('remote', :'remote_conninfo');
SELECT dbpool_exec('remote', 'DROP ROLE regress_dbpool_reader');
DROP ROLE regress_dbpool_alice, regress_dbpool_bob;
