/*
 * tables.c
 *	  The way to dbpool's own tables.
 *
 * No role has the right to write to them.  Functions do it as the tables' owner, once
 * they have checked the caller's rights.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "backend/extension.h"
#include "backend/tables.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

static void
throw_no_table(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the extension \"dbpool\" of this database has no table \"%s\" of this version", name),
			 errhint("ALTER EXTENSION dbpool UPDATE brings its objects up to date.")));
}

/*
 * Open a table of so many columns in the extension's schema, for what is too frequent to be
 * done by SQL.  Rights are not looked at.
 */
Relation
tables_open(Oid schema, const char *name, int columns, int lockmode)
{
	Oid			relid = get_relname_relid(name, schema);
	Relation	rel = OidIsValid(relid) ? table_open(relid, lockmode) : NULL;

	if (rel == NULL || RelationGetNumberOfAttributes(rel) != columns)
		throw_no_table(name);
	return rel;
}

static Oid
table_owner(Oid schema, const char *name)
{
	Oid			relid = get_relname_relid(name, schema);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		throw_no_table(name);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * Become the owner of the extension's tables, of which name is one, with SPI connected.
 * Returns the schema's name, quoted.  tables_end() is due, unless there is an error.
 */
const char *
tables_begin(Tables *tables, const char *name)
{
	Oid			schema = extension_schema();
	Oid			owner;
	const char *quoted;

	if (!OidIsValid(schema))
		elog(ERROR, "could not find extension \"dbpool\"");
	owner = table_owner(schema, name);
	quoted = quote_identifier(get_namespace_name(schema));
	GetUserIdAndSecContext(&tables->userid, &tables->security);
	SetUserIdAndSecContext(owner, tables->security | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION | SECURITY_NOFORCE_RLS);
	tables->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	return quoted;
}

void
tables_end(const Tables *tables)
{
	SPI_finish();
	AtEOXact_GUC(true, tables->guc_level);
	SetUserIdAndSecContext(tables->userid, tables->security);
}

/*
 * Run a statement with parameters in between; nulls as SPI takes them, or NULL.  Throws
 * unless SPI says what is expected.
 */
void
tables_run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	int			status = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (status != expected)
		elog(ERROR, "could not run \"%s\": %s", sql, SPI_result_code_string(status));
}
