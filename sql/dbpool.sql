/* sql/dbpool.sql: the objects of dbpool as of the version in dbpool.control */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION dbpool" to load this file. \quit

-- A function that somebody has put there beforehand could be called in place of ours,
-- and so could a type, which is called as a cast is.
DO $$
DECLARE
	planted text;
BEGIN
	SELECT pg_catalog.string_agg(name, ', ') INTO planted
	FROM (SELECT p.oid::pg_catalog.regprocedure::pg_catalog.text
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND pg_catalog.starts_with(p.proname::pg_catalog.text, 'dbpool_')
		UNION ALL
		SELECT t.oid::pg_catalog.regtype::pg_catalog.text
		FROM pg_catalog.pg_type t
		WHERE t.typnamespace OPERATOR(pg_catalog.=) '@extschema@'::pg_catalog.regnamespace
			AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
			AND pg_catalog.starts_with(t.typname::pg_catalog.text, 'dbpool_')) p (name);
	IF planted IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_function',
			MESSAGE = 'there are functions or types in schema @extschema@ that could be called in place of those of dbpool',
			DETAIL = planted,
			HINT = 'Look at them and drop them, or create the extension in a schema of its own: CREATE SCHEMA dbpool; CREATE EXTENSION dbpool SCHEMA dbpool.';
	END IF;
END $$;

--
-- Configuration: a pool is a foreign server seen through a user mapping.
--

CREATE FUNCTION dbpool_validator(options text[], catalog oid) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C STRICT;
COMMENT ON FUNCTION dbpool_validator(text[], oid)
IS 'checks the options of servers and user mappings of dbpool';

CREATE FOREIGN DATA WRAPPER dbpool VALIDATOR dbpool_validator;
COMMENT ON FOREIGN DATA WRAPPER dbpool
IS 'servers of this wrapper are pools of connections, see dbpool_query()';

CREATE FUNCTION dbpool_create_pool(pool name, conninfo text, options jsonb DEFAULT '{}', if_not_exists boolean DEFAULT false,
	"check" boolean DEFAULT false)
RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_create_pool(name, text, jsonb, boolean, boolean)
IS 'makes a server and a user mapping for the current user from a connection string (URI or keywords) and pool options; with check, only if a connection can be opened';

CREATE FUNCTION dbpool_drop_pool(pool name) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_drop_pool(name)
IS 'drops a pool''s server and its user mappings';

--
-- Statements
--

CREATE FUNCTION dbpool_query(pool name, sql text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dbpool_query' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query(name, text)
IS 'runs a statement on a connection of the pool and returns its rows';

CREATE FUNCTION dbpool_query(pool name, sql text, VARIADIC params "any") RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dbpool_query' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query(name, text, "any")
IS 'runs a statement with parameters $1, $2, ... on a connection of the pool and returns its rows';

CREATE FUNCTION dbpool_query_as(row_type anyelement, pool name, sql text) RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'dbpool_query_as' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query_as(anyelement, name, text)
IS 'like dbpool_query, with rows of the type of the first argument, for example NULL::mytable';

CREATE FUNCTION dbpool_query_as(row_type anyelement, pool name, sql text, VARIADIC params "any") RETURNS SETOF anyelement
AS 'MODULE_PATHNAME', 'dbpool_query_as' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query_as(anyelement, name, text, "any")
IS 'like dbpool_query with parameters, with rows of the type of the first argument, for example NULL::mytable';

CREATE FUNCTION dbpool_query_json(pool name, sql text) RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'dbpool_query_json' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query_json(name, text)
IS 'like dbpool_query, with each row as a JSON object';

CREATE FUNCTION dbpool_query_json(pool name, sql text, VARIADIC params "any") RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'dbpool_query_json' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_query_json(name, text, "any")
IS 'like dbpool_query with parameters, with each row as a JSON object';

CREATE FUNCTION dbpool_value(value_type anyelement, pool name, sql text) RETURNS anyelement
AS 'MODULE_PATHNAME', 'dbpool_value' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_value(anyelement, name, text)
IS 'runs a statement that returns one value, and returns it with the type of the first argument, for example NULL::bigint';

CREATE FUNCTION dbpool_value(value_type anyelement, pool name, sql text, VARIADIC params "any") RETURNS anyelement
AS 'MODULE_PATHNAME', 'dbpool_value' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_value(anyelement, name, text, "any")
IS 'runs a statement with parameters $1, $2, ... that returns one value, and returns it with the type of the first argument';

CREATE FUNCTION dbpool_exec(pool name, sql text) RETURNS bigint
AS 'MODULE_PATHNAME', 'dbpool_exec' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_exec(name, text)
IS 'runs one or more statements as one transaction and returns the number of rows they affected';

CREATE FUNCTION dbpool_exec(pool name, sql text, VARIADIC params "any") RETURNS bigint
AS 'MODULE_PATHNAME', 'dbpool_exec' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_exec(name, text, "any")
IS 'runs one statement with parameters $1, $2, ... and returns the number of rows it affected';

CREATE FUNCTION dbpool_bulk_insert(pool name, target text, query text, columns text[] DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_bulk_insert(name, text, text, text[])
IS 'inserts the rows of a local query into a remote table, all or none, and returns how many it has taken';

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

CREATE FUNCTION dbpool_version(OUT library text, OUT extension text, OUT libpq text, OUT server text)
AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_version()
IS 'versions of the loaded library, of the SQL objects, of libpq, and of the PostgreSQL it was built for';

--
-- Transactions
--

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

CREATE FUNCTION dbpool_is_retryable(sqlstate text) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_is_retryable(text)
IS 'may an application answer an error of that SQLSTATE by running its transaction again?';

CREATE FUNCTION dbpool_ping(pool name) RETURNS interval
AS 'MODULE_PATHNAME', 'dbpool_ping' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_ping(name)
IS 'makes an empty round trip on a connection of the pool and returns how long it took';

--
-- Running pools
--

CREATE FUNCTION dbpool_pause(pool name, timeout interval DEFAULT '30s') RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_pause(name, interval)
IS 'waits until statements and transactions under way have ended, and has new ones wait until dbpool_resume() or acquire_timeout';

CREATE FUNCTION dbpool_pause(pools name[], timeout interval DEFAULT '30s')
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_pause_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_pause(name[], interval)
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_resume(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_resume(name)
IS 'ends what dbpool_pause() began';

CREATE FUNCTION dbpool_resume(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_resume_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_resume(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_reset(pool name, timeout interval DEFAULT '30s') RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_reset(name, interval)
IS 'closes the pool''s connections, busy ones when their statements and transactions end, and waits for that';

CREATE FUNCTION dbpool_reset(pools name[], timeout interval DEFAULT '30s')
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_reset_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_reset(name[], interval)
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_reload(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_reload(name)
IS 'has the definition read anew, and connections replaced: old ones serve until a new one has been opened, and are closed when they come free';

CREATE FUNCTION dbpool_reload(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_reload_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_reload(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_disable(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_disable(name)
IS 'refuses new statements and transactions at once, until dbpool_enable(); those under way go on';

CREATE FUNCTION dbpool_disable(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_disable_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_disable(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_isolate(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_isolate(name)
IS 'has new statements and transactions fail at once as if the remote could not be reached, until dbpool_enable(): reads go to fallback_server; those under way go on';

CREATE FUNCTION dbpool_isolate(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_isolate_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_isolate(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_enable(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_enable(name)
IS 'ends what dbpool_disable(), dbpool_drain() or dbpool_isolate() began';

CREATE FUNCTION dbpool_enable(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_enable_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_enable(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_kill(pool name) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_kill(name)
IS 'closes all connections of the pool at once; who uses one is told';

CREATE FUNCTION dbpool_kill(pools name[])
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_kill_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_kill(name[])
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_drain(pool name, timeout interval DEFAULT '30s') RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_drain(name, interval)
IS 'disables the pool, waits until statements and transactions under way have ended, and closes all connections, after the timeout also those in use';

CREATE FUNCTION dbpool_drain(pools name[], timeout interval DEFAULT '30s')
RETURNS TABLE (pool name, result text, sqlstate text, error text)
AS 'MODULE_PATHNAME', 'dbpool_drain_pools' LANGUAGE C;
COMMENT ON FUNCTION dbpool_drain(name[], interval)
IS 'the same for several pools, or for NULL all that the caller may operate';

CREATE FUNCTION dbpool_stat_reset(pool name DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_stat_reset(name)
IS 'sets the statistics of a pool to zero, or of all pools of this database';
REVOKE ALL ON FUNCTION dbpool_stat_reset(name) FROM PUBLIC;

CREATE FUNCTION dbpool_stat_statements_reset(pool name DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_stat_statements_reset(name)
IS 'forgets the statements of a pool, or of all pools of this database';
REVOKE ALL ON FUNCTION dbpool_stat_statements_reset(name) FROM PUBLIC;

--
-- Migrations
--

-- Nobody writes here but by functions, which act as the owner of the tables. What
-- there is to see is a matter of row security; pg_dump carries all of it.

CREATE TYPE dbpool_migration_version;
CREATE FUNCTION dbpool_migration_version_in(cstring) RETURNS dbpool_migration_version
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION dbpool_migration_version_out(dbpool_migration_version) RETURNS cstring
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION dbpool_migration_version_recv(internal) RETURNS dbpool_migration_version
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION dbpool_migration_version_send(dbpool_migration_version) RETURNS bytea
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE TYPE dbpool_migration_version (
	INPUT = dbpool_migration_version_in,
	OUTPUT = dbpool_migration_version_out,
	RECEIVE = dbpool_migration_version_recv,
	SEND = dbpool_migration_version_send,
	INTERNALLENGTH = VARIABLE,
	STORAGE = extended
);
COMMENT ON TYPE dbpool_migration_version IS 'version of a migration: a number, or several with points in between, or R__name';
COMMENT ON FUNCTION dbpool_migration_version_in(cstring) IS 'input of versions';
COMMENT ON FUNCTION dbpool_migration_version_out(dbpool_migration_version) IS 'output of versions';
COMMENT ON FUNCTION dbpool_migration_version_recv(internal) IS 'binary input of versions';
COMMENT ON FUNCTION dbpool_migration_version_send(dbpool_migration_version) IS 'binary output of versions';

CREATE FUNCTION dbpool_migration_version_lt(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_lt(dbpool_migration_version, dbpool_migration_version) IS 'implementation of < for versions';
CREATE OPERATOR < (
	FUNCTION = dbpool_migration_version_lt, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = >, NEGATOR = >=, RESTRICT = scalarltsel, JOIN = scalarltjoinsel
);
COMMENT ON OPERATOR < (dbpool_migration_version, dbpool_migration_version) IS 'less than';
CREATE FUNCTION dbpool_migration_version_le(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_le(dbpool_migration_version, dbpool_migration_version) IS 'implementation of <= for versions';
CREATE OPERATOR <= (
	FUNCTION = dbpool_migration_version_le, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = >=, NEGATOR = >, RESTRICT = scalarlesel, JOIN = scalarlejoinsel
);
COMMENT ON OPERATOR <= (dbpool_migration_version, dbpool_migration_version) IS 'less than or equal to';
CREATE FUNCTION dbpool_migration_version_eq(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_eq(dbpool_migration_version, dbpool_migration_version) IS 'implementation of = for versions';
CREATE OPERATOR = (
	FUNCTION = dbpool_migration_version_eq, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = =, NEGATOR = <>, RESTRICT = eqsel, JOIN = eqjoinsel
);
COMMENT ON OPERATOR = (dbpool_migration_version, dbpool_migration_version) IS 'equal to';
CREATE FUNCTION dbpool_migration_version_ne(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_ne(dbpool_migration_version, dbpool_migration_version) IS 'implementation of <> for versions';
CREATE OPERATOR <> (
	FUNCTION = dbpool_migration_version_ne, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = <>, NEGATOR = =, RESTRICT = neqsel, JOIN = neqjoinsel
);
COMMENT ON OPERATOR <> (dbpool_migration_version, dbpool_migration_version) IS 'not equal to';
CREATE FUNCTION dbpool_migration_version_ge(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_ge(dbpool_migration_version, dbpool_migration_version) IS 'implementation of >= for versions';
CREATE OPERATOR >= (
	FUNCTION = dbpool_migration_version_ge, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = <=, NEGATOR = <, RESTRICT = scalargesel, JOIN = scalargejoinsel
);
COMMENT ON OPERATOR >= (dbpool_migration_version, dbpool_migration_version) IS 'greater than or equal to';
CREATE FUNCTION dbpool_migration_version_gt(dbpool_migration_version, dbpool_migration_version) RETURNS boolean
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_gt(dbpool_migration_version, dbpool_migration_version) IS 'implementation of > for versions';
CREATE OPERATOR > (
	FUNCTION = dbpool_migration_version_gt, LEFTARG = dbpool_migration_version, RIGHTARG = dbpool_migration_version,
	COMMUTATOR = <, NEGATOR = <=, RESTRICT = scalargtsel, JOIN = scalargtjoinsel
);
COMMENT ON OPERATOR > (dbpool_migration_version, dbpool_migration_version) IS 'greater than';
CREATE FUNCTION dbpool_migration_version_cmp(dbpool_migration_version, dbpool_migration_version) RETURNS integer
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_cmp(dbpool_migration_version, dbpool_migration_version) IS 'order of versions';
CREATE OPERATOR CLASS dbpool_migration_version_ops DEFAULT FOR TYPE dbpool_migration_version USING btree AS
	OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
	FUNCTION 1 dbpool_migration_version_cmp(dbpool_migration_version, dbpool_migration_version);
CREATE FUNCTION dbpool_migration_version_larger(dbpool_migration_version, dbpool_migration_version) RETURNS dbpool_migration_version
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_larger(dbpool_migration_version, dbpool_migration_version) IS 'the later one of two versions';
CREATE FUNCTION dbpool_migration_version_smaller(dbpool_migration_version, dbpool_migration_version) RETURNS dbpool_migration_version
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_smaller(dbpool_migration_version, dbpool_migration_version) IS 'the earlier one of two versions';
CREATE AGGREGATE max(dbpool_migration_version) (SFUNC = dbpool_migration_version_larger, STYPE = dbpool_migration_version, SORTOP = >, PARALLEL = safe, COMBINEFUNC = dbpool_migration_version_larger);
CREATE AGGREGATE min(dbpool_migration_version) (SFUNC = dbpool_migration_version_smaller, STYPE = dbpool_migration_version, SORTOP = <, PARALLEL = safe, COMBINEFUNC = dbpool_migration_version_smaller);
COMMENT ON AGGREGATE max(dbpool_migration_version) IS 'the last of all versions';
COMMENT ON AGGREGATE min(dbpool_migration_version) IS 'the first of all versions';
CREATE FUNCTION dbpool_migration_version_int8(dbpool_migration_version) RETURNS bigint
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_version_int8(dbpool_migration_version) IS 'a version that is a whole number, as one';
CREATE CAST (dbpool_migration_version AS bigint) WITH FUNCTION dbpool_migration_version_int8(dbpool_migration_version) AS ASSIGNMENT;
CREATE CAST (bigint AS dbpool_migration_version) WITH INOUT AS IMPLICIT;
CREATE CAST (integer AS dbpool_migration_version) WITH INOUT AS IMPLICIT;
-- Not implicit: a text compared with a number would become a comparison of versions.
CREATE CAST (text AS dbpool_migration_version) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (dbpool_migration_version AS bigint) IS 'a whole number';
COMMENT ON CAST (bigint AS dbpool_migration_version) IS 'a whole number as a version';
COMMENT ON CAST (integer AS dbpool_migration_version) IS 'a whole number as a version';
COMMENT ON CAST (text AS dbpool_migration_version) IS 'as it is written';
COMMENT ON OPERATOR CLASS dbpool_migration_version_ops USING btree IS 'order of versions';
COMMENT ON OPERATOR FAMILY dbpool_migration_version_ops USING btree IS 'order of versions';

CREATE TABLE dbpool_migrations (
	pool name NOT NULL,
	version dbpool_migration_version NOT NULL,
	name text NOT NULL,
	up_sql text NOT NULL,
	down_sql text,
	transaction boolean NOT NULL DEFAULT true,
	out_of_order boolean NOT NULL DEFAULT false,
	file text,
	added_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	added_by name NOT NULL DEFAULT session_user,
	serverid oid NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX ON dbpool_migrations (serverid, pool, version) WHERE serverid OPERATOR(pg_catalog.<>) 0;
COMMENT ON TABLE dbpool_migrations IS 'the registered migrations of the pools that the current role owns';
COMMENT ON COLUMN dbpool_migrations.pool IS 'name of the pool, that is of the foreign server';
COMMENT ON COLUMN dbpool_migrations.version IS 'migrations run in the order of their versions';
COMMENT ON COLUMN dbpool_migrations.name IS 'what it does, in a few words';
COMMENT ON COLUMN dbpool_migrations.up_sql IS 'the statements';
COMMENT ON COLUMN dbpool_migrations.down_sql IS 'the statements that undo them, NULL if there is no way back';
COMMENT ON COLUMN dbpool_migrations.transaction IS 'do the statements run as one transaction?';
COMMENT ON COLUMN dbpool_migrations.out_of_order IS 'may it run after higher versions?';
COMMENT ON COLUMN dbpool_migrations.file IS 'name of the file it came from, NULL if from none';
COMMENT ON COLUMN dbpool_migrations.added_at IS 'when it was registered or last replaced';
COMMENT ON COLUMN dbpool_migrations.added_by IS 'by which role';
COMMENT ON COLUMN dbpool_migrations.serverid IS 'OID of the foreign server, 0 if it was dropped';
SELECT pg_catalog.pg_extension_config_dump('dbpool_migrations', 'WHERE serverid OPERATOR(pg_catalog.<>) 0');

CREATE TABLE dbpool_migration_history (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	pool name NOT NULL,
	version dbpool_migration_version NOT NULL,
	name text,
	direction text NOT NULL,
	mode text NOT NULL,
	status text NOT NULL,
	checksum text,
	started_at timestamptz NOT NULL,
	duration interval,
	executed_by name NOT NULL,
	pid int NOT NULL,
	sqlstate text,
	error text,
	serverid oid NOT NULL DEFAULT 0
);
CREATE INDEX ON dbpool_migration_history (serverid, version);
COMMENT ON TABLE dbpool_migration_history IS 'the attempts at migrations of the pools that the current role owns, and its own at any';
COMMENT ON COLUMN dbpool_migration_history.id IS 'number of the attempt';
COMMENT ON COLUMN dbpool_migration_history.pool IS 'name of the pool, that is of the foreign server';
COMMENT ON COLUMN dbpool_migration_history.version IS 'version of the migration';
COMMENT ON COLUMN dbpool_migration_history.name IS 'its name';
COMMENT ON COLUMN dbpool_migration_history.direction IS 'up, down, baseline or adopted';
COMMENT ON COLUMN dbpool_migration_history.mode IS 'how it was run';
COMMENT ON COLUMN dbpool_migration_history.status IS 'what came of it';
COMMENT ON COLUMN dbpool_migration_history.checksum IS 'checksum of the migration in the format of the remote history';
COMMENT ON COLUMN dbpool_migration_history.started_at IS 'when the attempt began';
COMMENT ON COLUMN dbpool_migration_history.duration IS 'how long it took';
COMMENT ON COLUMN dbpool_migration_history.executed_by IS 'role that made it';
COMMENT ON COLUMN dbpool_migration_history.pid IS 'process ID of its session';
COMMENT ON COLUMN dbpool_migration_history.sqlstate IS 'code of the error, NULL if there was none';
COMMENT ON COLUMN dbpool_migration_history.error IS 'text of the error';
COMMENT ON COLUMN dbpool_migration_history.serverid IS 'OID of the foreign server, 0 if it was dropped';
SELECT pg_catalog.pg_extension_config_dump('dbpool_migration_history', 'WHERE serverid OPERATOR(pg_catalog.<>) 0');
SELECT pg_catalog.pg_extension_config_dump('dbpool_migration_history_id_seq', '');
COMMENT ON SEQUENCE dbpool_migration_history_id_seq IS 'numbers the rows of dbpool_migration_history';

ALTER TABLE dbpool_migrations ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners ON dbpool_migrations FOR SELECT TO PUBLIC
USING (EXISTS (SELECT FROM pg_catalog.pg_foreign_server s
	WHERE s.oid OPERATOR(pg_catalog.=) dbpool_migrations.serverid
		AND s.srvname OPERATOR(pg_catalog.=) dbpool_migrations.pool
		AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')));
REVOKE ALL ON dbpool_migrations FROM PUBLIC;
GRANT SELECT ON dbpool_migrations TO PUBLIC;

ALTER TABLE dbpool_migration_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY owners ON dbpool_migration_history FOR SELECT TO PUBLIC
USING (executed_by OPERATOR(pg_catalog.=) current_user
	OR EXISTS (SELECT FROM pg_catalog.pg_foreign_server s
		WHERE s.oid OPERATOR(pg_catalog.=) dbpool_migration_history.serverid
			AND s.srvname OPERATOR(pg_catalog.=) dbpool_migration_history.pool
			AND pg_catalog.pg_has_role(s.srvowner, 'USAGE')));
REVOKE ALL ON dbpool_migration_history FROM PUBLIC;
GRANT SELECT ON dbpool_migration_history TO PUBLIC;

CREATE FUNCTION dbpool_guard_migrations() RETURNS trigger
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_guard_migrations()
IS 'keeps migrations that have been applied as they are, and gives rows that come by hand or out of a dump to the pool that has their name';
REVOKE ALL ON FUNCTION dbpool_guard_migrations() FROM PUBLIC;

CREATE TRIGGER guard_rows BEFORE INSERT OR UPDATE OR DELETE ON dbpool_migrations
FOR EACH ROW EXECUTE FUNCTION dbpool_guard_migrations();
CREATE TRIGGER guard_table BEFORE TRUNCATE ON dbpool_migrations
FOR EACH STATEMENT EXECUTE FUNCTION dbpool_guard_migrations();

CREATE FUNCTION dbpool_guard_migration_history() RETURNS trigger
AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION dbpool_guard_migration_history()
IS 'gives rows that come by hand or out of a dump to the pool that has their name';
REVOKE ALL ON FUNCTION dbpool_guard_migration_history() FROM PUBLIC;

CREATE TRIGGER guard_rows BEFORE INSERT OR UPDATE ON dbpool_migration_history
FOR EACH ROW EXECUTE FUNCTION dbpool_guard_migration_history();

CREATE FUNCTION dbpool_add_migration(pool name, version dbpool_migration_version, name text, up_sql text,
	down_sql text DEFAULT NULL, options jsonb DEFAULT '{}')
RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_add_migration(name, dbpool_migration_version, text, text, text, jsonb)
IS 'registers a migration of a pool''s database';

CREATE FUNCTION dbpool_drop_migration(pool name, version dbpool_migration_version) RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_drop_migration(name, dbpool_migration_version)
IS 'removes a registered migration that has not been applied';

CREATE FUNCTION dbpool_create_migration(name text,
	OUT version dbpool_migration_version, OUT file_name text, OUT up_sql text, OUT down_sql text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_create_migration(text)
IS 'gives a new migration its version, by the time, and texts to begin with';

CREATE FUNCTION dbpool_load_migrations(pool name, directory text, replace_applied boolean DEFAULT false,
	placeholders jsonb DEFAULT NULL)
RETURNS TABLE (version dbpool_migration_version, name text, file text, status text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_load_migrations(name, text, boolean, jsonb)
IS 'registers the migrations in the files of a directory of the server, all of them or none';

CREATE FUNCTION dbpool_migration_statements(sql text,
	OUT line int, OUT "column" int, OUT kind text, OUT statement text)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_statements(text)
IS 'divides a text into the statements that a migration of it would run';

CREATE FUNCTION dbpool_migration_checksum(format text, version dbpool_migration_version, name text, sql text) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dbpool_migration_checksum(text, dbpool_migration_version, text, text)
IS 'the checksum that a history of that format has for such a migration: dbpool, refinery, refinery int8 or sqlx';

CREATE FUNCTION dbpool_migrate(pool name, target dbpool_migration_version DEFAULT NULL,
	dry_run boolean DEFAULT false, grouped boolean DEFAULT false, fake boolean DEFAULT false,
	lock_timeout interval DEFAULT '1min', allow_missing boolean DEFAULT false, allow_divergent boolean DEFAULT false)
RETURNS TABLE (version dbpool_migration_version, name text, direction text, status text, duration interval)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migrate(name, dbpool_migration_version, boolean, boolean, boolean, interval, boolean, boolean)
IS 'runs the pending migrations of a pool on its remote, up to a target version';

CREATE FUNCTION dbpool_migration_rollback(pool name, steps int DEFAULT 1, target dbpool_migration_version DEFAULT NULL,
	dry_run boolean DEFAULT false, grouped boolean DEFAULT false,
	lock_timeout interval DEFAULT '1min', allow_divergent boolean DEFAULT false)
RETURNS TABLE (version dbpool_migration_version, name text, direction text, status text, duration interval)
AS 'MODULE_PATHNAME', 'dbpool_rollback' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_rollback(name, int, dbpool_migration_version, boolean, boolean, interval, boolean)
IS 'takes back the last migrations of a pool, or all above a target version, by their texts for the way back';

CREATE FUNCTION dbpool_migrate_all(pools name[] DEFAULT NULL, target dbpool_migration_version DEFAULT NULL,
	dry_run boolean DEFAULT false, grouped boolean DEFAULT false, lock_timeout interval DEFAULT '1min',
	allow_missing boolean DEFAULT false, allow_divergent boolean DEFAULT false, stop_on_error boolean DEFAULT false)
RETURNS TABLE (pool name, status text, migrations int, version dbpool_migration_version, duration interval, sqlstate text, error text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migrate_all(name[], dbpool_migration_version, boolean, boolean, interval, boolean, boolean, boolean)
IS 'runs the pending migrations of several pools, or of all that have some, one pool after the other';

CREATE FUNCTION dbpool_migration_status(pool name)
RETURNS TABLE (version dbpool_migration_version, name text, status text, applied_at timestamptz, applied_by text, duration interval, detail text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_status(name)
IS 'the migrations of a pool, registered here and applied there, side by side';

CREATE FUNCTION dbpool_migration_repair(pool name, version dbpool_migration_version DEFAULT NULL, force boolean DEFAULT false, lock_timeout interval DEFAULT '1min')
RETURNS TABLE (version dbpool_migration_version, name text, action text)
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_repair(name, dbpool_migration_version, boolean, interval)
IS 'gives divergent migrations the checksum of the registered text, if they differ by line ends only, or with force';

CREATE FUNCTION dbpool_migration_resolve(pool name, version dbpool_migration_version, outcome text, lock_timeout interval DEFAULT '1min') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_resolve(name, dbpool_migration_version, text, interval)
IS 'says of a migration that did not end whether it is applied or pending';

CREATE FUNCTION dbpool_migration_baseline(pool name, version dbpool_migration_version, lock_timeout interval DEFAULT '1min') RETURNS void
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_baseline(name, dbpool_migration_version, interval)
IS 'takes a database without a history for one that has all migrations up to a version';

CREATE FUNCTION dbpool_migration_forget(pool name) RETURNS int
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_migration_forget(name)
IS 'has the local history forget what was applied to a database that was dropped and made again';

--
-- Transactions in two phases
--

CREATE TABLE dbpool_two_phase (
	serverid oid NOT NULL,
	userid oid NOT NULL,
	prefix text NOT NULL,
	origin text NOT NULL,
	PRIMARY KEY (serverid, userid)
);
COMMENT ON TABLE dbpool_two_phase IS 'the pools at which transactions have been prepared';
COMMENT ON COLUMN dbpool_two_phase.serverid IS 'OID of the foreign server';
COMMENT ON COLUMN dbpool_two_phase.userid IS 'OID of the role of the user mapping, 0 for PUBLIC';
COMMENT ON COLUMN dbpool_two_phase.prefix IS 'how the names of its prepared transactions begin';
COMMENT ON COLUMN dbpool_two_phase.origin IS 'system identifier of the server and OID of the database for which it holds; in a copy it means nothing';

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
	last_error text,
	system text NOT NULL DEFAULT ''
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
COMMENT ON COLUMN dbpool_prepared.system IS 'system identifier and timeline of the remote when it was prepared; empty if not known';

CREATE VIEW dbpool_in_doubt WITH (security_barrier) AS
SELECT p.gid, coalesce(s.srvname, p.pool) AS pool,
	CASE WHEN p.userid OPERATOR(pg_catalog.=) 0 THEN 'public' ELSE m.rolname END AS user_name, r.rolname AS usename, p.pid,
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

--
-- Views
--

CREATE FUNCTION dbpool_get_workers(
	OUT worker int, OUT pid int, OUT started_at timestamptz, OUT starts bigint,
	OUT pools bigint, OUT connections bigint, OUT requests bigint, OUT wakeups bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_workers() IS 'the rows of dbpool_workers';

CREATE FUNCTION dbpool_last_lsn(pool name) RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'dbpool_last_lsn' LANGUAGE C STRICT VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_last_lsn(name)
IS 'returns a position of the remote''s WAL that is not before the last commit of this session there, for dbpool.min_lsn; NULL when it has run nothing there that may have written';

CREATE FUNCTION dbpool_get_endpoints(
	OUT host text, OUT port text, OUT state text, OUT state_since timestamptz, OUT role text,
	OUT connections int, OUT connecting int, OUT failures_in_row int, OUT next_probe timestamptz,
	OUT answered_at timestamptz, OUT failed_at timestamptz, OUT error text, OUT replay_lsn pg_lsn, OUT lag_bytes bigint,
	OUT lag_ms double precision, OUT replay_asked_at timestamptz, OUT logins bigint, OUT login_failures bigint, OUT losses bigint, OUT times_opened bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_endpoints() IS 'the rows of dbpool_endpoints';

CREATE FUNCTION dbpool_get_pools(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT private boolean, OUT worker int, OUT live boolean,
	OUT pool name, OUT user_name name, OUT paused boolean,
	OUT min_size int, OUT max_size int,
	OUT connecting int, OUT idle int, OUT checking int, OUT busy int,
	OUT cancelling int, OUT resetting int,
	OUT waiting int, OUT oldest_wait timestamptz, OUT used_at timestamptz,
	OUT connected_at timestamptz, OUT connect_failed_at timestamptz, OUT connect_error text,
	OUT statements bigint, OUT errors bigint, OUT timeouts bigint, OUT cancels bigint, OUT repeats bigint,
	OUT connects bigint, OUT connect_failures bigint, OUT connect_time double precision,
	OUT waits bigint, OUT wait_time double precision, OUT wait_time_max double precision,
	OUT exec_time double precision, OUT exec_time_max double precision,
	OUT rows bigint, OUT bytes_sent bigint, OUT bytes_received bigint,
	OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_pools() IS 'the rows of dbpool_pools and dbpool_stat_pools';

CREATE FUNCTION dbpool_get_pool_transactions(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT private boolean, OUT leased int,
	OUT begun bigint, OUT committed bigint, OUT rolled_back bigint,
	OUT prepared bigint, OUT in_doubt bigint, OUT resolved bigint,
	OUT transaction_time double precision, OUT transaction_time_max double precision,
	OUT paused boolean, OUT disabled boolean, OUT isolated boolean, OUT degraded_since timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_pool_transactions() IS 'what dbpool_pools and dbpool_stat_pools say of transactions, and what stops a pool';

CREATE FUNCTION dbpool_get_pool_rates(
	OUT dbid oid, OUT serverid oid, OUT userid oid,
	OUT statements_per_second double precision, OUT errors_per_second double precision,
	OUT rows_per_second double precision, OUT utilisation double precision,
	OUT total_mean double precision, OUT queue_mean double precision, OUT worker_mean double precision,
	OUT wire_mean double precision, OUT remote_mean double precision, OUT decode_mean double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_pool_rates() IS 'what dbpool_stat_pools says of the last minute, and of where the time went';

CREATE FUNCTION dbpool_get_latencies(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT kind text, OUT pool name, OUT user_name name,
	OUT count bigint, OUT mean double precision,
	OUT p50 double precision, OUT p95 double precision, OUT p99 double precision, OUT p99_9 double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_latencies() IS 'the rows of dbpool_stat_latency';

CREATE FUNCTION dbpool_get_endpoint_latencies(
	OUT host text, OUT port text, OUT kind text, OUT count bigint, OUT mean double precision,
	OUT p50 double precision, OUT p95 double precision, OUT p99 double precision, OUT p99_9 double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_endpoint_latencies() IS 'the rows of dbpool_stat_endpoints';

CREATE FUNCTION dbpool_get_statements(
	OUT dbid oid, OUT pool name, OUT user_name name, OUT digest bigint, OUT query text,
	OUT calls bigint, OUT errors bigint, OUT rows bigint,
	OUT mean double precision, OUT max double precision, OUT p95 double precision, OUT p99 double precision,
	OUT queue_mean double precision, OUT worker_mean double precision, OUT wire_mean double precision,
	OUT remote_mean double precision, OUT decode_mean double precision,
	OUT prepared bigint, OUT shared bigint, OUT repeats bigint,
	OUT local_queryid bigint, OUT traceparent text, OUT last_call timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_statements() IS 'the rows of dbpool_stat_statements';

CREATE FUNCTION dbpool_get_statements_info(
	OUT statements bigint, OUT max_statements bigint, OUT evictions bigint, OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_statements_info() IS 'the row of dbpool_stat_statements_info';

CREATE FUNCTION dbpool_get_history(
	OUT dbid oid, OUT pool name, OUT user_name name, OUT began_at timestamptz, OUT ended_at timestamptz,
	OUT calls bigint, OUT errors bigint, OUT timeouts bigint,
	OUT p50 double precision, OUT p95 double precision, OUT p99 double precision, OUT queue_p95 double precision,
	OUT utilisation double precision)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_history() IS 'the rows of dbpool_stat_history';

CREATE FUNCTION dbpool_get_histograms(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT kind text, OUT pool name, OUT user_name name,
	OUT le double precision, OUT count bigint, OUT cumulative bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_histograms() IS 'the rows of dbpool_histograms';

CREATE FUNCTION dbpool_get_pool_retries(
	OUT dbid oid, OUT serverid oid, OUT userid oid, OUT private boolean,
	OUT retries bigint, OUT retries_refused bigint, OUT hedged bigint, OUT hedge_wins bigint,
	OUT refused bigint, OUT shed bigint, OUT fallbacks bigint, OUT unserved bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_pool_retries() IS 'what dbpool_stat_pools says of retries, and of calls that are turned away';

CREATE FUNCTION dbpool_get_transactions(
	OUT dbid oid, OUT pid int, OUT usesysid oid, OUT pool name, OUT name name, OUT mode text, OUT state text,
	OUT gid text, OUT begin_sql text, OUT savepoints int, OUT statements bigint, OUT began_at timestamptz,
	OUT idle_since timestamptz, OUT remote_pid int, OUT query text)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_transactions() IS 'the rows of dbpool_transactions';

CREATE FUNCTION dbpool_get_connections(
	OUT dbid oid, OUT worker int, OUT state text, OUT pool name, OUT user_name name, OUT state_since timestamptz,
	OUT remote_pid int, OUT address text, OUT port int, OUT tls boolean, OUT local_pid int,
	OUT connected_at timestamptz, OUT statements bigint, OUT in_flight int, OUT prepared int, OUT query text)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_connections() IS 'the rows of dbpool_connections';

CREATE FUNCTION dbpool_get_traced_requests(
	OUT dbid oid, OUT pid int, OUT usesysid oid, OUT query text, OUT pool name, OUT state text,
	OUT submitted_at timestamptz, OUT running_since timestamptz, OUT remote_pid int, OUT traceparent text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dbpool_get_requests' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_traced_requests() IS 'the rows of dbpool_requests';

CREATE FUNCTION dbpool_get_bulk_inserts(
	OUT pid int, OUT dbid oid, OUT target text, OUT pool name, OUT phase text,
	OUT bytes_processed bigint, OUT tuples_processed bigint, OUT started_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_bulk_inserts() IS 'the rows of dbpool_progress_bulk_insert';

CREATE FUNCTION dbpool_get_migrations(
	OUT pid int, OUT dbid oid, OUT pool name, OUT phase text, OUT version text, OUT name text, OUT direction text,
	OUT statements_done int, OUT statements_total int, OUT migrations_done int, OUT migrations_total int,
	OUT started_at timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_migrations() IS 'the rows of dbpool_progress_migrate';

CREATE FUNCTION dbpool_get_alerts(
	OUT severity text, OUT alert text, OUT since timestamptz, OUT value double precision,
	OUT threshold double precision, OUT problem text, OUT advice text,
	OUT dbid oid, OUT pool name, OUT user_name name)
RETURNS SETOF record
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION dbpool_get_alerts() IS 'the rows of dbpool_alerts that are not of the tables';

CREATE VIEW dbpool_endpoints AS
SELECT host, port, state, state_since, role, connections, connecting, failures_in_row, next_probe,
	answered_at, failed_at, error, replay_lsn, lag_bytes, lag_ms, replay_asked_at, logins, login_failures, losses, times_opened
FROM @extschema@.dbpool_get_endpoints();
COMMENT ON VIEW dbpool_endpoints IS 'where pools in use lead to, with the circuit breaker of each; those of pools that one may see';
COMMENT ON COLUMN dbpool_endpoints.host IS 'host name or address as the server''s options have it, or the directory of a socket';
COMMENT ON COLUMN dbpool_endpoints.port IS 'its port';
COMMENT ON COLUMN dbpool_endpoints.state IS 'of the breaker: closed, connections are opened as needed; open, none are but to probe it; half-open, a few at a time';
COMMENT ON COLUMN dbpool_endpoints.state_since IS 'since when it is';
COMMENT ON COLUMN dbpool_endpoints.role IS 'primary or standby, as the last log-in has shown; NULL when it has not, as of servers before 14';
COMMENT ON COLUMN dbpool_endpoints.connections IS 'connections of all pools there, those being opened included';
COMMENT ON COLUMN dbpool_endpoints.connecting IS 'of these, being opened';
COMMENT ON COLUMN dbpool_endpoints.failures_in_row IS 'failed log-ins and lost connections since the last log-in that was answered';
COMMENT ON COLUMN dbpool_endpoints.next_probe IS 'when the next attempt is made, at the latest, while it is open; NULL otherwise';
COMMENT ON COLUMN dbpool_endpoints.answered_at IS 'when a log-in was last answered';
COMMENT ON COLUMN dbpool_endpoints.failed_at IS 'when something last spoke against the server';
COMMENT ON COLUMN dbpool_endpoints.error IS 'what that was';
COMMENT ON COLUMN dbpool_endpoints.replay_lsn IS 'how far the server had replayed, or as a primary written, when a read-only pool last asked, for max_lag or dbpool.min_lsn';
COMMENT ON COLUMN dbpool_endpoints.lag_bytes IS 'how far that was behind what it had received, or another host of the pool had told';
COMMENT ON COLUMN dbpool_endpoints.lag_ms IS 'how long it was since it had replayed all that there was; NULL when nobody knows';
COMMENT ON COLUMN dbpool_endpoints.replay_asked_at IS 'when that was';
COMMENT ON COLUMN dbpool_endpoints.logins IS 'log-ins that were answered, refusals included';
COMMENT ON COLUMN dbpool_endpoints.login_failures IS 'log-ins that were not, or by a server that says it is unwell';
COMMENT ON COLUMN dbpool_endpoints.losses IS 'open connections that were lost through the server';
COMMENT ON COLUMN dbpool_endpoints.times_opened IS 'how often the breaker has opened';

CREATE VIEW dbpool_workers AS
SELECT worker, pid, started_at, starts, pools, connections, requests, wakeups
FROM @extschema@.dbpool_get_workers();
COMMENT ON VIEW dbpool_workers IS 'the background workers of dbpool';
COMMENT ON COLUMN dbpool_workers.worker IS 'number of the worker, from 1 to dbpool.workers';
COMMENT ON COLUMN dbpool_workers.pid IS 'its process ID, NULL while it is not running';
COMMENT ON COLUMN dbpool_workers.started_at IS 'when this process started';
COMMENT ON COLUMN dbpool_workers.starts IS 'how often the worker was started since the server was';
COMMENT ON COLUMN dbpool_workers.pools IS 'pools it keeps';
COMMENT ON COLUMN dbpool_workers.connections IS 'connections of these pools, those being opened included';
COMMENT ON COLUMN dbpool_workers.requests IS 'statements it was given';
COMMENT ON COLUMN dbpool_workers.wakeups IS 'turns of its event loop';

CREATE VIEW dbpool_pools AS
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
		(pg_catalog.array_agg(g.connect_error ORDER BY g.connect_failed_at DESC NULLS LAST))[1] AS connect_error
	FROM @extschema@.dbpool_get_pools() g
	WHERE g.live OR g.paused OR g.dbid OPERATOR(pg_catalog.=)
		(SELECT b.oid FROM pg_catalog.pg_database b WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
	GROUP BY g.dbid, g.serverid, g.userid, g.private),
held AS (
	SELECT t.dbid, t.serverid, t.userid, t.private,
		pg_catalog.sum(t.leased)::int AS leased, pg_catalog.min(t.degraded_since) AS degraded_since,
		pg_catalog.bool_or(t.paused) AS paused, pg_catalog.bool_or(t.disabled) AS disabled,
		pg_catalog.bool_or(t.isolated) AS isolated
	FROM @extschema@.dbpool_get_pool_transactions() t
	GROUP BY t.dbid, t.serverid, t.userid, t.private)
SELECT coalesce(l.pool, f.pool) AS pool,
	d.datname AS database,
	coalesce(l.user_name, f.user_name) AS user_name,
	CASE WHEN l.private THEN 'uncommitted' WHEN h.isolated THEN 'isolated' WHEN h.disabled THEN 'disabled' WHEN h.paused THEN 'paused'
		WHEN l.live THEN 'active' ELSE 'cold' END AS state,
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
	coalesce(e.leased, n.used) AS leased,
	e.degraded_since
FROM defined f
FULL JOIN used l
	ON l.dbid OPERATOR(pg_catalog.=) f.dbid AND l.serverid OPERATOR(pg_catalog.=) f.serverid
	AND l.userid OPERATOR(pg_catalog.=) f.userid AND NOT l.private
LEFT JOIN held e
	ON e.dbid OPERATOR(pg_catalog.=) l.dbid AND e.serverid OPERATOR(pg_catalog.=) l.serverid
	AND e.userid OPERATOR(pg_catalog.=) l.userid AND e.private OPERATOR(pg_catalog.=) l.private
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) coalesce(l.dbid, f.dbid)
-- a server is stopped with all that is seen through its mappings
LEFT JOIN (
	SELECT t.dbid, t.serverid, pg_catalog.bool_or(t.paused) AS paused, pg_catalog.bool_or(t.disabled) AS disabled,
		pg_catalog.bool_or(t.isolated) AS isolated
	FROM held t
	GROUP BY t.dbid, t.serverid) h
	ON h.dbid OPERATOR(pg_catalog.=) d.oid AND h.serverid OPERATOR(pg_catalog.=) coalesce(l.serverid, f.serverid)
-- what is not known is not said: of those in use that one may not see, and of other databases
CROSS JOIN LATERAL (
	SELECT CASE WHEN l.serverid IS NULL THEN 0 END AS used,
		CASE WHEN f.serverid IS NOT NULL THEN 0 END AS min_size,
		CASE WHEN f.serverid IS NOT NULL THEN 10 END AS max_size) n
WHERE f.serverid IS NOT NULL OR l.live;
COMMENT ON VIEW dbpool_pools IS 'the pools that this database defines, and those of other databases that are in use; most is NULL for those who may not see a pool';
COMMENT ON COLUMN dbpool_pools.pool IS 'name of the foreign server';
COMMENT ON COLUMN dbpool_pools.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_pools.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_pools.state IS 'active; paused by dbpool_pause(); disabled by dbpool_disable() or dbpool_drain(); isolated by dbpool_isolate(); uncommitted: of a transaction that has changed the definition; or cold: not in the memory of a worker before it is next used, as after a start, a change of the definition, or ten minutes without a connection';
COMMENT ON COLUMN dbpool_pools.worker IS 'number of the worker that keeps it, the lowest if there are several';
COMMENT ON COLUMN dbpool_pools.workers IS 'number of workers that keep it; more than one when it is split';
COMMENT ON COLUMN dbpool_pools.idle IS 'connections that are free';
COMMENT ON COLUMN dbpool_pools.busy IS 'connections that run a statement';
COMMENT ON COLUMN dbpool_pools.connecting IS 'connections that are being opened';
COMMENT ON COLUMN dbpool_pools.checking IS 'connections that are being checked by a round trip';
COMMENT ON COLUMN dbpool_pools.cancelling IS 'connections whose statement was given up and is being cancelled';
COMMENT ON COLUMN dbpool_pools.resetting IS 'connections whose session is being reset';
COMMENT ON COLUMN dbpool_pools.min_size IS 'connections that are kept open';
COMMENT ON COLUMN dbpool_pools.max_size IS 'connections that may be open';
COMMENT ON COLUMN dbpool_pools.waiting IS 'statements that wait for a connection';
COMMENT ON COLUMN dbpool_pools.oldest_wait IS 'since when the first of them has been waiting';
COMMENT ON COLUMN dbpool_pools.used_at IS 'when the pool was last given a statement';
COMMENT ON COLUMN dbpool_pools.connected_at IS 'when a connection was last opened';
COMMENT ON COLUMN dbpool_pools.connect_failed_at IS 'when opening a connection last failed';
COMMENT ON COLUMN dbpool_pools.connect_error IS 'why it failed';
COMMENT ON COLUMN dbpool_pools.leased IS 'connections that are in a transaction of a session, which runs nothing now';
COMMENT ON COLUMN dbpool_pools.degraded_since IS 'since when standbys serve in place of a primary, see read_only_when_degraded; NULL: they do not';

CREATE VIEW dbpool_connections AS
SELECT c.pool, d.datname AS database, c.user_name, c.state, c.state_since, c.local_pid, c.remote_pid,
	c.address, c.port, c.tls, c.connected_at, c.statements, c.in_flight, c.prepared, c.worker, c.query
FROM @extschema@.dbpool_get_connections() c
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) c.dbid;
COMMENT ON VIEW dbpool_connections IS 'the connections of all pools; most is NULL for those who may not see the pool';
COMMENT ON COLUMN dbpool_connections.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_connections.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_connections.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_connections.state IS 'connecting, idle, checking, busy, leased (in a transaction of a session, which runs nothing now), cancelling or resetting';
COMMENT ON COLUMN dbpool_connections.state_since IS 'since when it is in that state';
COMMENT ON COLUMN dbpool_connections.local_pid IS 'process ID of the local session whose statement it runs, the first if there are several';
COMMENT ON COLUMN dbpool_connections.remote_pid IS 'process ID of the remote server process';
COMMENT ON COLUMN dbpool_connections.address IS 'remote host or socket directory';
COMMENT ON COLUMN dbpool_connections.port IS 'remote port';
COMMENT ON COLUMN dbpool_connections.tls IS 'is the connection encrypted?';
COMMENT ON COLUMN dbpool_connections.connected_at IS 'when it was opened';
COMMENT ON COLUMN dbpool_connections.statements IS 'statements that it has run';
COMMENT ON COLUMN dbpool_connections.in_flight IS 'statements that were sent and are not answered; more than one when short statements of several sessions share it';
COMMENT ON COLUMN dbpool_connections.prepared IS 'statements that dbpool has prepared in it';
COMMENT ON COLUMN dbpool_connections.worker IS 'number of the worker that keeps it';
COMMENT ON COLUMN dbpool_connections.query IS 'statement it runs or last ran, the first 1023 bytes; hidden from those who may not see its session''s';

CREATE VIEW dbpool_requests AS
SELECT q.pool, d.datname AS database, q.pid, r.rolname AS usename, q.state, q.submitted_at,
	q.running_since, q.remote_pid, q.query, q.traceparent
FROM @extschema@.dbpool_get_traced_requests() q
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) q.dbid
LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) q.usesysid;
COMMENT ON VIEW dbpool_requests IS 'the statements that local sessions have with the workers; most is NULL for those who may not see the session''s';
COMMENT ON COLUMN dbpool_requests.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_requests.database IS 'database of the local session';
COMMENT ON COLUMN dbpool_requests.pid IS 'process ID of the local session';
COMMENT ON COLUMN dbpool_requests.usename IS 'role that made the call';
COMMENT ON COLUMN dbpool_requests.state IS 'submitted (a large one may have to wait there), receiving (by the worker), queued (waits for a connection), running, done (the session still reads), or abandoned (by the session)';
COMMENT ON COLUMN dbpool_requests.submitted_at IS 'when the session asked';
COMMENT ON COLUMN dbpool_requests.running_since IS 'when it got a connection, NULL while it waits';
COMMENT ON COLUMN dbpool_requests.remote_pid IS 'process ID of the remote server process that runs it';
COMMENT ON COLUMN dbpool_requests.query IS 'the statement, its first 1023 bytes; hidden from those who may not see the session''s';
COMMENT ON COLUMN dbpool_requests.traceparent IS 'trace context to which it belongs, NULL if it has none';

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
COMMENT ON COLUMN dbpool_transactions.remote_pid IS 'process ID of the remote server process, NULL without one';
COMMENT ON COLUMN dbpool_transactions.isolation IS 'read uncommitted, read committed, repeatable read or serializable';
COMMENT ON COLUMN dbpool_transactions.read_only IS 'was it begun read-only?';
COMMENT ON COLUMN dbpool_transactions.savepoints IS 'savepoints that stand for local subtransactions; NULL of a named one';
COMMENT ON COLUMN dbpool_transactions.statements IS 'statements that it was given; a batch counts as one';
COMMENT ON COLUMN dbpool_transactions.began_at IS 'when the session began it';
COMMENT ON COLUMN dbpool_transactions.idle_since IS 'since when it has run nothing, NULL while it does, or waits';
COMMENT ON COLUMN dbpool_transactions.query IS 'statement it runs or last ran, the first 1023 bytes; hidden from those who may not see its session''s';

CREATE VIEW dbpool_progress_bulk_insert AS
SELECT b.pid, b.dbid AS datid, d.datname, b.pool, b.target, b.phase, b.bytes_processed,
	b.tuples_processed, b.started_at
FROM @extschema@.dbpool_get_bulk_inserts() b
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) b.dbid;
COMMENT ON VIEW dbpool_progress_bulk_insert IS 'the calls of dbpool_bulk_insert() that are under way; most is NULL for those who may not see the session''s';
COMMENT ON COLUMN dbpool_progress_bulk_insert.pid IS 'process ID of the local session';
COMMENT ON COLUMN dbpool_progress_bulk_insert.datid IS 'OID of the local session''s database';
COMMENT ON COLUMN dbpool_progress_bulk_insert.datname IS 'its name';
COMMENT ON COLUMN dbpool_progress_bulk_insert.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_progress_bulk_insert.target IS 'the remote table; hidden from those who may not see the session''s statements';
COMMENT ON COLUMN dbpool_progress_bulk_insert.phase IS 'waiting (for a connection, and until the remote is ready), copying, or finishing (all rows are sent, the remote has not committed them yet)';
COMMENT ON COLUMN dbpool_progress_bulk_insert.bytes_processed IS 'bytes given to the worker so far, in the format of COPY';
COMMENT ON COLUMN dbpool_progress_bulk_insert.tuples_processed IS 'rows of the query so far';
COMMENT ON COLUMN dbpool_progress_bulk_insert.started_at IS 'when the call began';

CREATE VIEW dbpool_progress_migrate AS
SELECT m.pid, m.dbid AS datid, d.datname, m.pool, m.phase, m.version, m.name, m.direction,
	m.statements_done, m.statements_total, m.migrations_done, m.migrations_total, m.started_at
FROM @extschema@.dbpool_get_migrations() m
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) m.dbid;
COMMENT ON VIEW dbpool_progress_migrate IS 'the runs of migrations that are under way, up to 64; most is NULL for those who may not see the session''s';
COMMENT ON COLUMN dbpool_progress_migrate.pid IS 'process ID of the local session';
COMMENT ON COLUMN dbpool_progress_migrate.datid IS 'OID of the local session''s database';
COMMENT ON COLUMN dbpool_progress_migrate.datname IS 'its name';
COMMENT ON COLUMN dbpool_progress_migrate.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_progress_migrate.phase IS 'connecting, waiting for lock, reading history, waiting for process, migrating, or committing';
COMMENT ON COLUMN dbpool_progress_migrate.version IS 'version of the migration that runs, NULL before the first';
COMMENT ON COLUMN dbpool_progress_migrate.name IS 'its name';
COMMENT ON COLUMN dbpool_progress_migrate.direction IS 'up or down';
COMMENT ON COLUMN dbpool_progress_migrate.statements_done IS 'statements of it that have ended';
COMMENT ON COLUMN dbpool_progress_migrate.statements_total IS 'statements that it has';
COMMENT ON COLUMN dbpool_progress_migrate.migrations_done IS 'migrations of this run that have ended';
COMMENT ON COLUMN dbpool_progress_migrate.migrations_total IS 'migrations that this run has';
COMMENT ON COLUMN dbpool_progress_migrate.started_at IS 'when the call began';

CREATE VIEW dbpool_stat_pools AS
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
	pg_catalog.max(t.prepared) AS prepared,
	pg_catalog.max(t.in_doubt) AS in_doubt,
	pg_catalog.max(t.resolved) AS resolved,
	pg_catalog.max(t.transaction_time) AS transaction_time,
	pg_catalog.max(CASE WHEN t.committed OPERATOR(pg_catalog.+) t.rolled_back OPERATOR(pg_catalog.+) t.in_doubt OPERATOR(pg_catalog.>) 0
		THEN t.transaction_time OPERATOR(pg_catalog./) (t.committed OPERATOR(pg_catalog.+) t.rolled_back OPERATOR(pg_catalog.+) t.in_doubt) END) AS transaction_time_mean,
	pg_catalog.max(t.transaction_time_max) AS transaction_time_max,
	pg_catalog.max(e.retries) AS retries,
	pg_catalog.max(e.retries_refused) AS retries_refused,
	pg_catalog.max(e.hedged) AS hedged,
	pg_catalog.max(e.hedge_wins) AS hedge_wins,
	pg_catalog.max(e.refused) AS refused,
	pg_catalog.max(e.shed) AS shed,
	pg_catalog.max(e.fallbacks) AS fallbacks,
	pg_catalog.max(e.unserved) AS unserved,
	l.p50, l.p95, l.p99, l.p99_9,
	r.statements_per_second, r.errors_per_second, r.rows_per_second, r.utilisation,
	r.total_mean, r.queue_mean, r.worker_mean, r.wire_mean, r.remote_mean, r.decode_mean
FROM @extschema@.dbpool_get_pools() p
LEFT JOIN (
	SELECT u.dbid, u.serverid, u.userid, pg_catalog.sum(u.begun)::bigint AS begun,
		pg_catalog.sum(u.committed)::bigint AS committed, pg_catalog.sum(u.rolled_back)::bigint AS rolled_back,
		pg_catalog.sum(u.prepared)::bigint AS prepared, pg_catalog.sum(u.in_doubt)::bigint AS in_doubt,
		pg_catalog.sum(u.resolved)::bigint AS resolved,
		pg_catalog.sum(u.transaction_time) AS transaction_time, pg_catalog.max(u.transaction_time_max) AS transaction_time_max
	FROM @extschema@.dbpool_get_pool_transactions() u
	WHERE NOT u.private
	GROUP BY u.dbid, u.serverid, u.userid) t
	ON t.dbid OPERATOR(pg_catalog.=) p.dbid AND t.serverid OPERATOR(pg_catalog.=) p.serverid
	AND t.userid OPERATOR(pg_catalog.=) p.userid
LEFT JOIN (
	SELECT u.dbid, u.serverid, u.userid, pg_catalog.sum(u.retries)::bigint AS retries,
		pg_catalog.sum(u.retries_refused)::bigint AS retries_refused,
		pg_catalog.sum(u.hedged)::bigint AS hedged, pg_catalog.sum(u.hedge_wins)::bigint AS hedge_wins,
		pg_catalog.sum(u.refused)::bigint AS refused, pg_catalog.sum(u.shed)::bigint AS shed,
		pg_catalog.sum(u.fallbacks)::bigint AS fallbacks, pg_catalog.sum(u.unserved)::bigint AS unserved
	FROM @extschema@.dbpool_get_pool_retries() u
	WHERE NOT u.private
	GROUP BY u.dbid, u.serverid, u.userid) e
	ON e.dbid OPERATOR(pg_catalog.=) p.dbid AND e.serverid OPERATOR(pg_catalog.=) p.serverid
	AND e.userid OPERATOR(pg_catalog.=) p.userid
LEFT JOIN @extschema@.dbpool_get_latencies() l
	ON l.dbid OPERATOR(pg_catalog.=) p.dbid AND l.serverid OPERATOR(pg_catalog.=) p.serverid
	AND l.userid OPERATOR(pg_catalog.=) p.userid AND l.kind OPERATOR(pg_catalog.=) 'total'
LEFT JOIN @extschema@.dbpool_get_pool_rates() r
	ON r.dbid OPERATOR(pg_catalog.=) p.dbid AND r.serverid OPERATOR(pg_catalog.=) p.serverid
	AND r.userid OPERATOR(pg_catalog.=) p.userid
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) p.dbid
WHERE NOT p.private
-- one that was never used is there to remember a stop of its server
	AND (p.live OR p.pool IS NULL OR coalesce(p.used_at, p.connected_at, p.connect_failed_at) IS NOT NULL)
GROUP BY p.dbid, p.serverid, p.userid, d.datname,
	l.p50, l.p95, l.p99, l.p99_9,
	r.statements_per_second, r.errors_per_second, r.rows_per_second, r.utilisation,
	r.total_mean, r.queue_mean, r.worker_mean, r.wire_mean, r.remote_mean, r.decode_mean;
COMMENT ON VIEW dbpool_stat_pools IS 'statistics of pools since they were first used or dbpool_stat_reset(); times are in milliseconds; most is NULL for those who may not see the pool';
COMMENT ON COLUMN dbpool_stat_pools.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_stat_pools.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_stat_pools.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_stat_pools.statements IS 'calls that ended well, pings included';
COMMENT ON COLUMN dbpool_stat_pools.errors IS 'calls that had got a connection and ended with an error';
COMMENT ON COLUMN dbpool_stat_pools.timeouts IS 'calls that waited for a connection as long as acquire_timeout allows';
COMMENT ON COLUMN dbpool_stat_pools.cancels IS 'calls given up by their sessions';
COMMENT ON COLUMN dbpool_stat_pools.repeats IS 'statements that were rolled back for no fault of their own and sent again, unseen by their sessions';
COMMENT ON COLUMN dbpool_stat_pools.connects IS 'connections that were opened';
COMMENT ON COLUMN dbpool_stat_pools.connect_failures IS 'connections that could not be opened';
COMMENT ON COLUMN dbpool_stat_pools.connect_time IS 'total time that opening them took';
COMMENT ON COLUMN dbpool_stat_pools.waits IS 'calls that found no free connection';
COMMENT ON COLUMN dbpool_stat_pools.wait_time IS 'total time that calls waited for a connection';
COMMENT ON COLUMN dbpool_stat_pools.wait_time_max IS 'longest such time';
COMMENT ON COLUMN dbpool_stat_pools.exec_time IS 'total time that calls had a connection';
COMMENT ON COLUMN dbpool_stat_pools.exec_time_max IS 'longest such time';
COMMENT ON COLUMN dbpool_stat_pools.rows IS 'rows that were received';
COMMENT ON COLUMN dbpool_stat_pools.bytes_sent IS 'bytes of statements, parameters and rows of bulk inserts';
COMMENT ON COLUMN dbpool_stat_pools.bytes_received IS 'bytes of rows';
COMMENT ON COLUMN dbpool_stat_pools.stats_reset IS 'when dbpool_stat_reset() was last called for the pool';
COMMENT ON COLUMN dbpool_stat_pools.begun IS 'transactions over several calls that were begun';
COMMENT ON COLUMN dbpool_stat_pools.committed IS 'of these, committed';
COMMENT ON COLUMN dbpool_stat_pools.rolled_back IS 'of these, rolled back, or lost before they were to be prepared';
COMMENT ON COLUMN dbpool_stat_pools.prepared IS 'of these, prepared at the remote, as those in two phases are before they are committed';
COMMENT ON COLUMN dbpool_stat_pools.in_doubt IS 'of these, neither: the connection was lost after PREPARE TRANSACTION was sent, and before the answer to COMMIT PREPARED or ROLLBACK PREPARED';
COMMENT ON COLUMN dbpool_stat_pools.resolved IS 'prepared transactions that the resolver or dbpool_resolve() has ended, also of before the start of the server; not those that had ended when it came to look';
COMMENT ON COLUMN dbpool_stat_pools.transaction_time IS 'total time that those which have ended had a connection';
COMMENT ON COLUMN dbpool_stat_pools.transaction_time_mean IS 'mean such time, NULL when none has ended';
COMMENT ON COLUMN dbpool_stat_pools.transaction_time_max IS 'longest such time';
COMMENT ON COLUMN dbpool_stat_pools.retries IS 'tries of statements after one that had failed, see retry_attempts';
COMMENT ON COLUMN dbpool_stat_pools.retries_refused IS 'statements that were not tried again, as the budget for that was used up';
COMMENT ON COLUMN dbpool_stat_pools.hedged IS 'reads that were sent to another host as well, as they took long, see hedge';
COMMENT ON COLUMN dbpool_stat_pools.hedge_wins IS 'of these, answered by that host first';
COMMENT ON COLUMN dbpool_stat_pools.refused IS 'calls that were refused, as max_waiting others waited for a connection';
COMMENT ON COLUMN dbpool_stat_pools.shed IS 'calls that were given up while they waited, as the pool was overloaded and shed is on';
COMMENT ON COLUMN dbpool_stat_pools.fallbacks IS 'calls that were run on the pool that fallback_server names, as no connection could be opened';
COMMENT ON COLUMN dbpool_stat_pools.unserved IS 'calls that ended without having got a connection: as the remote was out or the pool disabled, and those of timeouts, refused and shed';
COMMENT ON COLUMN dbpool_stat_pools.p50 IS 'time that half of the calls did not exceed, from the call to its end; more in dbpool_stat_latency';
COMMENT ON COLUMN dbpool_stat_pools.p95 IS 'the same of 95 % of them';
COMMENT ON COLUMN dbpool_stat_pools.p99 IS 'the same of 99 % of them';
COMMENT ON COLUMN dbpool_stat_pools.p99_9 IS 'the same of 99.9 % of them';
COMMENT ON COLUMN dbpool_stat_pools.statements_per_second IS 'calls that ended well in the last minute, per second';
COMMENT ON COLUMN dbpool_stat_pools.errors_per_second IS 'calls that ended with an error in the last minute, also those that got no connection, per second';
COMMENT ON COLUMN dbpool_stat_pools.rows_per_second IS 'rows that were received in the last minute, per second';
COMMENT ON COLUMN dbpool_stat_pools.utilisation IS 'part of max_size that was in use in the last minute, from 0 to 1';
COMMENT ON COLUMN dbpool_stat_pools.total_mean IS 'mean time of calls but bulk inserts and batches, until their sessions had taken all of the answer; the next five are its parts';
COMMENT ON COLUMN dbpool_stat_pools.queue_mean IS 'of that, waiting for a connection, and on a shared one for those before it';
COMMENT ON COLUMN dbpool_stat_pools.worker_mean IS 'of that, until the worker had taken it, sent it, and seen its answer, and until the session was awake';
COMMENT ON COLUMN dbpool_stat_pools.wire_mean IS 'of that, on the way to the remote and back';
COMMENT ON COLUMN dbpool_stat_pools.remote_mean IS 'of that, the remote at work';
COMMENT ON COLUMN dbpool_stat_pools.decode_mean IS 'of that, the session making values of what has come, while the others had to wait for it or were done';

CREATE VIEW dbpool_stat_latency AS
SELECT l.pool, d.datname AS database, l.user_name, l.kind, l.count, l.mean, l.p50, l.p95, l.p99, l.p99_9
FROM @extschema@.dbpool_get_latencies() l
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) l.dbid;
COMMENT ON VIEW dbpool_stat_latency IS 'how long what calls of a pool do takes, since it was first used or dbpool_stat_reset(); times are in milliseconds, percentiles off by 3.1 % at most; most is NULL for those who may not see the pool';
COMMENT ON COLUMN dbpool_stat_latency.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_stat_latency.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_stat_latency.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_stat_latency.kind IS 'queue: waiting for a connection, and on a shared one for those before it; login: opening a connection; execution: until the answer was complete, since the remote began with it; network: a round trip that costs the remote nothing; total: from the call to its end';
COMMENT ON COLUMN dbpool_stat_latency.count IS 'how often; each call has a queue and a total, and an execution if it was sent';
COMMENT ON COLUMN dbpool_stat_latency.mean IS 'mean time';
COMMENT ON COLUMN dbpool_stat_latency.p50 IS 'time that half of them did not exceed';
COMMENT ON COLUMN dbpool_stat_latency.p95 IS 'time that 95 % of them did not exceed';
COMMENT ON COLUMN dbpool_stat_latency.p99 IS 'time that 99 % of them did not exceed';
COMMENT ON COLUMN dbpool_stat_latency.p99_9 IS 'time that 99.9 % of them did not exceed';

CREATE VIEW dbpool_stat_endpoints AS
SELECT host, port, kind, count, mean, p50, p95, p99, p99_9
FROM @extschema@.dbpool_get_endpoint_latencies();
COMMENT ON VIEW dbpool_stat_endpoints IS 'how long what pools do at an endpoint takes, of all pools together, since a pool first led there or the server was started; times are in milliseconds, percentiles off by 3.1 % at most; where one may see all of these pools';
COMMENT ON COLUMN dbpool_stat_endpoints.host IS 'host name or address as the server''s options have it, or the directory of a socket';
COMMENT ON COLUMN dbpool_stat_endpoints.port IS 'its port';
COMMENT ON COLUMN dbpool_stat_endpoints.kind IS 'queue, login, execution, network or total, as in dbpool_stat_latency; of calls, those that were sent there';
COMMENT ON COLUMN dbpool_stat_endpoints.count IS 'how often';
COMMENT ON COLUMN dbpool_stat_endpoints.mean IS 'mean time';
COMMENT ON COLUMN dbpool_stat_endpoints.p50 IS 'time that half of them did not exceed';
COMMENT ON COLUMN dbpool_stat_endpoints.p95 IS 'time that 95 % of them did not exceed';
COMMENT ON COLUMN dbpool_stat_endpoints.p99 IS 'time that 99 % of them did not exceed';
COMMENT ON COLUMN dbpool_stat_endpoints.p99_9 IS 'time that 99.9 % of them did not exceed';

CREATE VIEW dbpool_stat_statements AS
SELECT s.pool, d.datname AS database, s.user_name, s.digest, s.query, s.calls, s.errors, s.rows, s.mean, s.max, s.p95, s.p99,
	s.queue_mean, s.worker_mean, s.wire_mean, s.remote_mean, s.decode_mean, s.prepared, s.shared, s.repeats,
	s.local_queryid, s.traceparent, s.last_call
FROM @extschema@.dbpool_get_statements() s
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.dbid;
COMMENT ON VIEW dbpool_stat_statements IS 'statistics of statements by what is the same in their texts, since they first came, dbpool_stat_reset() or dbpool_stat_statements_reset(); times are in milliseconds, percentiles off by 6 % at most; nothing of pools that one may not see';
COMMENT ON COLUMN dbpool_stat_statements.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_stat_statements.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_stat_statements.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_stat_statements.digest IS 'number that stands for the statement: the same for texts that differ in literals, comments, blanks, small and capital letters of words, and in how many rows are in VALUES or values in a list after IN';
COMMENT ON COLUMN dbpool_stat_statements.query IS 'text of the first that came, without its literals; cut if long; for the owner of the server and members of pg_read_all_stats';
COMMENT ON COLUMN dbpool_stat_statements.calls IS 'calls that have ended, however they did';
COMMENT ON COLUMN dbpool_stat_statements.errors IS 'of these, those that ended with an error, or were given up';
COMMENT ON COLUMN dbpool_stat_statements.rows IS 'rows that they returned or changed';
COMMENT ON COLUMN dbpool_stat_statements.mean IS 'mean time of a call; the five whose names end in _mean are its parts';
COMMENT ON COLUMN dbpool_stat_statements.max IS 'longest time from the call to the end of its answer';
COMMENT ON COLUMN dbpool_stat_statements.p95 IS 'such a time that 95 % of the calls did not exceed';
COMMENT ON COLUMN dbpool_stat_statements.p99 IS 'the same of 99 % of them';
COMMENT ON COLUMN dbpool_stat_statements.queue_mean IS 'of the mean, waiting for a connection, and on a shared one for those before it; NULL for bulk inserts and batches, as the next four';
COMMENT ON COLUMN dbpool_stat_statements.worker_mean IS 'of the mean, until the worker had taken the call, sent it, and seen its answer, and until the session was awake';
COMMENT ON COLUMN dbpool_stat_statements.wire_mean IS 'of the mean, on the way to the remote and back';
COMMENT ON COLUMN dbpool_stat_statements.remote_mean IS 'of the mean, the remote at work';
COMMENT ON COLUMN dbpool_stat_statements.decode_mean IS 'of the mean, the session making values of what has come';
COMMENT ON COLUMN dbpool_stat_statements.prepared IS 'calls that ran what had been prepared before';
COMMENT ON COLUMN dbpool_stat_statements.shared IS 'calls whose connection others could share at the time; the others were alone';
COMMENT ON COLUMN dbpool_stat_statements.repeats IS 'times that a call was sent again, unseen by its session';
COMMENT ON COLUMN dbpool_stat_statements.local_queryid IS 'queryid of the local statement that made the last call, as in pg_stat_activity; NULL if it has none';
COMMENT ON COLUMN dbpool_stat_statements.traceparent IS 'trace context of the last call that had one';
COMMENT ON COLUMN dbpool_stat_statements.last_call IS 'when the last call ended';

CREATE VIEW dbpool_stat_statements_info AS
SELECT i.statements, i.max_statements, i.evictions, i.stats_reset
FROM @extschema@.dbpool_get_statements_info() i;
COMMENT ON VIEW dbpool_stat_statements_info IS 'how much room there is for dbpool_stat_statements';
COMMENT ON COLUMN dbpool_stat_statements_info.statements IS 'statements that there are statistics of, in all databases';
COMMENT ON COLUMN dbpool_stat_statements_info.max_statements IS 'how many there can be: dbpool.max_statements';
COMMENT ON COLUMN dbpool_stat_statements_info.evictions IS 'how many were forgotten to make room for others; many say that dbpool.max_statements is too low';
COMMENT ON COLUMN dbpool_stat_statements_info.stats_reset IS 'when those of a whole database were last forgotten by dbpool_stat_reset() or dbpool_stat_statements_reset()';

CREATE VIEW dbpool_stat_history AS
SELECT h.pool, d.datname AS database, h.user_name, h.began_at, h.ended_at, h.calls, h.errors, h.timeouts,
	h.p50, h.p95, h.p99, h.queue_p95, h.utilisation
FROM @extschema@.dbpool_get_history() h
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) h.dbid;
COMMENT ON VIEW dbpool_stat_history IS 'what each pool did in each minute of the last hour (dbpool.history_interval, sixty of them), since the server started, the pool was first used, or dbpool_stat_reset(); times are in milliseconds, percentiles off by 3.1 % at most; nothing of pools that one may not see';
COMMENT ON COLUMN dbpool_stat_history.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_stat_history.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_stat_history.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_stat_history.began_at IS 'when that minute began; the same for all pools';
COMMENT ON COLUMN dbpool_stat_history.ended_at IS 'when it ended';
COMMENT ON COLUMN dbpool_stat_history.calls IS 'calls that ended in it, each statement of a batch being one';
COMMENT ON COLUMN dbpool_stat_history.errors IS 'of these, those that ended with an error, also those that got no connection';
COMMENT ON COLUMN dbpool_stat_history.timeouts IS 'of these, those that waited for a connection as long as acquire_timeout allows';
COMMENT ON COLUMN dbpool_stat_history.p50 IS 'time that half of the calls did not exceed, from the call to its end; NULL without calls';
COMMENT ON COLUMN dbpool_stat_history.p95 IS 'the same of 95 % of them';
COMMENT ON COLUMN dbpool_stat_history.p99 IS 'the same of 99 % of them';
COMMENT ON COLUMN dbpool_stat_history.queue_p95 IS 'time that 95 % of them did not exceed waiting for a connection, and on a shared one for those before them';
COMMENT ON COLUMN dbpool_stat_history.utilisation IS 'part of max_size that was in use, from 0 to 1';

CREATE VIEW dbpool_histograms AS
SELECT h.pool, d.datname AS database, h.user_name, h.kind, h.le, h.count, h.cumulative
FROM @extschema@.dbpool_get_histograms() h
JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) h.dbid;
COMMENT ON VIEW dbpool_histograms IS 'the buckets behind dbpool_stat_latency that have something, and the last one of each, which has no end; nothing of pools that one may not see';
COMMENT ON COLUMN dbpool_histograms.pool IS 'name of the pool';
COMMENT ON COLUMN dbpool_histograms.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_histograms.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_histograms.kind IS 'queue, login, execution, network or total, as in dbpool_stat_latency';
COMMENT ON COLUMN dbpool_histograms.le IS 'longest time that is in the bucket, in milliseconds';
COMMENT ON COLUMN dbpool_histograms.count IS 'how many are in it';
COMMENT ON COLUMN dbpool_histograms.cumulative IS 'how many are in it and in those before';

CREATE VIEW dbpool_alerts AS
SELECT a.severity, a.alert, a.pool, d.datname AS database, a.user_name, NULL::text AS endpoint,
	a.since, a.value, a.threshold, a.problem, a.advice
FROM @extschema@.dbpool_get_alerts() a
LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) a.dbid
UNION ALL
SELECT 'critical', 'in_doubt', i.pool, pg_catalog.current_database(), i.user_name, NULL,
	pg_catalog.min(i.prepared_at) OPERATOR(pg_catalog.+) '60 s'::interval,
	EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.min(i.prepared_at)), 60,
	pg_catalog.format('%s prepared transactions of it have been in doubt for %s s, and keep their locks at the remote',
		pg_catalog.count(*), EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.min(i.prepared_at))::int),
	'Let the pool reach its remote, where they are to be committed; dbpool_in_doubt has them, and why that has failed.'
FROM @extschema@.dbpool_in_doubt i
WHERE i.prepared_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '60 s'::interval)
GROUP BY i.pool, i.user_name
UNION ALL
SELECT 'warning', 'breaker_open', NULL, NULL, NULL, pg_catalog.format('%s:%s', e.host, e.port), e.state_since, e.failures_in_row, NULL,
	pg_catalog.format('it is unwell: no connections are opened there until a probe is answered: %s', e.error),
	'See to the server; dbpool_endpoints says when it is tried again. Pools that have other hosts use those.'
FROM @extschema@.dbpool_endpoints e
WHERE e.state OPERATOR(pg_catalog.=) 'open';
COMMENT ON VIEW dbpool_alerts IS 'what is wrong now, with pools that the current role may see and with dbpool as a whole, looked for every two seconds';
COMMENT ON COLUMN dbpool_alerts.severity IS 'critical: calls fail, or locks stay; warning: they soon may';
COMMENT ON COLUMN dbpool_alerts.alert IS 'what kind of thing it is; these names stay';
COMMENT ON COLUMN dbpool_alerts.pool IS 'name of the pool, NULL for what is of all of them';
COMMENT ON COLUMN dbpool_alerts.database IS 'local database in which it is defined';
COMMENT ON COLUMN dbpool_alerts.user_name IS 'local role of the user mapping, or public';
COMMENT ON COLUMN dbpool_alerts.endpoint IS 'host and port of the remote server, for what is of one';
COMMENT ON COLUMN dbpool_alerts.since IS 'since when it is so';
COMMENT ON COLUMN dbpool_alerts.value IS 'what was found: seconds, percent or a number';
COMMENT ON COLUMN dbpool_alerts.threshold IS 'more than that is worth an alert';
COMMENT ON COLUMN dbpool_alerts.problem IS 'what is wrong';
COMMENT ON COLUMN dbpool_alerts.advice IS 'what to do';

CREATE VIEW dbpool_summary AS
SELECT CASE WHEN pg_catalog.length(p.pool::text) OPERATOR(pg_catalog.>) 13
		THEN pg_catalog.left(p.pool::text, 12) OPERATOR(pg_catalog.||) '~' ELSE p.pool::text END AS pool,
	pg_catalog.format('%s/%s/%s', p.used, p.open, p.max_size) AS conns,
	p.waiting AS wait,
	CASE WHEN s.calls OPERATOR(pg_catalog.<) 100 THEN pg_catalog.round(s.calls::numeric, 1)
		ELSE pg_catalog.round(s.calls::numeric) END AS calls_s,
	CASE WHEN s.calls OPERATOR(pg_catalog.>) 0
		THEN pg_catalog.round((100 OPERATOR(pg_catalog.*) s.errors OPERATOR(pg_catalog./) s.calls)::numeric) OPERATOR(pg_catalog.||) '%' END AS err,
	pg_catalog.round(s.p95::numeric, CASE WHEN s.p95 OPERATOR(pg_catalog.<) 1000 THEN 2 ELSE 0 END) AS p95_ms,
	CASE WHEN a.n OPERATOR(pg_catalog.>) 1 THEN pg_catalog.format('%s +%s', a.worst, a.n OPERATOR(pg_catalog.-) 1)
		ELSE coalesce(a.worst, p.state) END AS wrong
FROM (
	SELECT q.pool, pg_catalog.sum(q.busy OPERATOR(pg_catalog.+) q.leased OPERATOR(pg_catalog.+) q.checking
			OPERATOR(pg_catalog.+) q.cancelling OPERATOR(pg_catalog.+) q.resetting) AS used,
		pg_catalog.sum(q.busy OPERATOR(pg_catalog.+) q.leased OPERATOR(pg_catalog.+) q.checking
			OPERATOR(pg_catalog.+) q.cancelling OPERATOR(pg_catalog.+) q.resetting OPERATOR(pg_catalog.+) q.idle) AS open,
		pg_catalog.sum(q.max_size) AS max_size, pg_catalog.sum(q.waiting) AS waiting,
		pg_catalog.max(CASE WHEN q.state OPERATOR(pg_catalog.=) ANY (ARRAY['paused', 'disabled', 'isolated']) THEN q.state END) AS state
	FROM @extschema@.dbpool_pools q
	WHERE q.database OPERATOR(pg_catalog.=) pg_catalog.current_database() AND q.waiting IS NOT NULL
	GROUP BY q.pool) p
LEFT JOIN (
	SELECT t.pool, pg_catalog.sum(t.statements_per_second OPERATOR(pg_catalog.+) t.errors_per_second) AS calls,
		pg_catalog.sum(t.errors_per_second) AS errors, pg_catalog.max(t.p95) AS p95
	FROM @extschema@.dbpool_stat_pools t
	WHERE t.database OPERATOR(pg_catalog.=) pg_catalog.current_database()
	GROUP BY t.pool) s ON s.pool OPERATOR(pg_catalog.=) p.pool
LEFT JOIN (
	SELECT l.pool, pg_catalog.count(*) AS n, (pg_catalog.array_agg(l.alert ORDER BY l.severity, l.since))[1] AS worst
	FROM @extschema@.dbpool_alerts l
	WHERE l.database OPERATOR(pg_catalog.=) pg_catalog.current_database()
	GROUP BY l.pool) a ON a.pool OPERATOR(pg_catalog.=) p.pool
ORDER BY a.worst IS NULL, p.pool;
COMMENT ON VIEW dbpool_summary IS 'the pools of this database that the current role may see, those in trouble first, in 80 columns: a server''s user mappings together';
COMMENT ON COLUMN dbpool_summary.pool IS 'name of the pool, cut after 12 characters';
COMMENT ON COLUMN dbpool_summary.conns IS 'connections in use / open / that may be open';
COMMENT ON COLUMN dbpool_summary.wait IS 'calls that wait for a connection';
COMMENT ON COLUMN dbpool_summary.calls_s IS 'calls per second in the last minute';
COMMENT ON COLUMN dbpool_summary.err IS 'percent of these that failed';
COMMENT ON COLUMN dbpool_summary.p95_ms IS 'milliseconds that 95 % of all calls did not exceed, of the mapping where that is longest';
COMMENT ON COLUMN dbpool_summary.wrong IS 'the worst alert, and how many more there are; or paused, disabled, isolated';

CREATE FUNCTION dbpool_metrics(strict boolean DEFAULT false) RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_metrics(boolean)
IS 'returns all that is counted as OpenMetrics text, of pools that the current role may see; strict: counters'' families have names without _total';

CREATE FUNCTION dbpool_report() RETURNS text
AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION dbpool_report()
IS 'returns a page of HTML about the pools that the current role may see: what is wrong, how pools and endpoints are, the last hour, and the statements that take most of the time';

GRANT SELECT ON dbpool_alerts, dbpool_summary, dbpool_workers, dbpool_pools, dbpool_connections, dbpool_requests, dbpool_transactions, dbpool_in_doubt, dbpool_endpoints, dbpool_progress_bulk_insert, dbpool_progress_migrate, dbpool_stat_pools, dbpool_stat_latency, dbpool_stat_endpoints, dbpool_stat_statements, dbpool_stat_statements_info, dbpool_stat_history, dbpool_histograms TO PUBLIC;
