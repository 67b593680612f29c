-- A folder of migrations, see README.md of this folder.

\set ON_ERROR_STOP on

SELECT * FROM dbpool_load_migrations('remote', :'directory');

-- Runs them all, and rolls back.
SELECT version, name, status FROM dbpool_migrate('remote', dry_run => true);

SELECT version, name, status FROM dbpool_migrate('remote');

SELECT version, name, status FROM dbpool_migration_status('remote');
