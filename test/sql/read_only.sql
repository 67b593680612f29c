--
-- dbpool.inherit_read_only: a read-only local transaction, and what its calls may do
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- one connection, so that each call finds what the one before has left
ALTER SERVER remote OPTIONS (ADD max_size '1');
SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (a int)');
SELECT dbpool_exec('remote', $$
  CREATE FUNCTION regress.write() RETURNS int LANGUAGE sql AS 'INSERT INTO regress.t VALUES (0) RETURNING a';
  CREATE FUNCTION regress.write_anyway() RETURNS int LANGUAGE plpgsql AS
    'BEGIN PERFORM set_config(''transaction_read_only'', ''off'', true); INSERT INTO regress.t VALUES (0); RETURN 1; END';
  CREATE PROCEDURE regress.write_next() LANGUAGE plpgsql AS
    'BEGIN ROLLBACK; INSERT INTO regress.t VALUES (0); COMMIT; END';
$$);

-- off by default: the call is a transaction of its own
SHOW dbpool.inherit_read_only;
BEGIN READ ONLY;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1)');
COMMIT;

SET dbpool.inherit_read_only = on;
-- a transaction that may write
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 2);

BEGIN READ ONLY;
SELECT * FROM dbpool_query('remote', 'SELECT a FROM regress.t ORDER BY a') AS t(a int);
SELECT * FROM dbpool_query('remote', 'SHOW transaction_read_only') AS t(a text);
SELECT dbpool_query_json('remote', 'SELECT count(*) FROM regress.t WHERE a < $1', 10);
SELECT dbpool_value(NULL::bigint, 'remote', 'SELECT count(*) FROM regress.t');
SELECT dbpool_exec('remote', 'SELECT 1; SELECT 2');
SAVEPOINT s;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (3)');
ROLLBACK TO s;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 3);
ROLLBACK TO s;
SELECT * FROM dbpool_query('remote', 'INSERT INTO regress.t VALUES (3) RETURNING a') AS t(a int);
ROLLBACK TO s;
SELECT * FROM dbpool_query_as(NULL::int, 'remote', 'SELECT regress.write()');
ROLLBACK TO s;
SELECT dbpool_query_json('remote', 'DELETE FROM regress.t RETURNING a');
ROLLBACK TO s;
SELECT dbpool_value(NULL::int, 'remote', 'UPDATE regress.t SET a = 9 RETURNING a');
ROLLBACK TO s;
SELECT dbpool_value(NULL::int, 'remote', 'SELECT regress.write_anyway()');
ROLLBACK TO s;
-- also the later transactions of a script
SELECT dbpool_exec('remote', 'BEGIN; SELECT 1; COMMIT; INSERT INTO regress.t VALUES (4)');
ROLLBACK TO s;
SELECT dbpool_exec('remote', 'SELECT 1; ROLLBACK; INSERT INTO regress.t VALUES (4)');
ROLLBACK TO s;
SELECT dbpool_exec('remote', 'CALL regress.write_next()');
ROLLBACK TO s;
SELECT dbpool_exec('remote', 'CREATE TABLE regress.u ()');
ROLLBACK TO s;
SELECT dbpool_exec('remote', 'COPY regress.t FROM STDIN');
ROLLBACK TO s;
-- what must write is refused here
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT 5');
ROLLBACK TO s;
SELECT count(*) FROM dbpool_migrate('remote');
ROLLBACK TO s;
SELECT dbpool_ping('remote') IS NOT NULL AS ping;
-- statements that leave something are reset as always
SELECT dbpool_exec('remote', 'SET work_mem = ''1MB''; DECLARE c CURSOR WITH HOLD FOR SELECT 1; LISTEN x');
SELECT dbpool_value(NULL::text, 'remote', 'SHOW work_mem') <> '1MB' AS reset;
COMMIT;

-- the connection is as before
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 6);
SELECT dbpool_value(NULL::text, 'remote', 'SHOW default_transaction_read_only');
SELECT connects FROM dbpool_stat_pools WHERE pool = 'remote';

-- it is the local transaction as it is that counts
SET default_transaction_read_only = on;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (7)');
RESET default_transaction_read_only;
BEGIN;
SET TRANSACTION READ ONLY;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (7)');
ROLLBACK;

-- texts that are known, prepared and shared otherwise
DO $$
BEGIN
  FOR i IN 1 .. 10 LOOP
    PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 8);
  END LOOP;
END $$;
BEGIN READ ONLY;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 8);
ROLLBACK;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1)', 8);

-- a remote whose transactions are read-only by default stays so; and no reset is no excuse
ALTER SERVER remote OPTIONS (ADD reset 'never', ADD options '-c default_transaction_read_only=on');
BEGIN READ ONLY;
SELECT dbpool_value(NULL::text, 'remote', 'SHOW transaction_read_only');
COMMIT;
SELECT dbpool_value(NULL::text, 'remote', 'SHOW transaction_read_only');
ALTER SERVER remote OPTIONS (SET options '-c default_transaction_read_only=off');
BEGIN READ ONLY;
SELECT dbpool_value(NULL::text, 'remote', 'SHOW transaction_read_only');
COMMIT;
SELECT dbpool_value(NULL::text, 'remote', 'SHOW transaction_read_only');
SELECT a, count(*) FROM dbpool_query('remote', 'SELECT a FROM regress.t') AS t(a int) GROUP BY a ORDER BY a;
