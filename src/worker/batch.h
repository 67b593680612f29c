/*
 * batch.h
 *	  A batch under way, as wire_batch.c sends it and wire_batch_answer.c takes its answers.
 */
#ifndef DBPOOL_BATCH_H
#define DBPOOL_BATCH_H

#include "worker/connection.h"

/* An item that was sent and has not been answered. */
typedef struct BatchSent
{
	Ticks		at;
	Size		bytes;
} BatchSent;

/* worker.h has its name. */
struct Batch
{
	int			flags;			/* BATCH_ */
	bool		leased;			/* in a transaction that goes on */
	bool		beginning;		/* BEGIN was sent and not answered */
	bool		committing;		/* COMMIT was sent */
	bool		ended;			/* the last Sync was sent */
	bool		item_failed;	/* of BATCH_EACH: the one whose Sync is next */
	bool		untold;			/* likewise: items have ended since the
								 * session was woken */
	bool		returned;		/* rows, if these are wanted: the item whose
								 * end is next */
	bool		distrusted;		/* likewise: what is returned, as a setting
								 * was changed */
	uint64		sent;			/* items */
	uint64		done;			/* of these, answered */
	Size		bytes;			/* of those between */
	int			unasked;		/* items since the remote was last asked for
								 * answers, */
	Size		unasked_bytes;	/* and bytes of them */
	uint64		count;			/* rows that they counted */
	Ticks		answered_at;	/* the last one */

	/* The item that is next, if it does not lie in the ring in one piece. */
	char	   *item;			/* room for the largest, or NULL */
	Size		gathered;

	BatchSent	window[BATCH_WINDOW];	/* by number; the last member */
};

/* flight.c; flight_free() frees it */
extern Batch *batch_make(const Request *req);
extern Fate batch_fate(Conn *conn);
extern void batch_tell_lost(Conn *conn, Fate fate);

extern bool batch_begin(Conn *conn, Request *req);
extern void batch_send(Conn *conn);
extern void batch_tell(Conn *conn);
extern bool batch_rests(const Flight *flight);
extern int64 batch_item_done(Batch *batch, Request *req);

/* wire_batch_answer.c */
extern bool batch_result(Conn *conn, Flight *flight, struct pg_result *res, bool row);
extern bool batch_fails(Conn *conn, Flight *flight, Cause cause, char *frame);
extern void batch_item_aborted(const Conn *conn, Flight *flight);
extern bool batch_synced(Conn *conn, Flight *flight);

/* Is the answer to its BEGIN to come? */
static inline bool
batch_begins(const Flight *flight)
{
	return flight->batch->beginning;
}

/* The batch of the first flight, or NULL. */
static inline Batch *
conn_head_batch(Conn *conn)
{
	return conn->flights.n == 0 ? NULL : conn_head(conn)->batch;
}

#endif							/* DBPOOL_BATCH_H */
