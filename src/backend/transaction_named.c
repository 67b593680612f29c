/*
 * transaction_named.c
 *	  Transactions that are begun and ended by calls: dbpool_begin() and its like.
 *
 * One that has a name runs what says the name in place of the pool's, so that several
 * can be open on a pool at a time; one without runs all calls on its pool.  It lives
 * until it is ended, or its session ends; if the local transaction, or the part of
 * it, that has begun it fails, it is rolled back with that.
 */
#include "postgres.h"

#include "access/xact.h"
#include "backend/transaction.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_begin);
PG_FUNCTION_INFO_V1(dbpool_commit);
PG_FUNCTION_INFO_V1(dbpool_rollback_transaction);
PG_FUNCTION_INFO_V1(dbpool_savepoint);
PG_FUNCTION_INFO_V1(dbpool_rollback_to);
PG_FUNCTION_INFO_V1(dbpool_release);

/* Run a statement of the transaction's own. */
static void
run_own(RemoteTransaction *transaction, RequestKind kind, const char *sql, const char *shown)
{
	AnswerSink	sink = {client_no_frame};
	Call		call;

	memset(&call, 0, sizeof(call));
	call.kind = kind;
	call.pool = NameStr(transaction->pool);
	call.sql = sql;
	call.shown = shown;
	call.transaction = transaction;
	client_run(&call, &sink);
}

/* Have it begin: what does that goes before the first statement, and there is none. */
static void
run_begin(RemoteTransaction *transaction)
{
	run_own(transaction, REQUEST_PING, "", transaction->begin);
}

static void
bad_argument(const char *what, const char *value, const char *valid)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid %s for a transaction: \"%s\"", what, value),
			 errhint("%s", valid)));
}

/* XACT_READ_COMMITTED and so on. */
static int
isolation_of(const char *word)
{
	if (pg_strcasecmp(word, "read committed") == 0)
		return XACT_READ_COMMITTED;
	if (pg_strcasecmp(word, "repeatable read") == 0)
		return XACT_REPEATABLE_READ;
	if (pg_strcasecmp(word, "serializable") == 0)
		return XACT_SERIALIZABLE;
	bad_argument("isolation", word, "Valid are \"read committed\", \"repeatable read\" and \"serializable\".");
	return 0;
}

/* Milliseconds. */
static int
idle_timeout_of(const Interval *interval)
{
	int			ms = interval_ms(interval);

	if (ms < 0)
		bad_argument("idle timeout",
					 DatumGetCString(DirectFunctionCall1(interval_out, PointerGetDatum(interval))),
					 "It is 0 (never) to 24 days.");
	return ms;
}

/* A name that nothing else has: it is said where pools are. */
static void
check_new_name(const char *name)
{
	if (name[0] == '\0')
		bad_argument("name", name, "It must not be empty.");
	if (GetForeignServerByName(name, true) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("a transaction cannot be called \"%s\", as there is a server of that name", name)));
	if (transaction_find_named(name) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is a transaction \"%s\" already", name),
				 errhint("dbpool_commit() and dbpool_rollback() end it.")));
}

/*
 * dbpool_begin(pool name, name name, isolation text, read_only boolean,
 *				deferrable boolean, idle_timeout interval) returns void
 *
 * Begins a transaction on a connection of the pool, which is the session's until it
 * ends.  What is NULL is as in the local transaction, or as the server's options say.
 *
 * Errors: 42710 when the name is taken, or the pool has one without a name; 25001 when
 * the pool has a bound one; and those of any call.
 */
Datum
dbpool_begin(PG_FUNCTION_ARGS)
{
	const char *pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	const char *name = PG_ARGISNULL(1) ? NULL : NameStr(*PG_GETARG_NAME(1));
	const Definition *definition;
	RemoteTransaction *transaction;
	int			isolation;
	bool		read_only = PG_ARGISNULL(3) ? XactReadOnly : PG_GETARG_BOOL(3);
	Access		access;
	bool		deferrable = PG_ARGISNULL(4) ? XactDeferrable : PG_GETARG_BOOL(4);

	client_require_workers();
	definition = definition_find(pool);
	isolation = PG_ARGISNULL(2) ? Max(XactIsoLevel, definition->options->isolation) :
		isolation_of(text_to_cstring(PG_GETARG_TEXT_PP(2)));
	if (definition->options->read_only && !read_only && !PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot begin a read-write transaction on pool \"%s\"", pool),
				 errdetail("The pool is read-only.")));
	read_only |= definition->options->read_only != 0;
	if (!read_only)
		client_refuse_read_only("dbpool_begin()");
	access = read_only ? ACCESS_READ_ONLY : PG_ARGISNULL(3) ? ACCESS_DEFAULT : ACCESS_READ_WRITE;
	if (name != NULL)
		check_new_name(name);
	else if (transaction_find_on(definition, LEASE_NAMED) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is a transaction on pool \"%s\" already", pool),
				 errhint("Give one of them a name.")));
	else if (transaction_find_on(definition, LEASE_BOUND) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the local transaction has a bound one on pool \"%s\"", pool),
				 errhint("Give this one a name.")));

	transaction = transaction_make(LEASE_NAMED, definition);
	if (name != NULL)
		namestrcpy(&transaction->name, name);
	transaction->began_in = GetCurrentSubTransactionId();
	if (!PG_ARGISNULL(5))
		transaction->idle_timeout = idle_timeout_of(PG_GETARG_INTERVAL_P(5));
	transaction_set_begin(transaction, isolation, access, deferrable);
	/* an error lets go of it, with the local (sub)transaction */
	run_begin(transaction);
	PG_RETURN_VOID();
}

/* The transaction of a name, or of a pool that has one without. */
static RemoteTransaction *
named_argument(FunctionCallInfo fcinfo, const char *hint)
{
	const char *name = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	RemoteTransaction *transaction = name != NULL ? transaction_find_named(name) : NULL;

	client_require_workers();
	if (transaction == NULL)
		transaction = transaction_find_of_pool(name);
	if (transaction != NULL)
	{
		transaction_check_role(transaction);
		transaction_check_unused(transaction);
		return transaction;
	}
	ereport(ERROR,
			(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
			 errmsg("there is no transaction \"%s\"", name ? name : ""),
			 errdetail("No dbpool_begin() of this session has begun one of that name, or on a pool of that name, that is still open."),
			 hint ? errhint("%s", hint) : 0));
	return NULL;
}

/*
 * dbpool_commit(transaction name) returns void
 *
 * Commits a transaction that dbpool_begin() has begun, whatever becomes of the local
 * one.  As after COMMIT, there is none any more, however that ends: what could not be
 * committed is rolled back.
 *
 * Errors: 25P01 when there is none; 40000 when an error before had made it fail;
 * 08007 when the connection was lost meanwhile: it may or may not have been committed.
 */
Datum
dbpool_commit(PG_FUNCTION_ARGS)
{
	RemoteTransaction *transaction = named_argument(fcinfo, NULL);

	PG_TRY();
	{
		transaction_settle(transaction);
		if (transaction_has_ended(transaction))
			transaction_throw_gone(transaction, NULL);
		transactions_end_together(&transaction, 1, ALIKE);
		RESUME_INTERRUPTS();
	}
	PG_FINALLY();
	{
		transaction_let_go(transaction);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/*
 * dbpool_rollback(transaction name) returns void; also of one that is gone already.  In
 * 0.1.0 that was the name, and is the symbol, of what is dbpool_migration_rollback() now.
 */
Datum
dbpool_rollback_transaction(PG_FUNCTION_ARGS)
{
	RemoteTransaction *transaction = named_argument(fcinfo, "Migrations are taken back by dbpool_migration_rollback().");
	Call		call;
	TagSink		sink;

	PG_TRY();
	{
		transaction_settle(transaction);
		if (!transaction_has_ended(transaction))
		{
			transaction_make_end(transaction, "ROLLBACK", &call, &sink);
			client_run(&call, &sink.sink);
		}
	}
	PG_FINALLY();
	{
		/* which rolls it back, whatever has hindered the ROLLBACK */
		transaction_let_go(transaction);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

static void
run_savepoint(FunctionCallInfo fcinfo, const char *what)
{
	RemoteTransaction *transaction = named_argument(fcinfo, NULL);

	if (PG_ARGISNULL(1) || NameStr(*PG_GETARG_NAME(1))[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a savepoint must have a name")));
	run_own(transaction, REQUEST_SCRIPT,
			psprintf("%s %s", what, quote_identifier(NameStr(*PG_GETARG_NAME(1)))), NULL);
}

/* dbpool_savepoint(transaction name, savepoint name) returns void */
Datum
dbpool_savepoint(PG_FUNCTION_ARGS)
{
	run_savepoint(fcinfo, "SAVEPOINT");
	PG_RETURN_VOID();
}

/* dbpool_rollback_to(transaction name, savepoint name) returns void */
Datum
dbpool_rollback_to(PG_FUNCTION_ARGS)
{
	run_savepoint(fcinfo, "ROLLBACK TO SAVEPOINT");
	PG_RETURN_VOID();
}

/* dbpool_release(transaction name, savepoint name) returns void */
Datum
dbpool_release(PG_FUNCTION_ARGS)
{
	run_savepoint(fcinfo, "RELEASE SAVEPOINT");
	PG_RETURN_VOID();
}
