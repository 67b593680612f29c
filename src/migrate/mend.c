/*
 * mend.c
 *	  What people look at and do when something is not as it should be: status,
 *	  repair, resolve, baseline.
 *
 * All but the status write to the remote's history with its lock, in one
 * transaction, and leave a row in the local history.
 */
#include "postgres.h"

#include "backend/client.h"
#include "migrate/migrate.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dbpool_migration_status);
PG_FUNCTION_INFO_V1(dbpool_migration_repair);
PG_FUNCTION_INFO_V1(dbpool_migration_resolve);
PG_FUNCTION_INFO_V1(dbpool_migration_baseline);
PG_FUNCTION_INFO_V1(dbpool_migration_forget);

/* --- status ---------------------------------------------------------------------- */

/* The last attempts of a pool that did not end well, as text. */
typedef struct Failures
{
	int			n;
	char	  **versions;
	char	  **details;
} Failures;

static Failures
read_failures(Oid serverid)
{
	MemoryContext context = CurrentMemoryContext;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Failures	failures;
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(serverid);

	if (SPI_execute_with_args(psprintf("SELECT version, detail FROM "
									   "(SELECT DISTINCT ON (version) version, status, pg_catalog.format('%%s of %%s at %%s%%s', "
									   "CASE WHEN status OPERATOR(pg_catalog.=) 'failed' THEN 'failure' "
									   "WHEN status OPERATOR(pg_catalog.=) 'unknown' THEN 'unknown end' ELSE 'interruption' END, "
									   "executed_by, pg_catalog.date_trunc('second', started_at), "
									   "': ' OPERATOR(pg_catalog.||) sqlstate OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) error) AS detail "
									   "FROM %s.dbpool_migration_history h "
									   "WHERE " OF_SERVER("h") " "
									   "AND mode OPERATOR(pg_catalog.<>) 'dry run' "
									   "ORDER BY version, id DESC) l "
									   "WHERE status OPERATOR(pg_catalog.=) ANY ('{failed,unknown,interrupted}') ORDER BY version",
									   schema),
							  1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the history of migrations");
	failures.n = (int) SPI_processed;
	failures.versions = MemoryContextAlloc(context, sizeof(char *) * (failures.n + 1));
	failures.details = MemoryContextAlloc(context, sizeof(char *) * (failures.n + 1));
	for (int i = 0; i < failures.n; i++)
	{
		failures.versions[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i],
																		 SPI_tuptable->tupdesc, 1));
		failures.details[i] = MemoryContextStrdup(context, SPI_getvalue(SPI_tuptable->vals[i],
																		SPI_tuptable->tupdesc, 2));
	}
	tables_end(&tables);
	return failures;
}

/* A row of dbpool_migration_status(). */
static void
put_status(ReturnSetInfo *rsinfo, MigrateSession *session, const MigrateItem *item,
		   const Failures *failures)
{
	const Applied *applied = item->applied;
	const char *status = plan_status_name(item->status);
	const char *detail = NULL;
	Datum		values[7];
	bool		nulls[7] = {false};
	Interval   *duration = palloc0(sizeof(Interval));

	if (item->status == PLAN_FAILED)
		detail = "it was started outside of a transaction, and is not known to have ended";
	else if (item->status == PLAN_DIVERGENT)
		detail = item->line_ends_only ? "the texts differ by their line ends" :
			"the checksums of the texts differ";
	else if (applied == NULL && item->status == PLAN_APPLIED)
		detail = psprintf("covered by baseline %s", session->plan->baseline);
	else if (applied != NULL && applied->direction != DIRECTION_UP)
		detail = direction_name(applied->direction);
	for (int i = 0; i < failures->n; i++)
	{
		if (strcmp(failures->versions[i], item->version) != 0)
			continue;
		if (item->status == PLAN_PENDING)
			status = plan_status_name(PLAN_FAILED);
		if (item->status == PLAN_FAILED)
			detail = psprintf("%s; %s", detail, failures->details[i]);
		else if (item->status == PLAN_PENDING || item->status == PLAN_OUT_OF_ORDER)
			detail = failures->details[i];
	}

	values[0] = CStringGetTextDatum(item->version);
	values[1] = CStringGetTextDatum(item->name);
	values[2] = CStringGetTextDatum(status);
	nulls[3] = applied == NULL || applied->applied_at == NULL;
	if (!nulls[3])
		values[3] = DirectFunctionCall3(timestamptz_in, CStringGetDatum(applied->applied_at),
										ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	nulls[4] = applied == NULL || applied->applied_by == NULL;
	if (!nulls[4])
		values[4] = CStringGetTextDatum(applied->applied_by);
	nulls[5] = applied == NULL || applied->duration < 0;
	if (!nulls[5])
		duration->time = (TimeOffset) (applied->duration * 1000.0);
	values[5] = IntervalPGetDatum(duration);
	nulls[6] = detail == NULL;
	if (!nulls[6])
		values[6] = CStringGetTextDatum(detail);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * dbpool_migration_status(pool name)
 * -> SETOF (version, name, status, applied_at, applied_by, duration, detail)
 *
 * Reads both sides; takes no lock, writes nothing, and so works on a standby.
 */
Datum
dbpool_migration_status(PG_FUNCTION_ARGS)
{
	const char *pool = migrate_pool_argument(fcinfo);
	MigrateSession session = {0};

	InitMaterializedSRF(fcinfo, 0);
	PG_TRY();
	{
		Failures	failures;

		migrate_open(&session, pool, fcinfo->flinfo->fn_oid, -1);
		doubt_check(&session, WARNING, false, false);
		failures = read_failures(session.serverid);
		for (int i = 0; i < session.plan->n; i++)
			put_status((ReturnSetInfo *) fcinfo->resultinfo, &session,
					   &session.plan->items[i], &failures);
	}
	PG_FINALLY();
	{
		migrate_close(&session);
	}
	PG_END_TRY();
	return (Datum) 0;
}

/* --- writing --------------------------------------------------------------------- */

/* Run statements on the remote's history, and leave a row in the local one. */
static void
write_history(MigrateSession *session, const Migration *migration, Direction direction,
			  const char *mode, const char *sql)
{
	Attempt		attempt = {session->pool, migration, direction, mode, ""};
	int64		id;

	record_open(session->serverid, session->pool, session->lock_timeout);
	migrate_begin(session, true);
	id = record_begin(&attempt);
	remote_commit(session->remote, psprintf("%s; COMMIT", sql));
	record_end(id, "done", 0, NULL, NULL);
	record_close();
}

static MigrateItem *
find_item(MigrateSession *session, const char *version)
{
	for (int i = 0; i < session->plan->n; i++)
	{
		if (strcmp(session->plan->items[i].version, version) == 0)
			return &session->plan->items[i];
	}
	return NULL;
}

static void
throw_no_version(const char *pool, const char *version)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("pool \"%s\" has no migration %s", pool, version),
			 errhint("SELECT * FROM dbpool_migration_status(%s) shows those that it has.",
					 quote_literal_cstr(pool))));
}

static void
require_arguments(FunctionCallInfo fcinfo, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %d of the function must not be null", i + 1)));
	}
}

/* --- repair ---------------------------------------------------------------------- */

/* Put right the checksum of one, if it may be; a row of the result. */
static void
repair_item(ReturnSetInfo *rsinfo, MigrateSession *session, const MigrateItem *item, bool force)
{
	Datum		values[3];
	bool		nulls[3] = {false};
	const char *action = "not repaired: the texts differ";

	if (item->line_ends_only || force)
	{
		action = item->line_ends_only ? "repaired: line ends" : "repaired: registered text accepted";
		migrate_create_history(session);
		write_history(session, item->migration, DIRECTION_UP, "repair",
					  history_mend_sql(session->history, item->migration));
	}
	values[0] = CStringGetTextDatum(item->version);
	values[1] = CStringGetTextDatum(item->name);
	values[2] = CStringGetTextDatum(action);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * dbpool_migration_repair(pool name, version dbpool_migration_version, force boolean,
 *						   lock_timeout interval)
 * -> SETOF (version, name, action)
 *
 * Gives divergent migrations, or the one of that version, the checksum of the
 * registered text: where the texts differ by line ends, or with force always.
 */
Datum
dbpool_migration_repair(PG_FUNCTION_ARGS)
{
	const char *pool = migrate_pool_argument(fcinfo);
	bool		force = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	int			lock_timeout = migrate_lock_timeout(fcinfo, 3);
	const char *version = PG_ARGISNULL(1) ? NULL : version_argument(fcinfo, 1);
	MigrateSession session = {0};

	InitMaterializedSRF(fcinfo, 0);
	PG_TRY();
	{
		migrate_open(&session, pool, fcinfo->flinfo->fn_oid, lock_timeout);
		if (version != NULL && find_item(&session, version) == NULL)
			throw_no_version(pool, version);
		for (int i = 0; i < session.plan->n; i++)
		{
			const MigrateItem *item = &session.plan->items[i];

			if (item->status == PLAN_DIVERGENT &&
				(version == NULL || strcmp(version, item->version) == 0))
				repair_item((ReturnSetInfo *) fcinfo->resultinfo, &session, item, force);
		}
	}
	PG_FINALLY();
	{
		migrate_close(&session);
		record_close();
	}
	PG_END_TRY();
	return (Datum) 0;
}

/* --- resolve --------------------------------------------------------------------- */

/* Statements for what has been found: is the migration applied, or is it not? */
static char *
resolution(MigrateSession *session, const MigrateItem *item, bool is_applied)
{
	History    *history = session->history;
	Migration	bare = {unconstify(char *, item->version), unconstify(char *, item->name), ""};
	const Migration *migration = item->migration ? item->migration : &bare;

	if (item->migration == NULL && is_applied && history->format != HISTORY_DBPOOL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration %s of pool \"%s\" is not registered, so its checksum is not known",
						item->version, session->pool)));
	if (item->applied->direction == DIRECTION_DOWN)
		return is_applied ? history_forget_sql(history, item->version) :
			history_done_sql(history, migration, DIRECTION_DOWN, 0);
	return is_applied ? history_done_sql(history, migration, DIRECTION_UP, 0) :
		history_forget_sql(history, item->version);
}

/*
 * dbpool_migration_resolve(pool name, version dbpool_migration_version, outcome text,
 *							lock_timeout interval) -> void
 *
 * Of a migration that was started outside of a transaction and did not end:
 * 'applied' when all of it is there, 'pending' when none of it is.
 */
Datum
dbpool_migration_resolve(PG_FUNCTION_ARGS)
{
	const char *pool = migrate_pool_argument(fcinfo);
	MigrateSession session = {0};
	char	   *version;
	char	   *outcome;
	bool		is_applied;

	require_arguments(fcinfo, 3);
	version = version_argument(fcinfo, 1);
	outcome = text_to_cstring(PG_GETARG_TEXT_PP(2));
	is_applied = strcmp(outcome, "applied") == 0;
	if (!is_applied && strcmp(outcome, "pending") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid outcome of a migration: \"%s\"", outcome),
				 errhint("Valid values are \"applied\" and \"pending\".")));
	PG_TRY();
	{
		const MigrateItem *item;
		Migration	shown;

		migrate_open(&session, pool, fcinfo->flinfo->fn_oid, migrate_lock_timeout(fcinfo, 3));
		item = find_item(&session, version);
		if (item == NULL)
			throw_no_version(pool, version);
		if (item->status != PLAN_FAILED)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("migration %s \"%s\" of pool \"%s\" needs no resolution: it is %s",
							version, item->name, pool, plan_status_name(item->status))));
		memset(&shown, 0, sizeof(shown));
		shown.version = version;
		shown.name = unconstify(char *, item->name);
		write_history(&session, &shown, is_applied ? DIRECTION_UP : DIRECTION_DOWN, "resolve",
					  resolution(&session, item, is_applied));
	}
	PG_FINALLY();
	{
		migrate_close(&session);
		record_close();
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/* --- baseline -------------------------------------------------------------------- */

/*
 * Statements that say: all up to this version is there.  Other tools' formats
 * have no word for that, so each migration gets its row.
 */
static char *
baseline_sql(MigrateSession *session, const Migration *baseline)
{
	StringInfoData sql;

	if (session->history->format == HISTORY_DBPOOL)
		return psprintf("DELETE FROM %s WHERE direction OPERATOR(pg_catalog.=) 'baseline'; %s",
						session->history->table,
						history_put_sql(session->history, baseline, DIRECTION_BASELINE, 0, false));
	initStringInfo(&sql);
	for (int i = 0; i < session->nmigrations; i++)
	{
		const Migration *migration = &session->migrations[i];

		if (version_cmp(migration->version, baseline->version) <= 0)
			appendStringInfo(&sql, "%s%s", sql.len > 0 ? "; " : "",
							 history_put_sql(session->history, migration, DIRECTION_UP, 0, false));
	}
	return sql.data;
}

/*
 * dbpool_migration_baseline(pool name, version dbpool_migration_version, lock_timeout interval)
 * -> void
 *
 * Takes a database without a history for one that has all migrations up to and
 * including that version, 0 for one that has none of them.  A baseline can be moved
 * as long as there is nothing else (format dbpool).
 */
Datum
dbpool_migration_baseline(PG_FUNCTION_ARGS)
{
	const char *pool = migrate_pool_argument(fcinfo);
	MigrateSession session = {0};
	char	   *version;

	require_arguments(fcinfo, 2);
	version = version_argument(fcinfo, 1);
	if (version_is_repeatable(version))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the version of a baseline must not be a repeatable migration")));
	PG_TRY();
	{
		Migration	baseline = {version, "baseline", ""};
		MigrateItem *item;

		migrate_open(&session, pool, fcinfo->flinfo->fn_oid, migrate_lock_timeout(fcinfo, 2));
		if (session.napplied > 1 ||
			(session.napplied == 1 && session.applied[0].direction != DIRECTION_BASELINE))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pool \"%s\" has a history of migrations already", pool),
					 errdetail("Its highest version is %s.", session.plan->current),
					 errhint("dbpool_migrate() with fake => true notes migrations as applied without running them.")));
		item = find_item(&session, version);
		if (item != NULL && item->migration != NULL)
			baseline = *item->migration;
		else if (session.history->format != HISTORY_DBPOOL && strcmp(version, "0") != 0)
			throw_no_version(pool, version);
		migrate_create_history(&session);
		write_history(&session, &baseline, DIRECTION_BASELINE, "baseline",
					  baseline_sql(&session, &baseline));
	}
	PG_FINALLY();
	{
		migrate_close(&session);
		record_close();
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/* Is a run on the pool under way? */
static bool
is_being_migrated(const char *pool)
{
	bool		found = false;

	for (int i = 0; !found && i < DBPOOL_SHOWN_MIGRATIONS; i++)
	{
		MigrateShared *entry = &dbpool_shared->migrations[i];

		SpinLockAcquire(&entry->mutex);
		found = entry->pid != 0 && entry->dbid == MyDatabaseId &&
			strcmp(NameStr(entry->pool), pool) == 0;
		SpinLockRelease(&entry->mutex);
	}
	return found;
}

/*
 * dbpool_migration_forget(pool name) returns int
 *
 * After the remote's database was dropped and made again: the local history
 * forgets that anything has been applied there, so that all can be changed and
 * runs again.  The remote is not asked.  Returns how many versions were applied.
 *
 * Errors: 42501 for those who may not; 55006 while a run on the pool is under way.
 */
Datum
dbpool_migration_forget(PG_FUNCTION_ARGS)
{
	const char *pool = PG_ARGISNULL(0) ? NULL : NameStr(*PG_GETARG_NAME(0));
	Oid			serverid;

	serverid = migrate_check_right(pool, fcinfo->flinfo->fn_oid);
	client_require_preload();
	if (is_being_migrated(pool))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("pool \"%s\" is being migrated", pool),
				 errhint("dbpool_progress_migrate shows by whom.")));
	PG_RETURN_INT32(source_forget(serverid, pool));
}
