/*
 * client.c
 *	  The backend's side of a request, from its submission to the end of its
 *	  answer; the protocol stands in ipc/request.h.
 */
#include "postgres.h"

#include "backend/client_slot.h"
#include "backend/transaction.h"
#include "miscadmin.h"

#include "compat.h"

static uint32 wait_answer_event;
static uint32 wait_connection_event;
static uint32 wait_result_event;
static uint32 wait_room_event;

/* Will no more come than is in the ring? */
bool
client_is_done(const Client *client)
{
	return request_word_state(request_word(client->slot)) == REQUEST_DONE;
}

/* The last one: all of the answer has been taken. */
static void
client_frame_end(Client *client, MessageReader *body)
{
	EndFrame	end;

	message_get(body, &end, sizeof(end));
	client->remote_us = end.remote_us;
	if (end.workers != client->workers && client->call->definition == NULL)
		definition_spread(client->call->pool, end.workers);
	/* unless another pool has got the entry meanwhile */
	if (end.pool >= 0 && memcmp(&shmem_pool(end.pool)->key, &client->slot->task.key, sizeof(PoolKey)) == 0)
		stats_taken(end.pool, end.ended_at, client->awake_at);
	if (end.pool >= 0 && client->slot->task.statement.serial != 0)
		statement_count_taken(&client->slot->task.statement, end.ended_at, client->awake_at);
	client->ended = true;
	if (client->split_known)
		slow_ended(client, end.ended_at);
}

/* A frame has come as a whole. */
static void
client_frame(Client *client, char type, const char *bytes, Size len)
{
	MessageReader body = {bytes, bytes + len};
	const Call *call = client->call;

	switch (type)
	{
		case FRAME_END:
			client_frame_end(client, &body);
			break;
		case FRAME_STALE:
			client->stale = true;
			break;
		case FRAME_SPLIT:
			slow_split(client, &body);
			break;
		case FRAME_TAG:
			if (call->transaction != NULL)
				transaction_note_tag(call->transaction, bytes + sizeof(uint64));
			client->sink->frame(client->sink, type, &body);
			break;
		case FRAME_NOTICE:
			error_notice(call->pool, &body);
			break;
		case FRAME_COPY:
			client->columns = message_get_int32(&body);
			client->wants_rows = true;
			break;
		case FRAME_ERROR:
			/* thrown at the end, so that the worker need not cancel anything */
			if (client->error.len == 0)
			{
				if (client->error.data == NULL)
					initStringInfo(&client->error);
				appendBinaryStringInfo(&client->error, bytes, (int) len);
			}
			break;
		default:
			client->sink->frame(client->sink, type, &body);
			break;
	}
}

/* Take what there is of a frame that does not lie in the ring in one piece. */
static void
take_piece(Client *client, Ring *down)
{
	if (client->header_got < sizeof(FrameHeader))
	{
		client->header_got += ring_read(down, (char *) &client->header + client->header_got,
										sizeof(FrameHeader) - client->header_got);
		if (client->header_got < sizeof(FrameHeader))
			return;
		if (client->frame.data == NULL)
			initStringInfo(&client->frame);
		resetStringInfo(&client->frame);
		enlargeStringInfo(&client->frame, (int) Min(client->header.length, INT_MAX));
	}
	client->frame.len += (int) ring_read(down, client->frame.data + client->frame.len,
										 client->header.length - client->frame.len);
	if (client->frame.len == (int) client->header.length)
	{
		client->header_got = 0;
		client_frame(client, (char) client->header.type, client->frame.data,
					 client->frame.len);
	}
}

/*
 * Read some of what has come; true when there was anything.  Frames are read
 * where they lie if that is in one piece.  Not more than a part of the ring at
 * a time, so that the worker can write into the other part meanwhile.
 */
bool
client_receive(Client *client)
{
	Ring	   *down = request_down(client->slot);
	Size		used;
	const char *at = ring_peek(down, &used);
	Size		done = 0;

	while (client->header_got == 0 && done < REQUEST_DOWN_SIZE / 4 &&
		   used - done >= sizeof(FrameHeader))
	{
		FrameHeader header;

		memcpy(&header, at + done, sizeof(header));
		if (header.length > used - done - sizeof(header))
			break;
		client_frame(client, (char) header.type, at + done + sizeof(header), header.length);
		done += sizeof(header) + header.length;
	}
	if (done > 0)
		ring_skip(down, done);
	else if (used > 0)
		take_piece(client, down);
	if (used > 0 && ring_end_wait(down))
		client_ask_attention(client);
	return used > 0;
}

/*
 * Give the worker more of the rows of a REQUEST_COPY; waits while it has no
 * room for them.  Returns false when it wants no more, since the request has
 * ended: the reason is thrown later, by converse().
 */
bool
client_send(Client *client, const char *data, Size len)
{
	RequestSlot *slot = client->slot;
	Ring	   *up = request_up(slot);

	for (;;)
	{
		RingWriter	writer;
		Size		written;

		if (client_is_done(client))
			return false;
		ring_write_begin(&writer, up);
		written = ring_write(&writer, data, len);
		ring_write_end(&writer);
		data += written;
		len -= written;
		pg_atomic_write_u64(&slot->copy_bytes,
							pg_atomic_read_u64(&slot->copy_bytes) + written);
		if (len > 0 || ring_used(up) > REQUEST_UP_SIZE / 2)
			client_ask_attention(client);
		/* telling the client of a notice may take a wake-up away: look again */
		if (client_receive(client))
			CHECK_FOR_INTERRUPTS();
		else if (len > 0 && ring_begin_wait(up))
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1,
							 compat_wait_event(&wait_room_event, "DbpoolBulkInsert"));
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
		if (len == 0)
			return true;
	}
}

/* One more row was sent.  False as with client_send(). */
bool
client_count_row(Client *client)
{
	RequestSlot *slot = client->slot;

	pg_atomic_write_u64(&slot->copy_rows, pg_atomic_read_u64(&slot->copy_rows) + 1);
	return !client_is_done(client);
}

/* "Rows that the backend sends" in request.h. */
static void
send_rows(Client *client)
{
	RequestSlot *slot = client->slot;

	/* frames that come meanwhile are received in contexts of the query */
	if (client->frame.data == NULL)
		initStringInfo(&client->frame);
	if (client->error.data == NULL)
		initStringInfo(&client->error);
	client->wants_rows = false;
	pg_atomic_write_u32(&slot->copy_phase, COPY_COPYING);
	client->call->rows->give(client->call->rows, client, client->columns);
	/* the rows first; the pair is in copy_send() */
	pg_write_barrier();
	pg_atomic_write_u32(&slot->copy_phase, COPY_ENDED);
	client_ask_attention(client);
}

/* The worker ended without an answer: throw that. */
void
client_worker_died(const Client *client)
{
	bool		sent = pg_atomic_read_u32(&client->slot->sent) != 0;

	ereport(ERROR,
			(errcode(sent ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN : ERRCODE_CONNECTION_FAILURE),
			 errmsg("the dbpool worker of pool \"%s\" was terminated", client->call->pool),
			 sent ? errdetail("The statement had been sent: it may or may not have run.") :
			 client->call->rows ? errdetail("No row was inserted.") :
			 client->call->kind == REQUEST_BATCH ? errdetail("Nothing of the batch stays.") :
			 errdetail("The statement was not run."),
			 errhint("The worker starts again by itself."),
			 errcontext("statement on pool \"%s\"", client->call->pool)));
}

/*
 * Steps 4 and 5: take what has come, and give what there is room for.  True when the answer
 * is complete; false when there is nothing more to do before the latch is set.
 */
bool
client_take(Client *client)
{
	for (;;)
	{
		/* first: once it is true, the ring has all that will come */
		bool		done = client_is_done(client);

		if (client->up_sent < client->up.len && !done)
		{
			Size		before = client->up_sent;

			client_send_more(client);
			if (client->up_sent > before)
				client_ask_attention(client);
		}
		if (client_receive(client))
		{
			CHECK_FOR_INTERRUPTS();
			if (client->wants_rows)
				send_rows(client);
		}
		else
			return done;
	}
}

/* The answer is complete: throw the error that it is, if it is one. */
void
client_finish(const Client *client)
{
	if (client->error.len > 0)
	{
		MessageReader body = {client->error.data, client->error.data + client->error.len};

		error_throw(client->call->pool, client->call->sql, &body);
	}
	if (!client->ended)
		client_worker_died(client);
}

/* Find the definition of the call's pool, and enter the transaction that it belongs to. */
void
client_enter(Client *client)
{
	client->definition = transaction_enter(client->call);
	client->entered = client->call->transaction != NULL;
}

/* A call has come to its end, or is given up: its slot is let go. */
void
client_leave(Client *client)
{
	bool		given_up = client->slow_ms > 0 && client->slot != NULL && !client->ended && !client_is_done(client);

	client_let_go(client);
	if (client->entered)
		transaction_left(client->call->transaction, client->call, client->ticket, client->running);
	/* last, as it may run out of memory */
	if (given_up)
		slow_given_up(client);
}

/*
 * Have the call run again if its definition is out of date.  One that belongs to a
 * transaction which has begun needs none.
 */
bool
client_is_stale(const Client *client)
{
	if (!client->stale || client->call->definition != NULL)
		return false;
	CHECK_FOR_INTERRUPTS();
	definition_stale();
	if (client->call->transaction != NULL)
		transaction_stale(client->call->transaction);
	return true;
}

/*
 * Wait for the latch.  Most answers come before anybody could ask what for; later on, the
 * worker wakes the session when that changes.
 */
static void
wait_for_answer(Client *client)
{
	uint32		event = compat_wait_event(&wait_answer_event, "DbpoolAnswer");
	int			wakes = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;

	if (!client->waits_long)
		wakes |= WL_TIMEOUT;
	else if (request_word_state(request_word(client->slot)) == REQUEST_RUNNING)
		event = compat_wait_event(&wait_result_event, "DbpoolResult");
	else
		event = compat_wait_event(&wait_connection_event, "DbpoolConnection");
	if (WaitLatch(MyLatch, wakes, REQUEST_LONG_MS, event) & WL_TIMEOUT)
		client->waits_long = true;
	client->awake_at = ticks_now();
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
run_once(Client *client)
{
	client->slot = NULL;
	client->ticket = 0;
	client->running = false;
	client->entered = false;
	client->awake_at = 0;
	client->waits_long = false;
	client->slow_ms = 0;
	client->elsewhere = false;
	client->definition = NULL;
	client->error.len = 0;
	PG_TRY();
	{
		client_enter(client);
		client_submit(client);
		while (!client_take(client))
			wait_for_answer(client);
		fallback_judge(client);
		client->elsewhere = fallback_take(client);
		if (!client->elsewhere)
			client_finish(client);
	}
	PG_FINALLY();
	{
		client_leave(client);
	}
	PG_END_TRY();
}

void
client_init(Client *client, Call *call, AnswerSink *sink)
{
	memset(client, 0, sizeof(*client));
	client->call = call;
	client->sink = sink;
}

void
client_free(Client *client)
{
	if (client->up.data != NULL)
		pfree(client->up.data);
	if (client->frame.data != NULL)
		pfree(client->frame.data);
}

/* For who wants to know nothing of an answer but whether there was an error. */
void
client_no_frame(AnswerSink *sink, char type, MessageReader *body)
{
	(void) sink;
	(void) type;
	(void) body;
}

/*
 * Run a statement and hand its answer to the sink.  Returns the microseconds
 * that the remote took.  Throws what the remote or the worker reports; the
 * request is given up on any error, and nothing of it remains.
 */
int64
client_run(const Call *call, AnswerSink *sink)
{
	Client		client;
	Call		copy = *call;
	ErrorContextCallback context = {error_context_stack, fallback_context, &copy};

	client_require_workers();
	client_init(&client, &copy, sink);
	error_context_stack = &context;
	do
		run_once(&client);
	while (client.elsewhere || client_is_stale(&client));
	error_context_stack = context.previous;
	client_free(&client);
	return client.remote_us;
}
