/*
 * operate.h
 *	  Pools that are paused, disabled, drained, and whose connections are closed.
 *
 *	 operate.c	the functions: for one pool, or several; who may; what is told
 *	 pause.c	a pool is stopped, and set going again; waiting
 *	 uses.c		what runs on a pool, and is waited for
 */
#ifndef DBPOOL_OPERATE_H
#define DBPOOL_OPERATE_H

#include "clock.h"
#include "ipc/shmem.h"

/* By what is a pool kept from beginning anything? */
typedef enum Stop
{
	STOP_PAUSED,				/* it waits */
	STOP_DISABLED,				/* it is refused, */
	STOP_ISOLATED				/* as if its remote could not be reached */
} Stop;

typedef struct Operation Operation;

/* What is done: a row of operate.c's table. */
typedef struct OperationKind
{
	const char *function;
	const char *done;			/* as a participle */
	bool		waits;			/* for what is under way: has a timeout */
	void		(*begin) (Operation *op);
	void		(*finish) (Operation *op);	/* NULL: nothing is left to do */
} OperationKind;

/* A call, for one pool. */
struct Operation
{
	const OperationKind *kind;
	const char *pool;
	Oid			serverid;
	int			timeout;		/* milliseconds; 0: nothing is waited for; -1:
								 * no limit */
	Ticks		since;			/* when the call began */
	Stop		stop;			/* of one that stops the pool: */
	uint64		number;			/* its ticket; or the stamp of a reset */
	bool		own;			/* it was begun by this call */
	bool		was;			/* all was so before */
	int			transactions;	/* when the call began: under way, */
	int			statements;
	int			connections;	/* open */
	char	   *did;			/* what is told of it */
};

/* pause.c */
extern bool operation_matches(const PoolKey *key, void *serverid);
extern void pool_stop(Operation *op, Stop stop);
extern bool pool_set_going(Operation *op, Stop stop);
extern uint64 pool_stop_ticket(Oid serverid, Stop stop);
extern void pool_stop_take_back(Operation *op);
extern bool pool_wait_rested(Operation *op);
extern bool pool_wait_renewed(Operation *op, int timeout);

/* uses.c */
extern void uses_count(Oid serverid, int *transactions, int *statements);
extern void uses_check_not_own(const Operation *op);
extern char *uses_explain(Oid serverid, Ticks since);

#endif							/* DBPOOL_OPERATE_H */
