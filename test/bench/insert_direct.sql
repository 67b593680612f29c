-- W9: one row is written, asked of the remote itself.
\set aid random(1, :rows)
INSERT INTO events (aid, delta) VALUES (:aid, 1) RETURNING id;
