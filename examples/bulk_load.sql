-- A bulk load, see README.md of this folder.

\set ON_ERROR_STOP on

SELECT dbpool_exec('remote', $$
  CREATE TABLE sensor_readings (sensor int, at timestamptz, value float8, PRIMARY KEY (sensor, at));
  CREATE UNLOGGED TABLE sensor_readings_arriving (LIKE sensor_readings);
$$);

-- Here rows gather.
CREATE TABLE readings (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sensor int NOT NULL, at timestamptz NOT NULL, value float8);

-- Moves what is there to the remote. The rows that are sent are those that are
-- deleted here, whatever else comes in meanwhile. If it fails, they are still
-- here, and those that have arrived already are left out the next time.
CREATE PROCEDURE load_readings(batch int DEFAULT 100000)
  LANGUAGE plpgsql
AS $$
DECLARE
  sent bigint;
BEGIN
  IF NOT pg_try_advisory_lock('readings'::regclass::int) THEN
    RAISE NOTICE 'another load is under way';
    RETURN;
  END IF;
  LOOP
    -- what an earlier load has left behind
    PERFORM dbpool_exec('remote', 'TRUNCATE sensor_readings_arriving');
    sent := dbpool_bulk_insert('remote', 'sensor_readings_arriving', format(
      'DELETE FROM readings WHERE id IN (SELECT id FROM readings ORDER BY id LIMIT %s)
       RETURNING sensor, at, value', batch));
    EXIT WHEN sent = 0;
    RAISE NOTICE 'sent %, of them new: %', sent, dbpool_exec('remote', $sql$
      INSERT INTO sensor_readings SELECT DISTINCT ON (sensor, at) * FROM sensor_readings_arriving
      ON CONFLICT DO NOTHING $sql$);
    COMMIT;
  END LOOP;
  PERFORM pg_advisory_unlock('readings'::regclass::int);
END
$$;

INSERT INTO readings (sensor, at, value)
  SELECT n % 100, timestamptz '2024-01-01 00:00+00' + n * interval '1 s', sqrt(n)
  FROM generate_series(1, 50000) AS n;
CALL load_readings(batch => 20000);

-- The same rows once more, as after a crash between the two commits: none is doubled.
INSERT INTO readings (sensor, at, value)
  SELECT n % 100, timestamptz '2024-01-01 00:00+00' + n * interval '1 s', sqrt(n)
  FROM generate_series(49001, 50000) AS n;
CALL load_readings(batch => 20000);

SELECT count(*) AS left_here FROM readings;
SELECT dbpool_value(NULL::bigint, 'remote', 'SELECT count(*) FROM sensor_readings') AS arrived;
