/*
 * remote.h
 *	  The connection of a run of migrations.
 *
 * It belongs to the session that called, serves one call, and is opened from
 * the same definition as the pool's connections, but not by the pool.  All of
 * these functions may be interrupted; whoever opens one sees to it that
 * remote_close() is called, by PG_FINALLY().
 */
#ifndef DBPOOL_MIGRATE_REMOTE_H
#define DBPOOL_MIGRATE_REMOTE_H

#include "backend/options.h"

typedef struct Remote Remote;

/* The rows of a result, in the current memory context; NULLs are NULL. */
typedef struct RemoteRows
{
	int			nrows;
	int			ncolumns;
	int			room;			/* for so many rows */
	Size		bytes;			/* of the values */
	char	  **values;			/* row after row */
} RemoteRows;

extern char *remote_value(const RemoteRows *rows, int row, int column);
extern char *remote_text(const RemoteRows *rows, int row, int column);
extern int	remote_number(const RemoteRows *rows, int row, int column, int limit);

/*
 * Who wants to know how far a text of several statements has come.
 *
 * done() is called at the end of each statement with the number of those that
 * have ended.  failed() is called before the error is thrown, with the same
 * number and with the position that the remote reports, in characters from 1,
 * or 0; it returns the text that the error should show, and adapts the
 * position to it.
 */
typedef struct RemoteWatcher
{
	void		(*done) (struct RemoteWatcher *watcher, int n);
	const char *(*failed) (struct RemoteWatcher *watcher, int n, int *position);
} RemoteWatcher;

extern Remote *remote_open(const char *pool, const Definition *definition);
extern void remote_close(Remote *remote);

extern RemoteRows *remote_query(Remote *remote, const char *sql);
extern void remote_exec(Remote *remote, const char *sql, RemoteWatcher *watcher);
extern void remote_commit(Remote *remote, const char *sql);
extern bool remote_committing(Remote *remote);
extern bool remote_reported_error(void);
extern bool remote_in_transaction(Remote *remote);
extern void remote_restore_encoding(Remote *remote);

extern const char *remote_pool(Remote *remote);
extern const char *remote_parameter(Remote *remote, const char *name);
extern int	remote_version(Remote *remote);
extern int	remote_pid(Remote *remote);
extern void remote_wait(int milliseconds);

#endif							/* DBPOOL_MIGRATE_REMOTE_H */
