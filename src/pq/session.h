/*
 * session.h
 *	  SQL by which remote sessions are made, and put back to what they were: those of
 *	  pools, and those of migrations.
 */
#ifndef DBPOOL_SESSION_H
#define DBPOOL_SESSION_H

/*
 * What is set in each remote session, so that text means the same at both
 * ends whatever either side's settings are; as postgres_fdw and pg_dump do.
 * lc_monetary is for money.  backend/params.c has the other end.  And what is
 * asked with that, see conn_note_answer().
 */
#define CONN_SETTINGS_SQL \
	"SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; " \
	"SET extra_float_digits = 3; SET lc_monetary = 'C'; SET xmloption = 'content'; " \
	"SELECT 1 AS dbpool_synchronous" \
	" WHERE pg_catalog.current_setting('synchronous_standby_names', true) OPERATOR(pg_catalog.<>) ''"

/*
 * And after that, when connect_sql has run: has it prepared something with a name of ours
 * (worker/connection_prepare.c), so that it would run in place of that?
 */
#define CONN_PLANTED_SQL \
	"; SELECT 1 AS dbpool_planted FROM pg_catalog.pg_prepared_statements" \
	" WHERE from_sql AND pg_catalog.left(name, 7) OPERATOR(pg_catalog.=) 'dbpool_' LIMIT 1"

/* And before that, in the sessions of a pool that is read-only. */
#define CONN_READ_ONLY_SQL	"SET default_transaction_read_only = on; "

/*
 * Which run of the remote server this is, and by whose word a number of a transaction
 * means something: worker/outcome.c.  To be sent with the settings above; a format, for
 * the process ID that the remote has told.  No row comes from a standby, and from behind
 * a pooler.  All these functions may be called by any role, and are there from 13 on.
 */
#define CONN_RUN_SQL \
	"; SELECT pg_catalog.format('%%s %%s %%s', system_identifier," \
	" pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)," \
	" pg_catalog.date_part('epoch', pg_catalog.pg_stat_get_bgwriter_stat_reset_time())) AS dbpool_run" \
	" FROM pg_catalog.pg_control_system()" \
	" WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %d" \
	" AND NOT pg_catalog.pg_is_in_recovery()" \
	" AND pg_catalog.pg_stat_get_bgwriter_stat_reset_time() IS NOT NULL" \
	" AND pg_catalog.pg_current_xact_id_if_assigned() IS NULL" \
	" AND pg_catalog.pg_xact_status('2'::pg_catalog.xid8) OPERATOR(pg_catalog.=) 'committed'" \
	"; SELECT 1 AS dbpool_timed" \
	" WHERE pg_catalog.current_setting('track_commit_timestamp') OPERATOR(pg_catalog.=) 'on'"

/*
 * How far a server is, in a text for worker/replay.c: primary or standby; what it has received;
 * what it has replayed, or written; whether it is receiving; and milliseconds since the last
 * commit that it has replayed, or -1.  All of it any role may ask.
 */
#define CONN_REPLAY_SQL \
	"SELECT pg_catalog.format('%s %s %s %s %s'," \
	" CASE WHEN pg_catalog.pg_is_in_recovery() THEN 's' ELSE 'p' END," \
	" COALESCE(pg_catalog.pg_last_wal_receive_lsn(), '0/0')," \
	" CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()" \
	" ELSE pg_catalog.pg_current_wal_flush_lsn() END," \
	" (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_wal_receiver)," \
	" CASE WHEN pg_catalog.pg_last_xact_replay_timestamp() IS NULL THEN -1 ELSE" \
	" GREATEST((EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)" \
	" pg_catalog.pg_last_xact_replay_timestamp()) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8, 0) END)" \
	" AS dbpool_replay"

/*
 * The number of the transaction in which it is asked; and, of a server that keeps the times of
 * commits, the time there, in seconds.
 */
#define CONN_NUMBER_SQL	"SELECT pg_catalog.pg_current_xact_id_if_assigned()"
#define CONN_NUMBER_AND_TIME_SQL \
	CONN_NUMBER_SQL ", pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())"

/*
 * Sets to which trace what follows belongs, worker/trace.c: a format, for the value and for
 * whether it ends with the transaction.  It is to fail nowhere.  So nothing is set where there is a dbpool that knows
 * no such setting: in a server without dbpool any name with a dot may be set, in one
 * with it none that it does not know.
 */
#define CONN_TRACE_SQL \
	"SELECT CASE WHEN pg_catalog.current_setting('dbpool.workers', true) IS NULL" \
	" OR pg_catalog.current_setting('dbpool.traceparent', true) IS NOT NULL" \
	" THEN pg_catalog.set_config('dbpool.traceparent', %s, %s) END"

/*
 * What a session may leave behind; our settings are to follow.  This is the list
 * of DISCARD ALL (reference page of DISCARD), but that what dbpool itself has
 * prepared stays, with its plans, unless somebody else has prepared something.
 */
#define CONN_RESET_SQL \
	"CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; " \
	"UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); " \
	"DISCARD TEMP; DISCARD SEQUENCES; " \
	"SELECT 1 AS dbpool_prepared FROM pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1; "

/*
 * A statement that has the remote look every two seconds whether we are still
 * there: it would hold its locks for as long as a statement takes otherwise.
 * From 14 on, and on Linux; to be repeated after a RESET ALL.
 */
#define REMOTE_SETTINGS \
	"SELECT pg_catalog.set_config('client_connection_check_interval', '2s', false)" \
	" FROM pg_catalog.pg_settings" \
	" WHERE name OPERATOR(pg_catalog.=) 'client_connection_check_interval'" \
	" AND pg_catalog.version() OPERATOR(pg_catalog.~) 'linux'"

/* Statements that end what migrations may have SET, a role for one; with rows. */
#define REMOTE_PLAIN	"RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; " REMOTE_SETTINGS

#endif							/* DBPOOL_SESSION_H */
