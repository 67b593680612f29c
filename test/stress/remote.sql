-- What the stress test has on the remote server; run by a superuser.

CREATE ROLE stress_guest;
CREATE ROLE stress_a LOGIN IN ROLE stress_guest;
CREATE ROLE stress_b LOGIN IN ROLE stress_guest;

-- Each write leaves rows here. No unique index: what was written twice is to
-- be seen.
CREATE TABLE stress_log (
  session int NOT NULL,
  serial int NOT NULL,
  part int NOT NULL,
  payload text NOT NULL,
  hot bool NOT NULL DEFAULT false);

CREATE INDEX ON stress_log (session, serial);

-- The remote part of transactions in two phases.
CREATE TABLE stress_there (session int NOT NULL, serial int NOT NULL);

CREATE FUNCTION stress_payload(session int, serial int, part int) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
  SELECT repeat(format('s%s.%s.%s;', session, serial, part),
                CASE WHEN serial % 500 = 0 THEN 20000 ELSE 1 + serial % 40 END)
$$;

CREATE TABLE stress_fixed (k int PRIMARY KEY, v text);
INSERT INTO stress_fixed SELECT k, 'value ' || k FROM generate_series(0, 99) AS k;

-- The type of v is changed now and then.
CREATE TABLE stress_shifting (k int PRIMARY KEY, v int);
INSERT INTO stress_shifting SELECT k, k * 10 FROM generate_series(0, 99) AS k;

CREATE TABLE stress_hot (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO stress_hot SELECT id, 0 FROM generate_series(1, 4) AS id;

-- Commits that take their time, or fail.
CREATE TABLE stress_late (error text);

CREATE FUNCTION stress_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.error IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = NEW.error;
  END IF;
  PERFORM pg_sleep(0.01);
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER late AFTER INSERT ON stress_late
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stress_late();

CREATE FUNCTION stress_raise(state text, message text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message;
END $$;

CREATE FUNCTION stress_notice(message text, times int) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. times LOOP
    RAISE NOTICE '%', message;
  END LOOP;
  RETURN message;
END $$;

CREATE FUNCTION stress_deallocate(message text) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE 'DEALLOCATE ALL';
  RETURN message;
END $$;

-- What a session finds that statements before may have left.
CREATE FUNCTION stress_probe() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN concat_ws('|',
    current_user,
    coalesce(current_setting('stress.kept', true), ''),
    current_setting('work_mem'),
    current_setting('search_path'),
    current_setting('statement_timeout'),
    current_setting('default_transaction_read_only'),
    current_setting('transaction_isolation'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
    (SELECT count(*) FROM pg_class WHERE relname = 'stress_left' AND relnamespace = pg_my_temp_schema()),
    (SELECT count(*) FROM pg_listening_channels()),
    (SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'stress%'),
    (SELECT count(*) FROM pg_cursors WHERE name LIKE 'stress%'));
END $$;

GRANT ALL ON ALL TABLES IN SCHEMA public TO stress_a, stress_b;
