/*
 * client.c
 *	  The backend's side of a request; the protocol stands in ipc/request.h.
 *
 * A session may have several requests at a time.  Each is in open_requests
 * from the claim of its slot until the slot is out of our hands, so that a
 * process which exits between any two lines gives all of them up.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/client.h"
#include "backend/text.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "compat.h"
#include "ipc/home.h"

/* Milliseconds to wait for a worker that is being started. */
#define WORKER_START_MS		10000

/* Milliseconds to wait for a slot that a worker is about to free. */
#define SLOT_FREED_MS		2000

struct Client
{
	dlist_node	node;			/* in open_requests */
	RequestSlot *slot;
	uint64		hold;			/* by which the slot is ours */
	const Call *call;
	AnswerSink *sink;
	const Definition *definition;
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

static dlist_head open_requests = DLIST_STATIC_INIT(open_requests);
static uint32 wait_answer_event;
static uint32 wait_room_event;
static uint32 wait_worker_event;
static uint32 wait_slot_event;
static uint32 wait_stop_event;

/* Every function that writes on a remote, whatever its arguments, calls this. */
void
client_refuse_read_only(const char *function)
{
	if (dbpool_inherit_read_only && XactReadOnly)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s in a read-only transaction", function),
				 errdetail("dbpool.inherit_read_only is on: while the local transaction is read-only, nothing is written on remotes."),
				 errhint("Call it in a transaction that is READ WRITE, or set dbpool.inherit_read_only to off.")));
}

/*
 * Give up a request in whatever state it is, unless the slot is ours no more.
 * Returns true if it runs in this very server; then wait_until_stopped() is to
 * be called.
 */
static bool
abandon(const Client *client)
{
	RequestSlot *slot = client->slot;

	for (;;)
	{
		uint64		word = request_word(slot);
		RequestState state = request_word_state(word);

		if (request_word_hold(word) != client->hold ||
			state == REQUEST_FREE || state == REQUEST_ABANDONED)
			return false;
		if (state == REQUEST_CLAIMED || state == REQUEST_DONE)
		{
			if (request_move(slot, client->hold, state, REQUEST_FREE))
				return false;
		}
		else
		{
			/* as soon as it is moved, it is the worker's */
			bool		home = slot->home_pid != 0;

			if (!request_move(slot, client->hold, state, REQUEST_ABANDONED))
				continue;
			request_attention(slot, request_word_worker(word));
			return home && state == REQUEST_RUNNING;
		}
	}
}

/* Will no more come than is in the ring? */
static bool
is_done(const Client *client)
{
	return request_word_state(request_word(client->slot)) == REQUEST_DONE;
}

static void
ask_for_attention(const Client *client)
{
	request_attention(client->slot, client->worker);
}

/*
 * Wait, but not for long, until what a request has left running in this very
 * server has ended.  Our locks, which it may be waiting for, are released after
 * that, so that it cannot go on by that.
 */
static void
wait_until_stopped(const Client *client)
{
	Ticks		until = ticks_plus_ms(ticks_now(), HOME_STOP_MS);

	/* an error is on its way, another would take its place */
	HOLD_INTERRUPTS();
	ConditionVariablePrepareToSleep(&dbpool_shared->slot_freed_cv);
	while (request_word(client->slot) == (client->hold | REQUEST_ABANDONED))
	{
		long		left = ticks_left_ms(until);

		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&dbpool_shared->slot_freed_cv, left,
										   compat_wait_event(&wait_stop_event, "DbpoolStop"));
	}
	ConditionVariableCancelSleep();
	RESUME_INTERRUPTS();
}

/* Before locks are released: this is called before what was registered earlier. */
static void
on_backend_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	while (!dlist_is_empty(&open_requests))
	{
		Client	   *client = dlist_container(Client, node,
											 dlist_pop_head_node(&open_requests));

		if (abandon(client))
			wait_until_stopped(client);
	}
}

/* Wait until the worker is there. */
static void
wait_for_worker(int worker)
{
	WorkerShared *shared = shmem_worker(worker);
	Ticks		until = ticks_plus_ms(ticks_now(), WORKER_START_MS);

	/* one that has never come in all that time will not come now */
	if (pg_atomic_read_u32(&shared->starts) == 0 &&
		ticks_now() >= ticks_plus_ms(dbpool_shared->started_at, 3 * WORKER_START_MS))
		until = 0;
	ConditionVariablePrepareToSleep(&shared->started_cv);
	while (shmem_worker_pid(worker) == 0)
	{
		long		left = ticks_left_ms(until);

		if (left <= 0 ||
			ConditionVariableTimedSleep(&shared->started_cv, left,
										compat_wait_event(&wait_worker_event, "DbpoolWorkerStart")))
		{
			if (shmem_worker_pid(worker) != 0)
				break;
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_EXCEPTION),
					 errmsg("dbpool worker %d is not running", worker + 1),
					 errdetail("The statement was not run."),
					 errhint("The server's log says why. dbpool needs %d of max_worker_processes (%d); if others take them all, raise max_worker_processes and restart the server.",
							 dbpool_workers, max_worker_processes)));
		}
	}
	ConditionVariableCancelSleep();
}

/*
 * Claim a slot that is free; the search begins where the last one ended.  False
 * when there is none; then abandoned tells of those that will soon be.
 */
static bool
try_claim_slot(Client *client, bool *abandoned)
{
	static int	last = -1;

	*abandoned = false;
	if (last < 0)
		last = compat_my_proc_number() % dbpool_shared->nrequests;
	for (int i = 0; i < dbpool_shared->nrequests; i++)
	{
		int			index = (last + i) % dbpool_shared->nrequests;
		RequestSlot *slot = request_slot(index);

		if (request_claim(slot, client->worker, &client->hold))
		{
			client->slot = slot;
			slot->quota = QUOTA_NONE;
			dlist_push_tail(&open_requests, &client->node);
			last = index;
			return true;
		}
		*abandoned |= request_word_state(request_word(slot)) == REQUEST_ABANDONED;
	}
	return false;
}

/*
 * Claim a slot.  With none free, one that another session, or this one's last
 * statement, has given up is waited for: its worker is about to free it.
 */
static void
claim_slot(Client *client)
{
	Ticks		until = 0;
	bool		claimed;
	bool		abandoned;

	if (try_claim_slot(client, &abandoned))
		return;
	ConditionVariablePrepareToSleep(&dbpool_shared->slot_freed_cv);
	while (!(claimed = try_claim_slot(client, &abandoned)) && abandoned)
	{
		Ticks		now = ticks_now();

		if (until == 0)
			until = ticks_plus_ms(now, SLOT_FREED_MS);
		if (now >= until ||
			ConditionVariableTimedSleep(&dbpool_shared->slot_freed_cv, SLOT_FREED_MS,
										compat_wait_event(&wait_slot_event, "DbpoolRequestSlot")))
			break;
	}
	ConditionVariableCancelSleep();
	if (!claimed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("too many dbpool statements are under way"),
				 errdetail("All %d that dbpool.max_requests allows are. The statement was not run.",
						   dbpool_shared->nrequests),
				 errhint("Raise dbpool.max_requests in postgresql.conf, and restart the server.")));
}

/* Write as much of the request as there is room for. */
static void
send_more(Client *client)
{
	Ring	   *up = request_up(client->slot);

	while (client->up_sent < client->up.len)
	{
		RingWriter	writer;
		Size		written;

		ring_write_begin(&writer, up);
		written = ring_write(&writer, client->up.data + client->up_sent,
							 client->up.len - client->up_sent);
		ring_write_end(&writer);
		client->up_sent += written;
		if (client->up_sent < client->up.len && ring_begin_wait(up))
			break;
	}
}

/* The parts of the request. */
static void
fill_ring(Client *client, Size sql_len)
{
	RequestSlot *slot = client->slot;
	const Definition *definition = client->definition;
	const Call *call = client->call;
	Size		types_len = slot->task.ntypes * sizeof(uint32);
	Size		len = task_bytes(&slot->task);

	if (len <= REQUEST_UP_SIZE)
	{
		RingWriter	writer;

		ring_write_begin(&writer, request_up(slot));
		ring_write(&writer, definition->bytes, definition->len);
		ring_write(&writer, call->sql, sql_len);
		ring_write(&writer, call->params.data, slot->task.params_len);
		ring_write(&writer, call->types, types_len);
		ring_write_end(&writer);
		return;
	}
	if (client->up.data == NULL)
		initStringInfo(&client->up);
	resetStringInfo(&client->up);
	enlargeStringInfo(&client->up, (int) Min(len, INT_MAX));
	message_put(&client->up, definition->bytes, definition->len);
	message_put(&client->up, call->sql, sql_len);
	message_put(&client->up, call->params.data, slot->task.params_len);
	message_put(&client->up, call->types, types_len);
}

static void
fill_slot(Client *client)
{
	RequestSlot *slot = client->slot;
	const Call *call = client->call;
	const Definition *definition = client->definition;
	Size		sql_len = strlen(call->sql) + 1;
	char		sql[DBPOOL_SHOWN_SQL];
	char		target[DBPOOL_SHOWN_TARGET];

	pg_atomic_write_u32(&slot->sent, 0);
	pg_atomic_write_u32(&slot->copy_phase, COPY_WAITING);
	pg_atomic_write_u64(&slot->copy_rows, 0);
	pg_atomic_write_u64(&slot->copy_bytes, 0);
	slot->task.kind = call->kind;
	slot->task.key = definition->key;
	slot->task.procno = compat_my_proc_number();
	slot->task.ticket = pg_atomic_fetch_add_u64(&dbpool_shared->request_ticket, 1);
	slot->home_pid = 0;
	slot->task.stamp = definition->stamp;
	slot->task.traces = call_traces(call);
	if (dbpool_inherit_read_only && XactReadOnly &&
		(call->kind == REQUEST_QUERY || call->kind == REQUEST_SCRIPT))
		slot->task.traces |= TRACE_READ_ONLY;
	slot->task.nparams = call->nparams;
	slot->task.definition_len = definition->len;
	slot->task.sql_len = sql_len;
	slot->task.params_len = call->nparams > 0 ? call->params.len : 0;
	slot->task.ntypes = call->ntypes;

	text_clip(sql, call->shown ? call->shown : call->sql, sizeof(sql));
	text_clip(target, call->target ? call->target : "", sizeof(target));
	SpinLockAcquire(&slot->mutex);
	slot->task.pid = MyProcPid;
	slot->task.roleid = GetUserId();
	slot->dbid = MyDatabaseId;
	slot->task.encoding = GetDatabaseEncoding();
	slot->submitted_at = ticks_now();
	slot->running_since = 0;
	slot->server = definition->options->server;
	slot->remote_pid = 0;
	strlcpy(slot->sql, sql, sizeof(slot->sql));
	strlcpy(slot->target, target, sizeof(slot->target));
	SpinLockRelease(&slot->mutex);

	fill_ring(client, sql_len);
}

/* The worker to ask: one of several if the pool is split, always the same. */
static int
choose_worker(const Definition *definition)
{
	int			first = shmem_first_worker(&definition->key);

	return (first + compat_my_proc_number() % definition->workers) % dbpool_shared->nworkers;
}

/* Steps 1 to 3 of "the backend" in request.h. */
static void
submit(Client *client)
{
	static bool registered = false;
	RequestSlot *slot;
	dlist_iter	iter;
	int			open = 0;

	if (!registered)
	{
		before_shmem_exit(on_backend_exit, (Datum) 0);
		registered = true;
	}
	client->definition = client->call->definition;
	if (client->definition == NULL)
		client->definition = definition_find(client->call->pool);
	client->worker = choose_worker(client->definition);
	client->workers = client->definition->workers;
	wait_for_worker(client->worker);
	dlist_foreach(iter, &open_requests)
		open++;
	limits_check_session(open);
	claim_slot(client);
	slot = client->slot;
	limits_count(slot);

	ring_reset(request_up(slot));
	ring_reset(request_down(slot));
	client->up_sent = 0;
	client->up.len = 0;
	fill_slot(client);
	client->header_got = 0;
	client->ended = false;
	client->stale = false;
	send_more(client);
	for (;;)
	{
		request_move(slot, client->hold, REQUEST_CLAIMED, REQUEST_SUBMITTED);
		ask_for_attention(client);
		/* the pair is in worker_exit() */
		pg_memory_barrier();
		if (shmem_worker_pid(client->worker) != 0 ||
			!request_move(slot, client->hold, REQUEST_SUBMITTED, REQUEST_CLAIMED))
			break;
		wait_for_worker(client->worker);
	}
}

/* A frame has come as a whole. */
static void
client_frame(Client *client, char type, const char *bytes, Size len)
{
	MessageReader body = {bytes, bytes + len};
	const Call *call = client->call;
	int			workers;

	switch (type)
	{
		case FRAME_END:
			message_get(&body, &client->remote_us, sizeof(client->remote_us));
			workers = message_get_int32(&body);
			if (workers != client->workers && call->definition == NULL)
				definition_spread(call->pool, workers);
			client->ended = true;
			break;
		case FRAME_STALE:
			client->stale = true;
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
static bool
receive(Client *client)
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
		ask_for_attention(client);
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

		if (is_done(client))
			return false;
		ring_write_begin(&writer, up);
		written = ring_write(&writer, data, len);
		ring_write_end(&writer);
		data += written;
		len -= written;
		pg_atomic_write_u64(&slot->copy_bytes,
							pg_atomic_read_u64(&slot->copy_bytes) + written);
		if (len > 0 || ring_used(up) > REQUEST_UP_SIZE / 2)
			ask_for_attention(client);
		/* telling the client of a notice may take a wake-up away: look again */
		if (receive(client))
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
	return !is_done(client);
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
	ask_for_attention(client);
}

/* The worker ended without an answer. */
static void
worker_died(Client *client)
{
	bool		sent = pg_atomic_read_u32(&client->slot->sent) != 0;

	ereport(ERROR,
			(errcode(sent ? ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN : ERRCODE_CONNECTION_FAILURE),
			 errmsg("the dbpool worker of pool \"%s\" was terminated", client->call->pool),
			 sent ? errdetail("The statement had been sent: it may or may not have run.") :
			 client->call->rows ? errdetail("No row was inserted.") :
			 errdetail("The statement was not run."),
			 errhint("The worker starts again by itself."),
			 errcontext("statement on pool \"%s\"", client->call->pool)));
}

/* Steps 4 and 5: until the answer is complete. */
static void
converse(Client *client)
{
	for (;;)
	{
		/* first: once it is true, the ring has all that will come */
		bool		done = is_done(client);

		if (client->up_sent < client->up.len && !done)
		{
			Size		before = client->up_sent;

			send_more(client);
			if (client->up_sent > before)
				ask_for_attention(client);
		}
		if (receive(client))
		{
			CHECK_FOR_INTERRUPTS();
			if (client->wants_rows)
				send_rows(client);
		}
		else if (done)
			break;
		else
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1,
							 compat_wait_event(&wait_answer_event, "DbpoolAnswer"));
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	if (client->error.len > 0)
	{
		MessageReader body = {client->error.data, client->error.data + client->error.len};

		error_throw(client->call->pool, client->call->sql, &body);
	}
	if (!client->ended)
		worker_died(client);
}

/* Submit a request and see it through; whatever happens, its slot is let go. */
static void
run_once(Client *client)
{
	client->slot = NULL;
	PG_TRY();
	{
		submit(client);
		converse(client);
	}
	PG_FINALLY();
	{
		if (client->slot != NULL)
		{
			bool		home = abandon(client);

			dlist_delete(&client->node);
			if (home)
				wait_until_stopped(client);
		}
	}
	PG_END_TRY();
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

	client_require_workers();
	memset(&client, 0, sizeof(client));
	client.call = call;
	client.sink = sink;
	run_once(&client);
	while (client.stale && call->definition == NULL)
	{
		CHECK_FOR_INTERRUPTS();
		definition_stale();
		run_once(&client);
	}
	if (client.up.data != NULL)
		pfree(client.up.data);
	if (client.frame.data != NULL)
		pfree(client.frame.data);
	return client.remote_us;
}
