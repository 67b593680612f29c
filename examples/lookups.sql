-- A web application's lookups, see README.md of this folder.

\set ON_ERROR_STOP on

-- Where an order may come twice, the remote has to know it again.
SELECT dbpool_exec('remote', 'ALTER TABLE orders ADD COLUMN IF NOT EXISTS request uuid UNIQUE');

BEGIN;
CREATE SCHEMA shop;
CREATE TYPE shop.customer AS (id int, name text, created_at timestamptz);
CREATE TYPE shop.purchase AS (id int, user_id int, total numeric, state text);

-- One row, or none. The statement is always the same text, so that the remote
-- has it prepared, and calls of many sessions share a connection.
CREATE FUNCTION shop.customer(user_id int) RETURNS SETOF shop.customer
  LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
  SELECT * FROM dbpool_query_as(NULL::shop.customer, 'remote',
    'SELECT id, name, created_at FROM users WHERE id = $1', user_id)
$$;

-- Many users' orders in one round trip, not one for each.
CREATE FUNCTION shop.purchases(user_ids int[]) RETURNS SETOF shop.purchase
  LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
  SELECT * FROM dbpool_query_as(NULL::shop.purchase, 'remote',
    'SELECT id, user_id, total, state FROM orders WHERE user_id = ANY ($1) ORDER BY user_id, id',
    user_ids)
$$;

-- An order that is placed once: whoever gets an error calls again with the same
-- request. The ON CONFLICT makes the second call harmless.
CREATE FUNCTION shop.place_order(user_id int, total numeric, request uuid) RETURNS int
  LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
  SELECT dbpool_value(NULL::int, 'remote',
    'INSERT INTO orders (user_id, total, state, request) VALUES ($1, $2, ''new'', $3)
     ON CONFLICT (request) DO UPDATE SET request = excluded.request RETURNING id',
    user_id, total, request)
$$;

-- A page that can do without: NULL when the remote cannot be reached, or has no
-- connection to spare. Other errors stay errors.
CREATE FUNCTION shop.order_count(user_id int) RETURNS bigint
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
  RETURN dbpool_value(NULL::bigint, 'remote',
    'SELECT count(*) FROM orders WHERE user_id = $1', user_id);
EXCEPTION
  WHEN SQLSTATE '08000' OR SQLSTATE '08001' OR SQLSTATE '08006' OR SQLSTATE '53300' THEN
    RETURN NULL;
END
$$;

-- The application's role may call these, and has no right to the pool itself.
DO $$
BEGIN
  IF to_regrole('shop_web') IS NULL THEN
    CREATE ROLE shop_web;
  END IF;
END
$$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA shop FROM PUBLIC;
GRANT USAGE ON SCHEMA shop TO shop_web;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shop TO shop_web;
COMMIT;

SET ROLE shop_web;
SELECT name FROM shop.customer(42);
SELECT user_id, count(*), sum(total) FROM shop.purchases('{41,42}') GROUP BY user_id ORDER BY user_id;
SELECT shop.place_order(42, 12.50, '6d2f8a4e-36a5-4c3e-9c55-0d6f5a9b3f10')
     = shop.place_order(42, 12.50, '6d2f8a4e-36a5-4c3e-9c55-0d6f5a9b3f10') AS placed_once;
SELECT shop.order_count(42);
