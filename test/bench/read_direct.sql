-- W1: one row by primary key, asked of the remote itself.
\set aid random(1, :rows)
SELECT abalance FROM accounts WHERE aid = :aid;
