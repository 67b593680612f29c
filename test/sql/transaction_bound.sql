--
-- Bound transactions: calls on a pool are one transaction, which ends with the local one
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (id int PRIMARY KEY, n int)');
CREATE VIEW seen AS SELECT * FROM dbpool_value(NULL::text, 'other', 'SELECT string_agg(id::text, '','' ORDER BY id) FROM regress.t') AS seen;
SELECT dbpool_create_pool('other', :'remote_conninfo');
SET dbpool.transaction = bound;
ALTER SERVER other OPTIONS (ADD max_size '2');

-- they see their own writes, others see nothing before the end
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1, 1)');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1, 1)', 2);
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.t');
SET LOCAL dbpool.transaction = server;
SELECT * FROM seen;
COMMIT;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);

-- a call by itself is a transaction, as its local one is
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (3, 1)');
SELECT seen FROM seen;

-- rolled back with the local one, by hand and by an error
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (4, 1)');
ROLLBACK;
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (5, 1)');
SELECT 1 / 0;
COMMIT;
-- an error there is one here
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (6, 1)');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1, 1)');
COMMIT;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);

-- savepoints
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (10, 1)');
SAVEPOINT a;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (11, 1)');
SAVEPOINT b;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (12, 1)');
ROLLBACK TO b;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (13, 1)');
RELEASE a;
SAVEPOINT c;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (14, 1)');
ROLLBACK TO c;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);
COMMIT;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);

-- what is rolled back last is so at the end, too
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (15, 1)');
SAVEPOINT a;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (16, 1)');
SAVEPOINT b;
SAVEPOINT c;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (17, 1)');
ROLLBACK TO a;
COMMIT;
BEGIN;
SAVEPOINT a;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (18, 1)');
SAVEPOINT b;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (19, 1)');
RELEASE a;
COMMIT;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);
SELECT dbpool_exec('remote', 'TRUNCATE regress.t');

-- EXCEPTION blocks, nested, a thousand of them
DO $$
BEGIN
  FOR i IN 1 .. 1000 LOOP
    BEGIN
      PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1, 0)', i);
      BEGIN
        PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES ($1, 0)', 10000 + i);
        IF i % 2 = 0 THEN RAISE EXCEPTION 'inner'; END IF;
      EXCEPTION WHEN raise_exception THEN NULL;
      END;
      IF i % 3 = 0 THEN PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1, 0)'); END IF;
    EXCEPTION WHEN unique_violation THEN NULL;
    END;
  END LOOP;
END $$;
SELECT * FROM dbpool_query('remote', $$
  SELECT count(*) FILTER (WHERE id < 10000), count(*) FILTER (WHERE id > 10000),
    sum(id) FILTER (WHERE id < 10000) = (SELECT sum(i) FROM generate_series(1, 1000) i WHERE i % 3 <> 0),
    sum(id - 10000) FILTER (WHERE id > 10000) = (SELECT sum(i) FROM generate_series(1, 1000) i WHERE i % 3 <> 0 AND i % 2 = 1)
  FROM regress.t $$) AS t(outside bigint, inside bigint, right_ones boolean, right_inner_ones boolean);
SELECT dbpool_exec('remote', 'TRUNCATE regress.t');

-- a procedure with transactions of its own
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (1, 0)');
  COMMIT;
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (2, 0)');
  ROLLBACK;
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (3, 0)');
END $$;
CALL fill();
DROP PROCEDURE fill();
-- a cursor that is held over the end
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT id FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (4, 0)');
COMMIT;
FETCH ALL FROM held;
CLOSE held;

-- isolation and access mode are the local one's
\set modes 'SELECT current_setting(''transaction_isolation''), current_setting(''transaction_read_only''), current_setting(''transaction_deferrable'')'
SELECT * FROM dbpool_query('remote', :'modes') AS t(isolation text, read_only text, is_deferrable text);
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM dbpool_query('remote', :'modes') AS t(isolation text, read_only text, is_deferrable text);
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE;
SELECT * FROM dbpool_query('remote', :'modes') AS t(isolation text, read_only text, is_deferrable text);
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (9, 0)');
ROLLBACK;
ALTER SERVER remote OPTIONS (ADD isolation 'repeatable read');
SELECT * FROM dbpool_query('remote', :'modes') AS t(isolation text, read_only text, is_deferrable text);
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT * FROM dbpool_query('remote', :'modes') AS t(isolation text, read_only text, is_deferrable text);
COMMIT;
ALTER SERVER remote OPTIONS (DROP isolation);
ALTER SERVER remote OPTIONS (ADD isolation 'chaos');

-- what the remote finds out at the commit lets the local one fail as well
SELECT dbpool_exec('remote', 'CREATE TABLE regress.late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
CREATE TABLE here (id int);
BEGIN;
INSERT INTO here VALUES (1);
SELECT dbpool_exec('remote', 'INSERT INTO regress.late VALUES (1), (1)');
COMMIT;
SELECT count(*) FROM here;
DROP TABLE here;

-- what is kept in the session is there until the end, and then no more
BEGIN;
SELECT dbpool_exec('remote', 'CREATE TEMP TABLE mine AS SELECT 42 AS n');
SELECT dbpool_exec('remote', 'SET LOCAL search_path = pg_temp');
SELECT dbpool_query('remote', 'SELECT n FROM mine');
SELECT dbpool_exec('remote', 'DECLARE c CURSOR FOR SELECT generate_series(1, 3)');
SELECT dbpool_query('remote', 'FETCH 2 FROM c');
SELECT dbpool_query('remote', 'SELECT pg_try_advisory_lock(7)');
COMMIT;
SELECT dbpool_query('remote', 'SELECT to_regclass(''mine'') IS NULL');
SELECT dbpool_query('remote', 'SELECT count(*) FROM pg_locks WHERE locktype = ''advisory''');

-- inserts in bulk, and what they are asked for
BEGIN;
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT i, 1 FROM generate_series(101, 200) i');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.t WHERE id > 100');
ROLLBACK;
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.t WHERE id > 100');
-- a call within a call of the same transaction
SELECT dbpool_bulk_insert('remote', 'regress.t', $$SELECT id + 100, n FROM dbpool_query('remote', 'SELECT id, n FROM regress.t') AS t(id int, n int)$$);

-- a statement must not end it
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (20, 0); COMMIT');
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (21, 0)');
SAVEPOINT a;
SELECT dbpool_exec('remote', 'ROLLBACK');
ROLLBACK TO a;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (22, 0)');
ROLLBACK TO a;
COMMIT;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t ORDER BY id') AS t(id int);

-- nor put another one in its place
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (23, 0)');
SELECT dbpool_exec('remote', 'ROLLBACK; BEGIN; INSERT INTO regress.t VALUES (24, 0)');
COMMIT;
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (25, 0)');
SAVEPOINT a;
SELECT dbpool_exec('remote', 'START TRANSACTION ISOLATION LEVEL SERIALIZABLE');
ROLLBACK TO a;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (26, 0)');
COMMIT;
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (27, 0)');
SELECT dbpool_exec('remote', 'COMMIT AND CHAIN');
ROLLBACK;
-- also where its tag is that of another statement
SELECT dbpool_exec('remote', 'CREATE PROCEDURE regress.commits() LANGUAGE plpgsql AS $$ BEGIN COMMIT; END $$');
CREATE FUNCTION regress_stray(sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (28, 0) ON CONFLICT DO NOTHING');
  BEGIN
    PERFORM dbpool_exec('remote', sql);
    RETURN 'it ran';
  EXCEPTION WHEN OTHERS THEN
    RAISE NOTICE '%: %', SQLSTATE, SQLERRM;
    RETURN 'caught';
  END;
END $$;
SELECT regress_stray('ROLLBACK AND CHAIN');
SELECT regress_stray('rollback work and chain');
SELECT regress_stray('SAVEPOINT chain; ABORT/* a /* b */ */TRANSACTION -- c' || E'\n' || 'and chain; INSERT INTO regress.t VALUES (29, 0)');
SELECT regress_stray('ROLLBACK AND NO CHAIN');
SELECT regress_stray('ABORT; BEGIN');
SELECT regress_stray('END AND CHAIN; ROLLBACK AND CHAIN');
SELECT regress_stray('CALL regress.commits()');
SELECT regress_stray('DO $x$ BEGIN ROLLBACK; END $x$');
BEGIN;
SELECT dbpool_exec('remote', 'SAVEPOINT chain; SAVEPOINT b; ROLLBACK TO b; ROLLBACK TO chain; SELECT 1 AS and_chain; RELEASE chain');
SELECT dbpool_begin('remote', 'chained');
SELECT dbpool_savepoint('chained', 'chain');
SELECT dbpool_rollback_to('chained', 'chain');
SELECT dbpool_query('chained', 'ROLLBACK AND CHAIN');
COMMIT;
SELECT dbpool_rollback('chained');
DROP FUNCTION regress_stray;
-- savepoints of a call do not get in the way of those of subtransactions
DO $$
BEGIN
  PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (29, 0)');
  BEGIN
    PERFORM dbpool_exec('remote', 'INSERT INTO regress.t VALUES (30, 0)');
    PERFORM dbpool_exec('remote', 'SAVEPOINT dbpool_2; INSERT INTO regress.t VALUES (31, 0); SAVEPOINT dbpool_3');
    RAISE division_by_zero;
  EXCEPTION WHEN division_by_zero THEN NULL;
  END;
END $$;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t WHERE id >= 20 ORDER BY id') AS t(id int);

-- a call within a call steers no transaction that has a statement under way
SELECT dbpool_begin('remote', 'tx');
CREATE FUNCTION steer(what text) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE what;
  RETURN 40;
EXCEPTION WHEN object_in_use THEN
  RAISE NOTICE 'caught: %', SQLERRM;
  RETURN 41;
END $$;
SELECT dbpool_bulk_insert('tx', 'regress.t', $$SELECT steer(q) + 10 * n, 0 FROM (VALUES (1, 'SELECT dbpool_savepoint(''tx'', ''a'')'),
  (2, 'SELECT dbpool_exec(''tx'', ''SELECT 1'')'), (3, 'SELECT dbpool_commit(''tx'')'), (4, 'SELECT dbpool_rollback(''tx'')')) AS q(n, q)$$);
SELECT dbpool_query('tx', 'SELECT string_agg(id::text, '','' ORDER BY id) FROM regress.t WHERE id > 40');
SELECT dbpool_rollback('tx');
DROP FUNCTION steer(text);

-- a first call that is refused before it comes to the worker leaves nothing behind
CREATE ROLE regress_dbpool_bound;
GRANT USAGE ON FOREIGN SERVER remote, other TO regress_dbpool_bound;
CREATE USER MAPPING FOR PUBLIC SERVER remote OPTIONS (user :'USER', password_required 'false');
CREATE USER MAPPING FOR PUBLIC SERVER other OPTIONS (user :'USER', password_required 'false');
CREATE FUNCTION try_other() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  RETURN dbpool_exec('other', 'INSERT INTO regress.t VALUES (81, 0)');
EXCEPTION WHEN configuration_limit_exceeded THEN
  RAISE NOTICE 'caught: %', SQLERRM;
  RETURN 82;
END $$;
SET dbpool.session_max_requests = 1;
SET ROLE regress_dbpool_bound;
BEGIN;
SELECT dbpool_bulk_insert('remote', 'regress.t', 'SELECT try_other(), 0');
SELECT dbpool_exec('other', 'INSERT INTO regress.t VALUES (83, 0)');
COMMIT;
SELECT dbpool_query('remote', 'SELECT string_agg(id::text, '','' ORDER BY id) FROM regress.t WHERE id > 80');
RESET ROLE;
RESET dbpool.session_max_requests;
DROP FUNCTION try_other();

-- where all have one user mapping, roles have transactions of their own still
BEGIN;
SELECT dbpool_exec('remote', 'CREATE TEMP TABLE t (id int, n int); INSERT INTO t VALUES (1, 1)');
SET LOCAL ROLE regress_dbpool_bound;
SELECT dbpool_query('remote', 'SELECT to_regclass(''t'') IS NULL');
RESET ROLE;
SELECT dbpool_query('remote', 'SELECT id FROM t');
SELECT count(*), count(DISTINCT usename), count(DISTINCT remote_pid) FROM dbpool_transactions;
ROLLBACK;
DROP OWNED BY regress_dbpool_bound;
DROP USER MAPPING FOR PUBLIC SERVER remote;
DROP USER MAPPING FOR PUBLIC SERVER other;
DROP ROLE regress_dbpool_bound;

-- where the remote makes a role's transactions read-only, they are
SELECT dbpool_create_pool('reader', :'remote_conninfo' || ' options=''-c default_transaction_read_only=on''');
SELECT dbpool_query('reader', 'SHOW transaction_read_only');
SELECT dbpool_begin('reader', 'tx');
SELECT dbpool_query('tx', 'SHOW transaction_read_only');
SELECT dbpool_rollback('tx');
SELECT dbpool_begin('reader', 'tx', read_only => false);
SELECT dbpool_query('tx', 'SHOW transaction_read_only');
SELECT dbpool_rollback('tx');

-- what sequences gave to others is not to be seen, nor is it put away what they gave within
SELECT dbpool_create_pool('single', :'remote_conninfo', '{"max_size": 1}');
SELECT dbpool_exec('single', 'CREATE SEQUENCE regress.s START 5');
SELECT dbpool_query('single', 'SELECT nextval(''regress.s'')');
BEGIN;
SELECT dbpool_query('single', 'SELECT 1');
SELECT dbpool_query('single', 'SELECT lastval()');
ROLLBACK;
BEGIN;
SELECT dbpool_query('single', 'SELECT nextval(''regress.s'')');
SELECT dbpool_query('single', 'SELECT lastval()');
COMMIT;
SELECT dbpool_begin('single', 'tx');
SELECT dbpool_query('tx', 'SELECT lastval()');
SELECT dbpool_rollback('tx');

-- a transaction of the local kind cannot be prepared
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (30, 0)');
PREPARE TRANSACTION 'no';
-- two pools are two transactions, that end together
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (31, 0)');
SELECT dbpool_exec('other', 'INSERT INTO regress.t VALUES (32, 0)');
COMMIT;
BEGIN;
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (33, 0)');
SELECT dbpool_exec('other', 'INSERT INTO regress.late VALUES (1), (1)');
ROLLBACK;
SELECT * FROM dbpool_query('remote', 'SELECT id FROM regress.t WHERE id >= 30 ORDER BY id') AS t(id int);

-- nothing is left of them
SELECT regress_wait($$(SELECT sum(busy + cancelling + resetting + leased) FROM dbpool_pools) = 0$$);
DROP VIEW seen;
RESET dbpool.transaction;
SET dbpool.transaction = never;
