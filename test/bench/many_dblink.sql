-- W10 by dblink with a connection that the session keeps, a call for each row.
\if :connected = 0
SELECT dblink_connect('c', :conn);
\set connected 1
\endif
DO $$ BEGIN FOR i IN 1..1000 LOOP PERFORM dblink_exec('c', 'INSERT INTO events (aid, delta) VALUES (' || i || ', 1)'); END LOOP; END $$;
