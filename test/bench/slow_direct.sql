-- W5: a read that takes 50 ms.
\set aid random(1, :rows)
SELECT abalance FROM accounts, pg_sleep(0.05) WHERE aid = :aid;
