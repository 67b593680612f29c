/*
 * client_together.c
 *	  Several calls of a session at the same time, each in a transaction; and the ends of
 *	  transactions, which are not given up.
 *
 * As many are submitted as there are slots for, and as the session may have; but for the
 * first, none fails for want of one: it gets the slot of one that has ended.
 *
 * HOW AN END IS CANCELLED
 *
 * Once a COMMIT is on its way, nobody but the remote knows whether it is too late for a
 * cancel.  So a session that is cancelled, or terminated, as it commits does not go away:
 *	 1. It has the statement called off (request.h), which cancels it at the remote, and
 *		goes on to wait for the answer.  That decides: if it has been committed, the cancel
 *		came too late; if it was cancelled, that is the error.
 *	 2. When one of several has been committed, the others are not called off: it would do
 *		no more than make them differ.  As the answer may be on its way, some time passes
 *		before the first is called off.
 *	 3. When there is no answer for UNANSWERED_MS, the session gives up: the transaction may
 *		or may not have been committed.
 */
#include "postgres.h"

#include "backend/client_slot.h"
#include "backend/transaction.h"
#include "miscadmin.h"
#include "storage/procsignal.h"

#include "compat.h"

/* Milliseconds that a session which is to end its work waits for the answers. */
#define UNANSWERED_MS	10000

/* Milliseconds before one of several is called off. */
#define SEVERAL_MS		200

static uint32 wait_together_event;
static uint32 wait_end_event;

typedef struct Together
{
	Client	   *clients;
	int			n;
	int			submitted;		/* the first so many */
	bool	   *over;			/* by client: has its answer been taken? */
	int			nover;
	bool		ends;			/* they end their transactions */
	int			committed;		/* of those that may have written, and of
								 * others to which these are to be alike */
	Ticks		asked_at;		/* since when the session is to end its work;
								 * 0: it is not */
	int			called_off;		/* of the first so many, who had no answer */
} Together;

/* Is the session to end what it does?  That its client has gone, it sees later. */
static bool
is_asked_to_end(void)
{
	return QueryCancelPending || ProcDiePending || compat_transaction_overdue();
}

/* Have what has no answer stopped at the remotes. */
static void
call_off(Together *together)
{
	for (int i = 0; i < together->submitted; i++)
	{
		Client	   *client = &together->clients[i];

		if (together->over[i])
			continue;
		pg_atomic_write_u32(&client->slot->called_off, 1);
		client_ask_attention(client);
	}
	together->called_off = together->submitted;
}

static void
throw_unanswered(const Together *together)
{
	const RemoteTransaction *transaction;
	int			i = 0;

	/* there is one, or nobody would wait */
	while (together->over[i])
		i++;
	transaction = together->clients[i].call->transaction;
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("the %s was being committed when this session was cancelled, and its remote server does not answer",
					transaction_shown(transaction)),
			 errdetail("It was waited for for %d s. The transaction may or may not have been committed.%s",
					   UNANSWERED_MS / 1000,
					   transaction->mode == LEASE_BOUND ? " The local one is rolled back." : "")));
}

/* Interrupts are held: see to them.  Returns how long to wait, in milliseconds; -1: no limit. */
static long
see_to_interrupts(Together *together)
{
	Ticks		due;

	if (ProcSignalBarrierPending)
		ProcessProcSignalBarrier();
	if (together->asked_at == 0 && is_asked_to_end())
		together->asked_at = ticks_now();
	if (together->asked_at == 0)
		return -1;
	due = ticks_plus_ms(together->asked_at, UNANSWERED_MS);
	if (ticks_now() >= due)
		throw_unanswered(together);
	if (together->called_off < together->submitted && together->committed == 0)
	{
		Ticks		first = ticks_plus_ms(together->asked_at, together->n > 1 ? SEVERAL_MS : 0);

		if (ticks_now() < first)
			due = first;
		else
			call_off(together);
	}
	return ticks_left_ms(due);
}

/* What a cancel has ended at the remote is told as a cancel here is. */
static void
throw_as_cancelled(const Together *together, const Client *client)
{
	MessageReader body = {client->error.data, client->error.data + client->error.len};
	char		sqlstate[6];
	char	   *message;

	if (together->called_off == 0 || client->error.len == 0)
		return;
	error_texts(&body, sqlstate, &message);
	if (strcmp(sqlstate, "57014") != 0)
		return;
	RESUME_INTERRUPTS();
	CHECK_FOR_INTERRUPTS();
	HOLD_INTERRUPTS();
}

/* The answer of one has come as a whole: the next one that has no slot gets its. */
static void
is_over(Together *together, int i)
{
	Client	   *client = &together->clients[i];

	together->over[i] = true;
	together->nover++;
	throw_as_cancelled(together, client);
	client_finish(client);
	Assert(!client->stale);
	if (!client->call->transaction->only_read)
		together->committed++;
	if (together->submitted < together->n)
		client_submit_after(&together->clients[together->submitted++], client);
}

static void
run_all(Together *together)
{
	for (int i = 0; i < together->n; i++)
	{
		client_enter(&together->clients[i]);
		client_find_worker(&together->clients[i]);
	}
	client_submit(&together->clients[0]);
	together->submitted = 1;
	while (together->submitted < together->n && client_try_submit(&together->clients[together->submitted]))
		together->submitted++;
	for (;;)
	{
		long		timeout;

		for (int i = 0; i < together->submitted; i++)
		{
			if (!together->over[i] && client_take(&together->clients[i]))
				is_over(together, i);
		}
		if (together->nover == together->n)
			return;
		timeout = together->ends ? see_to_interrupts(together) : -1;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 together->ends ? compat_wait_event(&wait_end_event, "DbpoolCommit") :
						 compat_wait_event(&wait_together_event, "DbpoolAnswer"));
		for (int i = 0; i < together->n; i++)
			together->clients[i].awake_at = ticks_now();
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
run_clients(Call *calls, AnswerSink **sinks, int n, bool ends, bool others)
{
	Together	together;

	memset(&together, 0, sizeof(together));
	together.clients = palloc(sizeof(Client) * n);
	together.n = n;
	together.over = palloc0(sizeof(bool) * n);
	together.ends = ends;
	together.committed = others;
	for (int i = 0; i < n; i++)
		client_init(&together.clients[i], &calls[i], sinks[i]);
	PG_TRY();
	{
		run_all(&together);
	}
	PG_FINALLY();
	{
		for (int i = 0; i < n; i++)
			client_leave(&together.clients[i]);
	}
	PG_END_TRY();
	for (int i = 0; i < n; i++)
		client_free(&together.clients[i]);
	pfree(together.clients);
	pfree(together.over);
}

/*
 * Run the calls, each with its sink, at the same time.  They belong to transactions that
 * have begun.  The error of one is thrown when it has come, and the others are given up.
 */
void
client_run_together(Call *calls, AnswerSink **sinks, int n)
{
	if (n > 0)
		run_clients(calls, sinks, n, false, false);
}

/*
 * The same for calls that end their transactions, which are not given up when the session
 * is cancelled or terminated.  When it returns, interrupts are held: the caller resumes
 * them when it has done what is to be done alike.  others: some that belong to these have
 * been committed before, as if they were among them.
 */
void
client_end_together(Call *calls, AnswerSink **sinks, int n, bool others)
{
	HOLD_INTERRUPTS();
	if (n > 0)
		run_clients(calls, sinks, n, true, others);
}
