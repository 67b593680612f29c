/*
 * client_slot.c
 *	  The slot of a request: claimed, filled, submitted, given up.
 *
 * A session may have several requests at a time.  Each is in open_requests
 * from the claim of its slot until the slot is out of our hands, so that a
 * process which exits between any two lines gives all of them up.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/client_slot.h"
#include "backend/statements.h"
#include "backend/transaction.h"
#include "backend/written.h"
#include "backend/text.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "compat.h"
#include "ipc/home.h"

/* Milliseconds to wait for a worker that is being started. */
#define WORKER_START_MS		10000

/* Milliseconds to wait for a slot that a worker is about to free. */
#define SLOT_FREED_MS		2000

static dlist_head open_requests = DLIST_STATIC_INIT(open_requests);
static uint32 wait_worker_event;
static uint32 wait_slot_event;
static uint32 wait_stop_event;

/* Have the worker look at the request. */
void
client_ask_attention(const Client *client)
{
	request_attention(client->slot, client->worker);
}

/*
 * Give up a request in whatever state it is, unless the slot is ours no more.
 * Returns true if it runs in this very server; then wait_until_stopped() is to
 * be called.
 */
static bool
abandon(Client *client)
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
			client->running = state == REQUEST_RUNNING;
			request_attention(slot, request_word_worker(word));
			return home && state == REQUEST_RUNNING;
		}
	}
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

/*
 * Let go of the slot, if the request has one.  Waits, but not for long, until
 * what it has left running in this very server has ended.
 */
void
client_let_go(Client *client)
{
	bool		home;

	if (client->slot == NULL)
		return;
	home = abandon(client);
	dlist_delete(&client->node);
	if (home)
		wait_until_stopped(client);
	client->slot = NULL;
}

/*
 * Give up all that is open, before locks are released, and while there is the memory in
 * which it is.  When the local transaction is aborted there is something only if that is
 * since the process exits: then nobody else does it.
 */
void
clients_give_up(bool all)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &open_requests)
	{
		Client	   *client = dlist_container(Client, node, iter.cur);

		if (!all && client->lasting)
			continue;
		dlist_delete(&client->node);
		if (abandon(client))
			wait_until_stopped(client);
	}
}

/*
 * Before what was registered earlier; later ones, such as that for temporary tables, have
 * aborted the transaction.
 */
static void
on_backend_exit(int code, Datum arg)
{
	(void) code;
	(void) arg;
	clients_give_up(true);
	transactions_exit();
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
void
client_send_more(Client *client)
{
	client->up_sent += ring_write_some(request_up(client->slot),
									   client->up.data + client->up_sent,
									   client->up.len - client->up_sent);
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
		ring_write(&writer, call->prelude.data, slot->task.prelude_len);
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
	message_put(&client->up, call->prelude.data, slot->task.prelude_len);
}

/* How the request stands to transactions, local ones and remote ones. */
static void
fill_transaction(Client *client)
{
	RequestSlot *slot = client->slot;
	const Call *call = client->call;
	const Definition *definition = client->definition;
	const RemoteTransaction *ends = call->ends_transaction ? call->transaction : NULL;

	slot->task.prelude_len = call->prelude.len;
	slot->task.lease = LEASE_NONE;
	slot->task.lease_ends = ends != NULL && !call->prepares_transaction;
	slot->task.lease_prepares = call->prepares_transaction;
	slot->task.lease_wrote = ends != NULL && ends->wrote;
	slot->task.lease_has_read = ends != NULL && ends->only_read;
	if (call->transaction != NULL)
		transaction_fill(call->transaction, &slot->task);
	else if (((dbpool_inherit_read_only && XactReadOnly) || call->stands_in_for != NULL) &&
			 (call->kind == REQUEST_QUERY || call->kind == REQUEST_SCRIPT ||
			  call->kind == REQUEST_BATCH))
		slot->task.traces |= TRACE_READ_ONLY;
	slot->task.min_lsn = definition->options->read_only ? dbpool_min_lsn : 0;
	if (call->kind == REQUEST_PING && call->transaction == NULL)
		slot->task.min_lsn = 0;
	if (!definition->options->read_only && !call->only_looks && call->kind != REQUEST_PING &&
		(slot->task.traces & TRACE_READ_ONLY) == 0 &&
		(call->transaction == NULL || !call->transaction->read_only))
		written_note(&definition->key);
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
	pg_atomic_write_u64(&slot->items_done, 0);
	pg_atomic_write_u32(&slot->called_off, 0);
	slot->task.kind = call->kind;
	slot->task.key = definition->key;
	slot->task.procno = compat_my_proc_number();
	slot->task.ticket = pg_atomic_fetch_add_u64(&dbpool_shared->request_ticket, 1);
	client->ticket = slot->task.ticket;
	slot->home_pid = 0;
	slot->task.stamp = definition->stamp;
	slot->task.traces = call->traces | (call->kind == REQUEST_BATCH ? 0 : call_traces(call));
	slot->task.writes = call_writes(call);
	slot->task.one_transaction = call_is_one_transaction(call);
	slot->task.steers = call->transaction != NULL && call_steers(call);
	fill_transaction(client);
	slot->task.nparams = call->nparams;
	slot->task.definition_len = definition->len;
	slot->task.sql_len = sql_len;
	slot->task.params_len = call->nparams > 0 ? call->params.len : 0;
	slot->task.ntypes = call->ntypes;
	slot->task.batch = call->batch;
	slot->task.nitems = call->nitems;
	slot->task.item_most = call->item_most;
	slot->task.statement = statement_of_call(call, definition);
	slot->task.local_queryid = statement_local_queryid();
	trace_find(slot->task.traceparent);

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

	slow_begun(client);
	fill_ring(client, sql_len);
}

/* How many requests the session has under way. */
static int
open_count(void)
{
	dlist_iter	iter;
	int			open = 0;

	dlist_foreach(iter, &open_requests)
		open++;
	return open;
}

/* Find the worker that the request is for. */
static void
find_worker(Client *client)
{
	if (client->definition == NULL)
		client->definition = definition_find(client->call->pool);
	if (client->call->transaction != NULL)
		client->worker = transaction_worker(client->call->transaction, client->definition);
	else
		client->worker = definition_worker(client->definition);
	client->workers = client->definition->workers;
}

/* Steps 2 and 3 of "the backend" in request.h, with a slot that was claimed. */
static void
submit_claimed(Client *client)
{
	RequestSlot *slot = client->slot;

	ring_reset(request_up(slot));
	ring_reset(request_down(slot));
	client->up_sent = 0;
	client->up.len = 0;
	fill_slot(client);
	client->header_got = 0;
	client->ended = false;
	client->stale = false;
	client_send_more(client);
	for (;;)
	{
		request_move(slot, client->hold, REQUEST_CLAIMED, REQUEST_SUBMITTED);
		client_ask_attention(client);
		compat_injection_point("dbpool-submitted-before-pid-look");
		/* the pair is in worker_exit() */
		pg_memory_barrier();
		if (shmem_worker_pid(client->worker) != 0 ||
			!request_move(slot, client->hold, REQUEST_SUBMITTED, REQUEST_CLAIMED))
			break;
		wait_for_worker(client->worker);
	}
}

/* A process that exits gives up what it has under way. */
static void
give_up_at_exit(void)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(on_backend_exit, (Datum) 0);
	registered = true;
}

/* Step 1 of "the backend" in request.h: find the worker, and wait until it is there. */
void
client_find_worker(Client *client)
{
	give_up_at_exit();
	find_worker(client);
	wait_for_worker(client->worker);
}

/*
 * Steps 1 to 3 of "the backend" in request.h.  May throw when it has a slot
 * already: then client_let_go() is due.
 */
void
client_submit(Client *client)
{
	client_find_worker(client);

	/*
	 * what has been begun can be ended: there are no more of them than of
	 * those
	 */
	if (!client->call->ends_transaction)
		limits_check_session(open_count());
	claim_slot(client);
	/* a transaction is counted with what runs in it, one statement at a time */
	if (client->call->transaction == NULL)
		client->slot->quota = limits_count();
	submit_claimed(client);
}

/*
 * The same for a request that can be done without, or comes later.  Returns false, and
 * nothing has happened, if the worker is away, or if the session, its role or all
 * together have as many requests as they may.
 */
bool
client_try_submit(Client *client)
{
	bool		abandoned;
	int			quota = QUOTA_NONE;

	give_up_at_exit();
	find_worker(client);
	if (shmem_worker_pid(client->worker) == 0 ||
		!(client->call->ends_transaction || limits_allow(open_count())) ||
		!try_claim_slot(client, &abandoned))
		return false;
	if (client->call->transaction == NULL)
		quota = limits_try_count();
	if (quota == QUOTA_EXCEEDED)
	{
		client_let_go(client);
		return false;
	}
	client->slot->quota = quota;
	submit_claimed(client);
	return true;
}

/*
 * The same for a call of a transaction, whose worker has been found, in the slot of another
 * one, which has got its whole answer, and loses the slot.
 */
void
client_submit_after(Client *client, Client *other)
{
	Assert(client->call->transaction != NULL && client_is_done(other));
	client->slot = other->slot;
	client->hold = other->hold;
	request_claim_anew(client->slot, client->worker, &client->hold);
	client->slot->quota = QUOTA_NONE;
	other->slot = NULL;
	dlist_delete(&other->node);
	dlist_push_tail(&open_requests, &client->node);
	submit_claimed(client);
}
