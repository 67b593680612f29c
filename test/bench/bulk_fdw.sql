-- W4: many rows into a remote table, by postgres_fdw with batch_size 1000.
INSERT INTO bulk_fdw SELECT id, v FROM source;
