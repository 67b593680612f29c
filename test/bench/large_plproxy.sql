-- W3 by a PL/Proxy function, which holds the whole result in memory.
SELECT count(id), count(v) FROM large_plproxy() AS t(id, v);
