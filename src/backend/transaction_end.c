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

/*
 * Make the call that ends a transaction, and the sink that goes with it.  how is COMMIT,
 * ROLLBACK, or PREPARE TRANSACTION with a gid.
 */
void
transaction_make_end(RemoteTransaction *transaction, const char *how, Call *call, TagSink *sink)
{
	StringInfoData sql;

	memset(call, 0, sizeof(*call));
	initStringInfo(&sql);
	if (transaction->stack.rollback_to > 0)
		appendStringInfo(&sql, "ROLLBACK TO SAVEPOINT dbpool_%d; ", transaction->stack.rollback_to);
	appendStringInfoString(&sql, how);
	call->kind = REQUEST_SCRIPT;
	call->pool = NameStr(transaction->pool);
	call->sql = sql.data;
	call->transaction = transaction;
	call->ends_transaction = true;
	call->prepares_transaction = strncmp(how, "PREPARE", 7) == 0;
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

/* Commit transactions at the same time; those that have a gid are prepared. */
void
transactions_end_together(RemoteTransaction **list, int n)
{
	Call	   *calls = palloc(sizeof(Call) * Max(n, 1));
	TagSink    *sinks = palloc(sizeof(TagSink) * Max(n, 1));
	AnswerSink **answers = palloc(sizeof(AnswerSink *) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		const char *how = list[i]->gid[0] == '\0' ? "COMMIT" :
		psprintf("PREPARE TRANSACTION '%s'", list[i]->gid);

		transaction_make_end(list[i], how, &calls[i], &sinks[i]);
		answers[i] = &sinks[i].sink;
	}
	client_run_together(calls, answers, n);
	for (int i = 0; i < n; i++)
	{
		if (sinks[i].rolled_back)
			transaction_throw_rolled_back(transaction_shown(list[i]));
	}
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
			transaction_throw_gone(transaction);
		/* else no call has come as far as its connection */
		if (transaction->stack.depth > 0)
			list[(*n)++] = transaction;
	}
	return list;
}

/*
 * The local transaction is about to be committed.  First those that have to be are
 * prepared, and with them those end that have only read; then the others that are bound
 * are committed.  An error lets the local one fail.
 */
static void
commit_bound(void)
{
	int			n;
	RemoteTransaction **list;
	RemoteTransaction **later;
	int			now = 0;
	int			rest = 0;

	if (dlist_is_empty(&transactions))
		return;
	list = bound_list(&n);
	if (!two_phase_choose(list, n))
	{
		transactions_end_together(list, n);
		return;
	}
	later = palloc(sizeof(RemoteTransaction *) * n);
	for (int i = 0; i < n; i++)
	{
		if (list[i]->two_phase)
			list[now++] = list[i];
		else
			later[rest++] = list[i];
	}
	transactions_end_together(list, now);
	transactions_end_together(later, rest);
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
			two_phase_committed();
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
