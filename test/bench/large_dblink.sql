-- W3: one result of many rows. dblink reads them row by row into a tuplestore.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
SELECT count(id), count(v) FROM dblink('c', 'SELECT id, v FROM wide, generate_series(1, ' || :times || ')') AS t(id int, v text);
