--
-- The views: readable in every state, right in what they count
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- each is there, readable by anybody, with a comment on itself and each column
SELECT c.relname, count(*) AS columns FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relname LIKE 'dbpool\_%' AND c.relkind = 'v' AND a.attnum > 0 GROUP BY 1 ORDER BY 1;
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relname LIKE 'dbpool\_%' AND c.relkind = 'v' AND a.attnum > 0
  AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL);
-- as everything of the extension's
SELECT pg_describe_object(classid, objid, objsubid) AS without_comment FROM pg_depend
WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'dbpool') AND deptype = 'e'
  AND classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_foreign_data_wrapper'::regclass) AND obj_description(objid, classid::regclass::name) IS NULL;
CREATE ROLE regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT count(*) > 0 AS any FROM dbpool_workers;
SELECT count(*) > 0 AS any FROM dbpool_pools;
SELECT count(*) > 0 AS any FROM dbpool_connections;
SELECT count(*) >= 0 AS any FROM dbpool_requests;
SELECT count(*) > 0 AS any FROM dbpool_stat_pools;
SELECT count(*) > 0 AS any, count(count) AS shown FROM dbpool_stat_latency;
SELECT count(*) AS shown FROM dbpool_stat_endpoints;
SELECT count(*) AS shown FROM dbpool_histograms;
SELECT count(*) AS shown FROM dbpool_stat_history;
SELECT dbpool_report() ~ 'There is none that this role may see' AS nothing;
RESET ROLE;
DROP ROLE regress_dbpool_user;

-- workers
SELECT worker, pid IS NOT NULL AS runs, started_at <= now() AS started, starts >= 1 AS starts, pools >= 1 AS pools, connections >= 1 AS connections,
  requests >= 1 AS requests, wakeups >= 1 AS wakeups FROM dbpool_workers;
SELECT count(*) FROM dbpool_workers w JOIN pg_stat_activity a USING (pid) WHERE a.backend_type LIKE 'dbpool worker%' AND a.datname IS NULL;

-- a pool before and after its first use, and one mapping more
SELECT dbpool_create_pool('fresh', :'remote_conninfo', '{"max_size": 3}');
SELECT database = current_database() AS here, user_name = current_user AS mine, state, worker, idle, busy, connecting, checking, cancelling, resetting, min_size, max_size, waiting, oldest_wait, used_at, connected_at, connect_failed_at, connect_error
FROM dbpool_pools WHERE pool = 'fresh' AND database = current_database() \gx
SELECT dbpool_ping('fresh') IS NOT NULL AS pong;
SELECT regress_wait($$(SELECT idle = 1 AND busy = 0 FROM dbpool_pools WHERE pool = 'fresh' AND database = current_database())$$);
SELECT database = current_database() AS here, user_name = current_user AS mine, state, worker IS NOT NULL AS worker, idle, busy, connecting, checking, cancelling, resetting, min_size, max_size, waiting, oldest_wait, used_at <= now() AS used, connected_at <= clock_timestamp() AS connected, connect_failed_at, connect_error
FROM dbpool_pools WHERE pool = 'fresh' AND database = current_database() \gx
CREATE USER MAPPING FOR PUBLIC SERVER fresh;
SELECT user_name = current_user AS mine, state FROM dbpool_pools WHERE pool = 'fresh' ORDER BY 1;
DROP USER MAPPING FOR PUBLIC SERVER fresh;

-- a connection that is idle
SELECT dbpool_ping('fresh') IS NOT NULL AS pong;
SELECT regress_wait($$(SELECT idle = 1 AND busy = 0 FROM dbpool_pools WHERE pool = 'fresh' AND database = current_database())$$);
SELECT database = current_database() AS here, user_name = current_user AS mine, state, state_since <= clock_timestamp() AS since, local_pid, remote_pid > 0 AS remote_pid,
  address = :'remote_host' AS address, port = :remote_port AS port, tls, connected_at <= now() AS connected, statements, worker IS NOT NULL AS worker, query
FROM dbpool_connections WHERE pool = 'fresh' AND database = current_database() \gx
-- the pool runs a statement that looks at it, by way of a pool of this very server
SELECT dbpool_create_pool('here', format('host=%s port=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), current_database()));
SELECT * FROM dbpool_query('here', $$SELECT c.state, c.query = r.query, c.remote_pid = pg_backend_pid(), r.remote_pid = pg_backend_pid(), c.local_pid = r.pid, r.state, r.usename = current_user,
    r.submitted_at <= r.running_since, r.running_since <= clock_timestamp(), r.pool, r.database = current_database()
  FROM public.dbpool_connections c JOIN public.dbpool_requests r USING (pool, database) WHERE c.pool = 'here' AND c.state = 'busy'$$)
  AS t(state text, query bool, remote_pid bool, remote_pid2 bool, local_pid bool, request text, role bool, submitted bool, running bool, pool name, here bool) \gx
SELECT * FROM dbpool_query('here', 'SELECT idle, busy FROM public.dbpool_pools WHERE pool = ''here'' AND database = current_database()') AS t(idle int, busy int);
SELECT regress_wait('NOT EXISTS (SELECT FROM dbpool_requests)');

-- long statements are cut, between characters
SELECT dbpool_query('fresh', 'SELECT 1 -- ' || repeat('ü', 2000)) \g /dev/null
SELECT octet_length(query) BETWEEN 1020 AND 1023 AS cut, query LIKE 'SELECT 1 -- üüü%' AS begins FROM dbpool_connections WHERE pool = 'fresh' AND database = current_database();

-- counts
SELECT dbpool_stat_reset('fresh');
SELECT statements, errors, timeouts, cancels, connects, connect_failures, connect_time, waits, wait_time, wait_time_max, exec_time, exec_time_max, rows, bytes_sent, bytes_received,
  stats_reset <= now() AS reset FROM dbpool_stat_pools WHERE pool = 'fresh' AND database = current_database() \gx
SELECT dbpool_query('fresh', 'SELECT i, ''abc'' FROM generate_series(1, 10) i') \g /dev/null
SELECT dbpool_exec('fresh', 'SELECT $1', 'a parameter') \g /dev/null
SELECT dbpool_exec('fresh', 'SELECT 1; SELECT 2') \g /dev/null
SELECT dbpool_ping('fresh') \g /dev/null
SELECT dbpool_query('fresh', 'SELECT 1/0');
SELECT dbpool_query('fresh', 'SELECT nonesuch');
SET statement_timeout = '500ms';
SELECT dbpool_query('fresh', 'SELECT pg_sleep(60)');
RESET statement_timeout;
SELECT regress_wait($$(SELECT cancels = 1 FROM dbpool_stat_pools WHERE pool = 'fresh' AND database = current_database())$$);
SELECT statements, errors, timeouts, cancels, connect_failures, exec_time > 0 AS exec_time, exec_time_max > 0 AND exec_time_max <= exec_time AS exec_time_max, wait_time >= 0 AS wait_time, wait_time_max <= wait_time AS wait_time_max,
  rows >= 10 AS rows, bytes_sent > 100 AS sent, bytes_received > 50 AS received FROM dbpool_stat_pools WHERE pool = 'fresh' AND database = current_database() \gx
-- all of this database
SELECT dbpool_stat_reset();
SELECT sum(statements) + sum(errors) AS sum, bool_and(stats_reset IS NOT NULL) AS all_reset FROM dbpool_stat_pools WHERE database = current_database();

-- one failed to connect
SELECT dbpool_create_pool('bad', 'host=/nonexistent');
DO $$ BEGIN PERFORM dbpool_ping('bad'); EXCEPTION WHEN sqlstate '08001' THEN NULL; END $$;
SELECT state, connected_at, connect_failed_at <= now() AS failed, connect_error LIKE '%/nonexistent%' AS error FROM dbpool_pools WHERE pool = 'bad' AND database = current_database();
SELECT statements, errors, connects, connect_failures FROM dbpool_stat_pools WHERE pool = 'bad' AND database = current_database();

SET client_min_messages = warning;
SELECT dbpool_drop_pool('fresh'), dbpool_drop_pool('here'), dbpool_drop_pool('bad');
-- nothing remains of what was dropped
SELECT regress_wait($$(SELECT array_agg(pool) = '{remote}' FROM dbpool_pools WHERE database = current_database())$$);
SELECT regress_wait($$(SELECT array_agg(pool) = '{remote}' FROM dbpool_stat_pools WHERE database = current_database())$$);
