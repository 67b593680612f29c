/*
 * poller.h
 *	  Sockets that a worker waits for, and the work that is done when one is ready.
 */
#ifndef DBPOOL_POLLER_H
#define DBPOOL_POLLER_H

#include "dbpool.h"
#include "storage/latch.h"
#include "worker/work.h"

/* A socket of somebody's; its owner changes it by the functions below alone. */
typedef struct PollEntry
{
	pgsocket	sock;			/* PGINVALID_SOCKET: none */
	uint32		wants;			/* WL_SOCKET_*; 0: not waited for */
	uint32		events;			/* of these, what it is ready for: while its
								 * work is done */
	uint32		serial;			/* changes with each change of the socket */
	Work		ready;
} PollEntry;

extern void poller_start(void);
extern int	poller_fd(void);
extern void poller_run(void);

extern void poll_init(PollEntry *entry, void (*ready) (void *owner),
					  WorkRecovery recover, void *owner);
extern void poll_socket(PollEntry *entry, pgsocket sock, uint32 wants);
extern void poll_want(PollEntry *entry, uint32 wants);
extern void poll_forget(PollEntry *entry);

#endif							/* DBPOOL_POLLER_H */
