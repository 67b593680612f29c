-- W3 by a foreign table with fetch_size 10000. OFFSET 0 is a fence, else the
-- remote would count; and it would not send columns that nobody asks for.
SELECT count(id), count(v) FROM (SELECT id, v FROM wide_fdw OFFSET 0) AS t;
