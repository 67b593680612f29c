\set ECHO none
-- What every test begins with: the extension, and a fresh pool "remote" whose
-- address comes from the environment. "remote_conninfo" is that address.
\getenv remote_host DBPOOL_REMOTE_HOST
\getenv remote_port DBPOOL_REMOTE_PORT
\set remote_conninfo 'host=' :remote_host ' port=' :remote_port ' dbname=remote'
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS dbpool;
DROP SERVER IF EXISTS remote CASCADE;
SELECT dbpool_create_pool('remote', :'remote_conninfo') \g /dev/null
SELECT dbpool_exec('remote', 'DROP SCHEMA IF EXISTS regress CASCADE; CREATE SCHEMA regress') \g /dev/null
RESET client_min_messages;
\set ECHO all
