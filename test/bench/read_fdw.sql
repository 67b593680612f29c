-- W1 by a foreign table. postgres_fdw keeps a connection per session, and
-- wraps each local transaction into a remote one.
\set aid random(1, :rows)
SELECT abalance FROM accounts_fdw WHERE aid = :aid;
