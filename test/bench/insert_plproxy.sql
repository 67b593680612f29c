-- W9 by a PL/Proxy function, which calls one of the remote that inserts.
\set aid random(1, :rows)
SELECT insert_plproxy(:aid);
