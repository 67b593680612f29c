--
-- Changes of servers and user mappings take effect at once on live pools
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;
CREATE FUNCTION regress_ask(what text, pool name DEFAULT 'remote') RETURNS text LANGUAGE sql AS $$ SELECT v FROM dbpool_query(pool, 'SELECT ' || what) AS t(v text) $$;
-- another session, by way of a pool of this very server
SELECT dbpool_create_pool('here', format('host=%s port=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
SELECT regress_ask('current_setting(''application_name'')');

-- ALTER SERVER
ALTER SERVER remote OPTIONS (ADD application_name 'one');
SELECT regress_ask('current_setting(''application_name'')');
ALTER SERVER remote OPTIONS (SET application_name 'two', ADD max_size '1');
SELECT regress_ask('current_setting(''application_name'')');
SELECT max_size FROM dbpool_pools WHERE pool = 'remote' AND database = current_database();
-- the old connections are gone
SELECT regress_wait($$regress_ask('count(*) FROM pg_stat_activity WHERE application_name = ''one''') = '0'$$);
-- by another session
SELECT regress_ask('public.regress_ask(''current_setting(''''application_name'''')'')', 'here');
SELECT dbpool_exec('here', 'ALTER SERVER remote OPTIONS (SET application_name ''three'')');
SELECT regress_ask('current_setting(''application_name'')');
ALTER SERVER remote OPTIONS (SET application_name 'four');
SELECT regress_ask('public.regress_ask(''current_setting(''''application_name'''')'')', 'here');
-- ALTER SERVER RENAME
ALTER SERVER remote RENAME TO renamed;
SELECT regress_ask('current_setting(''application_name'')');
SELECT regress_ask('current_setting(''application_name'')', 'renamed');
SELECT pool FROM dbpool_connections WHERE database = current_database() AND pool <> 'here';
ALTER SERVER renamed RENAME TO remote;
SELECT regress_ask('current_setting(''application_name'')');

-- ALTER USER MAPPING
SELECT dbpool_exec('remote', 'DROP ROLE IF EXISTS regress_dbpool_role');
SELECT dbpool_exec('remote', 'CREATE ROLE regress_dbpool_role LOGIN');
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (ADD user 'regress_dbpool_role');
SELECT regress_ask('current_user');
ALTER USER MAPPING FOR CURRENT_USER SERVER remote OPTIONS (DROP user);
SELECT regress_ask('current_user <> ''regress_dbpool_role''');
DROP USER MAPPING FOR CURRENT_USER SERVER remote;
DO $$ BEGIN PERFORM regress_ask('1'); EXCEPTION WHEN undefined_object THEN RAISE WARNING 'no user mapping'; END $$;
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user 'regress_dbpool_role', password_required 'false');
SELECT regress_ask('current_user');
CREATE USER MAPPING FOR CURRENT_USER SERVER remote;
SELECT regress_ask('current_user <> ''regress_dbpool_role''');
DROP USER MAPPING FOR PUBLIC SERVER remote;
SELECT dbpool_exec('remote', 'DROP ROLE regress_dbpool_role');

-- what is not committed is used by its own transaction alone, and rolled back
BEGIN;
ALTER SERVER remote OPTIONS (SET application_name 'uncommitted');
SELECT regress_ask('current_setting(''application_name'')');
SELECT regress_ask('public.regress_ask(''current_setting(''''application_name'''')'')', 'here');
SELECT state, count(*) FROM dbpool_pools WHERE pool = 'remote' AND database = current_database() GROUP BY 1 ORDER BY 1;
SAVEPOINT s;
ALTER SERVER remote OPTIONS (SET application_name 'subtransaction');
SELECT regress_ask('current_setting(''application_name'')');
ROLLBACK TO s;
SELECT regress_ask('current_setting(''application_name'')');
ROLLBACK;
SELECT regress_ask('current_setting(''application_name'')');
SELECT regress_wait($$regress_ask('count(*) FROM pg_stat_activity WHERE application_name IN (''uncommitted'', ''subtransaction'')') = '0'$$);
BEGIN;
SELECT dbpool_create_pool('fresh', :'remote_conninfo');
SELECT regress_ask('1', 'fresh');
SELECT dbpool_drop_pool('fresh');
SELECT regress_ask('1', 'fresh');
ROLLBACK;
BEGIN;
SELECT dbpool_create_pool('fresh', :'remote_conninfo');
SELECT regress_ask('1', 'fresh');
COMMIT;
SELECT regress_ask('2', 'fresh');
BEGIN;
SELECT dbpool_drop_pool('fresh');
ROLLBACK;
SELECT regress_ask('3', 'fresh');
BEGIN;
ALTER SERVER fresh OPTIONS (ADD application_name 'prepared');
SELECT regress_ask('current_setting(''application_name'')', 'fresh');
PREPARE TRANSACTION 'regress_dbpool';
SELECT regress_ask('current_setting(''application_name'') <> ''prepared''', 'fresh');
COMMIT PREPARED 'regress_dbpool';
SELECT regress_ask('current_setting(''application_name'')', 'fresh');

-- such a pool ends with its transaction, whatever made it the transaction's own
CREATE ROLE regress_dbpool_own;
CREATE FUNCTION regress_own_pools() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM dbpool_pools WHERE state = 'uncommitted' AND database = current_database() $$;
BEGIN;
GRANT USAGE ON FOREIGN SERVER fresh TO regress_dbpool_own;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
COMMIT;
SELECT regress_wait('regress_own_pools() = 0');
BEGIN;
REVOKE USAGE ON FOREIGN SERVER fresh FROM regress_dbpool_own;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
ROLLBACK;
SELECT regress_wait('regress_own_pools() = 0');
DROP USER MAPPING FOR CURRENT_USER SERVER fresh;
BEGIN;
CREATE USER MAPPING FOR CURRENT_USER SERVER fresh;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
COMMIT;
SELECT regress_wait('regress_own_pools() = 0');
BEGIN;
SAVEPOINT s;
GRANT USAGE ON FOREIGN SERVER fresh TO PUBLIC;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
ROLLBACK TO s;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
COMMIT;
SELECT regress_wait('regress_own_pools() = 0');
BEGIN;
REVOKE USAGE ON FOREIGN SERVER fresh FROM regress_dbpool_own;
SELECT regress_ask('1', 'fresh'), regress_own_pools();
PREPARE TRANSACTION 'regress_dbpool';
SELECT regress_wait('regress_own_pools() = 0');
COMMIT PREPARED 'regress_dbpool';
DROP FUNCTION regress_own_pools;
DROP ROLE regress_dbpool_own;

-- what is wanted of a pool that is cold does not befall the one it is later
ALTER SERVER fresh OPTIONS (SET application_name 'cold');
SELECT regress_wait($$(SELECT state = 'cold' FROM dbpool_pools WHERE pool = 'fresh' AND database = current_database())$$);
SELECT dbpool_reset('fresh') LIKE 'reset, %' AS reset;
SELECT regress_ask('pg_backend_pid()', 'fresh') AS pid \gset
SELECT dbpool_reset('here') LIKE 'reset, %' AS reset;
SELECT regress_ask('pg_backend_pid()', 'fresh') = :'pid' AS same_connection;

-- DROP SERVER closes the connections
SELECT dbpool_drop_pool('fresh');
SELECT regress_wait($$NOT EXISTS (SELECT FROM dbpool_connections WHERE pool = 'fresh' AND database = current_database())$$);
SELECT regress_wait($$regress_ask('count(*) FROM pg_stat_activity WHERE application_name = ''prepared''') = '0'$$);
SELECT regress_ask('1', 'fresh');

-- an extension that is dropped takes its pools along; those of other databases stay
BEGIN;
DROP EXTENSION dbpool CASCADE;
ROLLBACK;
SELECT regress_ask('1');
DROP EXTENSION dbpool CASCADE;
CREATE EXTENSION dbpool;
SELECT regress_wait($$NOT EXISTS (SELECT FROM dbpool_connections WHERE database = current_database())$$);
DROP FUNCTION regress_ask;
