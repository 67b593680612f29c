--
-- Both ends may have different encodings
--
\getenv dir PG_ABS_SRCDIR
\set setup :dir /sql/include/setup.sql
\i :setup

SET client_min_messages = warning;
SELECT dbpool_exec('remote', 'DROP DATABASE IF EXISTS regress_latin1');
RESET client_min_messages;
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_latin1 ENCODING ''LATIN1'' TEMPLATE template0 LC_COLLATE ''C'' LC_CTYPE ''C''');
SELECT dbpool_create_pool('latin1', :'remote_conninfo');
ALTER SERVER latin1 OPTIONS (SET dbname 'regress_latin1');
SELECT * FROM dbpool_query('latin1', $$SELECT current_setting('server_encoding'), current_setting('client_encoding')$$) AS t(server text, client text);

-- statements, parameters, results and column names
SELECT dbpool_exec('latin1', 'CREATE TABLE "Straße" (größe text PRIMARY KEY)');
SELECT dbpool_exec('latin1', 'INSERT INTO "Straße" VALUES (''äöü''), ($1)', 'ñ');
SELECT * FROM dbpool_query('latin1', 'SELECT größe, octet_length(größe), length(größe) FROM "Straße"') AS t(v text, octets int, chars int);
SELECT dbpool_query_json('latin1', 'SELECT * FROM "Straße" WHERE größe = $1', 'ñ');
SELECT dbpool_query('latin1', 'SELECT chr(233) || convert_from(''\xff''::bytea, ''LATIN1'')');

-- errors and notices
SELECT dbpool_exec('latin1', 'INSERT INTO "Straße" VALUES (''äöü'')');
SELECT dbpool_exec('latin1', 'DROP TABLE IF EXISTS "Gäßchen"');
SELECT dbpool_query('latin1', 'SELECT "ö", nix FROM "Straße"');

-- what LATIN1 has no character for
SELECT dbpool_query('latin1', 'SELECT ''€''');
SELECT dbpool_query('latin1', 'SELECT $1', '日本');
SELECT dbpool_query('latin1', 'SELECT ''es geht weiter: ä''');

-- the views show it
SELECT query FROM dbpool_connections WHERE pool = 'latin1';

-- the other way round: a local database in LATIN1
CREATE DATABASE regress_local_latin1 ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';
\set local :DBNAME
\c regress_local_latin1
SET client_encoding = 'UTF8';
SET client_min_messages = warning;
CREATE EXTENSION dbpool;
SELECT dbpool_create_pool('remote', :'remote_conninfo');
SELECT * FROM dbpool_query('remote', $$SELECT 'äöü', current_setting('client_encoding')$$) AS t(v text, client text);
SELECT octet_length(v) FROM dbpool_query('remote', $$SELECT 'äöü'$$) AS t(v text);
SELECT dbpool_query('remote', 'SELECT $1, octet_length($1)', 'äöü');
SELECT dbpool_query('remote', 'SELECT U&''\20AC''');
SELECT dbpool_query('remote', 'SELECT ''es geht weiter: ä''');
-- one in UTF8 that is looked at from here does no harm
SELECT query FROM dbpool_connections WHERE pool = 'latin1';

-- each sees what the other does, as far as it has the characters
SELECT format('host=%s port=%s dbname=', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')) AS here \gset
\set conninfo :here :local
SET client_min_messages = warning;
SELECT dbpool_create_pool('größe', :'conninfo');
SELECT dbpool_create_pool('fehler', 'host=/nirgends/größe', '{"acquire_timeout": "100ms"}');
RESET client_min_messages;
SELECT * FROM dbpool_query('größe', 'SELECT pool, query FROM dbpool_requests /* größe */') AS t(pool name, query text);
SELECT * FROM dbpool_query('größe', $$SELECT pool, query FROM dbpool_connections WHERE pool LIKE 'g%' /* größe */$$) AS t(pool name, query text);
\set VERBOSITY sqlstate
SELECT dbpool_ping('fehler');
\set VERBOSITY default
SELECT * FROM dbpool_query('größe', $$SELECT pool, substring(connect_error FROM '/nirgends/[^/]+/') FROM dbpool_pools WHERE pool = 'fehler'$$) AS t(pool name, last_error text);
\c :local
\set conninfo :here regress_local_latin1
SET client_min_messages = warning;
SELECT dbpool_create_pool('größe €', :'conninfo');
RESET client_min_messages;
SELECT * FROM dbpool_query('größe €', 'SELECT pool, query FROM dbpool_requests /* größe */') AS t(pool name, query text);
SELECT dbpool_exec('größe €', 'CREATE TABLE "größe" (pool name, target text)');
SELECT dbpool_exec('größe €', 'CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SELECT g.pool, g.target INTO new FROM dbpool_progress_bulk_insert g; RETURN new; END $$');
SELECT dbpool_exec('größe €', 'CREATE TRIGGER look BEFORE INSERT ON "größe" FOR EACH ROW EXECUTE FUNCTION look()');
SELECT dbpool_bulk_insert('größe €', '"größe"', 'SELECT 1, 2');
SELECT dbpool_exec('größe €', 'DROP TRIGGER look ON "größe"; CREATE SCHEMA regress');
ALTER SERVER "größe €" OPTIONS (ADD options '-c search_path=regress,public');
SELECT dbpool_add_migration('größe €', 1, 'größe', 'INSERT INTO "größe" SELECT pool, name FROM dbpool_progress_migrate');
SET client_min_messages = warning;
SELECT status FROM dbpool_migrate('größe €');
RESET client_min_messages;
SELECT * FROM dbpool_query('größe €', 'SELECT * FROM "größe"') AS t(pool name, target text);
SELECT dbpool_drop_pool('größe €');

-- what is cut is not cut within a character
SELECT dbpool_query('latin1', 'SELECT ''' || repeat('ä', 700) || '''') IS NOT NULL AS answered;
SELECT octet_length(query), query ~ '^SELECT .ä*$' AS whole FROM dbpool_connections WHERE pool = 'latin1';

SELECT octet_length(k), k ~ '^a?ä*$' AS whole FROM (SELECT jsonb_object_keys(dbpool_query_json('latin1', format('SELECT 1 AS "%s", 2 AS "a%s"', repeat('ä', 40), repeat('ä', 40)))) AS k) n;

-- SQL_ASCII passes bytes
DROP DATABASE regress_local_latin1;
SET client_min_messages = warning;
SELECT dbpool_exec('remote', 'DROP DATABASE IF EXISTS regress_ascii');
SELECT dbpool_exec('remote', 'CREATE DATABASE regress_ascii ENCODING ''SQL_ASCII'' TEMPLATE template0 LC_COLLATE ''C'' LC_CTYPE ''C''');
SELECT dbpool_create_pool('ascii', :'remote_conninfo');
ALTER SERVER ascii OPTIONS (SET dbname 'regress_ascii');
SELECT dbpool_query('ascii', 'SELECT ''äöü'', octet_length($1)', 'ä');
SELECT dbpool_exec('ascii', 'CREATE TABLE t (v text); INSERT INTO t VALUES (E''\xe4\xf6'')');
-- bytes that are no UTF8 are an error, and no harm
SELECT * FROM dbpool_query('ascii', 'TABLE t') AS t(v text);
SELECT dbpool_query('ascii', 'TABLE t');
SELECT dbpool_query('ascii', 'SELECT v::int FROM t');
SELECT dbpool_query('ascii', 'SELECT ''it goes on''');

SELECT dbpool_drop_pool('latin1');
SELECT dbpool_drop_pool('ascii');
SELECT dbpool_exec('remote', 'DROP DATABASE regress_latin1 WITH (FORCE)');
SELECT dbpool_exec('remote', 'DROP DATABASE regress_ascii WITH (FORCE)');
