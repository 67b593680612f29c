/*
 * wire_cancel.c
 *	  A cancel on its way: over a connection of its own, in a thread.
 *
 * The remote has sent its signal when that connection is closed.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/*
 * Milliseconds within which a cancel has to be delivered: to connect, and to see
 * that the remote has closed.
 */
#define DELIVER_MS		5000

/* All of it malloc'd, as the thread needs it. */
typedef struct Cancel
{
	CompatCancel *libpq;
	bool		delivered;
	Pool	   *pool;			/* this and the rest are the loop's */
	CancelEnded ended;
} Cancel;

/* In a thread. */
static void
cancel_run(void *data)
{
	Cancel	   *cancel = data;

	cancel->delivered = compat_cancel_run(cancel->libpq, DELIVER_MS);
}

/* Back in the loop. */
static void
cancel_through(void *data, void *arg)
{
	Cancel	   *cancel = data;
	Conn	   *conn = arg;

	cancel->pool->cancels--;
	if (conn != NULL)
		conn->cancel.job = NULL;
	cancel->ended(cancel->pool, conn, cancel->delivered);
	compat_cancel_free(cancel->libpq);
	free(cancel);
}

/*
 * Send a cancel for what the connection runs.  ended is called when it has been
 * delivered, or could not be; with NULL for the connection when that has been closed
 * meanwhile.  Returns false when it cannot be sent.
 */
bool
wire_cancel(Conn *conn, CancelEnded ended)
{
	Cancel	   *cancel = calloc(1, sizeof(Cancel));

	conn->cancel.job = NULL;
	if (cancel == NULL)
		return false;
	cancel->pool = conn->pool;
	cancel->ended = ended;
	cancel->libpq = compat_cancel_create(conn->io.pg, &conn->io.wire);
	if (cancel->libpq != NULL)
		conn->cancel.job = offload_submit(OFFLOAD_CANCEL, cancel_run, cancel_through,
										  cancel, conn);
	if (conn->cancel.job != NULL)
	{
		conn->pool->cancels++;
		return true;
	}
	if (cancel->libpq != NULL)
		compat_cancel_free(cancel->libpq);
	free(cancel);
	return false;
}
