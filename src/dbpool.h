/*
 * dbpool.h
 *	  What every room of dbpool needs: limits and settings.
 *
 * Rooms: backend/ runs in the process that called a function, worker/ runs in
 * "dbpool worker N", ipc/ is the shared memory between them and is used by
 * both.  backend/ and worker/ never include each other.
 */
#ifndef DBPOOL_H
#define DBPOOL_H

#include "postgres.h"

#include "postmaster/bgworker.h"

/* Most workers that dbpool.workers may ask for. */
#define DBPOOL_MAX_WORKERS		32

/* Most hosts of a pool, and most of their addresses that one connection tries. */
#define DBPOOL_MAX_PLACES		64

/* Bytes of SQL text kept for the views; longer texts are cut. */
#define DBPOOL_SHOWN_SQL		1024

/* Most bytes of the server's option connect_sql, which travels with each request. */
#define DBPOOL_CONNECT_SQL		4096

/* Bytes of an error text kept for the views; longer texts are cut. */
#define DBPOOL_SHOWN_ERROR		512

/* Bytes of a table's name kept for the views; longer ones are cut. */
#define DBPOOL_SHOWN_TARGET		256

/* Runs of migrations that dbpool_progress_migrate can show at a time. */
#define DBPOOL_SHOWN_MIGRATIONS	64

/* The server's option transaction, and the setting dbpool.transaction. */
typedef enum TransactionMode
{
	TRANSACTION_SERVER = -1,	/* of the setting: as the server's option says */
	TRANSACTION_AUTONOMOUS = 0, /* each call is one by itself */
	TRANSACTION_BOUND,			/* calls on a pool are one, which ends with
								 * the local one */
	TRANSACTION_TWO_PHASE		/* and they do so whatever crashes */
} TransactionMode;

/* Settings, see dbpool.c. */
extern int	dbpool_alert_errors;
extern int	dbpool_alert_utilisation;
extern int	dbpool_alert_wait;
extern int	dbpool_history_interval;	/* milliseconds */
extern bool dbpool_inherit_read_only;
extern uint64 dbpool_min_lsn;	/* dbpool.min_lsn; 0: none */
extern int	dbpool_log_parameter_max_length;	/* bytes; 0: none; -1: all */
extern int	dbpool_workers;
extern int	dbpool_max_connections;
extern int	dbpool_max_connections_per_endpoint;	/* 0: as many */
extern int	dbpool_max_min_size;
extern int	dbpool_max_pools;
extern int	dbpool_max_requests;
extern int	dbpool_max_statements;
extern int	dbpool_role_max_connections;
extern int	dbpool_role_max_pools;
extern int	dbpool_role_max_request_memory;
extern int	dbpool_role_max_requests;
extern int	dbpool_session_max_requests;
extern int	dbpool_split_threshold;
extern int	dbpool_stall_timeout;
extern int	dbpool_transaction; /* a TransactionMode */

/* A traceparent of W3C Trace Context, with its zero. */
#define TRACEPARENT_BYTES	56

extern char *dbpool_traceparent;	/* dbpool.traceparent; empty: none */

/* Makes them known to the server; in the postmaster. */
extern bool dbpool_parse_lsn(const char *text, uint64 *lsn);
extern bool dbpool_is_traceparent(const char *text);
extern void dbpool_define_settings(void);

/* A background process, as far as all of dbpool's are alike. */
extern void dbpool_fill_bgworker(BackgroundWorker *bgw, const char *function,
								 const char *type, int worker);

/* True when the library came through shared_preload_libraries. */
extern bool dbpool_preloaded;

#endif							/* DBPOOL_H */
