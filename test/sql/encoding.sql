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

-- SQL_ASCII passes bytes
\c :local
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
