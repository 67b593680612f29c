-- Monitoring queries, see README.md of this folder.

\set ON_ERROR_STOP on

\echo Who waits for what, longest first
SELECT r.pid, r.usename, a.application_name, r.pool, r.state,
       date_trunc('milliseconds', clock_timestamp() - r.submitted_at) AS since, r.remote_pid, r.query
FROM dbpool_requests r LEFT JOIN pg_stat_activity a USING (pid)
ORDER BY r.submitted_at;

\echo Pools that are short of connections
SELECT pool, user_name, busy, max_size, waiting, clock_timestamp() - oldest_wait AS longest_wait
FROM dbpool_pools
WHERE waiting > 0 AND busy + cancelling + resetting + checking >= max_size;

\echo Pools that cannot connect
SELECT pool, user_name, connect_failed_at, connect_error
FROM dbpool_pools
WHERE connect_failed_at > coalesce(connected_at, '-infinity');

\echo Averages in milliseconds, since the statistics were reset
SELECT pool, user_name, statements, errors, timeouts, cancels,
       round((wait_time / nullif(statements + errors, 0))::numeric, 3) AS avg_wait,
       round((exec_time / nullif(statements + errors, 0))::numeric, 3) AS avg_exec,
       round(wait_time_max::numeric, 1) AS longest_wait,
       round(exec_time_max::numeric, 1) AS longest_exec
FROM dbpool_stat_pools
WHERE statements + errors > 0
ORDER BY exec_time DESC;

\echo Connections by remote
SELECT address, port, count(*) AS connections, count(*) FILTER (WHERE state = 'busy') AS busy,
       bool_and(tls) AS all_tls, min(connected_at) AS oldest
FROM dbpool_connections
WHERE address IS NOT NULL
GROUP BY address, port
ORDER BY address, port;

\echo Workers that were started more than once
SELECT worker, pid, starts, started_at FROM dbpool_workers WHERE starts > 1;

\echo One row for a monitoring system
SELECT (SELECT count(*) FROM dbpool_connections) AS connections,
       (SELECT setting::int FROM pg_settings WHERE name = 'dbpool.max_connections') AS max_connections,
       sum(p.waiting) AS waiting, sum(s.statements) AS statements, sum(s.errors) AS errors,
       sum(s.timeouts) AS timeouts, sum(s.connect_failures) AS connect_failures,
       (SELECT sum(starts) - count(*) FROM dbpool_workers) AS worker_restarts
FROM dbpool_pools p LEFT JOIN dbpool_stat_pools s USING (pool, database, user_name);
