/*
 * server.c
 *	  Which server's the rows of the tables of migrations are.
 *
 * A row has the server's OID.  It follows a server that is renamed, and belongs to
 * none when that is dropped, of which the object access hook tells; so another one
 * that gets the name has nothing of it.  Rows that come by hand or out of a dump, which
 * has names alone, get the OID of the server that has the name now, by triggers.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "migrate/migrate.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(dbpool_guard_migrations);
PG_FUNCTION_INFO_V1(dbpool_guard_migration_history);

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
	Tables		tables;
	const char *schema = tables_begin(&tables, "dbpool_migrations");
	SPITupleTable *rows;
	uint64		n;

	tables_run(psprintf("SELECT m.serverid, m.pool, m.version FROM %s.dbpool_migrations m", schema),
			   0, NULL, NULL, NULL, SPI_OK_SELECT);
	rows = SPI_tuptable;
	n = SPI_processed;
	for (uint64 i = 0; i < n; i++)
		guard_row(rows->vals[i], rows->tupdesc);
	tables_end(&tables);
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
	if (tables_are_written())
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
	Tables		tables;
	const char *schema;

	/* the change is not visible yet: this is the old name */
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	Oid			types[] = {OIDOID, NAMEOID};
	Datum		values[] = {ObjectIdGetDatum(serverid), 0};
	NameData	name;

	/* the extension may be going, too */
	if (server == NULL || !migrate_tables_exist())
		return;
	namestrcpy(&name, server->servername);
	values[1] = NameGetDatum(&name);
	schema = tables_begin(&tables, "dbpool_migrations");
	for (int i = 0; i < lengthof(names); i++)
		tables_write(dropped ?
					 psprintf("UPDATE %s.%s m SET serverid = 0 "
							  "WHERE m.serverid OPERATOR(pg_catalog.=) $1 "
							  "AND m.pool OPERATOR(pg_catalog.=) $2", schema, names[i]) :
					 psprintf("UPDATE %s.%s m SET pool = s.srvname FROM pg_catalog.pg_foreign_server s "
							  "WHERE s.oid OPERATOR(pg_catalog.=) $1 AND m.serverid OPERATOR(pg_catalog.=) $1 "
							  "AND m.pool OPERATOR(pg_catalog.=) $2 "
							  "AND s.srvname OPERATOR(pg_catalog.<>) $2", schema, names[i]),
					 2, types, values, NULL, SPI_OK_UPDATE);
	tables_end(&tables);
}

/* In every process that the postmaster starts. */
void
migrate_register(void)
{
	definition_server_changed = server_changed;
}
