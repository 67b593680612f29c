/* sql/dbpool--0.1.0--0.2.0.sql: what 0.2.0 has that 0.1.0 has not */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION dbpool UPDATE TO '0.2.0'" to load this file. \quit

-- The names of 0.1.0 were guarded, those that are new were not: what others have put under
-- them meanwhile could be called in place of ours. A superuser's own is none's plant.
DO $$
DECLARE
	planted text;
BEGIN
	SELECT pg_catalog.string_agg(p.name, ', ') INTO planted
	FROM (SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.proowner,
			p.oid::pg_catalog.regprocedure::pg_catalog.text
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND pg_catalog.starts_with(p.proname::pg_catalog.text, 'dbpool_')
		UNION ALL
		SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typowner,
			t.oid::pg_catalog.regtype::pg_catalog.text
		FROM pg_catalog.pg_type t
		WHERE t.typnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
			AND pg_catalog.starts_with(t.typname::pg_catalog.text, 'dbpool_')) p (classid, oid, owner, name)
	WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
			JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
			WHERE d.classid OPERATOR(pg_catalog.=) p.classid AND d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
				AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'dbpool')
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
			WHERE r.oid OPERATOR(pg_catalog.=) p.owner AND r.rolsuper);
	IF planted IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_function',
			MESSAGE = 'there are functions or types in schema @extschema@ that could be called in place of those of dbpool',
			DETAIL = planted,
			HINT = 'Look at them and drop them, or move them to another schema.';
	END IF;
END $$;

-- Migrations: dbpool_rollback() rolls back a transaction from now on, and takes no migration back by mistake
ALTER FUNCTION dbpool_rollback(name, int, dbpool_migration_version, boolean, boolean, interval, boolean)
RENAME TO dbpool_migration_rollback;

-- Transactions
CREATE FUNCTION dbpool_begin(pool name, name name DEFAULT NULL, isolation text DEFAULT NULL,
	read_only boolean DEFAULT NULL, "deferrable" boolean DEFAULT NULL, idle_timeout interval DEFAULT NULL)
RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_begin(name, name, text, boolean, boolean, interval)
IS 'begins a transaction on a connection of the pool; the calls on the pool run in it, or those that say its name';

CREATE FUNCTION dbpool_commit(transaction name) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_commit(name)
IS 'commits a transaction that dbpool_begin() began, by its name or its pool''s';

CREATE FUNCTION dbpool_rollback(transaction name) RETURNS void
AS 'MODULE_PATHNAME', 'dbpool_rollback_transaction' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_rollback(name)
IS 'rolls back a transaction that dbpool_begin() began, by its name or its pool''s';

CREATE FUNCTION dbpool_savepoint(transaction name, savepoint name) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_savepoint(name, name)
IS 'makes a savepoint in a transaction that dbpool_begin() began';

CREATE FUNCTION dbpool_rollback_to(transaction name, savepoint name) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_rollback_to(name, name)
IS 'rolls back to a savepoint that dbpool_savepoint() made';

CREATE FUNCTION dbpool_release(transaction name, savepoint name) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_release(name, name)
IS 'forgets a savepoint that dbpool_savepoint() made, and keeps what was done since';

-- Views: columns of transactions
CREATE FUNCTION dbpool_get_pool_transactions(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT private boolean, OUT leased int,
	OUT begun bigint, OUT committed bigint, OUT rolled_back bigint,
	OUT transaction_time double precision, OUT transaction_time_max double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_pool_transactions() IS 'what dbpool_pools and dbpool_stat_pools say of transactions';

CREATE FUNCTION dbpool_get_transactions(
	OUT dbid oid, OUT pid int, OUT usesysid oid, OUT pool name, OUT name name, OUT mode text, OUT state text,
	OUT gid text, OUT begin_sql text, OUT savepoints int, OUT statements bigint, OUT began_at timestamptz,
	OUT idle_since timestamptz, OUT remote_pid int, OUT query text)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_transactions() IS 'the rows of dbpool_transactions';

CREATE OR REPLACE VIEW dbpool_pools AS
WITH defined AS (
	SELECT d.oid AS dbid, s.oid AS serverid, m.umuser AS userid, s.srvname AS pool,
		coalesce(r.rolname, 'public') AS user_name,
		(SELECT o.option_value::int FROM pg_catalog.pg_options_to_table(s.srvoptions) o
		 WHERE o.option_name OPERATOR(pg_catalog.=) 'min_size') AS min_size,
		(SELECT o.option_value::int FROM pg_catalog.pg_options_to_table(s.srvoptions) o
		 WHERE o.option_name OPERATOR(pg_catalog.=) 'max_size') AS max_size
	FROM pg_catalog.pg_foreign_server s
	JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
	JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
	JOIN pg_catalog.pg_user_mapping m ON m.umserver OPERATOR(pg_catalog.=) s.oid
	LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) m.umuser
	WHERE w.fdwname OPERATOR(pg_catalog.=) 'dbpool'),
-- a pool that is split has a row per worker
used AS (
	SELECT g.dbid, g.serverid, g.userid, g.private,
		(pg_catalog.array_agg(g.pool ORDER BY g.used_at DESC NULLS LAST))[1] AS pool,
		(pg_catalog.array_agg(g.user_name ORDER BY g.used_at DESC NULLS LAST))[1] AS user_name,
		pg_catalog.min(g.worker) AS worker,
		(pg_catalog.count(*) FILTER (WHERE g.live))::int AS workers,
		pg_catalog.bool_or(g.live) AS live,
		pg_catalog.bool_or(g.paused) AS paused,
		pg_catalog.max(g.min_size) AS min_size,
		pg_catalog.max(g.max_size) AS max_size,
		pg_catalog.sum(g.connecting)::int AS connecting,
		pg_catalog.sum(g.idle)::int AS idle,
		pg_catalog.sum(g.checking)::int AS checking,
		pg_catalog.sum(g.busy)::int AS busy,
		pg_catalog.sum(g.cancelling)::int AS cancelling,
		pg_catalog.sum(g.resetting)::int AS resetting,
		pg_catalog.sum(g.waiting)::int AS waiting,
		pg_catalog.min(g.oldest_wait) AS oldest_wait,
		pg_catalog.max(g.used_at) AS used_at,
		pg_catalog.max(g.connected_at) AS connected_at,
		pg_catalog.max(g.connect_failed_at) AS connect_failed_at,
		(pg_catalog.array_agg(g.connect_error ORDER BY g.connect_failed_at DESC NULLS LAST))[1] AS connect_error,
		(SELECT pg_catalog.sum(t.leased)::int FROM @extschema@.dbpool_get_pool_transactions() t
		 WHERE t.dbid OPERATOR(pg_catalog.=) g.dbid AND t.serverid OPERATOR(pg_catalog.=) g.serverid
			AND t.userid OPERATOR(pg_catalog.=) g.userid AND t.private OPERATOR(pg_catalog.=) g.private) AS leased
	FROM @extschema@.dbpool_get_pools() g
	WHERE g.live OR g.paused OR g.dbid OPERATOR(pg_catalog.=)
		(SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
	GROUP BY g.dbid, g.serverid, g.userid, g.private)
SELECT coalesce(l.pool, f.pool) AS pool,
	d.datname AS database,
	coalesce(l.user_name, f.user_name) AS user_name,
	CASE WHEN l.private THEN 'uncommitted' WHEN l.paused THEN 'paused' WHEN l.live THEN 'active' ELSE 'cold' END AS state,
	l.worker, l.workers,
	coalesce(l.idle, n.used) AS idle,
	coalesce(l.busy, n.used) AS busy,
	coalesce(l.connecting, n.used) AS connecting,
	coalesce(l.checking, n.used) AS checking,
	coalesce(l.cancelling, n.used) AS cancelling,
	coalesce(l.resetting, n.used) AS resetting,
	coalesce(l.min_size, f.min_size, n.min_size) AS min_size,
	coalesce(l.max_size, f.max_size, n.max_size) AS max_size,
	coalesce(l.waiting, n.used) AS waiting,
	l.oldest_wait, l.used_at, l.connected_at, l.connect_failed_at, l.connect_error,
	coalesce(l.leased, n.used) AS leased
FROM defined f
FULL JOIN used l
	ON l.dbid OPERATOR(pg_catalog.=) f.dbid AND l.serverid OPERATOR(pg_catalog.=) f.serverid
	AND l.userid OPERATOR(pg_catalog.=) f.userid AND NOT l.private
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) coalesce(l.dbid, f.dbid)
-- what is not known is not said: of those in use that one may not see, and of other databases
CROSS JOIN LATERAL (
	SELECT CASE WHEN l.serverid IS NULL THEN 0 END AS used,
		CASE WHEN f.serverid IS NOT NULL THEN 0 END AS min_size,
		CASE WHEN f.serverid IS NOT NULL THEN 10 END AS max_size) n
WHERE f.serverid IS NOT NULL OR l.live;

CREATE OR REPLACE VIEW dbpool_stat_pools AS
SELECT (pg_catalog.array_agg(p.pool ORDER BY p.used_at DESC NULLS LAST))[1] AS pool,
	d.datname AS database,
	(pg_catalog.array_agg(p.user_name ORDER BY p.used_at DESC NULLS LAST))[1] AS user_name,
	pg_catalog.sum(p.statements)::bigint AS statements,
	pg_catalog.sum(p.errors)::bigint AS errors,
	pg_catalog.sum(p.timeouts)::bigint AS timeouts,
	pg_catalog.sum(p.cancels)::bigint AS cancels,
	pg_catalog.sum(p.repeats)::bigint AS repeats,
	pg_catalog.sum(p.connects)::bigint AS connects,
	pg_catalog.sum(p.connect_failures)::bigint AS connect_failures,
	pg_catalog.sum(p.connect_time) AS connect_time,
	pg_catalog.sum(p.waits)::bigint AS waits,
	pg_catalog.sum(p.wait_time) AS wait_time,
	pg_catalog.max(p.wait_time_max) AS wait_time_max,
	pg_catalog.sum(p.exec_time) AS exec_time,
	pg_catalog.max(p.exec_time_max) AS exec_time_max,
	pg_catalog.sum(p.rows)::bigint AS rows,
	pg_catalog.sum(p.bytes_sent)::bigint AS bytes_sent,
	pg_catalog.sum(p.bytes_received)::bigint AS bytes_received,
	pg_catalog.max(p.stats_reset) AS stats_reset,
	pg_catalog.max(t.begun) AS begun,
	pg_catalog.max(t.committed) AS committed,
	pg_catalog.max(t.rolled_back) AS rolled_back,
	pg_catalog.max(t.transaction_time) AS transaction_time,
	pg_catalog.max(t.transaction_time_max) AS transaction_time_max
FROM @extschema@.dbpool_get_pools() p
LEFT JOIN (
	SELECT u.dbid, u.serverid, u.userid, pg_catalog.sum(u.begun)::bigint AS begun,
		pg_catalog.sum(u.committed)::bigint AS committed, pg_catalog.sum(u.rolled_back)::bigint AS rolled_back,
		pg_catalog.sum(u.transaction_time) AS transaction_time, pg_catalog.max(u.transaction_time_max) AS transaction_time_max
	FROM @extschema@.dbpool_get_pool_transactions() u
	WHERE NOT u.private
	GROUP BY u.dbid, u.serverid, u.userid) t
	ON t.dbid OPERATOR(pg_catalog.=) p.dbid AND t.serverid OPERATOR(pg_catalog.=) p.serverid
	AND t.userid OPERATOR(pg_catalog.=) p.userid
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) p.dbid
WHERE NOT p.private
GROUP BY p.dbid, p.serverid, p.userid, d.datname;

CREATE VIEW dbpool_transactions AS
SELECT t.name, t.pool, d.datname AS database, t.mode, t.gid, t.state, t.pid, r.rolname AS usename, t.remote_pid,
	pg_catalog.lower(pg_catalog.substring(t.begin_sql, 'LEVEL ([A-Z ]+),')) AS isolation,
	t.begin_sql OPERATOR(pg_catalog.~) 'READ ONLY' AS read_only,
	t.savepoints, t.statements, t.began_at, t.idle_since, t.query
FROM @extschema@.dbpool_get_transactions() t
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) t.dbid
LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) t.usesysid;
COMMENT ON VIEW dbpool_transactions IS 'the transactions that local sessions have on connections of pools; most is NULL for those who may not see the session''s';
COMMENT ON COLUMN dbpool_transactions.name IS 'name that dbpool_begin() gave it, NULL if none';
COMMENT ON COLUMN dbpool_transactions.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_transactions.database IS 'database of the local session';
COMMENT ON COLUMN dbpool_transactions.mode IS 'bound or two_phase (to the local transaction), or named (begun by dbpool_begin())';
COMMENT ON COLUMN dbpool_transactions.gid IS 'name of the prepared transaction, when it is prepared or about to be';
COMMENT ON COLUMN dbpool_transactions.state IS 'waiting (for a connection), active (a statement runs), idle, or ended (its connection was lost, or it was idle for too long; its session has not noticed yet)';
COMMENT ON COLUMN dbpool_transactions.pid IS 'process ID of the local session';
COMMENT ON COLUMN dbpool_transactions.usename IS 'role that began it';
COMMENT ON COLUMN dbpool_transactions.remote_pid IS 'process ID of the remote server process';
COMMENT ON COLUMN dbpool_transactions.isolation IS 'read committed, repeatable read or serializable';
COMMENT ON COLUMN dbpool_transactions.read_only IS 'was it begun read-only?';
COMMENT ON COLUMN dbpool_transactions.savepoints IS 'savepoints that stand for local subtransactions; of a bound one';
COMMENT ON COLUMN dbpool_transactions.statements IS 'statements that it was given';
COMMENT ON COLUMN dbpool_transactions.began_at IS 'when it was begun';
COMMENT ON COLUMN dbpool_transactions.idle_since IS 'since when it has run nothing, NULL while it does';
COMMENT ON COLUMN dbpool_transactions.query IS 'statement it runs or last ran, the first 1023 bytes; hidden from those who may not see its session''s';

COMMENT ON COLUMN dbpool_pools.leased IS 'connections that are in a transaction of a session, which runs nothing now';
COMMENT ON COLUMN dbpool_connections.state IS 'connecting, idle, checking, busy, leased (in a transaction of a session, which runs nothing now), cancelling or resetting';
COMMENT ON COLUMN dbpool_stat_pools.begun IS 'transactions over several calls that were begun';
COMMENT ON COLUMN dbpool_stat_pools.committed IS 'of these, committed';
COMMENT ON COLUMN dbpool_stat_pools.rolled_back IS 'of these, rolled back or lost';
COMMENT ON COLUMN dbpool_stat_pools.transaction_time IS 'total time that those which have ended had a connection';
COMMENT ON COLUMN dbpool_stat_pools.transaction_time_max IS 'longest such time';

-- Batches
CREATE FUNCTION dbpool_batch(pool name, statements text[], params jsonb[] DEFAULT NULL, mode text DEFAULT 'transaction', parallel int DEFAULT 1, results boolean DEFAULT false)
RETURNS TABLE (number bigint, status text, rows bigint, result jsonb, sqlstate text, message text, milliseconds float8)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_batch(name, text[], jsonb[], text, int, boolean)
IS 'runs many statements without waiting for the answer to each, in one transaction or each for itself, and returns a row for each';

CREATE FUNCTION dbpool_exec_batch(pool name, sql text, rows anyarray) RETURNS bigint
AS 'MODULE_PATHNAME', 'dbpool_exec_batch_rows' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_exec_batch(name, text, anyarray)
IS 'runs one statement for each row of an array, whose columns are $1, $2, ..., in one transaction, and returns the number of rows they affected';

CREATE FUNCTION dbpool_exec_batch(pool name, sql text, query text) RETURNS bigint
AS 'MODULE_PATHNAME', 'dbpool_exec_batch_query' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_exec_batch(name, text, text)
IS 'the same for each row of a local query';

-- Transactions in two phases
CREATE TABLE dbpool_two_phase (
	serverid oid NOT NULL,
	userid oid NOT NULL,
	prefix text NOT NULL,
	PRIMARY KEY (serverid, userid)
);
COMMENT ON TABLE dbpool_two_phase IS 'the pools at which transactions have been prepared';
COMMENT ON COLUMN dbpool_two_phase.serverid IS 'OID of the foreign server';
COMMENT ON COLUMN dbpool_two_phase.userid IS 'OID of the role of the user mapping, 0 for PUBLIC';
COMMENT ON COLUMN dbpool_two_phase.prefix IS 'how the names of its prepared transactions begin';

CREATE TABLE dbpool_prepared (
	gid text PRIMARY KEY,
	serverid oid NOT NULL,
	userid oid NOT NULL,
	pool name NOT NULL,
	roleid oid NOT NULL,
	pid int NOT NULL,
	prepared_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	attempts int NOT NULL DEFAULT 0,
	last_attempt timestamptz,
	last_error text
);
COMMENT ON TABLE dbpool_prepared IS 'prepared transactions of remotes that are to be committed, as the local transaction was: a row is the decision';
COMMENT ON COLUMN dbpool_prepared.gid IS 'its name at the remote';
COMMENT ON COLUMN dbpool_prepared.serverid IS 'OID of the foreign server';
COMMENT ON COLUMN dbpool_prepared.userid IS 'OID of the role of the user mapping, 0 for PUBLIC';
COMMENT ON COLUMN dbpool_prepared.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_prepared.roleid IS 'OID of the role that made it';
COMMENT ON COLUMN dbpool_prepared.pid IS 'process ID of its session';
COMMENT ON COLUMN dbpool_prepared.prepared_at IS 'when that began to commit';
COMMENT ON COLUMN dbpool_prepared.attempts IS 'how often the resolver has tried in vain to commit it';
COMMENT ON COLUMN dbpool_prepared.last_attempt IS 'when it last did';
COMMENT ON COLUMN dbpool_prepared.last_error IS 'why that failed';

CREATE VIEW dbpool_in_doubt AS
SELECT p.gid, p.pool, coalesce(m.rolname, 'public') AS user_name, r.rolname AS usename, p.pid,
	'commit'::text AS decision, p.prepared_at, p.attempts, p.last_attempt, p.last_error
FROM @extschema@.dbpool_prepared p
LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid OPERATOR(pg_catalog.=) p.serverid
LEFT JOIN pg_catalog.pg_roles m ON m.oid OPERATOR(pg_catalog.=) p.userid
LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) p.roleid
WHERE pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
	OR (s.srvowner IS NOT NULL AND pg_catalog.pg_has_role(current_user, s.srvowner, 'USAGE'));
COMMENT ON VIEW dbpool_in_doubt IS 'prepared transactions that have not been seen to be committed at their remotes yet; of servers that the current role owns';
COMMENT ON COLUMN dbpool_in_doubt.gid IS 'its name at the remote';
COMMENT ON COLUMN dbpool_in_doubt.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_in_doubt.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_in_doubt.usename IS 'role that made it';
COMMENT ON COLUMN dbpool_in_doubt.pid IS 'process ID of the local session';
COMMENT ON COLUMN dbpool_in_doubt.decision IS 'what will become of it';
COMMENT ON COLUMN dbpool_in_doubt.prepared_at IS 'when the local transaction began to commit';
COMMENT ON COLUMN dbpool_in_doubt.attempts IS 'how often it was tried in vain to commit it';
COMMENT ON COLUMN dbpool_in_doubt.last_attempt IS 'when that was last tried';
COMMENT ON COLUMN dbpool_in_doubt.last_error IS 'why it failed';

CREATE FUNCTION dbpool_resolve(gid text, outcome text) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C STRICT VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_resolve(text, text)
IS 'ends a prepared transaction by hand: commit or rollback; for the owner of its server';

GRANT SELECT ON dbpool_transactions, dbpool_in_doubt TO PUBLIC;
