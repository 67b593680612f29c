/*
 * migrate_source.c
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
#include "backend/migrate.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(dbpool_guard_migrations);
PG_FUNCTION_INFO_V1(dbpool_guard_migration_history);

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

/* Run a statement with parameters; nulls as SPI takes them, or NULL. */
static void
run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	int			status = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (status != expected)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(status));
}

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
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(serverid)};
	Migration  *migrations;

	run(psprintf("SELECT " MIGRATION_COLUMNS " FROM %s.dbpool_migrations m "
				 "WHERE " OF_SERVER("m") " ORDER BY m.version", schema),
		1, types, values, NULL, SPI_OK_SELECT);
	*n = (int) SPI_processed;
	migrations = MemoryContextAlloc(context, sizeof(Migration) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		migration_of_row(i, &migrations[i], context);
	migrate_tables_end(&tables);
	return migrations;
}

bool
source_is_applied(Oid serverid, const char *version)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
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
	migrate_tables_end(&tables);
	return applied;
}

/* --- what can be registered ------------------------------------------------------ */

static void
check_name(const char *pool, const Migration *migration)
{
	const char *reason = NULL;

	if (migration->name[0] == '\0')
		reason = "It must not be empty.";
	else if (pg_mbstrlen(migration->name) > MAX_MIGRATION_NAME)
		reason = psprintf("It is longer than %d characters.", MAX_MIGRATION_NAME);
	else
		for (const char *at = migration->name; *at != '\0'; at++)
			if ((unsigned char) *at < ' ' || *at == 0x7f)
				reason = "It must not contain control characters.";
	if (reason != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of migration %s of pool \"%s\"",
						migration->version, pool),
				 errdetail("%s", reason)));
}

/* One that is run again whenever its text changes has no way back, and is known by its name. */
static void
check_repeatable(const char *pool, const Migration *migration)
{
	if (!version_is_repeatable(migration->version))
		return;
	if (strcmp(migration->version, version_of_repeatable(migration->name)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("invalid name of repeatable migration %s of pool \"%s\": \"%s\"",
						migration->version, pool, migration->name),
				 errdetail("Its version is R__ and its name.")));
	if (migration->down_sql != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("repeatable migration %s of pool \"%s\" cannot have a way back",
						migration->version, pool),
				 errhint("Change its text, and it runs again.")));
}

/*
 * A text can be divided, leaves its transaction alone if it has one, and is for
 * one direction.
 */
static void
check_text(const char *sql, bool transaction, bool down)
{
	int			n;
	SqlPiece   *pieces = split_anyhow(sql, &n);
	bool		wrapped = split_is_wrapped(pieces, n);

	for (int i = 0; transaction && i < n; i++)
		if (pieces[i].kind != PIECE_PLAIN && !(wrapped && (i == 0 || i == n - 1)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
					 errmsg("\"%.*s\" in line %d, column %d interferes with the transaction of the migration",
							pg_mbcliplen(sql + pieces[i].at, pieces[i].len, 40),
							sql + pieces[i].at, pieces[i].line, pieces[i].column),
					 errdetail("A migration and its entry in the history are one transaction. "
							   "A BEGIN at the very start and a COMMIT at the very end are left out."),
					 errhint("Leave it out, or have the migration run outside of a transaction: "
							 "by a line \"-- no-transaction\" at its start, or by the option \"transaction\": false.")));
	mixed_check(sql, pieces, n, down);
	pfree(pieces);
}

typedef struct TextContext
{
	const char *pool;
	const Migration *migration;
	const char *which;
} TextContext;

static void
in_text(void *arg)
{
	TextContext *context = arg;

	errcontext("%s of migration %s \"%s\" of pool \"%s\"", context->which,
			   context->migration->version, context->migration->name, context->pool);
}

void
source_check(const char *pool, const Migration *migration)
{
	TextContext text = {pool, migration, "up_sql"};
	ErrorContextCallback context = {error_context_stack, in_text, &text};

	check_name(pool, migration);
	check_repeatable(pool, migration);
	error_context_stack = &context;
	check_text(migration->up_sql, migration->transaction, false);
	if (migration->down_sql != NULL)
	{
		text.which = "down_sql";
		check_text(migration->down_sql,
				   migration->transaction && !split_no_transaction(migration->down_sql), true);
	}
	error_context_stack = context.previous;
}

/* --- registering ----------------------------------------------------------------- */

static bool
same_text(const char *a, const char *b)
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
	add_difference(&list, !same_text(a->name, b->name), "name");
	add_difference(&list, !same_text(a->up_sql, b->up_sql), "up_sql");
	add_difference(&list, !same_text(a->down_sql, b->down_sql), "down_sql");
	add_difference(&list, a->transaction != b->transaction, "transaction");
	add_difference(&list, a->out_of_order != b->out_of_order, "out_of_order");
	return list.data;
}

/* Is what has been applied the same, but for line ends? */
static bool
same_way_up(const Migration *a, const Migration *b)
{
	return same_text(a->name, b->name) && a->transaction == b->transaction &&
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

	run(psprintf("SELECT " MIGRATION_COLUMNS " FROM %s.dbpool_migrations m "
				 "WHERE " OF_SERVER("m") " AND m.version::pg_catalog.text OPERATOR(pg_catalog.=) $2 "
				 "FOR UPDATE", schema),
		2, types, values, NULL, SPI_OK_SELECT);
	if (SPI_processed == 0)
		return false;
	migration_of_row(0, migration, CurrentMemoryContext);
	return true;
}

/* The triggers are to let rows pass that are written here. */
static bool writing = false;

static void
write_rows(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	writing = true;
	PG_TRY();
	{
		run(sql, nargs, types, values, nulls, expected);
	}
	PG_FINALLY();
	{
		writing = false;
	}
	PG_END_TRY();
}

void
source_in_recorder(void)
{
	writing = true;
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
	write_rows(sql, lengthof(types), types, values, nulls, expected);
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

	write_rows(psprintf("INSERT INTO %s.dbpool_migration_history (pool, version, name, direction, mode, "
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
		if (same_text(old->up_sql, migration->up_sql) && up)
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
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	Migration	old;
	char	   *list = "";

	if (find_row(schema, serverid, migration->version, &old))
		list = differences(&old, migration);
	list = MemoryContextStrdup(context, list);
	migrate_tables_end(&tables);
	return list;
}

SourceStatus
source_put(Oid serverid, const char *pool, const Migration *migration, SourceChange change)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
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
	migrate_tables_end(&tables);
	return status;
}

void
source_drop(Oid serverid, const char *pool, const char *version)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
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
	run(psprintf("DELETE FROM %s.dbpool_migrations m WHERE " OF_SERVER("m") " "
				 "AND m.version::pg_catalog.text OPERATOR(pg_catalog.=) $2", schema),
		2, types, values, NULL, SPI_OK_DELETE);
	migrate_tables_end(&tables);
}

/*
 * The remote's database is another one now: what is registered has not been
 * applied there.  Returns how many versions that were are so no more.
 */
int
source_forget(Oid serverid, const char *pool)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	Oid			types[] = {OIDOID};
	Datum		values[] = {ObjectIdGetDatum(serverid)};
	SPITupleTable *rows;
	uint64		n;
	int			forgotten = 0;

	run(psprintf("SELECT h.version, pg_catalog.max(h.name) FROM %s.dbpool_migration_history h "
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
	migrate_tables_end(&tables);
	return forgotten;
}

int64
source_highest(int64 from, int64 to)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	Oid			types[] = {INT8OID, INT8OID};
	Datum		values[] = {Int64GetDatum(from), Int64GetDatum(to)};
	int64		highest;

	run(psprintf("SELECT coalesce(pg_catalog.max(v.number), 0) FROM "
				 "(SELECT CASE WHEN m.version::pg_catalog.text OPERATOR(pg_catalog.~) '^[0-9]{1,18}$' "
				 "THEN m.version::pg_catalog.text::bigint END AS number FROM %s.dbpool_migrations m) v "
				 "WHERE v.number OPERATOR(pg_catalog.>=) $1 "
				 "AND v.number OPERATOR(pg_catalog.<=) $2", schema),
		2, types, values, NULL, SPI_OK_SELECT);
	highest = DatumGetInt64(value_of_row(0, 1));
	migrate_tables_end(&tables);
	return highest;
}

Migration *
source_from_files(Oid serverid, ArrayType *except, int *n)
{
	MemoryContext context = CurrentMemoryContext;
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	Oid			types[] = {OIDOID, TEXTARRAYOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), PointerGetDatum(except)};
	Migration  *migrations;

	run(psprintf("SELECT m.version, m.name, m.file FROM %s.dbpool_migrations m "
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
	migrate_tables_end(&tables);
	return migrations;
}

/* --- the triggers ------------------------------------------------------------------ */

static Datum
column_of(HeapTuple row, TupleDesc desc, const char *column)
{
	bool		isnull;

	return heap_getattr(row, SPI_fnumber(desc, column), desc, &isnull);
}

/*
 * Rows that belong to no pool, as it was dropped, are not protected, so that they
 * can be removed or given to another one.
 */
static void
guard_row(HeapTuple row, TupleDesc desc)
{
	Oid			serverid = DatumGetObjectId(column_of(row, desc, "serverid"));
	char	   *version = TextDatumGetCString(column_of(row, desc, "version"));
	const char *pool = NameStr(*DatumGetName(column_of(row, desc, "pool")));
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);

	if (server != NULL && strcmp(server->servername, pool) == 0 &&
		!version_is_repeatable(version) && source_is_applied(serverid, version))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("migration %s of pool \"%s\" has been applied and cannot be changed or removed",
						version, pool)));
}

/* TRUNCATE: as if all rows were removed one by one. */
static void
guard_table(void)
{
	MigrateTables tables;
	const char *schema = migrate_tables_begin(&tables);
	SPITupleTable *rows;
	uint64		n;

	run(psprintf("SELECT m.serverid, m.pool, m.version FROM %s.dbpool_migrations m", schema),
		0, NULL, NULL, NULL, SPI_OK_SELECT);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		guard_row(rows->vals[i], rows->tupdesc);
	migrate_tables_end(&tables);
}

/*
 * The row that is to be stored, for one that comes by hand or out of a dump: it
 * belongs to the pool that has that name now, or to none.
 */
static HeapTuple
with_server(HeapTuple row, TupleDesc desc)
{
	int			column = SPI_fnumber(desc, "serverid");
	Datum		pool = column_of(row, desc, "pool");
	Oid			serverid = pool ? definition_server(NameStr(*DatumGetName(pool)), true) : InvalidOid;
	Datum		value = ObjectIdGetDatum(serverid);
	bool		isnull = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &column, &value, &isnull);
}

/* What both triggers do; protect: what has been applied must stay as it is. */
static Datum
guard(FunctionCallInfo fcinfo, bool protect)
{
	TriggerData *data = (TriggerData *) fcinfo->context;
	TupleDesc	desc;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function is for a trigger of the tables of migrations")));
	if (TRIGGER_FIRED_FOR_STATEMENT(data->tg_event))
	{
		guard_table();
		PG_RETURN_POINTER(NULL);
	}
	desc = RelationGetDescr(data->tg_relation);
	if (writing)
		PG_RETURN_POINTER(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ? data->tg_newtuple : data->tg_trigtuple);
	if (protect && !TRIGGER_FIRED_BY_INSERT(data->tg_event))
		guard_row(data->tg_trigtuple, desc);
	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		PG_RETURN_POINTER(data->tg_trigtuple);
	PG_RETURN_POINTER(with_server(TRIGGER_FIRED_BY_UPDATE(data->tg_event) ?
								  data->tg_newtuple : data->tg_trigtuple, desc));
}

/* The trigger on dbpool_migrations: INSERT, UPDATE, DELETE and TRUNCATE. */
Datum
dbpool_guard_migrations(PG_FUNCTION_ARGS)
{
	return guard(fcinfo, true);
}

/* The trigger on dbpool_migration_history: INSERT and UPDATE. */
Datum
dbpool_guard_migration_history(PG_FUNCTION_ARGS)
{
	return guard(fcinfo, false);
}

/* --- servers --------------------------------------------------------------------- */

/*
 * A server was altered, and perhaps renamed, or is about to be dropped: its rows get
 * the new name, or belong to none from now on.  So another one that gets the name
 * later has nothing of it.
 */
static void
server_changed(Oid serverid, bool dropped)
{
	static const char *const names[] = {"dbpool_migrations", "dbpool_migration_history"};
	MigrateTables tables;
	const char *schema;

	/* the change is not visible yet: this is the old name */
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	Oid			types[] = {OIDOID, NAMEOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), 0};

	/* the extension may be going, too */
	if (server == NULL || !migrate_tables_exist())
		return;
	values[1] = name_datum(server->servername);
	schema = migrate_tables_begin(&tables);
	for (int i = 0; i < lengthof(names); i++)
		write_rows(dropped ?
				   psprintf("UPDATE %s.%s m SET serverid = 0 "
							"WHERE m.serverid OPERATOR(pg_catalog.=) $1 "
							"AND m.pool OPERATOR(pg_catalog.=) $2", schema, names[i]) :
				   psprintf("UPDATE %s.%s m SET pool = s.srvname FROM pg_catalog.pg_foreign_server s "
							"WHERE s.oid OPERATOR(pg_catalog.=) $1 AND m.serverid OPERATOR(pg_catalog.=) $1 "
							"AND m.pool OPERATOR(pg_catalog.=) $2 "
							"AND s.srvname OPERATOR(pg_catalog.<>) $2", schema, names[i]),
				   2, types, values, NULL, SPI_OK_UPDATE);
	migrate_tables_end(&tables);
}

/* In every process that the postmaster starts. */
void
migrate_register(void)
{
	definition_server_changed = server_changed;
}
