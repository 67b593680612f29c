/*
 * source.c
 *	  Migrations as registered in this database.
 *
 * They are rows of the table dbpool_migrations.  What has been applied stays as it
 * is; a trigger of the table sees to that, whoever tries.
 *
 * Whether something has been applied is asked with a snapshot of the present,
 * not the transaction's: the history is written by another process.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "migrate/migrate.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

/*
 * The last successful attempt that was meant, or one that is under way or whose
 * end is not known if there is none after it; %s is the schema.
 */
#define LAST_DIRECTION \
	"SELECT h.direction FROM " \
	"(SELECT *, pg_catalog.max(id) OVER () AS last FROM %s.dbpool_migration_history a " \
	"WHERE " OF_SERVER("a") " AND version::pg_catalog.text OPERATOR(pg_catalog.=) $2 " \
	"AND mode OPERATOR(pg_catalog.<>) 'dry run') h " \
	"WHERE h.status OPERATOR(pg_catalog.=) 'done' " \
	"OR (h.status OPERATOR(pg_catalog.=) ANY ('{running,unknown}') AND h.id OPERATOR(pg_catalog.=) h.last) " \
	"ORDER BY h.id DESC LIMIT 1"

/* --- the table ------------------------------------------------------------------- */

static Datum
name_datum(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

/* A text of that row of SPI's result in that context; NULL for null. */
static char *
text_of_row(int row, int column, MemoryContext context)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
									  column, &isnull);
	MemoryContext old;
	char	   *string;

	if (isnull)
		return NULL;
	old = MemoryContextSwitchTo(context);
	string = TextDatumGetCString(value);
	MemoryContextSwitchTo(old);
	return string;
}

static Datum
value_of_row(int row, int column)
{
	bool		isnull;

	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);
}

#define MIGRATION_COLUMNS "m.version, m.name, m.up_sql, m.down_sql, m.file, m.transaction, m.out_of_order, m.added_by"

static void
migration_of_row(int row, Migration *migration, MemoryContext context)
{
	migration->version = text_of_row(row, 1, context);
	migration->name = text_of_row(row, 2, context);
	migration->up_sql = text_of_row(row, 3, context);
	migration->down_sql = text_of_row(row, 4, context);
	migration->file = text_of_row(row, 5, context);
	migration->transaction = DatumGetBool(value_of_row(row, 6));
	migration->out_of_order = DatumGetBool(value_of_row(row, 7));
	migration->added_by =
		MemoryContextStrdup(context, NameStr(*DatumGetName(value_of_row(row, 8))));
}

Migration *
source_read(Oid serverid, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(serverid)};
	Migration  *migrations;

	tables_run(psprintf("SELECT " MIGRATION_COLUMNS " FROM %s.dbpool_migrations m "
						"WHERE " OF_SERVER("m") " ORDER BY m.version", schema),
			   1, types, values, NULL, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	migrations = MemoryContextAlloc(context, sizeof(Migration) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		migration_of_row(i, &migrations[i], context);
	tables_end(&tables);
	return migrations;
}

bool
source_is_applied(Oid serverid, const char *version)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			types[] = {OIDOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), CStringGetTextDatum(version)};
	SPIPlanPtr	plan = SPI_prepare(psprintf(LAST_DIRECTION, schema), 2, types);
	bool		applied = false;

	if (plan == NULL)
		elog(ERROR, "could not prepare a query: %s", SPI_result_code_string(SPI_result));
	if (SPI_execute_snapshot(plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot,
							 true, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the history of migrations");
	if (SPI_processed > 0)
		applied = strcmp(text_of_row(0, 1, CurrentMemoryContext), "down") != 0;
	tables_end(&tables);
	return applied;
}

/* --- registering ----------------------------------------------------------------- */

static bool
same_or_both_null(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
same_but_line_ends(const char *a, const char *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return strcmp(checksum_line_ends(a, false), checksum_line_ends(b, false)) == 0;
}

static void
add_difference(StringInfo list, bool differs, const char *what)
{
	if (differs)
		appendStringInfo(list, "%s%s", list->len > 0 ? ", " : "", what);
}

/* What differs, for people; empty if nothing does. */
static char *
differences(const Migration *a, const Migration *b)
{
	StringInfoData list;

	initStringInfo(&list);
	add_difference(&list, !same_or_both_null(a->name, b->name), "name");
	add_difference(&list, !same_or_both_null(a->up_sql, b->up_sql), "up_sql");
	add_difference(&list, !same_or_both_null(a->down_sql, b->down_sql), "down_sql");
	add_difference(&list, a->transaction != b->transaction, "transaction");
	add_difference(&list, a->out_of_order != b->out_of_order, "out_of_order");
	return list.data;
}

/* Is what has been applied the same, but for line ends? */
static bool
same_way_up(const Migration *a, const Migration *b)
{
	return same_or_both_null(a->name, b->name) && a->transaction == b->transaction &&
		a->out_of_order == b->out_of_order &&
		same_but_line_ends(a->up_sql, b->up_sql);
}

void
source_refuse_change(const char *pool, const Migration *migration,
					 const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("migration %s \"%s\" of pool \"%s\" has been applied and cannot be changed",
					migration->version, migration->name, pool),
			 errdetail_internal("%s", detail),
			 errhint("%s", hint)));
	pg_unreachable();
}

void
source_note_override(const char *pool, const Migration *migration)
{
	ereport(WARNING,
			(errmsg("the registered text of migration %s \"%s\" of pool \"%s\" has been replaced, though it has been applied",
					migration->version, migration->name, pool),
			 errdetail("Nothing was run on the remote, whose history has the checksum of the text that was."),
			 errhint("dbpool_migration_repair(%s, %s, force => true) gives it the new one.",
					 quote_literal_cstr(pool), version_literal(migration->version))));
}

/* The row of that version is locked. */
static bool
find_row(const char *schema, Oid serverid, const char *version, Migration *migration)
{
	Oid			types[] = {OIDOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), CStringGetTextDatum(version)};

	tables_run(psprintf("SELECT " MIGRATION_COLUMNS " FROM %s.dbpool_migrations m "
						"WHERE " OF_SERVER("m") " AND m.version::pg_catalog.text OPERATOR(pg_catalog.=) $2 "
						"FOR UPDATE", schema),
			   2, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return false;
	migration_of_row(0, migration, CurrentMemoryContext);
	return true;
}

/* Insert or update; returns whether there was a row to write. */
static bool
write_row(const char *sql, int expected, Oid serverid, const Migration *migration)
{
	Oid			types[] = {OIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, BOOLOID, TEXTOID, NAMEOID, NAMEOID};
	Datum		values[lengthof(types)] = {
		ObjectIdGetDatum(serverid), CStringGetTextDatum(migration->version),
		CStringGetTextDatum(migration->name), CStringGetTextDatum(migration->up_sql),
		migration->down_sql ? CStringGetTextDatum(migration->down_sql) : (Datum) 0,
		BoolGetDatum(migration->transaction), BoolGetDatum(migration->out_of_order),
		migration->file ? CStringGetTextDatum(migration->file) : (Datum) 0,
		name_datum(migration->added_by),
		name_datum(GetForeignServer(serverid)->servername)
	};
	char		nulls[] = "          ";

	if (migration->down_sql == NULL)
		nulls[4] = 'n';
	if (migration->file == NULL)
		nulls[7] = 'n';
	tables_write(sql, lengthof(types), types, values, nulls, expected);
	return SPI_processed > 0;
}

static void
replace_row(const char *schema, Oid serverid, const Migration *migration)
{
	write_row(psprintf("UPDATE %s.dbpool_migrations m SET name = $3, up_sql = $4, "
					   "down_sql = $5, transaction = $6, out_of_order = $7, file = $8, "
					   "added_at = pg_catalog.now(), added_by = $9, pool = $10 "
					   "WHERE " OF_SERVER("m") " "
					   "AND m.version::pg_catalog.text OPERATOR(pg_catalog.=) $2", schema),
			  SPI_OK_UPDATE, serverid, migration);
}

/*
 * A row of the local history that says what was done to it without a remote.
 * direction is what it is from now on: up for applied, down for not applied.
 */
static void
note_event(const char *schema, Oid serverid, const char *pool, const char *version, const char *name,
		   const char *direction, const char *mode, Oid userid)
{
	Oid			types[] = {NAMEOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, NAMEOID, INT4OID, OIDOID};
	Datum		values[] = {
		name_datum(pool), CStringGetTextDatum(version), name ? CStringGetTextDatum(name) : (Datum) 0,
		CStringGetTextDatum(direction), CStringGetTextDatum(mode),
		name_datum(GetUserNameFromId(userid, false)), Int32GetDatum(MyProcPid),
		ObjectIdGetDatum(serverid)
	};

	tables_write(psprintf("INSERT INTO %s.dbpool_migration_history (pool, version, name, direction, mode, "
						  "status, started_at, executed_by, pid, serverid) "
						  "VALUES ($1, $2, $3, $4, $5, 'done', pg_catalog.clock_timestamp(), $6, $7, $8)", schema),
				 lengthof(types), types, values, name ? NULL : "  n     ", SPI_OK_INSERT);
}

/* One that has been applied: what becomes of a new text of it? */
static SourceStatus
put_applied(const char *schema, Oid serverid, const char *pool, const Migration *old,
			const Migration *migration, SourceChange change, Oid userid)
{
	bool		up = same_way_up(old, migration);
	Migration	merged = *old;

	if (change == CHANGE_OVERRIDE)
	{
		replace_row(schema, serverid, migration);
		if (same_or_both_null(old->up_sql, migration->up_sql) && up)
			return SOURCE_WAY_BACK;
		note_event(schema, serverid, pool, migration->version, migration->name, "up", "replaced", userid);
		return SOURCE_OVERRIDDEN;
	}
	if (!up && change == CHANGE_REFUSE)
		source_refuse_change(pool, old,
							 psprintf("What is registered differs in: %s.", differences(old, migration)),
							 "Add what is to change as another migration, with a higher version. If it is the registered text alone that is wrong, the option \"replace_applied\" replaces it.");
	if (same_but_line_ends(old->down_sql, migration->down_sql))
		return up ? SOURCE_LINE_ENDS : SOURCE_KEPT;
	merged.down_sql = migration->down_sql;
	/* for a text that stays, and is another one, nobody has vouched now */
	if (up)
		merged.added_by = migration->added_by;
	replace_row(schema, serverid, &merged);
	return up ? SOURCE_WAY_BACK : SOURCE_KEPT;
}

char *
source_differences(Oid serverid, const Migration *migration)
{
	MemoryContext context = CurrentMemoryContext;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Migration	old;
	char	   *list = "";

	if (find_row(schema, serverid, migration->version, &old))
		list = differences(&old, migration);
	list = MemoryContextStrdup(context, list);
	tables_end(&tables);
	return list;
}

SourceStatus
source_put(Oid serverid, const char *pool, const Migration *migration, SourceChange change)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Migration	given = *migration;
	Migration	old;
	SourceStatus status = SOURCE_ADDED;

	given.added_by = GetUserNameFromId(tables.userid, false);

	/* until there is a row, or there was none; the name may change meanwhile */
	while (!find_row(schema, serverid, migration->version, &old))
	{
		CHECK_FOR_INTERRUPTS();
		if (write_row(psprintf("INSERT INTO %s.dbpool_migrations (serverid, version, name, up_sql, "
							   "down_sql, transaction, out_of_order, file, added_by, pool) "
							   "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
							   schema),
					  SPI_OK_INSERT, serverid, &given))
			goto done;
	}
	if (differences(&old, migration)[0] == '\0')
	{
		/* whoever gives the same text vouches for it */
		if (!migrate_may_add(serverid, old.added_by))
			replace_row(schema, serverid, &given);
		status = SOURCE_UNCHANGED;
	}
	else if (!version_is_repeatable(migration->version) &&
			 source_is_applied(serverid, migration->version))
		status = put_applied(schema, serverid, pool, &old, &given, change, tables.userid);
	else
	{
		replace_row(schema, serverid, &given);
		status = SOURCE_REPLACED;
	}
done:
	tables_end(&tables);
	return status;
}

void
source_drop(Oid serverid, const char *pool, const char *version)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Migration	migration;
	Oid			types[] = {OIDOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), CStringGetTextDatum(version)};

	if (!find_row(schema, serverid, version, &migration))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("pool \"%s\" has no migration %s", pool, version)));
	if (!version_is_repeatable(version) && source_is_applied(serverid, version))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration %s \"%s\" of pool \"%s\" has been applied and cannot be dropped",
						version, migration.name, pool),
				 errhint("It can be when it has been rolled back.")));
	tables_run(psprintf("DELETE FROM %s.dbpool_migrations m WHERE " OF_SERVER("m") " "
						"AND m.version::pg_catalog.text OPERATOR(pg_catalog.=) $2", schema),
			   2, types, values, NULL, SPI_OK_DELETE);
	tables_end(&tables);
}

/*
 * The remote's database is another one now: what is registered has not been
 * applied there.  Returns how many versions that were are so no more.
 */
int
source_forget(Oid serverid, const char *pool)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(serverid)};
	SPITupleTable *rows;
	uint64		n;
	int			forgotten = 0;

	tables_run(psprintf("SELECT h.version, pg_catalog.max(h.name) FROM %s.dbpool_migration_history h "
						"WHERE " OF_SERVER("h") " GROUP BY h.version ORDER BY h.version",
						schema),
			   1, types, values, NULL, SPI_OK_SELECT);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
	{
		char	   *version = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);

		CHECK_FOR_INTERRUPTS();
		if (!source_is_applied(serverid, version))
			continue;
		note_event(schema, serverid, pool, version, SPI_getvalue(rows->vals[i], rows->tupdesc, 2),
				   "down", "forgotten", tables.userid);
		forgotten++;
	}
	tables_end(&tables);
	return forgotten;
}

int64
source_highest(int64 from, int64 to)
{
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(from), Int64GetDatum(to)};
	int64		highest;

	tables_run(psprintf("SELECT coalesce(pg_catalog.max(v.number), 0) FROM "
						"(SELECT CASE WHEN m.version::pg_catalog.text OPERATOR(pg_catalog.~) '^[0-9]{1,18}$' "
						"THEN m.version::pg_catalog.text::bigint END AS number FROM %s.dbpool_migrations m) v "
						"WHERE v.number OPERATOR(pg_catalog.>=) $1 "
						"AND v.number OPERATOR(pg_catalog.<=) $2", schema),
			   2, types, values, NULL, SPI_OK_SELECT);
	highest = DatumGetInt64(value_of_row(0, 1));
	tables_end(&tables);
	return highest;
}

Migration *
source_from_files(Oid serverid, ArrayType *except, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	Oid			types[] = {OIDOID, TEXTARRAYOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), PointerGetDatum(except)};
	Migration  *migrations;

	tables_run(psprintf("SELECT m.version, m.name, m.file FROM %s.dbpool_migrations m "
						"WHERE " OF_SERVER("m") " AND m.file IS NOT NULL "
						"AND m.version::pg_catalog.text OPERATOR(pg_catalog.<>) ALL ($2) ORDER BY m.version", schema),
			   2, types, values, NULL, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	migrations = MemoryContextAllocZero(context, sizeof(Migration) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		migrations[i].version = text_of_row(i, 1, context);
		migrations[i].name = text_of_row(i, 2, context);
		migrations[i].file = text_of_row(i, 3, context);
	}
	tables_end(&tables);
	return migrations;
}
