/*
 * batch.h
 *	  Batches: their items (batch_items.c), the talk with the workers (batch_client.c),
 *	  and the SQL functions (batch.c, exec_batch.c).
 */
#ifndef DBPOOL_BACKEND_BATCH_H
#define DBPOOL_BACKEND_BATCH_H

#include "backend/client_slot.h"
#include "executor/tuptable.h"
#include "nodes/bitmapset.h"
#include "utils/tuplestore.h"

/*
 * The items of a batch, in the form in which they are sent.  They are kept in a
 * tuplestore, which spills to disk beyond work_mem, as it is to be known before the
 * first is sent what they may leave in a remote session, and how large they are.
 */
typedef struct BatchItems
{
	Tuplestorestate *store;
	TupleTableSlot *slot;
	MemoryContext context;		/* of back */
	uint64		n;
	uint64		taken;			/* given out once at least */
	uint64		at;				/* number of the one that was given out last */
	Bitmapset  *back;			/* numbers of those that were given back, */
	uint64		nback;			/* so many */
	Size		most;			/* bytes of the largest */
	int			traces;
	Size		looked;			/* see batch_traces() */
	StringInfoData params;		/* of the item that is being made */
	int			nparams;
	StringInfoData buf;
} BatchItems;

extern BatchItems *batch_items_make(void);
extern void batch_param(BatchItems *items, const char *value, Size len);
extern void batch_item(BatchItems *items, const char *sql);
extern void batch_rewind(BatchItems *items);
extern void batch_give_back(BatchItems *items, uint64 number);
extern const char *batch_next_item(BatchItems *items, uint64 *number, Size *len);
extern void batch_check_text(const char *sql, uint64 number);

/* How many are to be given out? */
static inline uint64
batch_items_left(const BatchItems *items)
{
	return items->n - items->taken + items->nback;
}

/* Most items of BATCH_EACH that one connection has and has not answered. */
#define BATCH_EACH_WINDOW	256

/* Most connections of one batch. */
#define BATCH_PARALLEL_MOST	64

typedef struct BatchRun BatchRun;

/* One of the connections of a batch. */
typedef struct BatchMember
{
	AnswerSink	sink;			/* must be first */
	BatchRun   *run;
	Client		client;
	bool		open;			/* its request is under way */
	bool		closed;			/* it has been told that no more items come */
	StringInfoData item;		/* the one that is being written */
	Size		item_at;		/* so much of it was */
	uint64		given;			/* items */
	uint64		answered;
	uint64		numbers[BATCH_EACH_WINDOW]; /* of the given ones, in the batch */
	bool		item_failed;	/* of BATCH_ONE: the one after those */
	bool		lost;			/* its connection is, */
	uint64		lost_sent;		/* and so many of its items may have run */
	int			resubmits;
	void	   *state;			/* its owner's */
} BatchMember;

/* A batch under way, and who takes what comes of it. */
struct BatchRun
{
	Call		call;
	BatchItems *items;
	int			nmembers;
	BatchMember *members;
	bool		began;			/* an item was given to a member */
	char		sqlstate[6];	/* what has kept items from being run */
	char	   *message;

	/* SHAPE, ROW, TAG or FAILED of an item that has not ended. */
	void		(*frame) (BatchMember *member, char type, MessageReader *body);

	/* An item has ended.  Not called with BATCH_SUM. */
	void		(*ended) (BatchMember *member, uint64 number, int64 us);

	/* What has come of an item that has not ended is void; or NULL. */
	void		(*forget) (BatchMember *member);

	/* Nobody knows whether this item has run; or surely it has not. */
	void		(*unknown) (BatchRun *run, uint64 number, const char *sqlstate,
							const char *message);
	void		(*not_run) (BatchRun *run, uint64 number, const char *sqlstate,
							const char *message);

	/* For errors of BATCH_ONE: the text of an item. */
	const char *(*text) (BatchRun *run, uint64 number);
	const char *unit;			/* what an item is called */
};

extern const char *batch_pool(FunctionCallInfo fcinfo);
extern void batch_run(BatchRun *run, int parallel);

#endif							/* DBPOOL_BACKEND_BATCH_H */
