/*
 * offload.h
 *	  Calls that may block, run in threads of their own.
 *
 * Three things that a worker needs have no form everywhere that does not block:
 * looking up host names (getaddrinfo), cancelling a statement (libpq before 17)
 * and the arithmetic of a log-in (SCRAM).  Each such call is a job that runs in a
 * thread; the loop is told of its end through a pipe.
 */
#ifndef DBPOOL_OFFLOAD_H
#define DBPOOL_OFFLOAD_H

#include "dbpool.h"

typedef enum OffloadKind
{
	OFFLOAD_LOOKUP,
	OFFLOAD_LOGIN,
	OFFLOAD_CANCEL
} OffloadKind;

#define OFFLOAD_NKINDS	(OFFLOAD_CANCEL + 1)

typedef struct OffloadJob
{
	/*
	 * Runs in the thread: may use malloc and what else is thread-safe, and
	 * nothing of PostgreSQL's.  Owns data until it returns.
	 */
	void		(*run) (void *data);

	/* Runs in the loop afterwards; arg is NULL when nobody waits any more. */
	void		(*done) (void *data, void *arg);

	void	   *data;			/* malloc'd; done frees it */
	void	   *arg;			/* the loop's; the thread does not look at it */
	OffloadKind kind;
	struct OffloadJob *next;	/* under the lock */
} OffloadJob;

extern void offload_start(void);
extern int	offload_fd(void);
extern bool offload_has_room(OffloadKind kind, int pool_has);
extern bool offload_busy(void);
extern void offload_wait(OffloadKind kind, int seconds);
extern OffloadJob *offload_submit(OffloadKind kind, void (*run) (void *data),
								  void (*done) (void *data, void *arg),
								  void *data, void *arg);
extern void offload_abandon(OffloadJob **job);
extern void offload_collect(void);

#endif							/* DBPOOL_OFFLOAD_H */
