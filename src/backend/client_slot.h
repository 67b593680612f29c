/*
 * client_slot.h
 *	  A request under way, as client.c talks with its worker and client_slot.c
 *	  has a slot for it.
 */
#ifndef DBPOOL_CLIENT_SLOT_H
#define DBPOOL_CLIENT_SLOT_H

#include "backend/client.h"
#include "ipc/statements.h"
#include "lib/ilist.h"

/* client.h has its name. */
struct Client
{
	dlist_node	node;			/* in open_requests */
	RequestSlot *slot;
	uint64		hold;			/* by which the slot is ours */
	Call	   *call;
	AnswerSink *sink;
	const Definition *definition;	/* NULL: to be looked up */
	uint64		ticket;			/* of the request; 0: it was not submitted */
	bool		running;		/* it was given up while it ran */
	bool		entered;		/* its transaction is in use by it */
	bool		lasting;		/* an abort of the local transaction is none
								 * of its matters */
	StringInfoData up;			/* a request that is larger than the ring */
	Size		up_sent;
	StringInfoData frame;		/* of one that came in pieces */
	FrameHeader header;
	Size		header_got;
	bool		ended;			/* the END frame has come */
	StringInfoData error;		/* body of the first ERROR frame, or empty */
	bool		stale;
	bool		elsewhere;		/* the call is to run on another pool now */
	int			worker;			/* that has it, of so many */
	int			workers;
	int64		remote_us;
	bool		waits_long;		/* has it waited for REQUEST_LONG_MS? */
	Ticks		awake_at;		/* when it last began to look at what has come */
	bool		wants_rows;		/* the remote waits for call->rows */
	int			columns;		/* of so many columns */

	/* slow.c */
	int			slow_ms;		/* the call is to be logged when it takes so
								 * long; 0: it is not */
	Ticks		submitted_at;
	StatementRef statement;
	char		traceparent[TRACEPARENT_BYTES]; /* likewise, if slow_ms is not
												 * 0 */
	bool		split_known;	/* the worker has told: */
	SplitFrame	split;
	char		host[NAMEDATALEN];	/* where it ran; empty: it has not */
	char		port[20];
};

extern void clients_give_up(bool all);
extern void client_find_worker(Client *client);
extern void client_submit(Client *client);
extern bool client_try_submit(Client *client);
extern void client_submit_after(Client *client, Client *other);
extern void client_send_more(Client *client);
extern void client_ask_attention(const Client *client);
extern void client_let_go(Client *client);

/* client.c */
extern bool client_is_done(const Client *client);
extern bool client_receive(Client *client);
extern bool client_take(Client *client);
extern void client_finish(const Client *client);
extern void client_init(Client *client, Call *call, AnswerSink *sink);
extern void client_free(Client *client);
extern void client_worker_died(const Client *client);
extern void client_enter(Client *client);
extern void client_leave(Client *client);
extern bool client_is_stale(const Client *client);

/* slow.c */
extern void slow_begun(Client *client);
extern void slow_split(Client *client, MessageReader *body);
extern void slow_ended(Client *client, Ticks ended_at);
extern void slow_given_up(const Client *client);

/* fallback.c */
extern bool fallback_take(Client *client);
extern void fallback_judge(Client *client);
extern void fallback_context(void *arg);

#endif							/* DBPOOL_CLIENT_SLOT_H */
