/*
 * operate.c
 *	  dbpool_pause, _resume, _reset, _reload, _disable, _isolate, _enable, _kill and _drain: for one
 *	  pool, and for several.
 *
 * A call has two steps for each pool: it begins, which takes effect at once, and finishes,
 * which may wait.  Of several pools all begin before the first finishes, so that they wait
 * together.
 *
 * A pause, and a drain, that fails or is cancelled while it waits has not been: an error
 * does not leave a pool behind that serves nobody.  A reset that fails stands: connections
 * are closed when they are free.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "backend/client.h"
#include "backend/operate.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "compat.h"

/* Milliseconds to wait where no timeout is given; sql/dbpool.sql has the same. */
#define TIMEOUT_MS		30000

/* --- what is told ---------------------------------------------------------------------- */

/* "3 connections", and nothing when there are none. */
static void
append_count(StringInfo buf, int n, const char *what)
{
	if (n > 0)
		appendStringInfo(buf, "%d %s%s", n, what, n == 1 ? "" : "s");
}

/* "2 transactions and 1 statement" of those that were under way, behind a comma; what has become of them. */
static void
append_uses(StringInfo buf, const Operation *op, const char *became)
{
	if (op->transactions + op->statements == 0)
		return;
	appendStringInfoString(buf, ", ");
	append_count(buf, op->transactions, "transaction");
	if (op->transactions > 0 && op->statements > 0)
		appendStringInfoString(buf, " and ");
	append_count(buf, op->statements, "statement");
	appendStringInfo(buf, " %s", became);
}

/* "reset, 3 connections closed". */
static void
append_connections(StringInfo buf, const Operation *op, const char *became)
{
	if (op->connections == 0)
		appendStringInfoString(buf, ", no connection was open");
	else
	{
		appendStringInfoString(buf, ", ");
		append_count(buf, op->connections, "connection");
		appendStringInfo(buf, " %s", became);
	}
}

/* How many connections have the server's pools? */
static int
count_connections(Oid serverid)
{
	int			n = 0;

	LWLockAcquire(dbpool_shared->pools_lock, LW_SHARED);
	for (int i = 0; i < dbpool_shared->npools; i++)
	{
		PoolShared *pool = shmem_pool(i);

		if (!pool->in_use || !pool->live || !operation_matches(&pool->key, &serverid))
			continue;
		SpinLockAcquire(&pool->mutex);
		for (int state = 0; state < CONN_CLOSED; state++)
			n += pool->conns[state];
		SpinLockRelease(&pool->mutex);
	}
	LWLockRelease(dbpool_shared->pools_lock);
	return n;
}

/* --- one pool --------------------------------------------------------------------------- */

/* Who keeps a call waiting; since: not those who have begun after that, 0: all. */
static char *
explain(const Operation *op, Ticks since)
{
	char	   *uses = uses_explain(op->serverid, since);

	return uses[0] != '\0' ? uses : pstrdup("Connections are being cancelled, checked or reset.\n");
}

static void
throw_not_rested(const Operation *op)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("pool \"%s\" has not come to rest within %g s", op->pool, op->timeout / 1000.0),
			 errdetail_internal("%s%s", explain(op, 0), op->own ? _("The pool is not paused.") :
								_("The pool stays paused, as it was before.")),
			 errhint("End those, for example by pg_terminate_backend(), or give dbpool_pause() a longer timeout.")));
}

/* To a reset, what has begun since is nothing. */
static void
throw_not_renewed(const Operation *op)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("pool \"%s\" still has connections from before dbpool_reset() after %g s",
					op->pool, op->timeout / 1000.0),
			 errdetail_internal("%s%s", explain(op, op->since),
								_("They are closed when these have ended. What comes now gets new ones.")),
			 errhint("End those, for example by pg_terminate_backend(), or give dbpool_reset() a longer timeout.")));
}

/* What comes waits, until dbpool_resume(); what is under way is waited for. */
static void
pause_begin(Operation *op)
{
	pool_stop(op, STOP_PAUSED);
}

static void
pause_finish(Operation *op)
{
	StringInfoData buf;

	if (op->timeout != 0 && !pool_wait_rested(op))
		throw_not_rested(op);
	initStringInfo(&buf);
	appendStringInfoString(&buf, op->was ? "was paused already" : "paused");
	append_uses(&buf, op, op->timeout != 0 ? "ended" : "under way");
	op->did = buf.data;
}

/* Take a stop away; the other one, which it may have as well, stays. */
static void
go_begin(Operation *op, Stop stop, const char *did, const char *did_nothing)
{
	const char *did_this = pool_set_going(op, stop) ? did : did_nothing;
	uint64		other = pool_stop_ticket(op->serverid, stop == STOP_PAUSED ? STOP_DISABLED : STOP_PAUSED);

	op->did = psprintf("%s%s", did_this,
					   other == 0 ? "" : stop == STOP_DISABLED ? "; is paused still" :
					   (other & TICKET_ISOLATES) != 0 ? "; is isolated still" : "; is disabled still");
}

static void
resume_begin(Operation *op)
{
	go_begin(op, STOP_PAUSED, "resumed", "was not paused");
}

/* Close connections, busy ones after their statements and transactions, and wait for that. */
static void
reset_begin(Operation *op)
{
	op->number = shmem_want(operation_matches, &op->serverid, POOL_WANT_RESET);
}

static void
reset_finish(Operation *op)
{
	StringInfoData buf;

	if (op->timeout != 0 && !pool_wait_renewed(op, op->timeout))
		throw_not_renewed(op);
	initStringInfo(&buf);
	appendStringInfoString(&buf, "reset");
	append_connections(&buf, op, op->timeout != 0 ? "closed" : "to be closed");
	op->did = buf.data;
}

/* What comes, and what waits, is refused, until dbpool_enable(); what is under way goes on. */
static void
refuse_begin(Operation *op, Stop stop)
{
	StringInfoData buf;
	const char *now;

	pool_stop(op, stop);
	/* a stop that was there is not replaced by another */
	now = (op->number & TICKET_ISOLATES) != 0 ? "isolated" : "disabled";
	initStringInfo(&buf);
	if (op->was)
		appendStringInfo(&buf, "was %s already", now);
	else
		appendStringInfoString(&buf, now);
	append_uses(&buf, op, "under way");
	op->did = buf.data;
}

static void
disable_begin(Operation *op)
{
	refuse_begin(op, STOP_DISABLED);
}

/* As if a breaker had been opened by hand: fallback_server stands in. */
static void
isolate_begin(Operation *op)
{
	refuse_begin(op, STOP_ISOLATED);
}

static void
enable_begin(Operation *op)
{
	go_begin(op, STOP_DISABLED, "enabled", "was not disabled");
}

/* Close all connections at once, and tell those who use them. */
static void
kill_begin(Operation *op)
{
	op->number = shmem_want(operation_matches, &op->serverid, POOL_WANT_RESET | POOL_WANT_KILL);
}

static void
kill_finish(Operation *op)
{
	StringInfoData buf;

	(void) pool_wait_renewed(op, -1);
	initStringInfo(&buf);
	appendStringInfoString(&buf, "killed");
	append_connections(&buf, op, "closed");
	append_uses(&buf, op, "ended by that");
	op->did = buf.data;
}

/* Disable it, wait for what is under way, and close all connections when that or the time is over. */
static void
drain_begin(Operation *op)
{
	pool_stop(op, STOP_DISABLED);
}

static void
drain_finish(Operation *op)
{
	bool		rested = pool_wait_rested(op);
	StringInfoData buf;

	if (!rested)
		uses_count(op->serverid, &op->transactions, &op->statements);
	op->number = shmem_want(operation_matches, &op->serverid,
							rested ? POOL_WANT_RESET : POOL_WANT_RESET | POOL_WANT_KILL);
	/* from here on it is done, whatever becomes of the call */
	op->own = false;
	(void) pool_wait_renewed(op, -1);
	initStringInfo(&buf);
	appendStringInfoString(&buf, "drained");
	append_connections(&buf, op, "closed");
	append_uses(&buf, op, rested ? "ended" : "ended by that");
	op->did = buf.data;
}

/* Read the definition anew, and replace the connections as they come free. */
static void
reload_begin(Operation *op)
{
	StringInfoData buf;

	(void) shmem_want(operation_matches, &op->serverid, POOL_WANT_RELOAD);
	initStringInfo(&buf);
	appendStringInfoString(&buf, "reloaded");
	append_connections(&buf, op, "to be replaced");
	op->did = buf.data;
}

static const OperationKind pause_kind = {"dbpool_pause", "paused", true, pause_begin, pause_finish};
static const OperationKind resume_kind = {"dbpool_resume", "resumed", false, resume_begin, NULL};
static const OperationKind reset_kind = {"dbpool_reset", "reset", true, reset_begin, reset_finish};
static const OperationKind disable_kind = {"dbpool_disable", "disabled", false, disable_begin, NULL};
static const OperationKind isolate_kind = {"dbpool_isolate", "isolated", false, isolate_begin, NULL};
static const OperationKind enable_kind = {"dbpool_enable", "enabled", false, enable_begin, NULL};
static const OperationKind kill_kind = {"dbpool_kill", "killed", false, kill_begin, kill_finish};
static const OperationKind drain_kind = {"dbpool_drain", "drained", true, drain_begin, drain_finish};

static const OperationKind reload_kind = {"dbpool_reload", "reloaded", false, reload_begin, NULL};

/* --- who may ------------------------------------------------------------------------------ */

/* Was EXECUTE on the function granted to the current role, or one that it has the rights of, by name? */
static bool
is_granted(Oid function)
{
	HeapTuple	row = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool		isnull = true;
	bool		granted = false;
	Datum		datum = (Datum) 0;

	if (HeapTupleIsValid(row))
		datum = SysCacheGetAttr(PROCOID, row, Anum_pg_proc_proacl, &isnull);
	if (!isnull)
	{
		Acl		   *acl = DatumGetAclPCopy(datum);

		for (int i = 0; i < ACL_NUM(acl) && !granted; i++)
		{
			const AclItem *item = &ACL_DAT(acl)[i];

			granted = item->ai_grantee != ACL_ID_PUBLIC && (ACLITEM_GET_PRIVS(*item) & ACL_EXECUTE) != 0 &&
				has_privs_of_role(GetUserId(), item->ai_grantee);
		}
	}
	if (HeapTupleIsValid(row))
		ReleaseSysCache(row);
	return granted;
}

/* Everybody may call the functions: only those who may stop others do something by that. */
static void
check_may_operate(const Operation *op, Oid function)
{
	if (compat_server_owner(op->serverid, GetUserId()) || is_granted(function))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("must be owner of foreign server %s", op->pool),
			 errhint("Those may do it for all pools to whom EXECUTE on the function is granted by name: GRANT EXECUTE ON FUNCTION %s TO %s.",
					 format_procedure(function), quote_identifier(GetUserNameFromId(GetUserId(), false)))));
}

/* --- the functions ------------------------------------------------------------------------ */

/* What a call is to do, but for which pool.  0.1.0's functions have no timeout. */
static void
start_operation(Operation *op, const OperationKind *kind, FunctionCallInfo fcinfo)
{
	memset(op, 0, sizeof(Operation));
	client_require_preload();
	op->kind = kind;
	op->since = ticks_now();
	if (!kind->waits)
		return;
	if (PG_NARGS() < 2)
		op->timeout = TIMEOUT_MS;
	else if (PG_ARGISNULL(1))
		op->timeout = -1;
	else
		op->timeout = interval_ms(PG_GETARG_INTERVAL_P(1));
	if (op->timeout < 0 && !PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid timeout: \"%s\"",
						DatumGetCString(DirectFunctionCall1(interval_out, PG_GETARG_DATUM(1)))),
				 errhint("It is 0 (nothing is waited for) to 24 days, or NULL: without limit.")));
}

static void
step_begin(Operation *op, Oid function)
{
	op->serverid = definition_server(op->pool, false);
	check_may_operate(op, function);
	if (op->timeout != 0)
		uses_check_not_own(op);
	uses_count(op->serverid, &op->transactions, &op->statements);
	op->connections = count_connections(op->serverid);
	op->kind->begin(op);
}

static void
step_finish(Operation *op, Oid function)
{
	(void) function;
	if (op->kind->finish != NULL)
		op->kind->finish(op);
}

/* Several of them; the call fails, or its process ends. */
typedef struct Operations
{
	Operation  *ops;
	int			n;
} Operations;

static void
take_all_back(int code, Datum arg)
{
	Operations *all = (Operations *) DatumGetPointer(arg);

	(void) code;
	for (int i = 0; i < all->n; i++)
		pool_stop_take_back(&all->ops[i]);
}

static Datum
operate_one(FunctionCallInfo fcinfo, const OperationKind *kind)
{
	Operation	op;
	Operations	all = {&op, 1};

	start_operation(&op, kind, fcinfo);
	op.pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	PG_ENSURE_ERROR_CLEANUP(take_all_back, PointerGetDatum(&all));
	{
		step_begin(&op, fcinfo->flinfo->fn_oid);
		step_finish(&op, fcinfo->flinfo->fn_oid);
	}
	PG_END_ENSURE_ERROR_CLEANUP(take_all_back, PointerGetDatum(&all));
	PG_RETURN_TEXT_P(cstring_to_text(op.did));
}

/*
 * One step of one of several, in a subtransaction, so that one which fails does not keep
 * the others from it.  NULL, or the error that it has met.
 */
static ErrorData *
try_step(Operation *op, Oid function, void (*step) (Operation *op, Oid function))
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		step(op, function);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	if (error != NULL)
		pool_stop_take_back(op);
	return error;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* The names of all pools of this database that the caller may operate, in their order. */
static const char **
list_operable(Oid function, int *n)
{
	Oid			fdw = get_foreign_data_wrapper_oid("dbpool", true);
	bool		all = is_granted(function);
	int			room = 16;
	const char **names = palloc(sizeof(char *) * room);
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	*n = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server row = (Form_pg_foreign_server) GETSTRUCT(tuple);

		if (row->srvfdw != fdw || !(all || compat_server_owner(row->oid, GetUserId())))
			continue;
		if (*n == room)
			names = repalloc(names, sizeof(char *) * (room *= 2));
		names[(*n)++] = pstrdup(NameStr(row->srvname));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	qsort(names, *n, sizeof(char *), compare_names);
	return names;
}

/* The names of an array, or all. */
static const char **
list_named(FunctionCallInfo fcinfo, int *n)
{
	Datum	   *datums;
	bool	   *nulls;
	const char **names;

	if (PG_ARGISNULL(0))
		return list_operable(fcinfo->flinfo->fn_oid, n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &datums, &nulls, n);
	names = palloc(sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		names[i] = nulls[i] ? NULL : NameStr(*DatumGetName(datums[i]));
	return names;
}

/* The row of one of several. */
static void
put_result(ReturnSetInfo *rsinfo, const Operation *op, const ErrorData *error)
{
	Datum		values[4] = {0};
	bool		nulls[4] = {false};

	nulls[0] = op->pool == NULL;
	nulls[1] = error != NULL;
	nulls[2] = nulls[3] = error == NULL;
	if (op->pool != NULL)
		values[0] = DirectFunctionCall1(namein, CStringGetDatum(op->pool));
	if (error == NULL)
		values[1] = CStringGetTextDatum(op->did);
	else
	{
		values[2] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
		values[3] = CStringGetTextDatum(error->message);
		ereport(NOTICE,
				(errmsg("pool \"%s\" could not be %s: %s", op->pool ? op->pool : "", op->kind->done, error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0));
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* (pools name[]) -> SETOF (pool, result, sqlstate, error); NULL: all. */
static Datum
operate_several(FunctionCallInfo fcinfo, const OperationKind *kind)
{
	Oid			function = fcinfo->flinfo->fn_oid;
	Operation	first;
	Operations	all = {NULL, 0};
	const char **names;
	ErrorData **errors;
	int			n;

	start_operation(&first, kind, fcinfo);
	InitMaterializedSRF(fcinfo, 0);
	names = list_named(fcinfo, &n);
	all.ops = palloc(sizeof(Operation) * (n + 1));
	errors = palloc0(sizeof(ErrorData *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		all.ops[i] = first;
		all.ops[i].pool = names[i];
	}
	all.n = n;
	PG_ENSURE_ERROR_CLEANUP(take_all_back, PointerGetDatum(&all));
	{
		for (int i = 0; i < n; i++)
			errors[i] = try_step(&all.ops[i], function, step_begin);
		for (int i = 0; i < n; i++)
		{
			if (errors[i] == NULL)
				errors[i] = try_step(&all.ops[i], function, step_finish);
		}
	}
	PG_END_ENSURE_ERROR_CLEANUP(take_all_back, PointerGetDatum(&all));
	for (int i = 0; i < n; i++)
		put_result((ReturnSetInfo *) fcinfo->resultinfo, &all.ops[i], errors[i]);
	return (Datum) 0;
}

#define OPERATION(name) \
	PG_FUNCTION_INFO_V1(dbpool_##name); \
	PG_FUNCTION_INFO_V1(dbpool_##name##_pools); \
	Datum dbpool_##name(PG_FUNCTION_ARGS) { return operate_one(fcinfo, &name##_kind); } \
	Datum dbpool_##name##_pools(PG_FUNCTION_ARGS) { return operate_several(fcinfo, &name##_kind); }

OPERATION(pause)
OPERATION(resume)
OPERATION(reset)
OPERATION(reload)
OPERATION(disable)
OPERATION(isolate)
OPERATION(enable)
OPERATION(kill)
OPERATION(drain)
