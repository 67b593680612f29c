/*
 * batch_client.c
 *	  A batch's talk with the workers; "Statements that the backend sends" in
 *	  ipc/request.h.
 *
 * A batch has one member, or several if its statements are independent.  Each is a
 * request with a connection of its own.  One loop serves all of them: it writes items
 * into each ring as room appears, takes what comes back, and waits only when neither
 * is possible.
 *
 * Several members share the items: whoever has few unanswered gets the next one.  A
 * member that never gets a connection is no loss while others have some.
 *
 * An item that has surely not run when its member's connection is lost is given out again,
 * and the member tries another connection; so is all of a batch in one
 * transaction of which nothing has run.
 */
#include "postgres.h"

#include "backend/batch.h"
#include "backend/transaction.h"
#include "miscadmin.h"

#include "compat.h"

/* Most items that one of several members has and has not answered. */
#define SHARE_MOST		32

/* How often a member whose connection was lost tries another. */
#define RESUBMITS_MOST	3

static uint32 wait_batch_event;

/* --- items go ---------------------------------------------------------------------- */

/* How many items may the member have unanswered? */
static uint64
window_of(const BatchRun *run)
{
	uint64		left = batch_items_left(run->items);

	if (run->call.batch & BATCH_ONE)
		return PG_UINT64_MAX;
	if (run->nmembers == 1)
		return BATCH_EACH_WINDOW;
	return Min(Max(left / (2 * run->nmembers), 1), SHARE_MOST);
}

/* Take the next item for a member; false if there is none for it now. */
static bool
take_item(BatchMember *member)
{
	BatchRun   *run = member->run;
	uint64	   *number = &member->numbers[member->given % BATCH_EACH_WINDOW];
	const char *item;
	Size		len;

	if (batch_items_left(run->items) == 0 ||
		member->given - member->answered >= window_of(run))
		return false;
	item = batch_next_item(run->items, number, &len);
	resetStringInfo(&member->item);
	message_put(&member->item, item, len);
	member->item_at = 0;
	member->given++;
	run->began = true;
	return true;
}

/* Write items for a member, as many as there are and fit; true if there were any. */
static bool
give_items(BatchMember *member)
{
	Client	   *client = &member->client;
	BatchRun   *run = member->run;
	bool		gave = false;

	if (member->closed || !client->wants_rows)
		return false;
	pg_atomic_write_u32(&client->slot->copy_phase, COPY_COPYING);
	while (member->item_at < (Size) member->item.len || take_item(member))
	{
		Size		written = ring_write_some(request_up(client->slot),
											  member->item.data + member->item_at,
											  member->item.len - member->item_at);

		member->item_at += written;
		gave |= written > 0;
		if (member->item_at < (Size) member->item.len)
			break;
	}
	if (member->item_at == (Size) member->item.len && batch_items_left(run->items) == 0)
	{
		/* the items first; the pair is in batch_send() */
		pg_write_barrier();
		pg_atomic_write_u32(&client->slot->copy_phase, COPY_ENDED);
		member->closed = true;
		gave = true;
	}
	if (gave)
		client_ask_attention(client);
	return gave;
}

/* --- answers come -------------------------------------------------------------------- */

static void
member_frame(AnswerSink *sink, char type, MessageReader *body)
{
	BatchMember *member = (BatchMember *) sink;
	uint64		done;
	int64		us;

	if (type == FRAME_LOST)
	{
		member->lost = true;
		message_get(body, &member->lost_sent, sizeof(member->lost_sent));
		return;
	}
	if (type != FRAME_ITEMS)
	{
		member->run->frame(member, type, body);
		return;
	}
	message_get(body, &done, sizeof(done));
	message_get(body, &us, sizeof(us));
	if (us < 0)
		member->item_failed = true;
	else if (member->run->ended != NULL && done == member->answered + 1)
		member->run->ended(member, (member->run->call.batch & BATCH_ONE) ? done :
						   member->numbers[member->answered % BATCH_EACH_WINDOW], us);
	member->answered = done;
}

/* For an error of a batch in one transaction: which item has failed. */
static void
in_item(void *arg)
{
	BatchMember *member = arg;
	BatchRun   *run = member->run;

	if (member->answered >= run->items->n)
		errcontext("COMMIT of the batch");
	else
		errcontext("%s " UINT64_FORMAT " of the batch", run->unit, member->answered + 1);
}

static void
throw_error(BatchMember *member)
{
	BatchRun   *run = member->run;
	StringInfo	error = &member->client.error;
	MessageReader body = {error->data, error->data + error->len};
	ErrorContextCallback context = {error_context_stack, in_item, member};
	const char *text = NULL;

	if (error->len == 0)
		client_worker_died(&member->client);
	/* else no item is to blame */
	if (member->item_failed)
	{
		error_context_stack = &context;
		if (member->answered < run->items->n)
			text = run->text(run, member->answered + 1);
	}
	error_throw(run->call.pool, text, &body);
}

/* What has kept items from being run, and will those that are left at the end. */
static void
note_reason(BatchRun *run, const char *sqlstate, const char *message)
{
	/* of those it is known that they have not run */
	if (strcmp(sqlstate, "08007") == 0)
		sqlstate = "08006";
	strcpy(run->sqlstate, sqlstate);
	run->message = pstrdup(message);
}

/* Items of a member of which it is known that they have not run, from that one on. */
static void
put_back(BatchMember *member, uint64 from)
{
	for (uint64 i = from; i < member->given; i++)
		batch_give_back(member->run->items, member->numbers[i % BATCH_EACH_WINDOW]);
}

/* A member's request has failed, of independent statements: what of those that it has? */
static void
member_failed(BatchMember *member)
{
	BatchRun   *run = member->run;
	StringInfo	error = &member->client.error;
	uint64		sent = member->lost ? Max(member->lost_sent, member->answered) : member->given;
	char		sqlstate[6];
	char	   *message;

	if (error->len > 0)
	{
		MessageReader body = {error->data, error->data + error->len};

		error_texts(&body, sqlstate, &message);
	}
	else
	{
		strcpy(sqlstate, "08007");
		message = psprintf("the dbpool worker of pool \"%s\" was terminated", run->call.pool);
	}
	note_reason(run, sqlstate, message);
	for (uint64 i = member->answered; i < Min(sent, member->given); i++)
		run->unknown(run, member->numbers[i % BATCH_EACH_WINDOW], sqlstate, message);
	put_back(member, sent);
	member->given = member->answered;
}

/* Is there nobody else, and has nobody been given anything? */
static bool
is_last_hope(const BatchMember *member)
{
	const BatchRun *run = member->run;

	for (int i = 0; i < run->nmembers; i++)
	{
		if (&run->members[i] != member && run->members[i].open)
			return false;
	}
	return !run->began;
}

/* In a transaction over several calls nothing is for itself. */
static void
refuse_independent(const Call *call)
{
	if (call->transaction != NULL && (call->batch & BATCH_EACH))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a batch of independent statements cannot run in the %s",
						transaction_shown(call->transaction)),
				 errdetail("There the first that fails would take all others with it. No statement was run."),
				 errhint("Set dbpool.transaction to autonomous for it, or leave out \"mode\".")));
}

/*
 * Submit a member's request; its transaction is entered first, if it is to run in one.
 * A member that others can do without is none if there is no room for it now.
 */
static void
submit(BatchMember *member)
{
	Client	   *client = &member->client;
	StringInfoData up = client->up;
	StringInfoData frame = client->frame;

	memset(client, 0, sizeof(Client));
	client->up = up;
	client->frame = frame;
	client->call = &member->run->call;
	client->sink = &member->sink;
	resetStringInfo(&member->item);
	member->item_at = 0;
	member->given = 0;
	member->answered = 0;
	member->closed = false;
	member->lost = false;
	member->open = true;
	client_enter(client);
	refuse_independent(client->call);
	if ((client->call->batch & BATCH_ONE) || is_last_hope(member))
		client_submit(client);
	else
		member->open = client_try_submit(client);
}

/* A member's request has ended, or is given up. */
static void
leave(BatchMember *member)
{
	if (!member->open)
		return;
	member->open = false;
	client_leave(&member->client);
	member->client.slot = NULL;
}

/* A member's request has ended before its time: try once more, if that is of use. */
static bool
resubmit(BatchMember *member)
{
	BatchRun   *run = member->run;

	if (batch_items_left(run->items) == 0 || member->resubmits++ >= RESUBMITS_MOST)
		return false;
	if (run->forget != NULL)
		run->forget(member);
	leave(member);
	submit(member);
	return true;
}

/* The request of a batch in one transaction has failed. */
static void
one_failed(BatchMember *member)
{
	/* nothing has come of it */
	if (member->lost && member->lost_sent == 0 && member->answered == 0)
	{
		batch_rewind(member->run->items);
		if (resubmit(member))
			return;
	}
	throw_error(member);
}

/* All of a member's answer is here. */
static void
member_ended(BatchMember *member)
{
	static const char *const stopped = "the batch was stopped after a deadlock";
	Client	   *client = &member->client;
	BatchRun   *run = member->run;
	bool		again = false;

	if (client->stale)
	{
		leave(member);
		(void) client_is_stale(client);
		submit(member);
		return;
	}
	if (client->error.len > 0 || !client->ended)
	{
		if (run->call.batch & BATCH_ONE)
		{
			one_failed(member);
			return;
		}
		again = member->lost && member->resubmits < RESUBMITS_MOST;
		if (!again && is_last_hope(member))
			throw_error(member);
		member_failed(member);
	}
	else if (member->answered < member->given && (run->call.batch & BATCH_EACH))
	{
		note_reason(run, "40P01", stopped);
		put_back(member, member->answered);
		again = true;
	}
	if (!again || !resubmit(member))
		leave(member);
}

/* Do for a member what can be done now; false if that is nothing. */
static bool
serve_member(BatchMember *member)
{
	Client	   *client = &member->client;

	/* first: once it is true, the ring has all that will come */
	bool		done = client_is_done(client);
	bool		moved = false;

	if (client->up_sent < (Size) client->up.len && !done)
	{
		Size		before = client->up_sent;

		client_send_more(client);
		if (client->up_sent > before)
			client_ask_attention(client);
	}
	if (client_receive(client))
		moved = true;
	if (!done && give_items(member))
		moved = true;
	if (moved || !done)
		return moved;
	member_ended(member);
	return true;
}

/* Are there members who still wait for a connection, and nothing is left for them? */
static bool
is_idle(const BatchMember *member)
{
	const BatchRun *run = member->run;

	return run->nmembers > 1 && batch_items_left(run->items) == 0 && member->given == 0 &&
		!member->client.wants_rows;
}

/* Until all is answered. */
static void
batch_converse(BatchRun *run)
{
	for (;;)
	{
		int			open = 0;
		bool		moved = false;

		for (int i = 0; i < run->nmembers; i++)
		{
			BatchMember *member = &run->members[i];

			if (member->open && is_idle(member))
				leave(member);
			if (!member->open)
				continue;
			open++;
			moved |= serve_member(member);
		}
		if (open == 0)
			break;
		if (!moved)
		{
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1,
							 compat_wait_event(&wait_batch_event, "DbpoolBatch"));
			ResetLatch(MyLatch);
		}
		CHECK_FOR_INTERRUPTS();
	}
	/* what nobody was left for */
	while (batch_items_left(run->items) > 0)
	{
		uint64		number;
		Size		len;

		CHECK_FOR_INTERRUPTS();
		(void) batch_next_item(run->items, &number, &len);
		run->not_run(run, number, run->sqlstate, run->message);
	}
}

/* The first argument: a pool that there is, or a transaction. */
const char *
batch_pool(FunctionCallInfo fcinfo)
{
	const char *pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));

	if (pool == NULL || transaction_find_named(pool) == NULL)
		(void) definition_server(pool, false);
	return pool;
}

/*
 * Run a batch: call has its pool and BATCH_ flags, and run its items and who takes what
 * comes of them.  Throws what fails a batch in one transaction, and what keeps each of
 * independent statements from being sent.  Whatever happens, nothing remains under way.
 */
void
batch_run(BatchRun *run, int parallel)
{
	run->call.kind = REQUEST_BATCH;
	run->call.sql = "";
	run->call.nitems = run->items->n;
	run->call.item_most = run->items->most;
	run->call.traces = run->items->traces;
	run->nmembers = (int) Min(Min(parallel, BATCH_PARALLEL_MOST), run->items->n);
	run->members = palloc0(sizeof(BatchMember) * run->nmembers);
	PG_TRY();
	{
		for (int i = 0; i < run->nmembers; i++)
		{
			BatchMember *member = &run->members[i];

			member->sink.frame = member_frame;
			member->run = run;
			initStringInfo(&member->item);
			initStringInfo(&member->client.frame);
			submit(member);
		}
		batch_converse(run);
	}
	PG_FINALLY();
	{
		for (int i = 0; i < run->nmembers; i++)
			leave(&run->members[i]);
	}
	PG_END_TRY();
}
