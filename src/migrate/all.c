/*
 * all.c
 *	  dbpool_migrate_all(): many remotes, one after the other.
 *
 * Each is a subtransaction of its own, so that one which fails does not keep
 * the others from being migrated.
 */
#include "postgres.h"

#include "access/xact.h"
#include "migrate/migrate.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dbpool_migrate_all);

/*
 * The pools of an array, or all that have migrations and belong to the role.  To
 * a superuser belong those of superusers only: the migrations of others are what
 * they have written, which must not run with his rights unasked.
 */
static char **
list_pools(FunctionCallInfo fcinfo, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	char	  **pools;

	if (!PG_ARGISNULL(0))
	{
		Datum	   *names;
		bool	   *nulls;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false,
						  TYPALIGN_CHAR, &names, &nulls, n);
		pools = palloc(sizeof(char *) * (*n + 1));
		for (int i = 0; i < *n; i++)
		{
			if (nulls[i])
				(void) definition_server(NULL, false);
			pools[i] = pstrdup(NameStr(*DatumGetName(names[i])));
		}
		return pools;
	}
	SPI_connect();
	if (SPI_execute(psprintf("SELECT DISTINCT s.srvname::pg_catalog.text FROM pg_catalog.pg_foreign_server s "
							 "JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw "
							 "JOIN %s.dbpool_migrations m ON m.serverid OPERATOR(pg_catalog.=) s.oid "
							 "AND m.pool OPERATOR(pg_catalog.=) s.srvname "
							 "JOIN pg_catalog.pg_roles o ON o.oid OPERATOR(pg_catalog.=) s.srvowner "
							 "JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) current_user "
							 "WHERE w.fdwname OPERATOR(pg_catalog.=) 'dbpool' AND CASE WHEN r.rolsuper "
							 "THEN o.rolsuper ELSE pg_catalog.pg_has_role(o.oid, 'USAGE') END ORDER BY 1",
							 quote_identifier(get_namespace_name(migrate_schema()))),
					true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not list the pools that have migrations");
	*n = (int) SPI_processed;
	pools = MemoryContextAlloc(context, sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		pools[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i],
															 SPI_tuptable->tupdesc, 1));
	SPI_finish();
	if (*n == 0)
		ereport(NOTICE,
				(errmsg("there is no pool with migrations that belongs to role \"%s\"",
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Name the pools of others in the argument \"pools\".")));
	return pools;
}

/* Migrate a pool; NULL, or the error that it has met. */
static ErrorData *
try_pool(const char *pool, Oid function, const Wish *wish, Outcome *outcome)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext work = AllocSetContextCreate(context, "dbpool migration of one pool",
											   ALLOCSET_DEFAULT_SIZES);
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	PG_TRY();
	{
		MemoryContextSwitchTo(work);
		migrate_call(pool, function, wish, NULL, outcome);
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
	if (outcome->version != NULL)
		outcome->version = pstrdup(outcome->version);
	MemoryContextDelete(work);
	CurrentResourceOwner = owner;
	/* this was not the remote: whoever called wants us to stop */
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED && !outcome->remote_failed)
		ReThrowError(error);
	return error;
}

/*
 * dbpool_migrate_all(pools name[], target bigint, dry_run, grouped boolean,
 *					  lock_timeout interval, allow_missing, allow_divergent,
 *					  stop_on_error boolean)
 * -> SETOF (pool, status, migrations, version, duration, sqlstate, error)
 *
 * status: "migrated", "nothing to do", "dry run", "failed", and "skipped" after
 * an error with stop_on_error.
 */
Datum
dbpool_migrate_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Wish		wish = {DIRECTION_UP};
	bool		stop_on_error = !PG_ARGISNULL(7) && PG_GETARG_BOOL(7);
	bool		stopped = false;
	char	  **pools;
	int			n;

	wish.target = migrate_target(fcinfo, 1);
	wish.dry_run = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	wish.grouped = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3);
	wish.lock_timeout = migrate_lock_timeout(fcinfo, 4);
	wish.allow_missing = !PG_ARGISNULL(5) && PG_GETARG_BOOL(5);
	wish.allow_divergent = !PG_ARGISNULL(6) && PG_GETARG_BOOL(6);
	InitMaterializedSRF(fcinfo, 0);
	pools = list_pools(fcinfo, &n);
	for (int i = 0; i < n; i++)
	{
		Datum		values[7];
		bool		nulls[7] = {false};
		Outcome		outcome = {0};
		ErrorData  *error = NULL;
		Interval   *duration = palloc0(sizeof(Interval));
		instr_time	start;
		instr_time	now;
		const char *status;

		CHECK_FOR_INTERRUPTS();
		INSTR_TIME_SET_CURRENT(start);
		if (!stopped)
			error = try_pool(pools[i], fcinfo->flinfo->fn_oid, &wish, &outcome);
		INSTR_TIME_SET_CURRENT(now);
		INSTR_TIME_SUBTRACT(now, start);
		duration->time = (TimeOffset) INSTR_TIME_GET_MICROSEC(now);
		status = stopped ? "skipped" : error ? "failed" : outcome.migrations == 0 ? "nothing to do" :
			wish.dry_run ? "dry run" : "migrated";
		stopped |= error != NULL && stop_on_error;

		values[0] = DirectFunctionCall1(namein, CStringGetDatum(pools[i]));
		values[1] = CStringGetTextDatum(status);
		values[2] = Int32GetDatum(outcome.migrations);
		nulls[3] = outcome.version == NULL;
		values[3] = outcome.version ? CStringGetTextDatum(outcome.version) : (Datum) 0;
		values[4] = IntervalPGetDatum(duration);
		nulls[5] = nulls[6] = error == NULL;
		values[5] = error ? CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)) : (Datum) 0;
		values[6] = error ? CStringGetTextDatum(error->message) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		if (error != NULL)
			ereport(NOTICE,
					(errmsg("pool \"%s\" could not be migrated: %s", pools[i], error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0,
					 error->hint ? errhint("%s", error->hint) : 0,
					 error->context ? errcontext("%s", error->context) : 0));
	}
	return (Datum) 0;
}
