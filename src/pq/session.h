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
 * What a session may leave behind, and our settings again.  This is the list
 * of DISCARD ALL (reference page of DISCARD), but that what dbpool itself has
 * prepared stays, with its plans, unless somebody else has prepared something.
 */
#define CONN_RESET_SQL \
	"CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; " \
	"UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); " \
	"DISCARD TEMP; DISCARD SEQUENCES; " \
	"SELECT 1 AS dbpool_prepared FROM pg_catalog.pg_prepared_statements WHERE from_sql LIMIT 1; " \
	CONN_SETTINGS_SQL

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
