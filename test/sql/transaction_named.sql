--
-- Transactions by name: dbpool_begin() and its like
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (id int PRIMARY KEY)');
CREATE FUNCTION ids(text) RETURNS text LANGUAGE sql AS $$ SELECT dbpool_value(NULL::text, $1, 'SELECT string_agg(id::text, '','' ORDER BY id) FROM regress.t') $$;

-- without a name, all calls on the pool run in it, over local transactions
SELECT dbpool_begin('remote');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1)');
SELECT ids('remote');
SELECT dbpool_rollback('remote');
SELECT ids('remote');
SELECT dbpool_begin('remote');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1)');
SELECT dbpool_commit('remote');
SELECT ids('remote');

-- with names, several at a time
SELECT dbpool_begin('remote', 'first');
SELECT dbpool_begin('remote', 'second', isolation => 'repeatable read', read_only => true);
SELECT dbpool_exec('first', 'INSERT INTO regress.t VALUES (2)');
SELECT ids('first'), ids('second'), ids('remote');
SELECT dbpool_commit('first');
SELECT ids('second'), ids('remote');
SELECT dbpool_exec('second', 'INSERT INTO regress.t VALUES (3)');
SELECT ids('second');
SELECT dbpool_rollback('second');
SELECT ids('second');

-- savepoints
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (3)');
SELECT dbpool_savepoint('tx', 'a');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (3)');
SELECT ids('tx');
SELECT dbpool_rollback_to('tx', 'a');
SELECT ids('tx');
SELECT dbpool_release('tx', 'a');
SELECT dbpool_savepoint('tx', 'odd "name"; x');
SELECT dbpool_exec('tx', 'DELETE FROM regress.t');
SELECT dbpool_rollback_to('tx', 'odd "name"; x');
SELECT dbpool_rollback_to('tx', 'a');
SELECT dbpool_savepoint('tx', '');
-- it has failed: its COMMIT says so
SELECT dbpool_commit('tx');
SELECT dbpool_commit('tx');
SELECT ids('remote');

-- however its COMMIT ends, there is none any more
SELECT dbpool_exec('remote', 'CREATE TABLE regress.deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)');
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.deferred VALUES (1), (1)');
SELECT dbpool_commit('tx');
SELECT dbpool_rollback('tx');
SELECT dbpool_begin('remote', 'tx');
DO $$ BEGIN
  PERFORM dbpool_exec('tx', 'SELECT pg_terminate_backend(pg_backend_pid())');
EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLSTATE;
END $$;
DO $$ BEGIN
  PERFORM dbpool_commit('tx');
EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM;
END $$;
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_commit('tx');

-- it ends with the local transaction that has begun it, if that fails
BEGIN;
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (10)');
ROLLBACK;
SELECT ids('tx');
BEGIN;
SAVEPOINT a;
SELECT dbpool_begin('remote', 'tx');
ROLLBACK TO a;
SELECT ids('tx');
ROLLBACK TO a;
-- the one that it was released into counts from then on
SAVEPOINT b;
SELECT dbpool_begin('remote', 'tx');
RELEASE b;
ROLLBACK TO a;
SELECT ids('tx');
ROLLBACK TO a;
SAVEPOINT b;
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (11)');
RELEASE b;
COMMIT;
-- and outlives all others
BEGIN;
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (12)');
ROLLBACK;
SELECT ids('tx');
BEGIN;
SELECT dbpool_commit('tx');
ROLLBACK;
SELECT ids('remote');

-- what cannot be
SELECT dbpool_begin('nowhere');
SELECT dbpool_begin(NULL);
SELECT dbpool_begin('remote', 'remote');
SELECT dbpool_begin('remote', '');
SELECT dbpool_begin('remote', 'tx', isolation => 'none');
SELECT dbpool_begin('remote', 'tx', idle_timeout => '-1s');
SELECT dbpool_begin('remote', 'tx', idle_timeout => '100 years');
SELECT dbpool_commit('nothing'), 1;
SELECT dbpool_rollback(NULL);
SELECT dbpool_savepoint('remote', 'a');
SELECT dbpool_begin('remote');
SELECT dbpool_begin('remote');
SELECT dbpool_rollback('remote');
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_rollback('tx');
BEGIN;
SET LOCAL dbpool.transaction = bound;
SELECT ids('remote');
SELECT dbpool_begin('remote');
ROLLBACK;
-- in a bound one's presence, by name
BEGIN;
SET LOCAL dbpool.transaction = bound;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (20)');
SELECT dbpool_begin('remote', 'tx');
SELECT ids('tx'), ids('remote');
SELECT dbpool_rollback('tx');
COMMIT;
SELECT ids('remote');

-- all kinds of calls
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_bulk_insert('tx', 'regress.t', 'SELECT generate_series(30, 32)');
SELECT * FROM dbpool_query_as(NULL::pg_am, 'tx', 'SELECT oid, amname, amhandler, amtype FROM pg_am WHERE amname = $1', 'heap');
SELECT dbpool_query_json('tx', 'SELECT max(id) FROM regress.t');
SELECT dbpool_ping('tx') > '0';
SELECT dbpool_rollback('tx');
SELECT ids('remote');

-- the server may go away under it
SELECT dbpool_create_pool('gone', :'remote_conninfo');
SELECT dbpool_begin('gone', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (40)');
SELECT dbpool_drop_pool('gone');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (41)');
SELECT dbpool_commit('tx');
SELECT ids('remote');
-- also if another one has got its name
SELECT dbpool_create_pool('gone', :'remote_conninfo');
SELECT dbpool_begin('gone', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (43)');
SELECT dbpool_drop_pool('gone');
SELECT dbpool_create_pool('gone', :'remote_conninfo');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (44)');
SELECT dbpool_commit('tx');
SELECT dbpool_drop_pool('gone');
SELECT ids('remote');
-- or be changed
SELECT dbpool_create_pool('changed', :'remote_conninfo');
SELECT dbpool_begin('changed', 'tx');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (41)');
ALTER SERVER changed OPTIONS (ADD max_size '3');
SELECT dbpool_exec('tx', 'INSERT INTO regress.t VALUES (42)');
SELECT dbpool_commit('tx');
SELECT ids('changed');

-- dbpool.inherit_read_only holds for what was begun before
SELECT dbpool_begin('remote', 'tx');
BEGIN READ ONLY;
SET LOCAL dbpool.inherit_read_only = on;
SELECT ids('tx');
ROLLBACK;
BEGIN READ ONLY;
SET LOCAL dbpool.inherit_read_only = on;
SELECT dbpool_begin('remote', 'ro');
SELECT dbpool_exec('ro', 'INSERT INTO regress.t VALUES (50)');
ROLLBACK;
SELECT dbpool_rollback('tx');

-- DISCARD ALL leaves none to who uses the session next, as poolers have it
SELECT dbpool_begin('remote');
SELECT dbpool_begin('remote', 'tx');
BEGIN;
DISCARD ALL;
ROLLBACK;
SELECT ids('tx');
DISCARD PLANS;
SELECT ids('tx');
DISCARD ALL;
SELECT ids('tx');
SELECT dbpool_commit('remote');

-- a server that gets the name later does not lose what is meant for it
SELECT dbpool_begin('remote', 'later');
SELECT dbpool_create_pool('later', :'remote_conninfo');
SELECT ids('later');
SELECT dbpool_savepoint('later', 'a');
SELECT dbpool_commit('later');
SELECT ids('later');
SELECT dbpool_drop_pool('later');

-- nor does another role get into one, even if one user mapping is for all
CREATE ROLE regress_dbpool_named;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_named;
DROP USER MAPPING FOR CURRENT_USER SERVER remote;
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user :'USER', password_required 'false');
CREATE FUNCTION definer() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT dbpool_value(NULL::text, 'remote', 'SELECT to_regclass(''planted'')::text') $$;
SET ROLE regress_dbpool_named;
SELECT dbpool_begin('remote');
SELECT dbpool_begin('remote', 'tx');
SELECT dbpool_exec('remote', 'CREATE TEMP TABLE planted AS SELECT 1');
SELECT dbpool_value(NULL::text, 'remote', 'SELECT to_regclass(''planted'')::text');
SELECT definer();
RESET ROLE;
SELECT ids('tx');
SELECT dbpool_savepoint('tx', 'a');
SELECT dbpool_commit('tx');
SELECT dbpool_commit('remote');
SELECT dbpool_begin('remote', 'tx');
-- each has one without a name
SELECT dbpool_begin('remote');
SELECT dbpool_value(NULL::text, 'remote', 'SELECT to_regclass(''planted'')::text');
SELECT dbpool_commit('remote');
SET ROLE regress_dbpool_named;
SELECT dbpool_commit('remote');
SELECT dbpool_rollback('tx');
RESET ROLE;
DROP FUNCTION definer();
DROP OWNED BY regress_dbpool_named;
DROP ROLE regress_dbpool_named;
DROP USER MAPPING FOR PUBLIC SERVER remote;
CREATE USER MAPPING FOR CURRENT_USER SERVER remote;

DROP FUNCTION ids(text);

-- views: who has one, what it does
SELECT dbpool_stat_reset('remote');
SELECT dbpool_begin('remote', 'tx', read_only => true, isolation => 'serializable');
SELECT dbpool_query('tx', 'SELECT 1');
BEGIN;
SET LOCAL dbpool.transaction = bound;
SAVEPOINT a;
SELECT dbpool_query('remote', 'SELECT 2');
SELECT name, pool, database = current_database() AS here, mode, state, pid = pg_backend_pid() AS mine, usename = current_user AS me,
  remote_pid > 0 AS remote, isolation, read_only, savepoints, statements, began_at <= clock_timestamp() AS began, idle_since >= began_at AS idle, query
FROM dbpool_transactions ORDER BY name;
SELECT pool, state, query FROM dbpool_connections WHERE state = 'leased' ORDER BY query;
SELECT leased, busy FROM dbpool_pools WHERE pool = 'remote';
CREATE ROLE regress_other;
SET LOCAL ROLE regress_other;
SELECT name, pool, mode, state, pid = pg_backend_pid() AS mine, usename = session_user AS me, query FROM dbpool_transactions ORDER BY name;
RESET ROLE;
DROP ROLE regress_other;
COMMIT;
SELECT dbpool_rollback('tx');
-- less than a millisecond is not never
SELECT dbpool_begin('remote', 'brief', idle_timeout => '1 microsecond');
SELECT regress_wait($$state = 'ended' FROM dbpool_transactions$$);
SELECT dbpool_rollback('brief');
SELECT regress_wait($$NOT EXISTS (SELECT FROM dbpool_transactions)$$);
SELECT begun, committed, rolled_back, prepared, in_doubt, resolved, transaction_time > 0 AS time, transaction_time_mean <= transaction_time_max AS mean, transaction_time_max <= transaction_time AS max FROM dbpool_stat_pools WHERE pool = 'remote' AND user_name <> 'public';

-- nothing of dbpool's own fails in a transaction: what it has prepared may be gone already
SELECT dbpool_create_pool('few', :'remote_conninfo', '{"max_size": 1, "prepare_threshold": 1, "statement_cache_size": 1}');
SELECT dbpool_exec('few', 'CREATE FUNCTION regress.deallocate() RETURNS int LANGUAGE plpgsql AS ''BEGIN DEALLOCATE ALL; RETURN 1; END''');
SELECT dbpool_value(0, 'few', 'SELECT 1 + $1', i) FROM generate_series(1, 4) i;
SELECT prepared FROM dbpool_connections WHERE pool = 'few';
SELECT * FROM dbpool_query('few', 'SELECT 2') AS t(i int);
SELECT * FROM dbpool_query('few', 'SELECT regress.deallocate()') AS t(i int);
SELECT dbpool_begin('few', 'long');
SELECT * FROM dbpool_query('long', 'SELECT 3') AS t(i int);
SELECT * FROM dbpool_query('long', 'SELECT 2') AS t(i int);
SELECT * FROM dbpool_query('long', 'SELECT 2') AS t(i int);
SELECT dbpool_commit('long');
