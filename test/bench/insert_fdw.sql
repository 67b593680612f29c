-- W9 by a foreign table. The one for writing leaves the column with the remote
-- default out, as postgres_fdw would send NULL for it.
\set aid random(1, :rows)
INSERT INTO events_fdw (aid, delta) VALUES (:aid, 1) RETURNING aid;
