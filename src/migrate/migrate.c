/*
 * migrate.c
 *	  dbpool_migrate() and dbpool_migration_rollback(): what is to be run.
 */
#include "postgres.h"

#include "backend/client.h"
#include "migrate/migrate.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(dbpool_migrate);
PG_FUNCTION_INFO_V1(dbpool_rollback);

/* --- what is to be done ---------------------------------------------------------- */

static bool
is_server(const PoolKey *key, void *arg)
{
	return key->dbid == MyDatabaseId && key->serverid == *(Oid *) arg;
}

/* The schema of a server's remote has changed: plans may not fit any more. */
static void
tell_workers(Oid serverid)
{
	shmem_want(is_server, &serverid, POOL_WANT_UNPREPARE);
}

/* The pending migrations, up to a version if target is not NULL. */
static const Migration **
choose_up(const MigratePlan *plan, const char *target, int *n)
{
	const Migration **list = palloc(sizeof(Migration *) * (plan->n + 1));

	*n = 0;
	if (target != NULL && version_cmp(target, plan->current) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target version %s is lower than version %s that pool \"%s\" has",
						target, plan->current, plan->pool),
				 errhint("dbpool_migration_rollback(%s, target => %s) goes back.",
						 quote_literal_cstr(plan->pool), version_literal(target))));
	for (int i = 0; i < plan->n; i++)
	{
		const MigrateItem *item = &plan->items[i];

		if ((item->status == PLAN_PENDING || item->status == PLAN_OUT_OF_ORDER) &&
			(target == NULL || version_cmp(item->version, target) <= 0))
			list[(*n)++] = item->migration;
	}
	return list;
}

/*
 * The last "count" applied ones, or those above a version if target is not
 * NULL; latest first.  Repeatable ones have no way back.
 */
static const Migration **
choose_down(const MigratePlan *plan, int count, const char *target, int *n)
{
	const Migration **list = palloc(sizeof(Migration *) * (plan->n + 1));

	*n = 0;
	for (int i = plan->n - 1; i >= 0; i--)
	{
		const MigrateItem *item = &plan->items[i];

		if (item->applied == NULL || version_is_repeatable(item->version))
			continue;
		if (target != NULL ? version_cmp(item->version, target) <= 0 : *n >= count)
			break;
		if (item->applied->direction == DIRECTION_BASELINE)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot roll back version %s of pool \"%s\", as it is its baseline",
							item->version, plan->pool)));
		if (item->migration == NULL || item->migration->down_sql == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot roll back migration %s \"%s\" of pool \"%s\"",
							item->version, item->name, plan->pool),
					 item->migration == NULL ?
					 errdetail("It is not registered.") :
					 errdetail("It has no text for the way back."),
					 item->migration == NULL ?
					 errhint("Nothing was rolled back. Register it, with the text that was applied and its down_sql.") :
					 errhint("Nothing was rolled back. Register it again with a down_sql, which can still be added.")));
		list[(*n)++] = item->migration;
	}
	return list;
}

/*
 * Do what a call asks for.  rsinfo, if not NULL, gets a row per migration.
 * Throws, and leaves the outcome as it was reached.
 */
void
migrate_call(const char *pool, Oid function, const Wish *wish, ReturnSetInfo *rsinfo,
			 Outcome *outcome)
{
	MigrateSession session = {0};

	memset(outcome, 0, sizeof(Outcome));
	PG_TRY();
	{
		const Migration **list;
		int			n;

		migrate_open(&session, pool, function, wish->lock_timeout);
		doubt_check(&session, ERROR, wish->allow_missing || wish->direction == DIRECTION_DOWN,
					wish->fake || wish->direction == DIRECTION_DOWN);
		plan_check(session.plan, session.history,
				   wish->allow_missing || wish->direction == DIRECTION_DOWN,
				   wish->allow_divergent);
		list = wish->direction == DIRECTION_DOWN ?
			choose_down(session.plan, wish->steps, wish->target, &n) :
			choose_up(session.plan, wish->target, &n);
		outcome->version = session.plan->current;
		migrate_run(&session, wish, list, n, rsinfo, outcome);
		if (n == 0 && record_is_open_ended(session.serverid))
			record_open(session.serverid, pool, session.lock_timeout);
		migrate_unlock(&session);
		if (n == 0)
			ereport(NOTICE,
					(errmsg("pool \"%s\" has nothing to %s", pool,
							wish->direction == DIRECTION_DOWN ? "roll back" : "migrate")));
	}
	PG_FINALLY();
	{
		migrate_close(&session);
		record_close();
		outcome->remote_failed |= remote_reported_error();
		if (outcome->touched)
			tell_workers(session.serverid);
	}
	PG_END_TRY();
}

/* --- SQL functions ---------------------------------------------------------------- */

static bool
bool_argument(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/* A target version; NULL if there is none. */
const char *
migrate_target(FunctionCallInfo fcinfo, int n)
{
	const char *target = PG_ARGISNULL(n) ? NULL : version_argument(fcinfo, n);

	if (target != NULL && version_is_repeatable(target))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the target version must not be a repeatable migration"),
				 errdetail("Those run after all others, whenever their texts have changed.")));
	return target;
}

/*
 * dbpool_migrate(pool name, target dbpool_migration_version, dry_run, grouped, fake boolean,
 *				  lock_timeout interval, allow_missing, allow_divergent boolean)
 * -> SETOF (version, name, direction, status, duration)
 */
Datum
dbpool_migrate(PG_FUNCTION_ARGS)
{
	Wish		wish = {DIRECTION_UP};
	Outcome		outcome;

	wish.target = migrate_target(fcinfo, 1);
	wish.dry_run = bool_argument(fcinfo, 2);
	wish.grouped = bool_argument(fcinfo, 3);
	wish.fake = bool_argument(fcinfo, 4);
	wish.lock_timeout = migrate_lock_timeout(fcinfo, 5);
	wish.allow_missing = bool_argument(fcinfo, 6);
	wish.allow_divergent = bool_argument(fcinfo, 7);
	if (wish.dry_run && wish.fake)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("dry_run and fake exclude each other")));
	InitMaterializedSRF(fcinfo, 0);
	migrate_call(migrate_pool_argument(fcinfo), fcinfo->flinfo->fn_oid, &wish,
				 (ReturnSetInfo *) fcinfo->resultinfo, &outcome);
	return (Datum) 0;
}

/*
 * dbpool_migration_rollback(pool name, steps int, target dbpool_migration_version, dry_run, grouped boolean,
 *				   lock_timeout interval, allow_divergent boolean)
 */
Datum
dbpool_rollback(PG_FUNCTION_ARGS)
{
	Wish		wish = {DIRECTION_DOWN};
	Outcome		outcome;

	wish.target = migrate_target(fcinfo, 2);
	wish.steps = PG_ARGISNULL(1) ? 1 : PG_GETARG_INT32(1);
	wish.dry_run = bool_argument(fcinfo, 3);
	wish.grouped = bool_argument(fcinfo, 4);
	wish.lock_timeout = migrate_lock_timeout(fcinfo, 5);
	wish.allow_divergent = bool_argument(fcinfo, 6);
	if (wish.steps < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of steps must be at least 1")));
	InitMaterializedSRF(fcinfo, 0);
	migrate_call(migrate_pool_argument(fcinfo), fcinfo->flinfo->fn_oid, &wish,
				 (ReturnSetInfo *) fcinfo->resultinfo, &outcome);
	return (Datum) 0;
}
