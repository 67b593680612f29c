/*
 * doubt.c
 *	  Remotes that look as if they were new, and are not.
 *
 * A remote without a history has nothing applied, so everything is run.  That is
 * a disaster where the history is only not found: it is in a schema that another
 * role's search_path leads to, or it is another tool's.  So before anything is run
 * there, two others are asked:
 *
 *	 the local history	which knows what was applied to the pool.  All before the
 *						last baseline is past: a baseline is what people make when
 *						the remote is new indeed.
 *	 the remote			whether it has the table of a tool that dbpool shares no
 *						history with.
 */
#include "postgres.h"

#include "migrate/migrate.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

/* Most versions in a message. */
#define MAX_NAMED	10

/* --- what the local history knows ------------------------------------------------ */

/* A version that was applied, as far as is known here. */
typedef struct Known
{
	char	   *version;
	char	   *name;
	char	   *time;
	bool		baseline;
} Known;

/* In the order of versions; in the current context.  Not waited for for long. */
static Known *
read_known(Oid serverid, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			type = OIDOID;
	Datum		value = ObjectIdGetDatum(serverid);
	SPIPlanPtr	plan;
	char	   *sql =
	psprintf("WITH done AS (SELECT h.* FROM %s.dbpool_migration_history h "
			 "WHERE %s "
			 "AND h.status OPERATOR(pg_catalog.=) 'done' "
			 "AND h.mode OPERATOR(pg_catalog.<>) 'dry run') "
			 "SELECT version, name, pg_catalog.date_trunc('second', started_at), direction FROM "
			 "(SELECT DISTINCT ON (d.version) d.* FROM done d WHERE d.id OPERATOR(pg_catalog.>=) "
			 "(SELECT coalesce(pg_catalog.max(b.id), 0) FROM done b "
			 "WHERE b.direction OPERATOR(pg_catalog.=) 'baseline') "
			 "ORDER BY d.version, d.id DESC) l "
			 "WHERE direction OPERATOR(pg_catalog.<>) 'down' ORDER BY version", schema,
			 OF_SERVER("h"));
	Known	   *known;

	(void) set_config_option("lock_timeout", "10s", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	plan = SPI_prepare(sql, 1, &type);
	if (plan == NULL)
		elog(ERROR, "could not prepare a query: %s", SPI_result_code_string(SPI_result));
	/* of the present: another process writes it */
	if (SPI_execute_snapshot(plan, &value, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false,
							 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the history of migrations");
	*n = (int) SPI_processed;
	known = MemoryContextAllocZero(context, sizeof(Known) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		char	   *name = SPI_getvalue(row, desc, 2);

		known[i].version = MemoryContextStrdup(context, SPI_getvalue(row, desc, 1));
		known[i].name = MemoryContextStrdup(context, name ? name : "");
		known[i].time = MemoryContextStrdup(context, SPI_getvalue(row, desc, 3));
		known[i].baseline = strcmp(SPI_getvalue(row, desc, 4), "baseline") == 0;
	}
	tables_end(&tables);
	return known;
}

/* Has the remote's history a row of that version, or one that covers it? */
static bool
remote_knows(const MigrateSession *session, const char *version)
{
	if (!version_is_repeatable(version) && version_cmp(version, session->plan->baseline) <= 0)
		return true;
	for (int i = 0; i < session->napplied; i++)
	{
		if (strcmp(session->applied[i].version, version) == 0)
			return true;
	}
	for (int i = 0; i < session->history->nundone; i++)
	{
		if (strcmp(session->history->undone[i], version) == 0)
			return true;
	}
	return false;
}

/* Where the history was looked for, for a message. */
static char *
describe_place(const MigrateSession *session)
{
	RemoteRows *rows =
	remote_query(session->remote,
				 psprintf("SELECT pg_catalog.array_to_string(%s, '\", \"'), "
						  "pg_catalog.current_database(), current_user",
						  history_schemas(session->history, false)));

	return psprintf("%s \"%s\" of database \"%s\", as role \"%s\"",
					session->history->schema != NULL ? "schema" : "the search_path's schemas",
					remote_text(rows, 0, 0), remote_text(rows, 0, 1), remote_text(rows, 0, 2));
}

/* There is no history, and there should be. */
static void
say_lost(const MigrateSession *session, int level, const Known *known, int n)
{
	const char *pool = quote_literal_cstr(session->pool);
	const char *baseline = "0";

	for (int i = 0; i < n; i++)
	{
		if (!version_is_repeatable(known[i].version))
			baseline = known[i].version;
	}
	ereport(level,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the remote of pool \"%s\" has no history of migrations, and the history here says that it has been migrated",
					session->pool),
			 errdetail("Here the last version is %s \"%s\", noted at %s. Table \"%s\" was looked for in %s. All that was applied would be run again.",
					   known[n - 1].version, known[n - 1].name, known[n - 1].time,
					   history_table_name(session->history), describe_place(session)),
			 errhint("If the table is in another schema, name that by the server's option history_schema. If the database was dropped and made again, let all be run again: SELECT dbpool_migration_forget(%s). If the table alone is gone, begin a new history with the version that the database has: SELECT dbpool_migration_baseline(%s, %s).",
					 pool, pool, version_literal(baseline))));
}

/* Some of what is known here is not in the remote's history. */
static void
check_missing(const MigrateSession *session, int level, const Known *known, int n)
{
	StringInfoData list;
	int			missing = 0;

	initStringInfo(&list);
	for (int i = 0; i < n; i++)
	{
		if (known[i].baseline || remote_knows(session, known[i].version))
			continue;
		if (missing++ < MAX_NAMED)
			appendStringInfo(&list, "%s%s \"%s\"", missing > 1 ? ", " : "",
							 known[i].version, known[i].name);
	}
	if (missing == 0)
		return;
	if (missing > MAX_NAMED)
		appendStringInfo(&list, " and %d more", missing - MAX_NAMED);
	ereport(level,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the remote's history of pool \"%s\" lacks migrations that the history here has: %s",
					session->pool, list.data),
			 errdetail("The remote's history is table %s, found in %s.", session->history->table,
					   describe_place(session)),
			 errhint("If it is not the right one, name the schema of the right one by the server's option history_schema. If the database has lost them, for example as it was restored from a backup, pass allow_missing => true to run them again.")));
}

/* --- other tools' histories ------------------------------------------------------ */

typedef struct Tool
{
	const char *name;
	const char *schema;			/* its own, or NULL */
	const char *table;
	const char *columns;		/* as an array of names in SQL */
	bool		all;			/* the table has no others */
	const char *version;		/* query for the version it is at; %s: table */
} Tool;

/* A query for the last row by a column; names of files begin with versions. */
#define LAST(column, order)	"SELECT " column " FROM %s ORDER BY " order " DESC LIMIT 1"
#define LONGEST(column)	LAST(column, "pg_catalog.length(" column ") DESC, " column)

static const Tool tools[] = {
	{"golang-migrate", NULL, "schema_migrations", "{version,dirty}", true,
	"SELECT version, dirty FROM %s ORDER BY version DESC LIMIT 1"},
	{"goose", NULL, "goose_db_version", "{id,version_id,is_applied,tstamp}", false,
		"SELECT version_id FROM (SELECT DISTINCT ON (version_id) version_id, is_applied FROM %s "
	"ORDER BY version_id, id DESC) v WHERE is_applied ORDER BY version_id DESC LIMIT 1"},
	{"Flyway", NULL, "flyway_schema_history",
		"{installed_rank,version,description,type,script,checksum,success}", false,
		"SELECT version FROM (SELECT DISTINCT ON (version) version, type, success FROM %s "
		"WHERE version IS NOT NULL ORDER BY version, installed_rank DESC) v "
		"WHERE success AND type OPERATOR(pg_catalog.!~) '^UNDO' "
		"ORDER BY CASE WHEN version OPERATOR(pg_catalog.~) '^[0-9]{1,18}([.][0-9]{1,18})*$' "
	"THEN pg_catalog.string_to_array(version, '.')::pg_catalog.int8[] END DESC NULLS LAST LIMIT 1"},
	{"Flyway", NULL, "schema_version",
		"{installed_rank,version,description,type,script,checksum,success}", false,
	LAST("version", "installed_rank")},
	{"Ecto", NULL, "schema_migrations", "{version,inserted_at}", true, LAST("version", "version")},
	{"dbmate or Rails", NULL, "schema_migrations", "{version}", true, LONGEST("version")},
	{"Supabase", "supabase_migrations", "schema_migrations", "{version}", false, LONGEST("version")},
	{"Migratus", NULL, "schema_migrations", "{id,applied,description}", true, LAST("id", "id")},
	{"sqitch", "sqitch", "changes", "{change_id,change,project,committed_at}", false, NULL},
	{"Prisma", NULL, "_prisma_migrations", "{id,checksum,finished_at,migration_name,started_at}", false,
		"SELECT migration_name FROM %s WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL "
	"ORDER BY migration_name DESC LIMIT 1"},
	{"Diesel", NULL, "__diesel_schema_migrations", "{version,run_on}", true, LONGEST("version")},
	{"node-pg-migrate", NULL, "pgmigrations", "{id,name,run_on}", true, LAST("name", "id")},
	{"sql-migrate", NULL, "gorp_migrations", "{id,applied_at}", true, LONGEST("id")},
	{"tern", NULL, "schema_version", "{version}", true, LAST("version", "version")},
	{"rambler", NULL, "migrations", "{migration}", true, LAST("migration", "migration")},
	{"Laravel", NULL, "migrations", "{id,migration,batch}", true, NULL},
	{"TypeORM", NULL, "migrations", "{id,timestamp,name}", true, LAST("\"timestamp\"", "\"timestamp\"")},
	{"Django", NULL, "django_migrations", "{id,app,name,applied}", true, NULL},
	{"Alembic", NULL, "alembic_version", "{version_num}", true, NULL},
	{"Liquibase", NULL, "databasechangelog", "{id,author,filename,dateexecuted,orderexecuted,md5sum}",
	false, NULL},
	{"knex", NULL, "knex_migrations", "{id,name,batch,migration_time}", true, LAST("name", "id")},
	{"Sequelize", NULL, "SequelizeMeta", "{name}", true, LAST("name", "name")},
	{"Entity Framework", NULL, "__EFMigrationsHistory", "{MigrationId,ProductVersion}", true,
	LAST("\"MigrationId\"", "\"MigrationId\"")},
	{"MyBatis Migrations", NULL, "changelog", "{id,applied_at,description}", true, LAST("id", "id")},
	{"Evolve", NULL, "changelog", "{id,type,version,description,name,checksum,success}", false, NULL},
	{"Play", NULL, "play_evolutions", "{id,hash,applied_at,apply_script,revert_script,state}", false,
	LAST("id", "id")},
	{"shmig", NULL, "shmig_version", "{version,migrated_at}", true, LAST("version", "version")},
	{"yoyo", NULL, "_yoyo_migration", "{migration_hash,migration_id}", false,
	LAST("migration_id", "migration_id")},
	{"Atlas", NULL, "atlas_schema_revisions", "{version,description,type,applied,total}", false,
	LONGEST("version")},
	{"Atlas", "atlas_schema_revisions", "atlas_schema_revisions",
	"{version,description,type,applied,total}", false, LONGEST("version")},
	{"Drizzle", "drizzle", "__drizzle_migrations", "{id,hash,created_at}", false, NULL},
	{"graphile-migrate", "graphile_migrate", "migrations", "{hash,previous_hash,filename,date}", true, NULL},
	{"Kysely", NULL, "kysely_migration", "{name,timestamp}", true, LAST("name", "name")},
	{"MikroORM", NULL, "mikro_orm_migrations", "{id,name,executed_at}", true, NULL},
	{"Bun", NULL, "bun_migrations", "{id,name,group_id,migrated_at}", true, LAST("name", "id")},
	{"Buffalo", NULL, "schema_migration", "{version}", false, LONGEST("version")},
	{"Doctrine", NULL, "doctrine_migration_versions", "{version,executed_at,execution_time}", true, NULL},
	{"Phinx", NULL, "phinxlog", "{version,migration_name,start_time,end_time}", false,
	LAST("version", "version")},
	{"Postgrator", NULL, "schemaversion", "{version,name,md5}", false, LAST("version", "version")},
	{"DbUp", NULL, "schemaversions", "{schemaversionsid,scriptname,applied}", true, NULL},
	{"Aerich", NULL, "aerich", "{id,version,app,content}", true, NULL},
	{"darwin", NULL, "darwin_migrations", "{id,version,description,checksum,applied_at}", false, NULL}
};

/*
 * Tables that are some tool's by name and columns: number of the tool, name, and
 * whether it is safe to read.  Others' policies and types would have their
 * functions run as the role that migrates.
 */
static RemoteRows *
find_tools(const History *history)
{
	StringInfoData values;
	char	   *sql;

	initStringInfo(&values);
	for (int i = 0; i < lengthof(tools); i++)
		appendStringInfo(&values, "%s(%d, %s::pg_catalog.name, %s::pg_catalog.name, %s::pg_catalog.name[], %s)",
						 i > 0 ? ", " : "", i,
						 tools[i].schema ? quote_literal_cstr(tools[i].schema) : "NULL",
						 quote_literal_cstr(tools[i].table), quote_literal_cstr(tools[i].columns),
						 tools[i].all ? "true" : "false");
	sql = psprintf("WITH c AS (SELECT t.i, c.oid, n.nspname, c.relname, c.relrowsecurity, "
				   "pg_catalog.array_length(t.columns, 1) AS wanted, t.whole, "
				   "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a "
				   "WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 "
				   "AND NOT a.attisdropped) AS every, "
				   "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute a "
				   "WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped "
				   "AND a.attname OPERATOR(pg_catalog.=) ANY (t.columns)) AS found, "
				   "EXISTS (SELECT FROM pg_catalog.pg_attribute a "
				   "JOIN pg_catalog.pg_type y ON y.oid OPERATOR(pg_catalog.=) a.atttypid "
				   "WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND NOT a.attisdropped "
				   "AND y.typnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace) AS odd "
				   "FROM (VALUES %s) t(i, space, name, columns, whole) JOIN pg_catalog.pg_class c ON c.relname OPERATOR(pg_catalog.=) t.name "
				   "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
				   "WHERE c.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog.\"char\"[]) "
				   "AND CASE WHEN t.space IS NULL THEN n.nspname OPERATOR(pg_catalog.=) ANY (%s) "
				   "ELSE n.nspname OPERATOR(pg_catalog.=) t.space END) "
				   "SELECT i, pg_catalog.format('%%I.%%I', nspname, relname), NOT relrowsecurity AND NOT odd "
				   "AND pg_catalog.has_schema_privilege(nspname, 'USAGE') "
				   "AND pg_catalog.has_table_privilege(oid, 'SELECT') "
				   "FROM c WHERE found OPERATOR(pg_catalog.=) wanted AND (NOT whole OR every OPERATOR(pg_catalog.=) wanted) "
				   "ORDER BY i, nspname",
				   values.data, history_schemas(history, true));
	return remote_query(history->remote, sql);
}

/* The number that a version or the name of a file begins with; NULL: none. */
static char *
leading_number(const char *version)
{
	int			length = version == NULL ? 0 : strspn(version, "0123456789");

	/* versions of several parts are no numbers */
	if (length == 0 || length > 18 ||
		(version[length] != '\0' && version[length] != '_' && version[length] != '-' &&
		 strncmp(version + length, ".sql", 4) != 0))
		return NULL;
	return pnstrdup(version, length);
}

/* The table of a tool, which has rows if they could be looked at. */
static void
say_tool(const MigrateSession *session, int level, const Tool *tool, const char *table, bool safe,
		 const char *version, bool dirty)
{
	char	   *number = leading_number(version);

	ereport(level,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the remote of pool \"%s\" has been migrated by %s, and has no history of dbpool",
					session->pool, tool->name),
			 dirty ?
			 errdetail("Table %s is that tool's history. Its version is \"%s\", marked as dirty: that migration has not ended.",
					   table, version) :
			 version != NULL ?
			 errdetail("Table %s is that tool's history. Its version is \"%s\".", table, version) :
			 safe ?
			 errdetail("Table %s is that tool's history.", table) :
			 errdetail("Table %s is that tool's history. It was not read, as it cannot be or should not be by the role that migrates.",
					   table),
			 errhint("What has been done would be done again. %sSELECT dbpool_migration_baseline(%s, %s) takes for applied what is registered up to %s; with 0 instead, nothing.",
					 dirty ? "Mend it by the tool's own means first. " : "",
					 quote_literal_cstr(session->pool), number ? number : "version",
					 number ? "that version" : "a version, which has to be that of the last migration that was run")));
}

static void
check_tools(const MigrateSession *session, int level)
{
	RemoteRows *found = find_tools(session->history);

	for (int i = 0; i < found->nrows; i++)
	{
		const Tool *tool = &tools[remote_number(found, i, 0, lengthof(tools))];
		const char *table = remote_text(found, i, 1);
		bool		safe = remote_text(found, i, 2)[0] == 't';
		const char *version = NULL;
		bool		dirty = false;

		if (safe)
		{
			char	   *query = tool->version ? psprintf(tool->version, table) :
			psprintf("SELECT NULL FROM %s LIMIT 1", table);
			RemoteRows *rows =
			remote_query(session->remote,
						 tool == &tools[0] ?
						 psprintf("SELECT pg_catalog.left(v.a::pg_catalog.text, 100), v.b FROM (%s) v(a, b)", query) :
						 psprintf("SELECT pg_catalog.left(v.a::pg_catalog.text, 100) FROM (%s) v(a)", query));

			/* nothing has been run by it */
			if (rows->nrows == 0)
				continue;
			version = remote_value(rows, 0, 0);
			if (tool == &tools[0])
				dirty = remote_value(rows, 0, 1) != NULL && remote_value(rows, 0, 1)[0] == 't';
		}
		say_tool(session, level, tool, table, safe, version, dirty);
		return;
	}
}

/*
 * See that what the remote's history says can be believed.  level: ERROR before
 * something is run; fake: nothing is.
 */
void
doubt_check(MigrateSession *session, int level, bool allow_missing, bool fake)
{
	History    *history = session->history;
	bool		none = session->napplied == 0 && history->nundone == 0 &&
	(history->table == NULL || history->format == HISTORY_DBPOOL);
	int			n;
	Known	   *known;

	if (level >= ERROR && history->table == NULL && session->napplied == 0)
		history_refuse_another(history);
	known = read_known(session->serverid, &n);
	if (none && n > 0)
		say_lost(session, level, known, n);
	else if (history->table == NULL && session->napplied == 0 && !fake)
		check_tools(session, level);
	else if (history->table != NULL && history->format == HISTORY_DBPOOL && !allow_missing)
		check_missing(session, level, known, n);
}
