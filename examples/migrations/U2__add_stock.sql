ALTER TABLE products DROP stock;
