/*
 * transaction_end.c
 *	  What the end of a local transaction, or of a part of it, means to remote ones.
 *
 * Bound ones end just before the local one, in two steps: first, all at once, those that
 * are prepared, and those that have only read as far as is known; then, all at once, the
 * writers that are committed.  So who has only read, and is lost at the end, fails while
 * nothing has been committed yet.  If one of them fails, the local one does, and with it
 * the others that have not been committed by then.  An abort lets go of them, which
 * neither waits nor throws.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/client_slot.h"
#include "backend/transaction.h"
#include "miscadmin.h"
#include "tcop/utility.h"

#include "compat.h"

static ProcessUtility_hook_type prev_utility_hook;

/* How often interrupts are held since remotes have committed, until the local commit. */
static int	interrupt_holds = 0;

static void
tag_frame(AnswerSink *base, char type, MessageReader *body)
{
	TagSink    *sink = (TagSink *) base;
	uint64		count;

	if (type != FRAME_TAG)
		return;
	message_get(body, &count, sizeof(count));
	/* of several, the last one counts */
	strlcpy(sink->tag, message_get_string(body), sizeof(sink->tag));
}

/*
 * Make the call that ends a transaction, and the sink that goes with it.  how is COMMIT or
 * ROLLBACK; what has a gid is prepared.
 */
void
transaction_make_end(RemoteTransaction *transaction, const char *how, Call *call, TagSink *sink)
{
	StringInfoData before;

	memset(call, 0, sizeof(*call));
	initStringInfo(&before);
	if (transaction->stack.rollback_to > 0)
		appendStringInfo(&before, "ROLLBACK TO SAVEPOINT %s", savepoint_name(transaction->stack.rollback_to));
	call->pool = NameStr(transaction->pool);

	/*
	 * A prepared transaction is its role's: it has to be that by which others
	 * log in, who perhaps have to end it.
	 */
	if (transaction->gid[0] != '\0')
		how = psprintf("RESET ROLE; PREPARE TRANSACTION '%s'", transaction->gid);
	/* as a statement by itself it can be asked about, see worker/outcome.c */
	if (strcmp(how, "COMMIT") == 0)
	{
		call->kind = REQUEST_QUERY;
		call->sql = how;
		call->prelude = before;
		call->prelude.len += before.len > 0 ? 1 : 0;
	}
	else
	{
		call->kind = REQUEST_SCRIPT;
		call->sql = before.len > 0 ? psprintf("%s; %s", before.data, how) : how;
	}
	call->transaction = transaction;
	call->ends_transaction = true;
	call->prepares_transaction = transaction->gid[0] != '\0';
	sink->sink.frame = tag_frame;
	sink->tag[0] = '\0';
}

/*
 * The transaction was told to commit, or to be prepared if it has a gid, and there was no
 * error: throws if the remote has done something else.
 */
static void
check_tag(const RemoteTransaction *transaction, const TagSink *sink)
{
	if (strcmp(sink->tag, "ROLLBACK") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRANSACTION_ROLLBACK),
				 errmsg("the %s was rolled back by its COMMIT", transaction_shown(transaction)),
				 errdetail("An error before, which the remote server remembers, had made it fail.")));
	if (transaction->gid[0] != '\0' && strcmp(sink->tag, "PREPARE TRANSACTION") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("the %s was not prepared", transaction_shown(transaction)),
				 errdetail("The remote server answers PREPARE TRANSACTION with \"%s\".",
						   error_clean_text(sink->tag))));
}

/*
 * End transactions at the same time: those that have a gid are prepared, the others
 * committed.  In the end all are, or an error is thrown.  If they are to be alike, no cancel
 * comes between them, nor, as interrupts are held when this returns, before the caller.
 */
void
transactions_end_together(RemoteTransaction **list, int n, Alike alike)
{
	Call	   *calls = palloc(sizeof(Call) * Max(n, 1));
	TagSink    *sinks = palloc(sizeof(TagSink) * Max(n, 1));
	AnswerSink **answers = palloc(sizeof(AnswerSink *) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		transaction_make_end(list[i], "COMMIT", &calls[i], &sinks[i]);
		answers[i] = &sinks[i].sink;
	}
	if (alike != ALIKE_NOT)
		client_end_together(calls, answers, n, alike == ALIKE_TO_OTHERS);
	else
		client_run_together(calls, answers, n);
	for (int i = 0; i < n; i++)
		check_tag(list[i], &sinks[i]);
}

/* The bound transactions that have begun at their remotes; throws if one is gone. */
static RemoteTransaction **
bound_list(int *n)
{
	RemoteTransaction **list;
	dlist_iter	iter;
	int			all = 0;

	*n = 0;
	dlist_foreach(iter, &transactions)
		all++;
	list = palloc(sizeof(RemoteTransaction *) * Max(all, 1));
	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (transaction->mode != LEASE_BOUND || transaction->lease == NULL)
			continue;
		transaction_settle(transaction);
		if (transaction_has_ended(transaction))
			transaction_throw_gone(transaction, NULL);
		transaction->only_read = transaction->read_only && !transaction->wrote;
		/* else no call has come as far as its connection */
		if (transaction->stack.depth > 0)
			list[(*n)++] = transaction;
	}
	return list;
}

/* Nothing is lost of it when it is rolled back in place of its end. */
static bool
can_be_taken_back(const RemoteTransaction *transaction)
{
	return transaction->gid[0] != '\0' || transaction->only_read;
}

/*
 * Those that end first come first in the list then; returns how many they are.  certain:
 * while no others have, all can be rolled back.
 */
static int
put_first(RemoteTransaction **list, int n, bool *certain)
{
	int			first = 0;

	*certain = true;
	for (int i = 0; i < n; i++)
	{
		RemoteTransaction *transaction = list[i];

		if (transaction->wrote && transaction->gid[0] == '\0')
			continue;
		*certain &= can_be_taken_back(transaction);
		list[i] = list[first];
		list[first++] = transaction;
	}
	return first;
}

/*
 * The local transaction is about to be committed, and so are the bound ones, or prepared.
 * An error lets the local one fail.
 */
static void
commit_bound(void)
{
	int			n;
	int			first;
	bool		prepared;
	bool		certain;
	RemoteTransaction **list;

	if (dlist_is_empty(&transactions))
		return;
	list = bound_list(&n);
	prepared = two_phase_choose(list, n);
	first = put_first(list, n, &certain);
	if (first > 0)
	{
		transactions_end_together(list, first, certain ? ALIKE_NOT : ALIKE);
		interrupt_holds += !certain;
	}
	if (prepared)
		compat_injection_point("dbpool-prepared-before-commit");
	if (first < n)
	{
		transactions_end_together(list + first, n - first, certain ? ALIKE : ALIKE_TO_OTHERS);
		interrupt_holds++;
	}
}

/* Let go of those that end with the local transaction, or with a part of it. */
static void
let_go_of(bool (*ends) (const RemoteTransaction *transaction, SubTransactionId subxact),
		  SubTransactionId subxact)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (ends(transaction, subxact))
			transaction_let_go(transaction);
	}
}

static bool
is_bound(const RemoteTransaction *transaction, SubTransactionId subxact)
{
	(void) subxact;
	return transaction->mode == LEASE_BOUND;
}

static bool
is_of_this_transaction(const RemoteTransaction *transaction, SubTransactionId subxact)
{
	(void) subxact;
	return transaction->mode == LEASE_BOUND || transaction->began_in != InvalidSubTransactionId;
}

static bool
began_in_subxact(const RemoteTransaction *transaction, SubTransactionId subxact)
{
	return transaction->mode == LEASE_NAMED && transaction->began_in == subxact;
}

static bool
is_named(const RemoteTransaction *transaction, SubTransactionId subxact)
{
	(void) subxact;
	return transaction->mode == LEASE_NAMED;
}

static void
refuse_prepare(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (is_of_this_transaction(transaction, InvalidSubTransactionId))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE the local transaction while the %s is open", transaction_shown(transaction)),
					 errhint("Set dbpool.transaction to autonomous for what is to be prepared, or end it before.")));
	}
}

static void
on_xact(XactEvent event, void *arg)
{
	dlist_iter	iter;

	(void) arg;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			commit_bound();
			break;
		case XACT_EVENT_PRE_PREPARE:
			refuse_prepare();
			break;
		case XACT_EVENT_COMMIT:
			for (; interrupt_holds > 0; interrupt_holds--)
				RESUME_INTERRUPTS();
			two_phase_committed();
			let_go_of(is_bound, InvalidSubTransactionId);
			dlist_foreach(iter, &transactions)
				dlist_container(RemoteTransaction, node, iter.cur)->began_in = InvalidSubTransactionId;
			break;
		case XACT_EVENT_ABORT:
			/* the error has resumed them */
			interrupt_holds = 0;
			clients_give_up(false);
			let_go_of(is_of_this_transaction, InvalidSubTransactionId);
			break;
		default:
			break;
	}
}

static void
on_subxact(SubXactEvent event, SubTransactionId subxact, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	bool		failed = event == SUBXACT_EVENT_ABORT_SUB;
	dlist_iter	iter;

	(void) arg;
	if (event != SUBXACT_EVENT_COMMIT_SUB && !failed)
		return;
	if (failed)
		let_go_of(began_in_subxact, subxact);
	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (transaction->mode == LEASE_NAMED)
		{
			if (transaction->began_in == subxact)
				transaction->began_in = parent;
			continue;
		}
		stack_end_level(&transaction->stack, level, failed);
		stack_end_level(&transaction->otherwise, level, failed);
	}
}

/* DISCARD ALL: whoever uses the session next is to find nothing of it. */
static void
on_utility(PlannedStmt *statement, const char *sql, bool read_only_tree,
		   ProcessUtilityContext context, ParamListInfo params, QueryEnvironment * environment,
		   DestReceiver *dest, QueryCompletion * completion)
{
	Node	   *parsed = statement->utilityStmt;
	bool		all = IsA(parsed, DiscardStmt) && castNode(DiscardStmt, parsed)->target == DISCARD_ALL;

	(prev_utility_hook ? prev_utility_hook : standard_ProcessUtility)
		(statement, sql, read_only_tree, context, params, environment, dest, completion);
	if (all)
		let_go_of(is_named, InvalidSubTransactionId);
}

/* In every process that the postmaster starts. */
void
transactions_register(void)
{
	RegisterXactCallback(on_xact, NULL);
	RegisterSubXactCallback(on_subxact, NULL);
	prev_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
