-- no-transaction
DROP INDEX CONCURRENTLY products_name;
