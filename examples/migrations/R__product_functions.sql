-- Runs again whenever this text has changed. PL/pgSQL looks for tables and columns
-- when it is called, so the way back of a version does not stumble over it.
CREATE OR REPLACE FUNCTION in_stock(product_id int) RETURNS boolean
  LANGUAGE plpgsql STABLE
AS $$
BEGIN
  RETURN (SELECT stock > 0 FROM products WHERE id = product_id);
END
$$;
