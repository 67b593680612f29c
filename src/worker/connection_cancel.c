/*
 * connection_cancel.c
 *	  Getting the remote to stop a statement that nobody waits for any more.
 *
 * The cancel goes over a connection of its own and is sent by a thread.  The
 * remote has sent its signal when that connection is closed; only after that,
 * and with the statement's end read, may the next statement be sent.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/connection.h"
#include "worker/offload.h"

/* Milliseconds within which the remote has to end a cancelled statement. */
#define CANCEL_MS		10000

/* A cancelled connection is of use again when both sides are through with it. */
void
conn_after_cancel(Conn *conn)
{
	if (!conn->drained || !conn->cancel_ended)
		return;
	timer_stop(&conn->deadline);
	conn_settle(conn);
}

/* In a thread. */
static void
cancel_run(void *data)
{
	CompatCancel **cancel = data;

	if (!compat_cancel_run(*cancel))
	{
		compat_cancel_free(*cancel);
		*cancel = NULL;
	}
}

/* Back in the loop. */
static void
cancel_done(void *data, void *arg)
{
	CompatCancel **cancel = data;
	Conn	   *conn = arg;
	bool		delivered = *cancel != NULL;

	if (*cancel != NULL)
		compat_cancel_free(*cancel);
	free(cancel);
	if (conn == NULL)
		return;
	conn->cancel = NULL;
	conn->cancel_ended = true;
	if (delivered)
		conn_after_cancel(conn);
	else
	{
		Pool	   *pool = conn->pool;

		conn_close(conn, "its statement could not be cancelled");
		pool_dispatch(pool);
	}
}

static bool
cancel_start(Conn *conn)
{
	CompatCancel **cancel = malloc(sizeof(CompatCancel *));

	conn->cancel = NULL;
	if (cancel == NULL)
		return false;
	*cancel = compat_cancel_create(conn->pg);
	if (*cancel != NULL)
		conn->cancel = offload_submit(OFFLOAD_CANCEL, cancel_run, cancel_done, cancel, conn);
	if (conn->cancel != NULL)
		return true;
	if (*cancel != NULL)
		compat_cancel_free(*cancel);
	free(cancel);
	return false;
}

/*
 * The request was given up: get the remote to stop, and read what still comes.
 * The caller has taken the request off.
 */
void
conn_cancel(Conn *conn)
{
	conn_move(conn, CONN_CANCELLING);
	reply_drop_rows(conn);
	conn_set_deadline(conn, CANCEL_MS);
	conn->drained = false;
	conn->cancel_ended = false;
	if (!cancel_start(conn))
	{
		conn_close(conn, "its statement could not be cancelled");
		return;
	}
	/* read on, even if the backend was too slow for us before */
	conn_want(conn, WL_SOCKET_READABLE | (conn->flushed ? 0 : WL_SOCKET_WRITEABLE));
	conn_event(conn, WL_SOCKET_READABLE);
}
