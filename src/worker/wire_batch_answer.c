/*
 * wire_batch_answer.c
 *	  What the answers to a batch's statements mean; "Statements that the backend
 *	  sends" in ipc/request.h.
 *
 * Of BATCH_ONE the answers are BEGIN's, the items', COMMIT's and the Sync's; after an
 * error libpq gives "aborted" for the rest.  Of BATCH_EACH they are each item's and
 * that of its Sync, which is the one that commits; the error of a deferred constraint
 * comes between the two.
 */
#include "postgres.h"

#include <libpq-fe.h>

#include "compat.h"
#include "worker/batch.h"

/* Tell how many items have ended, and how long the last of them took. */
static void
put_items(Request *req, uint64 done, int64 us)
{
	FrameHeader header = {FRAME_ITEMS, sizeof(done) + sizeof(us)};

	request_put(req, &header, sizeof(header));
	request_put(req, &done, sizeof(done));
	request_put(req, &us, sizeof(us));
}

/* The answer to COMMIT. */
static void
committed(const Conn *conn, Request *req, const char *tag)
{
	if (req == NULL)
		return;
	req->has_outcome = true;
	if (strcmp(tag, "COMMIT") != 0 && !req->failed)
		request_put_error(req, "40000",
						  psprintf("the batch on pool \"%s\" was rolled back",
								   NameStr(conn->pool->options.server)),
						  psprintf("The remote server answered \"%s\" to COMMIT.", tag), NULL);
}

/* An item has run. */
static void
item_ran(Conn *conn, Flight *flight, PGresult *res)
{
	Batch	   *batch = flight->batch;
	Request    *req = flight->req;
	int64		us;

	conn_note_tag(conn, PQcmdStatus(res));
	if (req != NULL && (batch->flags & BATCH_ROWS) && PQresultStatus(res) == PGRES_TUPLES_OK &&
		!flight->shape_sent)
		reply_shape(req, res);
	flight->shape_sent = false;
	if (req != NULL && (batch->flags & BATCH_SUM))
		batch->count += strtoull(PQcmdTuples(res), NULL, 10);
	else if (req != NULL)
		reply_tag(req, res);
	if (batch->flags & BATCH_EACH)
		return;
	us = batch_item_done(batch, req);
	if (req == NULL)
		return;
	req->items_ok++;
	if ((batch->flags & BATCH_SUM) == 0)
		put_items(req, batch->done, us);
}

static void
out_of_step(Conn *conn)
{
	conn_close(conn, "the remote's answers to a batch are out of step");
}

/*
 * A result for a batch; row: one of its rows, not its end.  Returns true when it has
 * been kept.  Rows that libpq has not given one by one were not asked for: then the
 * connection is closed.
 */
bool
batch_result(Conn *conn, Flight *flight, PGresult *res, bool row)
{
	Batch	   *batch = flight->batch;
	Request    *req = flight->req;

	if (row && (req == NULL || (batch->flags & BATCH_ROWS) == 0))
		return false;
	if (row)
	{
		batch->returned = true;
		if (batch->distrusted)
			return false;

		if (!flight->shape_sent)
			reply_shape(req, res);
		flight->shape_sent = true;
		reply_rows(conn, res);
		return true;
	}
	if (PQntuples(res) > 0)
		out_of_step(conn);
	else if (batch->beginning)
		batch->beginning = false;
	else if (batch->done < batch->sent)
		item_ran(conn, flight, res);
	else if (batch->committing)
		committed(conn, req, PQcmdStatus(res));
	return false;
}

/*
 * What is next of a batch has failed.  Returns true when the remote's error is to be
 * passed on, as *frame.
 */
bool
batch_fails(Conn *conn, Flight *flight, Cause cause, char *frame)
{
	Batch	   *batch = flight->batch;
	Request    *req = flight->req;
	bool		show;

	flight->shape_sent = false;
	*frame = FRAME_ERROR;
	if (batch->flags & BATCH_EACH)
	{
		*frame = FRAME_FAILED;
		batch->item_failed = true;
		if (req != NULL && flight->deadlock != NULL && cause == CAUSE_CANCEL)
		{
			request_put_failed(req, "40P01", "deadlock detected", flight->deadlock,
							   HOME_DEADLOCK_HINT);
			return false;
		}
		return req != NULL;
	}
	if (req != NULL && !req->failed && flight->prelude == 0 && flight->tracing == 0 && !batch->beginning)
		put_items(req, batch->done, -1);
	show = flight_failed(conn, flight, cause);
	if (batch->beginning)
		batch->beginning = false;
	else if (batch->done < batch->sent && flight->prelude == 0 && flight->tracing == 0)
		(void) batch_item_done(batch, NULL);
	else if (flight->prelude == 0)
		flight->tracing = 0;
	(void) batch_stop(conn, flight);
	return show;
}

/* The remote has skipped an item, or COMMIT; or libpq says so, as it has ended. */
void
batch_item_aborted(const Conn *conn, Flight *flight)
{
	Batch	   *batch = flight->batch;

	if (flight->tracing > 0)
		flight->tracing--;
	else if (!conn->loss.last_words && (batch->flags & BATCH_EACH) == 0 && batch->done < batch->sent)
		(void) batch_item_done(batch, NULL);
}

/*
 * An independent statement has ended, and with it what it has changed of the session was
 * reported.  From then on values are not what they are taken for, see check_end().
 */
static void
tell_synced(Conn *conn, Batch *batch, Request *req, int64 us)
{
	const char *setting = NULL;

	if (batch->flags & BATCH_ROWS)
		setting = session_text_changed(conn);
	if (setting != NULL && batch->returned && !batch->item_failed)
	{
		request_put_failed(req, "0A000",
						   psprintf("the batch has changed \"%s\" on pool \"%s\": what the statement returned cannot be trusted, what it did stays",
									setting, NameStr(conn->pool->options.server)), NULL, NULL);
		batch->item_failed = true;
	}
	batch->distrusted = setting != NULL;
	batch->returned = false;
	if (batch->item_failed)
		req->items_failed++;
	else
		req->items_ok++;
	put_items(req, batch->done, us);
	batch->untold = true;
}

/*
 * A Sync has been answered.  Returns true if that was the last of the batch; a remote
 * that is out of step has its connection closed.
 */
bool
batch_synced(Conn *conn, Flight *flight)
{
	Batch	   *batch = flight->batch;
	Request    *req = flight->req;
	int64		us;

	if (batch->done < batch->sent && (batch->flags & BATCH_EACH))
	{
		us = batch_item_done(batch, req);
		flight->errors = 0;
		/* an odd remote may have ended it in the midst of its rows */
		flight->shape_sent = false;
		if (req != NULL)
			tell_synced(conn, batch, req, us);
		batch->item_failed = false;
		return false;
	}
	if (!batch->ended || (batch->done < batch->sent && flight->prelude == 0) || batch->beginning)
	{
		out_of_step(conn);
		return false;
	}
	if (req != NULL && (batch->flags & BATCH_SUM) && !req->failed)
		reply_count(req, batch->count, "");
	if (req != NULL && !batch->committing)
		req->has_outcome = true;
	return true;
}
