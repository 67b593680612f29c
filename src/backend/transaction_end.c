/*
 * transaction_end.c
 *	  What the end of a local transaction, or of a part of it, means to remote ones.
 *
 * Bound ones are committed just before the local one, all at once.  If one of them fails
 * to, the local one does, and with it the others that have not been committed by then.
 * An abort lets go of them, which neither waits nor throws.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/transaction.h"
#include "tcop/utility.h"

static ProcessUtility_hook_type prev_utility_hook;

static void
tag_frame(AnswerSink *base, char type, MessageReader *body)
{
	TagSink    *sink = (TagSink *) base;
	uint64		count;

	if (type != FRAME_TAG)
		return;
	message_get(body, &count, sizeof(count));
	sink->rolled_back = strcmp(message_get_string(body), "ROLLBACK") == 0;
}

/* Make the call that ends a transaction, and the sink that goes with it. */
void
transaction_make_end(RemoteTransaction *transaction, bool commit, Call *call, TagSink *sink)
{
	StringInfoData sql;

	memset(call, 0, sizeof(*call));
	initStringInfo(&sql);
	if (commit && transaction->stack.rollback_to > 0)
		appendStringInfo(&sql, "ROLLBACK TO SAVEPOINT dbpool_%d; ", transaction->stack.rollback_to);
	appendStringInfoString(&sql, commit ? "COMMIT" : "ROLLBACK");
	call->kind = REQUEST_SCRIPT;
	call->pool = NameStr(transaction->pool);
	call->sql = sql.data;
	call->transaction = transaction;
	call->ends_transaction = true;
	sink->sink.frame = tag_frame;
	sink->rolled_back = false;
}

void
transaction_throw_rolled_back(const char *shown)
{
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_ROLLBACK),
			 errmsg("the %s was rolled back by its COMMIT", shown),
			 errdetail("An error before, which the remote server remembers, had made it fail.")));
}

/* Commit all bound transactions at once; an error lets the local one fail. */
static void
commit_bound(void)
{
	dlist_iter	iter;
	int			n = 0;
	int			i = 0;
	Call	   *calls;
	TagSink    *sinks;
	AnswerSink **answers;

	dlist_foreach(iter, &transactions)
		n++;
	if (n == 0)
		return;
	calls = palloc(sizeof(Call) * n);
	sinks = palloc0(sizeof(TagSink) * n);
	answers = palloc(sizeof(AnswerSink *) * n);
	dlist_foreach(iter, &transactions)
	{
		RemoteTransaction *transaction = dlist_container(RemoteTransaction, node, iter.cur);

		if (transaction->mode != LEASE_BOUND || transaction->lease == NULL)
			continue;
		transaction_settle(transaction);
		if (transaction_has_ended(transaction))
			transaction_throw_gone(transaction);
		/* no call has come as far as its connection */
		if (transaction->stack.depth == 0)
			continue;
		transaction_make_end(transaction, true, &calls[i], &sinks[i]);
		answers[i] = &sinks[i].sink;
		i++;
	}
	client_run_together(calls, answers, i);
	while (--i >= 0)
	{
		if (sinks[i].rolled_back)
			transaction_throw_rolled_back(transaction_shown(calls[i].transaction));
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
			let_go_of(is_bound, InvalidSubTransactionId);
			dlist_foreach(iter, &transactions)
				dlist_container(RemoteTransaction, node, iter.cur)->began_in = InvalidSubTransactionId;
			break;
		case XACT_EVENT_ABORT:
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
