-- W9 by dblink with a connection that the session keeps.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
\set aid random(1, :rows)
SELECT * FROM dblink('c', 'INSERT INTO events (aid, delta) VALUES (' || :aid || ', 1) RETURNING id') AS t(id bigint);
