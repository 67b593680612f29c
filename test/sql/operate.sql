--
-- dbpool_disable, _enable, _kill and _drain; and all such functions for several pools
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

CREATE FUNCTION regress_state(of name) RETURNS text LANGUAGE sql AS
$$ SELECT string_agg(state, ' ' ORDER BY user_name) FROM dbpool_pools WHERE pool = of AND database = current_database() $$;
CREATE FUNCTION regress_try(sql text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  detail text;
  hint text;
BEGIN
  EXECUTE sql;
  RETURN 'it ran';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN format(E'%s: %s\n%s\n%s', SQLSTATE, SQLERRM, detail, hint);
END $$;

-- what comes is refused at once, whatever it is
SELECT dbpool_disable('remote');
SELECT regress_state('remote');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT split_part(regress_try('SELECT dbpool_exec(''remote'', ''SELECT 1'')'), E'\n', 1);
SELECT split_part(regress_try('SELECT dbpool_exec_batch(''remote'', ''SELECT $1'', ARRAY[1, 2])'), E'\n', 1);
SELECT split_part(regress_try('SELECT dbpool_begin(''remote''); SELECT dbpool_exec(''remote'', ''SELECT 1'')'), E'\n', 1);
SELECT dbpool_disable('remote');
SELECT regress_state('remote');
-- also while it is paused, which stays
SELECT dbpool_pause('remote');
SELECT regress_state('remote');
SELECT split_part(regress_try('SELECT dbpool_ping(''remote'')'), E'\n', 1);
SELECT dbpool_resume('remote');
-- a change of the definition, and a reset, do not end it
ALTER SERVER remote OPTIONS (ADD idle_timeout '5min');
SELECT dbpool_reset('remote') LIKE 'reset, %' AS reset;
SELECT split_part(regress_try('SELECT dbpool_ping(''remote'')'), E'\n', 1);
SELECT dbpool_enable('remote');
SELECT dbpool_enable('remote');
-- one stop is not the other
SELECT dbpool_pause('remote', '0'), dbpool_disable('remote'), dbpool_enable('remote'), dbpool_enable('remote'), dbpool_resume('remote');
SELECT dbpool_pause('remote', '0'), dbpool_isolate('remote'), dbpool_resume('remote'), dbpool_enable('remote');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT regress_state('remote');

-- no connection is left; what comes gets new ones
SELECT dbpool_kill('remote');
SELECT dbpool_kill('remote');
SELECT regress_try('SELECT dbpool_ping(''remote'')');

-- one that is isolated fails as if its remote could not be reached
SELECT dbpool_isolate('remote');
SELECT dbpool_isolate('remote'), dbpool_disable('remote');
SELECT regress_state('remote');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT * FROM dbpool_isolate(ARRAY['remote', 'nonesuch']);
SELECT dbpool_enable('remote'), dbpool_enable('remote');
SELECT dbpool_disable('remote'), dbpool_isolate('remote');
SELECT dbpool_enable('remote'), dbpool_value(NULL::int, 'remote', 'SELECT 1');

-- one that is drained is disabled, and has no connection, whatever min_size says
ALTER SERVER remote OPTIONS (ADD min_size '2');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT dbpool_drain('remote') LIKE 'drained, % closed' AS drained;
SELECT regress_state('remote'), (SELECT count(*) FROM dbpool_connections WHERE pool = 'remote' AND database = current_database()) AS connections;
SELECT dbpool_drain('remote', '0');
SELECT dbpool_enable('remote');
SELECT regress_try('SELECT dbpool_ping(''remote'')');
SELECT dbpool_drain('remote', '-1s');
ALTER SERVER remote OPTIONS (DROP min_size);

-- several, and those that nobody has used; one that fails does not keep the others from it
SELECT dbpool_create_pool('b', :'remote_conninfo');
SELECT dbpool_create_pool('a', :'remote_conninfo');
SELECT * FROM dbpool_pause(ARRAY['b', 'none', NULL, 'remote']);
SELECT * FROM dbpool_disable(ARRAY['b', 'a']);
SELECT pool, state FROM dbpool_pools WHERE database = current_database() ORDER BY 1;
SELECT * FROM dbpool_resume(pools => NULL);
SELECT * FROM dbpool_enable(pools => NULL);
SELECT * FROM dbpool_drain(ARRAY[]::name[]);
SELECT pool, result ~ '^killed, ' AS killed FROM dbpool_kill(NULL::name[]);
SELECT pool, result ~ '^drained, ' AS drained, sqlstate, error FROM dbpool_drain(pools => NULL, timeout => '10s');
SELECT pool, state FROM dbpool_pools WHERE database = current_database() ORDER BY 1;
SELECT pool, result FROM dbpool_enable(pools => NULL);
SELECT * FROM dbpool_reset(ARRAY['a']);

-- for the owner, and for whom it was granted by name: then for all pools
CREATE ROLE regress_dbpool_user;
CREATE ROLE regress_dbpool_operators;
GRANT USAGE ON FOREIGN SERVER a TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT dbpool_disable('a');
SELECT dbpool_kill('a');
SELECT dbpool_drain('a');
SELECT * FROM dbpool_disable(pools => NULL);
SELECT pool, sqlstate, error FROM dbpool_disable(ARRAY['a']);
RESET ROLE;
GRANT regress_dbpool_operators TO regress_dbpool_user;
GRANT EXECUTE ON FUNCTION dbpool_disable(name), dbpool_enable(name[]) TO regress_dbpool_operators;
SET ROLE regress_dbpool_user;
SELECT dbpool_disable('a');
SELECT dbpool_enable('a');
SELECT * FROM dbpool_enable(pools => NULL);
RESET ROLE;
REVOKE EXECUTE ON FUNCTION dbpool_disable(name), dbpool_enable(name[]) FROM regress_dbpool_operators;
SET ROLE regress_dbpool_user;
SELECT dbpool_disable('a');
RESET ROLE;
GRANT USAGE ON FOREIGN DATA WRAPPER dbpool TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT dbpool_create_pool('hers', '');
SELECT * FROM dbpool_disable(pools => NULL);
SELECT * FROM dbpool_enable(pools => NULL);
RESET ROLE;

-- a stop belongs to the server, not to the name; nor is one left by what was rolled back
SELECT dbpool_disable('a');
DROP SERVER a CASCADE;
SELECT dbpool_create_pool('a', :'remote_conninfo');
SELECT regress_try('SELECT dbpool_ping(''a'')');
BEGIN;
SELECT dbpool_create_pool('new', :'remote_conninfo');
SELECT dbpool_disable('new');
ROLLBACK;
SELECT dbpool_disable('none');
SELECT dbpool_disable(NULL);
SELECT dbpool_disable('');

SET client_min_messages = warning;
SELECT dbpool_drop_pool(p) FROM unnest(ARRAY['a', 'b', 'hers']) p;
DROP FUNCTION regress_state, regress_try;
REVOKE USAGE ON FOREIGN DATA WRAPPER dbpool FROM regress_dbpool_user;
DROP ROLE regress_dbpool_user, regress_dbpool_operators;
