/*
 * work.h
 *	  Pieces of work, each with one owner.
 *
 * A worker does one piece of work after the other, each for one owner:
 *
 *	 piece										   owner
 *	 a socket is ready							   connection
 *	 a thread has ended (look-up, cancel)		   connection
 *	 a timer is due								   whose timer it is
 *	 a slot of a request wants attention		   request
 *	   its connection goes on after that		   connection
 *	 backends want something done to a pool		   pool
 *	 a pool is marked: who gets which connection   pool
 *	   a request is given a connection			   request
 *	   what is sent on that						   connection
 *	   a connection is made						   pool
 *	   it tries its first place					   connection
 *	 a look for deadlocks						   itself: the next one
 *	   a deadlock was found						   connection
 *	 the set of sockets, the load, settings		   the worker
 *
 * An error ends one piece, and its owner's recovery sees to it that nobody is
 * left behind:
 *
 *	 connection	  It is closed.  Its requests go back to the queue or are told,
 *				  as when it is lost; see conn_recover().
 *	 request	  It is taken off whatever it waits for, and its session is told
 *				  that it has not run; see request_recover().
 *	 pool		  Those who wait are told; it is looked at again after a while;
 *				  see pool_recover().
 *	 the worker	  It ends.  All sessions are told, and the postmaster starts it
 *				  again; see worker_exit().
 *
 * WHAT THAT ASKS OF THE CODE
 *
 * 1. Calls go down, and what is above is told by marking work.  A connection
 *	  that has become free does not look for somebody who waits: that would do
 *	  the work of another connection within its own piece, and an error in
 *	  there would hit the wrong one.  It marks its pool (pool_mark()), and the
 *	  loop runs what is marked before the turn ends.  Marking allocates nothing
 *	  and may be done twice.
 * 2. A piece that has to go on with somebody else's work does so under a guard
 *	  of its own, and is through with its owner before.
 * 3. Allocate, then link.  What has been put on a list, into a table or into
 *	  shared memory is whole.  What is made of several parts is made in a memory
 *	  context below CurrentMemoryContext, which ends with the turn, and is given
 *	  to its owner when nothing can fail any more.
 * 4. A recovery allocates nothing, throws nothing, and calls no function that
 *	  might.  So ending a request, closing a connection and putting a request
 *	  into a queue are of that kind.  If a recovery should fail all the same, the
 *	  worker ends.
 */
#ifndef DBPOOL_WORK_H
#define DBPOOL_WORK_H

#include "dbpool.h"
#include "lib/ilist.h"

/* What becomes of the owner of a piece that has failed with that error. */
typedef void (*WorkRecovery) (void *owner, int sqlerrcode);

typedef struct Work
{
	void		(*run) (void *owner);
	WorkRecovery recover;		/* NULL: the worker owns it */
	void	   *owner;
	bool		marked;
	dlist_node	node;			/* valid while marked */
} Work;

extern bool work_guard(void (*piece) (void *arg), void *arg,
					   WorkRecovery recover, void *owner);

extern void work_init(Work *work, void (*run) (void *owner),
					  WorkRecovery recover, void *owner);
extern void work_do(Work *work);
extern void work_mark(Work *work);
extern void work_unmark(Work *work);
extern bool work_is_waiting(void);
extern void work_do_marked(void);

extern const char *work_error_state(int sqlerrcode);
extern const char *work_error_text(int sqlerrcode);

#endif							/* DBPOOL_WORK_H */
