--
-- dbpool_stat_statements: which texts are one statement, what is counted, who sees it
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (a int, b text)') \g /dev/null
SELECT dbpool_stat_statements_reset();
CREATE VIEW seen AS SELECT query, calls, errors, rows FROM dbpool_stat_statements
WHERE pool = 'remote' AND database = current_database() AND query !~ 'pg_catalog' ORDER BY query COLLATE "C";
SELECT * FROM seen;

-- literals, comments, blanks, case, lists do not count
SELECT dbpool_exec('remote', 'SELECT 1, ''a''') \g /dev/null
SELECT dbpool_exec('remote', 'select -2.5e3,  $$b$$ -- ''c''') \g /dev/null
SELECT dbpool_exec('remote', E'/* SELECT */ SELECT\n\t3, E\'\\\'\'') \g /dev/null
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1, ''a'')');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (2, NULL), (3, ''b''), (4, ''c'')');
SELECT count(*) FROM dbpool_query('remote', 'SELECT a FROM regress.t WHERE a IN ($1)', 1) AS (a int);
SELECT count(*) FROM dbpool_query('remote', 'SELECT a FROM regress.t WHERE a IN ($1, $2, $3)', 1, 2, 3) AS (a int);
SELECT * FROM seen;
SELECT count(DISTINCT digest) FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database();

-- anything else does
SELECT dbpool_stat_statements_reset('remote');
SELECT dbpool_exec('remote', 'SELECT a b FROM regress.t') \g /dev/null
SELECT dbpool_exec('remote', 'SELECT a,b FROM regress.t') \g /dev/null
SELECT dbpool_exec('remote', 'SELECT a "B" FROM regress.t') \g /dev/null
SELECT dbpool_exec('remote', 'SELECT coalesce(1)') \g /dev/null
SELECT dbpool_exec('remote', 'SELECT coalesce(1, 2)') \g /dev/null
SELECT dbpool_exec('remote', 'DO $$BEGIN PERFORM 1; END$$') \g /dev/null
SELECT dbpool_exec('remote', 'DO $$BEGIN PERFORM 2; END$$') \g /dev/null
SELECT * FROM seen;

-- errors, batches, bulk inserts, transactions, pings
SELECT dbpool_stat_statements_reset('remote');
SELECT dbpool_exec('remote', 'SELECT 1/0');
SELECT dbpool_exec('remote', 'SELECT ''');
SELECT dbpool_exec_batch('remote', 'INSERT INTO regress.t VALUES ($1, $2)', ARRAY[ROW(5, 'd'), ROW(6, 'e'), ROW(7, 'f')]);
SELECT * FROM dbpool_batch('remote', ARRAY['SELECT 1', 'SELECT 2, 3']) \g /dev/null
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT i, ''g'' FROM generate_series(1, 100) i');
SELECT dbpool_ping('remote') \g /dev/null
BEGIN;
SET LOCAL dbpool.transaction = bound;
SELECT dbpool_exec('remote', 'UPDATE regress.t SET b = ''h'' WHERE a > 4');
COMMIT;
SELECT * FROM seen;
-- where the time went is known of calls, not of batches
SELECT query, mean > 0 AS mean, max > 0 AS max, p95 <= p99 AND p99 <= max AS ordered,
  abs(queue_mean + worker_mean + wire_mean + remote_mean + decode_mean - mean) < 0.001 AS split
FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database() AND query !~ 'pg_catalog' ORDER BY query COLLATE "C";

-- prepared, the local statement; on a busy machine none is short enough to share a connection
SET compute_query_id = on;
SELECT dbpool_stat_reset('remote');
SELECT count(*) FROM generate_series(1, 10) i, dbpool_query('remote', 'SELECT a FROM regress.t WHERE a = $1', i + 1000) AS (a int);
SELECT query, calls, prepared, shared < calls AS shared, repeats, local_queryid IS NOT NULL AS local, last_call <= clock_timestamp() AS last_call
FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database();
RESET compute_query_id;

-- texts of any kind
SELECT dbpool_exec('remote', 'SELECT ' || repeat('1, ', 1000) || '1') \g /dev/null
SELECT length(query), calls, rows FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database() AND query LIKE 'SELECT ?, %';
SELECT dbpool_exec('remote', 'SELECT 1 AS "' || repeat(U&'\00e9', 600) || '"') \g /dev/null
SELECT octet_length(query) FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database() AND query LIKE 'SELECT ? AS "%';
SELECT dbpool_exec('remote', '');
SELECT dbpool_exec('remote', '-- nothing');

-- who sees what
CREATE ROLE regress_dbpool_user;
CREATE ROLE regress_dbpool_owner;
GRANT USAGE ON FOREIGN SERVER remote TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT count(*) FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database();
SELECT dbpool_stat_statements_reset('remote');
RESET ROLE;
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (password_required 'false');
SET ROLE regress_dbpool_user;
SELECT count(*) FROM dbpool_query('remote', 'SELECT a, 1 FROM regress.t WHERE a = -1') AS (a int, b int);
SELECT query, calls, local_queryid, traceparent FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database();
RESET ROLE;
ALTER SERVER remote OWNER TO regress_dbpool_owner;
SET ROLE regress_dbpool_owner;
SELECT query, calls FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database() AND user_name = 'public';
RESET ROLE;
GRANT pg_read_all_stats TO regress_dbpool_user;
SET ROLE regress_dbpool_user;
SELECT query, calls FROM dbpool_stat_statements WHERE pool = 'remote' AND database = current_database() AND user_name = 'public';
RESET ROLE;

-- a pool that only this transaction sees; one that is dropped
BEGIN;
SELECT dbpool_create_pool('fresh', :'remote_conninfo');
SELECT dbpool_exec('fresh', 'SELECT 1');
SELECT count(*) FROM dbpool_stat_statements WHERE pool = 'fresh' AND database = current_database();
COMMIT;
SELECT dbpool_exec('fresh', 'SELECT 1');
SELECT count(*) FROM dbpool_stat_statements WHERE pool = 'fresh' AND database = current_database();
SELECT dbpool_drop_pool('fresh');
SELECT regress_wait($$(SELECT count(*) = 0 FROM dbpool_stat_statements WHERE pool = 'fresh' AND database = current_database())$$);
SELECT statements > 0 AS statements, max_statements, evictions, stats_reset <= now() AS stats_reset FROM dbpool_stat_statements_info;
SELECT dbpool_stat_statements_reset('nosuch');
DROP VIEW seen;
ALTER SERVER remote OWNER TO CURRENT_USER;
DROP OWNED BY regress_dbpool_user, regress_dbpool_owner;
DROP ROLE regress_dbpool_user, regress_dbpool_owner;
