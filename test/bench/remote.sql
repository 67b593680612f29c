-- The remote database's tables. Variables: rows of accounts, wide_rows of wide.

-- W1: as wide as pgbench's own accounts, so a page has some sixty rows.
CREATE TABLE accounts (aid int, bid int, abalance int, filler char(84));
INSERT INTO accounts
  SELECT aid, 1 + aid % 10, aid % 1000, '' FROM generate_series(1, :rows) AS aid;
ALTER TABLE accounts ADD PRIMARY KEY (aid);

-- W3: 100 bytes of data a row.
CREATE TABLE wide (id int, v text);
INSERT INTO wide
  SELECT id, rpad(id::text, 96, 'x') FROM generate_series(1, :wide_rows) AS id;

-- W4: where rows are written to.
CREATE TABLE bulk (id int, v text);

-- W9: a row of an audit trail, say.
CREATE TABLE events (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  aid int, delta int, at timestamptz DEFAULT now());

-- The same for PL/Proxy, which takes no statements but SELECT.
CREATE FUNCTION insert_plproxy(i_aid int) RETURNS bigint LANGUAGE sql AS
  $$ INSERT INTO events (aid, delta) VALUES (i_aid, 1) RETURNING id; $$;

VACUUM ANALYZE;
CHECKPOINT;
