/*
 * transaction.h
 *	  Transactions that a session has on connections of pools.
 */
#ifndef DBPOOL_TRANSACTION_H
#define DBPOOL_TRANSACTION_H

#include "backend/client.h"
#include "ipc/lease.h"
#include "lib/ilist.h"

/* savepoints.c: the savepoints of one, and what is to be sent before its next call. */
typedef struct Stack
{
	int			depth;			/* 0: no transaction; 1: one; more: savepoints
								 * to that level */
	int			rollback_to;	/* level of a savepoint, or 0 */
	int			release;		/* likewise */
} Stack;

extern const char *savepoint_name(int level);
extern void stack_end_level(Stack *stack, int level, bool failed);
extern void stack_enter(Stack *stack, int level, const char *begin, bool discards, StringInfo prelude);

struct RemoteTransaction
{
	dlist_node	node;			/* in transactions */
	LeaseMode	mode;
	NameData	pool;
	NameData	name;			/* of a named one; empty: it is its pool's */
	Definition	definition;		/* of its pool when it was begun */
	Oid			roleid;			/* who has begun it */
	bool		read_only;
	SubTransactionId began_in;	/* a named one ends with it, should that fail;
								 * or invalid */
	int			idle_timeout;	/* milliseconds; 0: never */
	bool		two_phase;		/* a bound one, that is prepared if there are
								 * others */
	bool		wrote;			/* a statement has surely written something */
	bool		only_read;		/* it has surely written nothing, and is about
								 * to end */
	char		gid[LEASE_GID]; /* when it is prepared, or about to be; or
								 * empty */
	char		begin[96];		/* the statement */
	LeaseShared *lease;			/* NULL before the first call */
	uint64		hold;
	int			worker;
	bool		in_use;			/* a call runs in it */
	Stack		stack;
	Stack		otherwise;		/* if the prelude of the call below has not
								 * been executed */
	uint64		given_up;		/* ticket of a call of which that is not
								 * known, or 0 */
};

/* What the statement that begins one says of writing. */
typedef enum Access
{
	ACCESS_DEFAULT,				/* nothing: what the remote has for the role */
	ACCESS_READ_ONLY,
	ACCESS_READ_WRITE
} Access;

/* All of this session. */
extern dlist_head transactions;

/* transaction.c */
extern RemoteTransaction *transaction_make(LeaseMode mode, const Definition *definition);
extern void transaction_set_begin(RemoteTransaction *transaction, int isolation,
								  Access access, bool deferrable);
extern RemoteTransaction *transaction_find_named(const char *name);
extern RemoteTransaction *transaction_find_on(const Definition *definition, LeaseMode mode);
extern bool transaction_may_write_on(const Definition *definition);
extern RemoteTransaction *transaction_find_of_pool(const char *pool);
extern void transaction_check_role(const RemoteTransaction *transaction);
extern void transaction_check_unused(const RemoteTransaction *transaction);
extern void transaction_let_go(RemoteTransaction *transaction);
extern bool transaction_has_ended(const RemoteTransaction *transaction);
extern const char *transaction_shown(const RemoteTransaction *transaction);
extern void transaction_throw_gone(const RemoteTransaction *transaction, const char *hint);
extern void transaction_settle(RemoteTransaction *transaction);

/*
 * What client.c does for each call.  enter() finds the pool's definition, and the call's
 * transaction if it is to run in one; worker() says who has that, and fill() names it
 * in the request; left() is told when the call has ended, whatever has become of it:
 * running, it was given up while its statement ran; a ticket of 0, it was not submitted.
 */
extern const Definition *transaction_enter(Call *call);
extern int	transaction_worker(RemoteTransaction *transaction, const Definition *definition);
extern void transaction_fill(RemoteTransaction *transaction, TaskHeader *task);
extern void transaction_note_tag(RemoteTransaction *transaction, const char *tag);
extern void transaction_left(RemoteTransaction *transaction, const Call *call, uint64 ticket,
							 bool running);
extern void transaction_stale(RemoteTransaction *transaction);
extern void transactions_exit(void);

/* two_phase.c: transactions that are prepared before the local one is committed */
extern bool two_phase_choose(RemoteTransaction **list, int n);
extern void two_phase_committed(void);

/* transaction_end.c: the end of the local transaction, and of others */
typedef struct TagSink
{
	AnswerSink	sink;			/* must be first */
	char		tag[64];		/* of the last statement */
} TagSink;

/* Have transactions that end to be alike, the more so if others have committed before? */
typedef enum Alike
{
	ALIKE_NOT,					/* who fails, or is cancelled, does no harm */
	ALIKE,
	ALIKE_TO_OTHERS
} Alike;

extern void transactions_register(void);
extern void transaction_make_end(RemoteTransaction *transaction, const char *how, Call *call,
								 TagSink *sink);
extern void transactions_end_together(RemoteTransaction **list, int n, Alike alike);

#endif							/* DBPOOL_TRANSACTION_H */
