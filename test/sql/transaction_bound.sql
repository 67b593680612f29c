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
