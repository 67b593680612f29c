/*
 * answer.c
 *	  What goes back to whoever has made a request.
 *
 * Frames are written into a ring, and what has no room there is kept.  Whose ring it
 * is, and what its reader is told, is the request's Answer's to know: that of a
 * session with a slot is in answer_slot.c.
 *
 * Ending a request neither throws nor needs memory, as recoveries do it: where
 * there is no room for its last frames, it ends without an END frame, which
 * tells the backend that something broke.  What puts something in the middle of
 * an answer may throw.
 */
#include "postgres.h"

#include "ipc/message.h"
#include "ipc/request.h"
#include "utils/memutils.h"

#include "compat.h"
#include "worker/worker.h"

/* Longest error of the worker's own; what is longer is cut. */
#define ERROR_MOST_BYTES	32768

/* What is known of its text is of no interest any more. */
static void
drop_statement(Request *req)
{
	Assert(req->statement == NULL || req->statement->refs > 0);
	if (req->statement != NULL)
		req->statement->refs--;
	req->statement = NULL;
}

/* Forget all about a request, which is about to change hands. */
void
request_release(Request *req)
{
	timer_stop(&req->deadline);
	drop_statement(req);
	outcome_forget(req);
	large_release(req);
	if (req->out.maxlen > REQUEST_DOWN_SIZE)
	{
		pfree(req->out.data);
		req->out.data = NULL;
		req->out.maxlen = 0;
	}
	req->active = false;
	req->pool = NULL;
	req->conn = NULL;
	req->flight = NULL;
}

/* Make room for so many more bytes that wait; false when there is no memory. */
static bool
make_room(StringInfo out, Size len)
{
	Size		needed = out->len + len;
	Size		size = Max(out->maxlen, 1024);
	char	   *data;

	if (out->data != NULL && needed <= out->maxlen)
		return true;
	while (size < needed)
		size *= 2;
	size = Min(size, MaxAllocSize);
	if (size < needed)
		return false;
	data = MemoryContextAllocExtended(worker_context, size, MCXT_ALLOC_NO_OOM);
	if (data == NULL)
		return false;
	if (out->data != NULL)
	{
		memcpy(data, out->data, out->len);
		pfree(out->data);
	}
	out->data = data;
	out->maxlen = (int) size;
	return true;
}

/*
 * Put a frame, or a part of one, on its way to the backend.  Returns false when
 * there is no memory for it: then nothing more can be put.
 */
static bool
try_put(Request *req, const void *data, Size len)
{
	RingWriter	writer;
	Size		written = 0;

	if (req->cut)
		return false;
	req->put = true;
	if (req->out.len == 0)
	{
		ring_write_begin(&writer, req->answer->ring(req));
		written = ring_write(&writer, data, len);
		ring_write_end(&writer);
	}
	if (written == len)
		return true;
	if (!make_room(&req->out, len - written))
	{
		req->cut = true;
		return false;
	}
	memcpy(req->out.data + req->out.len, (const char *) data + written, len - written);
	req->out.len += (int) (len - written);
	return true;
}

/* The same for what is in the middle of an answer; throws. */
void
request_put(Request *req, const void *data, Size len)
{
	Assert(req->active && !req->ending);
	if (!try_put(req, data, len))
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Failed on an answer of %zu bytes that its session does not read.",
						   len)));
}

static void
request_done(Request *req)
{
	request_release(req);
	req->answer->ended(req);
}

/*
 * End a request of which a frame is only half written: without an END frame,
 * the backend knows that something broke.
 */
void
request_break(Request *req)
{
	request_measure_end(req);
	request_done(req);
}

/*
 * Move what had no room into the ring.  Returns true when nothing is left;
 * then a request that has ended is done, and must not be touched any more.
 */
bool
request_flush(Request *req)
{
	Ring	   *down = req->answer->ring(req);

	while (req->out.len > 0)
	{
		RingWriter	writer;
		Size		written;

		ring_write_begin(&writer, down);
		written = ring_write(&writer, req->out.data + req->out.cursor,
							 req->out.len - req->out.cursor);
		ring_write_end(&writer);
		req->out.cursor += (int) written;
		if (req->out.cursor == req->out.len)
			resetStringInfo(&req->out);
		req->answer->wake(req);
		if (req->out.len > 0 && ring_begin_wait(down))
			return false;
	}
	if (req->ending)
		request_done(req);
	return true;
}

void
answer_open(Request *req, AnswerRoom *room)
{
	Assert(req->active && !req->ending && req->out.len == 0);
	ring_write_begin(&room->writer, req->answer->ring(req));
	room->at_first = ring_room(&room->writer);
}

/* Show what was written.  The reader, who may be asleep, is woken now and then. */
void
answer_shut(Request *req, AnswerRoom *room)
{
	ring_write_end(&room->writer);
	if (room->at_first > REQUEST_DOWN_SIZE / 2 &&
		ring_room(&room->writer) <= REQUEST_DOWN_SIZE / 2)
		req->answer->wake(req);
}

/*
 * There was no room for all.  Returns false when there is by now; else the reader
 * has been woken, and will have the request looked at when it has made room.
 */
bool
answer_is_full(Request *req)
{
	if (!ring_begin_wait(req->answer->ring(req)))
		return false;
	req->answer->wake(req);
	return true;
}

/* Tell where the time of a request went that was measured, and where it ran; host may be empty. */
void
request_tell_split(Request *req, const char *host, int port)
{
	static char frame[sizeof(FrameHeader) + sizeof(SplitFrame) + NAMEDATALEN + 20];
	FrameHeader header = {FRAME_SPLIT, 0};
	SplitFrame	split = {.split = req->split,.rows = req->counted};
	Size		len = sizeof(header) + sizeof(split);

	split.threshold = req->pool->options.slow_query_threshold;
	split.pool = req->pool->first >= 0 ? req->pool->first : req->pool->index;
	len += snprintf(frame + len, NAMEDATALEN, "%s", host) + 1;
	len += snprintf(frame + len, 20, "%d", port) + 1;
	header.length = (uint32) (len - sizeof(header));
	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), &split, sizeof(split));
	req->split_told = true;
	(void) try_put(req, frame, len);
}

/* The last of a request: an END frame, and it is its reader's again. */
void
request_end(Request *req)
{
	FrameHeader header = {FRAME_END, sizeof(EndFrame)};
	EndFrame	end = {0, 0, 1, -1};
	char		frame[sizeof(header) + sizeof(end)];

	Assert(req->active && !req->ending && !req->queued);
	request_measure_end(req);
	end.remote_us = req->remote_us;
	if (req->pool != NULL)
	{
		end.workers = pool_spread(req->pool);
		if (request_is_split(req))
			end.pool = req->pool->index;
		end.ended_at = req->ended_at;
		if (req->pool->options.slow_query_threshold > 0 && !req->split_told)
			request_tell_split(req, "", 0);
	}
	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), &end, sizeof(end));
	if (!try_put(req, frame, sizeof(frame)))
	{
		request_break(req);
		return;
	}
	req->ending = true;
	req->conn = NULL;
	timer_stop(&req->deadline);
	/* it may outlive its pool, until the backend has read all */
	drop_statement(req);
	request_flush(req);
}

/*
 * Add a field of ErrorFields, or as much as there is room for, to a frame of
 * len bytes; returns its new length.
 */
static Size
add_field(char *frame, Size len, char field, const char *str)
{
	Size		most = len + 3 < ERROR_MOST_BYTES ? ERROR_MOST_BYTES - len - 3 : 0;
	Size		n = str != NULL && most > 0 ? strnlen(str, most + 1) : 0;

	if (n == 0)
		return len;
	if (n > most)
	{
		/* not within a character of UTF-8 */
		for (n = most; n > 0 && (str[n] & 0xC0) == 0x80; n--)
			;
	}
	frame[len++] = field;
	memcpy(frame + len, str, n);
	frame[len + n] = '\0';
	return len + n + 1;
}

/* What an error that the request ends with says of its tries; NULL: nothing. */
const char *
retry_told(const Request *req)
{
	static char told[200];
	const char *refused = req->retry_refused ?
	" It is not tried again, as too many tries of the pool have failed of late." : "";

	if (req->tries > 1)
		snprintf(told, sizeof(told), "It was tried %d times.%s", req->tries, refused);
	else if (req->retry_refused)
		snprintf(told, sizeof(told), "It was tried once.%s", refused);
	else
		return NULL;
	return told;
}

static void
put_error(Request *req, char type, const char *sqlstate, const char *message,
		  const char *detail, const char *hint)
{
	static char frame[ERROR_MOST_BYTES];
	FrameHeader header = {(uint32) type, 0};
	Size		len = sizeof(header);

	len = add_field(frame, len, 'C', sqlstate);
	len = add_field(frame, len, 'M', message);
	len = add_field(frame, len, 'H', hint);
	len = add_field(frame, len, 'D', detail);
	len = add_field(frame, len, 'r', retry_told(req));
	len = add_field(frame, len, 'o', req->no_remote ? "1" : NULL);
	frame[len++] = '\0';
	header.length = (uint32) (len - sizeof(header));
	memcpy(frame, &header, sizeof(header));
	(void) try_put(req, frame, len);
}

/*
 * An error that the worker itself has to tell.  Where there is no memory for it,
 * the request will end without an END frame.
 */
void
request_put_error(Request *req, const char *sqlstate, const char *message,
				  const char *detail, const char *hint)
{
	put_error(req, FRAME_ERROR, sqlstate, message, detail, hint);
	req->failed = true;
}

/* The same of one of the independent statements of a batch. */
void
request_put_failed(Request *req, const char *sqlstate, const char *message,
				   const char *detail, const char *hint)
{
	put_error(req, FRAME_FAILED, sqlstate, message, detail, hint);
}

/* What was in doubt is no more, or will never be decided. */
void
outcome_forget(Request *req)
{
	if (req->doubt != NULL)
		pfree(req->doubt);
	req->doubt = NULL;
}

/* It may or may not have run; why says why the remote could not tell. */
static void
fail_in_doubt(Request *req, const char *why, const char *detail)
{
	char		what[DBPOOL_SHOWN_ERROR];
	char		outcome[2 * DBPOOL_SHOWN_ERROR + 1024];

	snprintf(what, sizeof(what), "connection of pool \"%s\" was lost while a %s",
			 NameStr(req->pool->options.server),
			 req->task.lease_ends ? "transaction was committed" : "statement ran");
	snprintf(outcome, sizeof(outcome),
			 "%s\nThe %s had been sent: it may or may not have run. The remote server could not be asked: %s.%s%s",
			 req->doubt->lost, req->task.lease_ends ? "COMMIT" : "statement", why,
			 detail != NULL ? "\n" : "", detail != NULL ? detail : "");
	SpinLockAcquire(&req->pool->shared->mutex);
	req->pool->shared->counters.errors++;
	req->pool->shared->counters.exec_us += req->doubt->us;
	SpinLockRelease(&req->pool->shared->mutex);
	outcome_forget(req);
	request_put_error(req, "08007", what, outcome, NULL);
	request_end(req);
}

/*
 * An error that ends the request.  One that is in doubt (outcome.c) ends as that: then the
 * message is the reason why it was not decided.
 */
void
request_fail(Request *req, const char *sqlstate, const char *message,
			 const char *detail, const char *hint)
{
	if (req->doubt != NULL)
	{
		fail_in_doubt(req, message, detail);
		return;
	}
	request_put_error(req, sqlstate, message, detail, hint);
	request_end(req);
}

/* Is it the end of a transaction, and no COMMIT? */
bool
request_rolls_back(const Request *req)
{
	return req->task.lease_ends && !req->task.writes;
}

/* The transaction in which it was to run is no more; for a ROLLBACK that is what it wants. */
void
request_fail_gone(Request *req, const char *sqlstate, const char *detail)
{
	if (request_rolls_back(req))
		request_end(req);
	else
		request_fail(req, sqlstate, "the transaction on the remote server is gone", detail, NULL);
}

/* The connection of independent statements is lost; so many of them had been sent. */
void
request_put_lost(Request *req, uint64 sent)
{
	FrameHeader header = {FRAME_LOST, sizeof(sent)};
	char		frame[sizeof(header) + sizeof(sent)];

	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), &sent, sizeof(sent));
	(void) try_put(req, frame, sizeof(frame));
}

/* The backend is to look up the definition and ask again. */
void
request_stale(Request *req)
{
	FrameHeader header = {FRAME_STALE, 0};

	if (req->doubt != NULL)
	{
		fail_in_doubt(req, "the definition of the pool has changed", NULL);
		return;
	}
	/* it comes again */
	req->measured = true;
	req->split_told = true;
	(void) try_put(req, &header, sizeof(header));
	request_end(req);
}

/*
 * The statement runs again: what was sent of its answer is void.  Returns false
 * when there is no memory to say so, and the request has ended.
 */
bool
request_restart(Request *req)
{
	FrameHeader header = {FRAME_RESTART, 0};

	Assert(req->active && !req->ending);
	if (req->put && !try_put(req, &header, sizeof(header)))
	{
		request_break(req);
		return false;
	}
	req->put = false;
	req->has_outcome = false;
	req->failed = false;
	req->rows = 0;
	req->counted = 0;
	req->bytes = 0;
	return true;
}

/* Nobody waits for it any more, and everybody here who knew it knows that. */
void
request_gone(Request *req)
{
	Assert(req->active && !req->queued && req->flight == NULL);
	request_measure_end(req);
	request_release(req);
	req->answer->gone(req);
}
