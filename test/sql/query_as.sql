--
-- dbpool_query_as: rows of the type of the first argument
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

CREATE TABLE regress_users (id int, name text, born date);
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', $$SELECT 1, 'Ada', date '1815-12-10'$$);
SELECT u.name FROM dbpool_query_as(NULL::regress_users, 'remote', 'SELECT i, ''n'' || i, NULL::date FROM generate_series(1, 3) i') u WHERE u.id > 1;
-- in a select list
SELECT dbpool_query_as(NULL::regress_users, 'remote', $$SELECT 1, 'Ada', date '1815-12-10'$$);
SELECT (dbpool_query_as(NULL::regress_users, 'remote', 'SELECT $1::int, $2, NULL', 5, 'five')).*;
-- with no rows
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', 'SELECT 1, 2, 3 WHERE false');
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', 'SET work_mem = ''1MB''');

-- into the table itself
INSERT INTO regress_users SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', 'SELECT i, i::text, date ''2000-01-01'' + i FROM generate_series(1, 3) i');
TABLE regress_users;

-- a dropped column is no column
ALTER TABLE regress_users DROP COLUMN name;
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', $$SELECT 1, date '1815-12-10'$$);
INSERT INTO regress_users SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', 'SELECT 4, date ''2000-01-05''') RETURNING *;
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', $$SELECT 1, 'Ada', date '1815-12-10'$$);
ALTER TABLE regress_users ADD COLUMN note text DEFAULT 'none';
SELECT * FROM dbpool_query_as(NULL::regress_users, 'remote', $$SELECT 1, date '1815-12-10', 'a'$$);
DROP TABLE regress_users;

-- scalars and arrays
SELECT * FROM dbpool_query_as(NULL::int, 'remote', 'SELECT generate_series(1, 3)');
SELECT dbpool_query_as(0::numeric, 'remote', 'SELECT 1.50');
SELECT dbpool_query_as('{}'::text[], 'remote', $$SELECT ARRAY['a', NULL, 'c,d']$$);
SELECT sum(n) FROM dbpool_query_as(NULL::bigint, 'remote', 'SELECT i FROM generate_series(1, 100) i') n;
SELECT dbpool_query_as(NULL::int, 'remote', 'SELECT 1, 2');
SELECT dbpool_query_as(NULL::int, 'remote', 'SELECT ''x''');

-- domains, over scalars and over composite types
CREATE DOMAIN regress_even AS int CHECK (VALUE % 2 = 0);
CREATE TYPE regress_pair AS (a int, b int);
CREATE DOMAIN regress_ordered AS regress_pair CHECK ((VALUE).a <= (VALUE).b);
SELECT dbpool_query_as(NULL::regress_even, 'remote', 'SELECT 2');
SELECT dbpool_query_as(NULL::regress_even, 'remote', 'SELECT 3');
SELECT * FROM dbpool_query_as(NULL::regress_ordered, 'remote', 'SELECT 1, 2');
SELECT dbpool_query_as(NULL::regress_ordered, 'remote', 'SELECT 1, 2');
SELECT * FROM dbpool_query_as(NULL::regress_ordered, 'remote', 'SELECT 2, 1');
DROP DOMAIN regress_even, regress_ordered;
DROP TYPE regress_pair;

-- the type has to be known
SELECT * FROM dbpool_query_as(NULL, 'remote', 'SELECT 1');
SELECT * FROM dbpool_query_as(NULL::record, 'remote', 'SELECT 1') AS t(a int);
