/*
 * plan.c
 *	  What is registered and what is applied, side by side.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

/* Most versions in a message. */
#define MAX_NAMED	10

const char *
plan_status_name(PlanStatus status)
{
	static const char *const names[] = {
		"applied", "pending", "missing", "divergent", "out of order", "failed"
	};

	return names[status];
}

/* How a version is that is registered, applied, or both. */
static void
judge(const History *history, const MigratePlan *plan, MigrateItem *item)
{
	const Applied *applied = item->applied;
	const Migration *migration = item->migration;

	if (applied != NULL && applied->started)
		item->status = PLAN_FAILED;
	else if (applied != NULL && applied->direction == DIRECTION_BASELINE)
		item->status = PLAN_APPLIED;
	else if (migration == NULL)
		item->status = version_is_repeatable(item->version) ? PLAN_APPLIED : PLAN_MISSING;
	else if (applied != NULL && version_is_repeatable(item->version))
		item->status = history_matches(history, applied->checksum, migration,
									   &item->line_ends_only) ||
			item->line_ends_only ? PLAN_APPLIED : PLAN_PENDING;
	else if (applied != NULL)
		item->status = history_matches(history, applied->checksum, migration,
									   &item->line_ends_only) ? PLAN_APPLIED : PLAN_DIVERGENT;
	else if (version_is_repeatable(item->version))
		item->status = PLAN_PENDING;
	else if (version_cmp(item->version, plan->baseline) <= 0)
		item->status = PLAN_APPLIED;
	else if (version_cmp(item->version, plan->current) < 0 && !migration->out_of_order)
		item->status = PLAN_OUT_OF_ORDER;
	else
		item->status = PLAN_PENDING;
}

/* Both lists are in the order of versions; the plan refers to them. */
MigratePlan *
plan_make(const History *history, const Migration *migrations, int nmigrations,
		  const Applied *applied, int napplied)
{
	MigratePlan *plan = palloc0(sizeof(MigratePlan));
	int			m = 0;
	int			a = 0;

	plan->pool = remote_pool(history->remote);
	plan->items = palloc0(sizeof(MigrateItem) * (nmigrations + napplied + 1));
	for (int i = 0; i < napplied; i++)
	{
		if (version_is_repeatable(applied[i].version))
			continue;
		plan->current = applied[i].version;
		if (applied[i].direction == DIRECTION_BASELINE)
			plan->baseline = applied[i].version;
	}
	while (m < nmigrations || a < napplied)
	{
		MigrateItem *item = &plan->items[plan->n++];

		if (a == napplied ||
			(m < nmigrations && version_cmp(migrations[m].version, applied[a].version) < 0))
			item->version = migrations[m].version;
		else
			item->version = applied[a].version;
		if (a < napplied && strcmp(applied[a].version, item->version) == 0)
		{
			item->applied = &applied[a++];
			item->name = item->applied->name;
		}
		if (m < nmigrations && strcmp(migrations[m].version, item->version) == 0)
		{
			item->migration = &migrations[m++];
			item->name = item->migration->name;
		}
		judge(history, plan, item);
	}
	return plan;
}

/* The versions of a status, for a message; NULL if there is none. */
static char *
versions_of(const MigratePlan *plan, PlanStatus status)
{
	StringInfoData buf;
	int			n = 0;

	initStringInfo(&buf);
	for (int i = 0; i < plan->n; i++)
	{
		const MigrateItem *item = &plan->items[i];

		if (item->status != status)
			continue;
		if (n++ < MAX_NAMED)
			appendStringInfo(&buf, "%s%s \"%s\"", n > 1 ? ", " : "",
							 item->version, item->name);
	}
	if (n > MAX_NAMED)
		appendStringInfo(&buf, " and %d more", n - MAX_NAMED);
	return n > 0 ? buf.data : NULL;
}

/* The invalid indexes of the remote, for a message; NULL if there is none. */
char *
plan_invalid_indexes(Remote *remote)
{
	RemoteRows *rows =
	remote_query(remote,
				 "SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' "
				 "ORDER BY n.nspname, c.relname) "
				 "FROM pg_catalog.pg_index i "
				 "JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid "
				 "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
				 "WHERE NOT i.indisvalid AND c.relkind OPERATOR(pg_catalog.=) 'i'");

	return remote_value(rows, 0, 0);
}

/* A migration that runs outside of a transaction has not ended. */
static void
throw_started(const MigratePlan *plan, Remote *remote, const MigrateItem *item)
{
	char	   *indexes = plan_invalid_indexes(remote);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("migration %s \"%s\" on pool \"%s\" was started and is not known to have ended",
					item->version, item->name, plan->pool),
			 indexes == NULL ?
			 errdetail("It runs outside of a transaction, so some of its statements may have taken effect. The remote has no invalid index.") :
			 errdetail("It runs outside of a transaction, so some of its statements may have taken effect. The remote has invalid indexes, as a CREATE INDEX CONCURRENTLY leaves them that did not end: %s.",
					   indexes),
			 errhint("Look what of it has been done. If all has: SELECT dbpool_migration_resolve(%s, %s, '%s'). If nothing has, or you have undone it%s: SELECT dbpool_migration_resolve(%s, %s, '%s').",
					 quote_literal_cstr(plan->pool), version_literal(item->version),
					 item->applied->direction == DIRECTION_DOWN ? "pending" : "applied",
					 indexes ? " (DROP INDEX)" : "",
					 quote_literal_cstr(plan->pool), version_literal(item->version),
					 item->applied->direction == DIRECTION_DOWN ? "applied" : "pending")));
}

/*
 * Throws unless it is safe to go on from here.  allow_missing lets versions
 * pass that are missing on either side: applied but not registered, and
 * registered but overtaken by later ones.
 */
void
plan_check(const MigratePlan *plan, const History *history, bool allow_missing, bool allow_divergent)
{
	char	   *versions;

	for (int i = 0; i < plan->n; i++)
	{
		if (plan->items[i].status == PLAN_FAILED)
			throw_started(plan, history->remote, &plan->items[i]);
		if (plan->items[i].status == PLAN_PENDING || plan->items[i].status == PLAN_OUT_OF_ORDER)
			history_check_version(history, plan->items[i].version);
	}
	if (!allow_divergent && (versions = versions_of(plan, PLAN_DIVERGENT)) != NULL)
	{
		bool		line_ends = true;

		for (int i = 0; i < plan->n; i++)
		{
			if (plan->items[i].status == PLAN_DIVERGENT)
				line_ends &= plan->items[i].line_ends_only;
		}
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migrations that were applied to pool \"%s\" are not those that are registered: %s",
						plan->pool, versions),
				 line_ends ?
				 errdetail("The texts differ by their line ends only.") :
				 errdetail("The checksums of their texts differ."),
				 line_ends ?
				 errhint("SELECT dbpool_migration_repair(%s) puts the checksums right.",
						 quote_literal_cstr(plan->pool)) :
				 errhint("Register the text that was applied, or pass allow_divergent => true to go on all the same; dbpool_migration_repair() with force => true accepts the registered text as the one that was applied.")));
	}
	if (!allow_missing && (versions = versions_of(plan, PLAN_MISSING)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migrations that were applied to pool \"%s\" are not registered: %s",
						plan->pool, versions),
				 errhint("Register them by dbpool_add_migration() or dbpool_load_migrations(), or pass allow_missing => true to go on without.")));
	if (!allow_missing && (versions = versions_of(plan, PLAN_OUT_OF_ORDER)) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migrations of pool \"%s\" are out of order: %s", plan->pool, versions),
				 errdetail("Version %s has been applied already.", plan->current),
				 errhint("Give them higher versions, or pass allow_missing => true to run them now, or register them with {\"out_of_order\": true}.")));
}
