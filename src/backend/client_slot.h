/*
 * client_slot.h
 *	  A request under way, as client.c talks with its worker and client_slot.c
 *	  has a slot for it.
 */
#ifndef DBPOOL_CLIENT_SLOT_H
#define DBPOOL_CLIENT_SLOT_H

#include "backend/client.h"
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
	StringInfoData up;			/* a request that is larger than the ring */
	Size		up_sent;
	StringInfoData frame;		/* of one that came in pieces */
	FrameHeader header;
	Size		header_got;
	bool		ended;			/* the END frame has come */
	StringInfoData error;		/* body of the first ERROR frame, or empty */
	bool		stale;
	int			worker;			/* that has it, of so many */
	int			workers;
	int64		remote_us;
	bool		wants_rows;		/* the remote waits for call->rows */
	int			columns;		/* of so many columns */
};

extern int	client_open_requests(void);
extern void client_submit(Client *client);
extern void client_send_more(Client *client);
extern void client_ask_attention(const Client *client);
extern void client_let_go(Client *client);

/* client.c */
extern bool client_is_done(const Client *client);
extern bool client_receive(Client *client);
extern void client_worker_died(const Client *client);
extern void client_enter(Client *client);
extern void client_leave(Client *client);
extern bool client_is_stale(const Client *client);

#endif							/* DBPOOL_CLIENT_SLOT_H */
