--
-- Arguments that are null, empty or name no pool are told what would be right
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

-- no pool of that name: the hint lists those that one may use
SELECT dbpool_query('nonesuch', 'SELECT 1');
SELECT dbpool_query_json('nonesuch', 'SELECT 1');
SELECT dbpool_exec('nonesuch', 'SELECT 1');
SELECT dbpool_ping('nonesuch');
SELECT dbpool_pause('nonesuch');
SELECT dbpool_resume('nonesuch');
SELECT dbpool_reset('nonesuch');
SELECT dbpool_stat_reset('nonesuch');
SELECT dbpool_drop_pool('nonesuch');
SELECT * FROM dbpool_query('Remote', 'SELECT 1') AS t(a int);
-- a server of somebody else's is no pool
CREATE FOREIGN DATA WRAPPER regress_wrapper;
CREATE SERVER regress_other FOREIGN DATA WRAPPER regress_wrapper;
SELECT dbpool_query('regress_other', 'SELECT 1');
SELECT dbpool_drop_pool('regress_other');
DROP FOREIGN DATA WRAPPER regress_wrapper CASCADE;
-- who may use none is told that
CREATE ROLE regress_dbpool_nobody;
SET ROLE regress_dbpool_nobody;
SELECT dbpool_query('nonesuch', 'SELECT 1');
RESET ROLE;
DROP ROLE regress_dbpool_nobody;
-- no more than a handful are listed
DO $$ BEGIN FOR i IN 1..30 LOOP PERFORM dbpool_create_pool('p' || i, ''); END LOOP; END $$;
DO $$
DECLARE
  hint text;
BEGIN
  PERFORM dbpool_ping('nonesuch');
EXCEPTION WHEN undefined_object THEN
  GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
  RAISE NOTICE '% names%', (length(hint) - length(replace(hint, '"', ''))) / 2, substring(hint FROM ' and \d+ more\.$');
END $$;
SET client_min_messages = warning;
DO $$ BEGIN FOR i IN 1..30 LOOP PERFORM dbpool_drop_pool('p' || i); END LOOP; END $$;
RESET client_min_messages;

-- null and empty names
SELECT dbpool_query(NULL, 'SELECT 1');
SELECT dbpool_query('', 'SELECT 1');
SELECT dbpool_query_as(NULL::int, NULL, 'SELECT 1');
SELECT dbpool_query_json(NULL, 'SELECT 1');
SELECT dbpool_exec(NULL, 'SELECT 1');
SELECT dbpool_ping(NULL);
SELECT dbpool_ping('');
SELECT dbpool_pause(NULL);
SELECT dbpool_resume('');
SELECT dbpool_reset(NULL);
SELECT dbpool_stat_reset('');
SELECT dbpool_drop_pool(NULL);
SELECT dbpool_create_pool(NULL, '');
SELECT dbpool_create_pool('', '');
SELECT dbpool_create_pool('p', NULL);

-- null and empty statements
SELECT dbpool_query('remote', NULL);
SELECT dbpool_query('remote', '');
SELECT dbpool_query_as(NULL::int, 'remote', NULL);
SELECT dbpool_query_json('remote', '');
SELECT dbpool_exec('remote', NULL);
SELECT dbpool_exec('remote', '');
SELECT dbpool_exec('remote', NULL, 1);

-- a pool without a user mapping
CREATE ROLE "regress dbpool";
GRANT USAGE ON FOREIGN SERVER remote TO "regress dbpool";
SET ROLE "regress dbpool";
SELECT dbpool_query('remote', 'SELECT 1');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER remote FROM "regress dbpool";
DROP ROLE "regress dbpool";

-- a name that is too long is cut, as PostgreSQL does with all names
SELECT dbpool_ping(repeat('x', 100)::name);
SELECT dbpool_query('remote', 'SELECT ''it goes on''');
