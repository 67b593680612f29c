/*
 * remote_io.h
 *	  What the files of a migration's connection share; for others see remote.h.
 */
#ifndef DBPOOL_MIGRATE_REMOTE_IO_H
#define DBPOOL_MIGRATE_REMOTE_IO_H

#include <libpq-fe.h>

#include "migrate/remote.h"
#include "pq/wire.h"

/* How long a cancel and the end that it causes may take. */
#define CANCEL_MS		2000

/* Most bytes of settings that a remote may report. */
#define SETTINGS_MOST	(4 * 1024 * 1024)

struct Remote
{
	MemoryContext context;		/* all of it */
	PGconn	   *pg;
	char	   *pool;
	int			connect_timeout;	/* of the pool; milliseconds */
	char	   *encoding;		/* client_encoding at the beginning */
	PGresult   *result;			/* in hand; freed by remote_close() */
	MemoryContext notices_context;
	List	   *notices;		/* StringInfos, to be shown */
	bool		committing;		/* what is under way ends a transaction */
	int			home_pid;		/* its process, if it surely is one of this
								 * server; or 0 */
	Oid			home_role;		/* as which that runs */
	uint64		suspected;		/* signature of the deadlock that it may be
								 * in, or 0 */
	Wire		wire;			/* what it sends */
	WireMessage large;			/* and is too large, or NULL for its body */
};

extern Remote *remote_in_use;
extern bool remote_error_reported;

extern int	remote_wait_for(int events, pgsocket socket, Ticks until);
extern char *remote_libpq_message(PGconn *pg);
extern void remote_throw_lost(Remote *remote);
extern void remote_throw_odd(void);
extern void remote_throw_result(Remote *remote, PGresult *res, const char *sql, RemoteWatcher *watcher, int n);
extern void remote_throw_large(Remote *remote, RemoteWatcher *watcher, int n);
extern void remote_keep_notice(void *arg, const PGresult *res);
extern void remote_drop_notice(void *arg, const PGresult *res);
extern void remote_show_notices(Remote *remote);
extern bool remote_look_at_input(Remote *remote);
extern void remote_drop_notifications(Remote *remote);
extern void remote_consume(Remote *remote);
extern void remote_look_for_home(Remote *remote);

#endif							/* DBPOOL_MIGRATE_REMOTE_IO_H */
