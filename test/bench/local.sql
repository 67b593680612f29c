-- The local database: the peers, as far as they are installed, and the rows
-- that W4 sends away. Variables: remote (a folder with a socket), wide_rows,
-- and for each peer whether it is there.

CREATE EXTENSION dbpool;

CREATE TABLE source (id int, v text);
INSERT INTO source
  SELECT id, rpad(id::text, 96, 'x') FROM generate_series(1, :wide_rows) AS id;
VACUUM ANALYZE source;

\if :has_dblink
CREATE EXTENSION dblink;
\endif

\if :has_postgres_fdw
CREATE EXTENSION postgres_fdw;
CREATE SERVER fdw FOREIGN DATA WRAPPER postgres_fdw
  OPTIONS (host :'remote', port '5432', dbname 'bench', fetch_size '10000', batch_size '1000');
CREATE USER MAPPING FOR CURRENT_USER SERVER fdw;
CREATE FOREIGN TABLE accounts_fdw (aid int, bid int, abalance int, filler char(84))
  SERVER fdw OPTIONS (table_name 'accounts');
CREATE FOREIGN TABLE wide_fdw (id int, v text) SERVER fdw OPTIONS (table_name 'wide');
CREATE FOREIGN TABLE bulk_fdw (id int, v text) SERVER fdw OPTIONS (table_name 'bulk');
CREATE FOREIGN TABLE events_fdw (aid int, delta int) SERVER fdw OPTIONS (table_name 'events');
\endif

\if :has_plproxy
CREATE EXTENSION plproxy;
SELECT format('host=%s port=5432 dbname=bench', :'remote') AS conn \gset
-- CONNECT takes a literal, which psql would not fill in within a body. Without a
-- SELECT, the remote function of the same name is called.
SELECT format($script$
CREATE FUNCTION read_plproxy(i_aid int) RETURNS int LANGUAGE plproxy AS
  $$ CONNECT %1$L; SELECT abalance FROM accounts WHERE aid = i_aid; $$;
CREATE FUNCTION large_plproxy(OUT id int, OUT v text) RETURNS SETOF record LANGUAGE plproxy AS
  $$ CONNECT %1$L; SELECT id, v FROM wide; $$;
CREATE FUNCTION insert_plproxy(i_aid int) RETURNS bigint LANGUAGE plproxy AS
  $$ CONNECT %1$L; $$;
$script$, :'conn') \gexec
\endif
