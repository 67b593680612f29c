-- W4 by a pool.
SELECT dbpool_bulk_insert('remote', 'bulk', 'SELECT id, v FROM source');
