-- Monitoring queries, see README.md of this folder.

\set ON_ERROR_STOP on

\echo Who waits for what, longest first
SELECT r.pid, r.usename, a.application_name, r.pool, r.state,
       date_trunc('milliseconds', clock_timestamp() - r.submitted_at) AS since, r.remote_pid, r.query
FROM dbpool_requests r LEFT JOIN pg_stat_activity a USING (pid)
ORDER BY r.submitted_at;

\echo Transactions over calls, the longest idle first
SELECT pid, usename, pool, name, mode, state, clock_timestamp() - began_at AS age,
       clock_timestamp() - idle_since AS idle, statements, query
FROM dbpool_transactions ORDER BY idle_since;

\echo Prepared transactions that a remote should have committed
SELECT gid, pool, decision, clock_timestamp() - prepared_at AS age, attempts, last_error
FROM dbpool_in_doubt
WHERE attempts > 0 OR prepared_at < clock_timestamp() - interval '1 minute'
ORDER BY prepared_at;

\echo Pools that are short of connections
SELECT pool, user_name, busy, max_size, waiting, clock_timestamp() - oldest_wait AS longest_wait
FROM dbpool_pools
WHERE waiting > 0 AND busy + cancelling + resetting + checking >= max_size;

\echo Pools that cannot connect
SELECT pool, user_name, connect_failed_at, connect_error
FROM dbpool_pools
WHERE connect_failed_at > coalesce(connected_at, '-infinity') AND idle + busy + leased = 0;

\echo Latencies in milliseconds, since the statistics were reset
SELECT pool, user_name, kind, count, round(mean::numeric, 3) AS mean, round(p50::numeric, 3) AS p50,
       round(p95::numeric, 3) AS p95, round(p99::numeric, 3) AS p99, round(p99_9::numeric, 3) AS "p99.9"
FROM dbpool_stat_latency
WHERE count > 0
ORDER BY pool, user_name, kind;

\echo Where the time goes, in milliseconds per call; and the last minute
SELECT pool, user_name, round(total_mean::numeric, 3) AS total, round(queue_mean::numeric, 3) AS queue,
       round(worker_mean::numeric, 3) AS worker, round(wire_mean::numeric, 3) AS wire,
       round(remote_mean::numeric, 3) AS remote, round(decode_mean::numeric, 3) AS decode,
       round(statements_per_second::numeric, 1) AS "statements/s",
       round(errors_per_second::numeric, 1) AS "errors/s", round(utilisation::numeric, 2) AS utilisation
FROM dbpool_stat_pools
ORDER BY total_mean * statements DESC NULLS LAST;

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
