--
-- dbpool_exec: rows affected; several statements in one string are one transaction
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SELECT dbpool_exec('remote', 'CREATE TABLE regress.t (id int PRIMARY KEY, n int)');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t SELECT i, 0 FROM generate_series(1, 10) i');
SELECT dbpool_exec('remote', 'UPDATE regress.t SET n = n + 1 WHERE id <= 3');
SELECT dbpool_exec('remote', 'DELETE FROM regress.t WHERE id > $1', 8);
SELECT dbpool_exec('remote', 'SELECT * FROM regress.t');
SELECT dbpool_exec('remote', 'INSERT INTO regress.t VALUES (100, 1) RETURNING id');
SELECT dbpool_exec('remote', '-- nothing');
SELECT dbpool_exec('remote', ';');

-- a script: the counts are added up
SELECT dbpool_exec('remote', $$
  INSERT INTO regress.t VALUES (11, 0), (12, 0);
  UPDATE regress.t SET n = 5 WHERE id IN (11, 12);
  CREATE TABLE regress.u (a int);  -- a comment; with a semicolon
  INSERT INTO regress.u SELECT generate_series(1, 10);
$$);
-- all or nothing
SELECT dbpool_exec('remote', 'INSERT INTO regress.u VALUES (0); INSERT INTO regress.t VALUES (11, 0); INSERT INTO regress.u VALUES (0)');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');
-- unless it has transactions of its own
SELECT dbpool_exec('remote', 'BEGIN; INSERT INTO regress.u VALUES (0); COMMIT; INSERT INTO regress.t VALUES (11, 0)');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');
SELECT dbpool_exec('remote', 'BEGIN; INSERT INTO regress.u VALUES (0); ROLLBACK');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');

-- but none may be left open
SELECT dbpool_exec('remote', 'BEGIN; INSERT INTO regress.u VALUES (0)');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');
SELECT dbpool_exec('remote', 'BEGIN; SELECT 1/0');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');

-- with parameters only one
SELECT dbpool_exec('remote', 'SELECT $1; SELECT 2', 1);

-- what cannot run in a transaction
SELECT dbpool_exec('remote', 'CREATE INDEX CONCURRENTLY u_a ON regress.u (a)');
SELECT dbpool_exec('remote', 'VACUUM regress.u');
SELECT dbpool_exec('remote', 'SELECT 1; VACUUM regress.u');

-- COPY data does not pass; the remote's own programs and files are its affair
SELECT dbpool_exec('remote', 'COPY regress.u TO STDOUT');
SELECT dbpool_exec('remote', 'COPY regress.u FROM STDIN');
SELECT dbpool_exec('remote', 'SELECT 1; COPY regress.u TO STDOUT; SELECT 2');
SELECT dbpool_exec('remote', 'INSERT INTO regress.u VALUES (0); COPY regress.u FROM STDIN; INSERT INTO regress.u VALUES (0)');
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u');
SELECT dbpool_exec('remote', 'COPY regress.u TO PROGRAM ''cat >/dev/null''');

-- notices of all statements
SELECT dbpool_exec('remote', 'DROP TABLE IF EXISTS regress.none; DROP TABLE IF EXISTS regress.nothing');

-- many statements in one string
SELECT dbpool_exec('remote', (SELECT string_agg(format('INSERT INTO regress.u VALUES (%s)', i), ';') FROM generate_series(1, 2000) i));

-- the local transaction has no say
BEGIN;
SELECT dbpool_exec('remote', 'DELETE FROM regress.u WHERE a > 10');
ROLLBACK;
SELECT dbpool_query('remote', 'SELECT count(*) FROM regress.u WHERE a > 10');

-- a round trip
SELECT dbpool_ping('remote') BETWEEN '0' AND '10s' AS pong;
SELECT dbpool_ping('remote') > '0' AS took_time;
