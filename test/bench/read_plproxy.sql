-- W1 by a PL/Proxy function, which keeps a connection per session.
\set aid random(1, :rows)
SELECT read_plproxy(:aid);
