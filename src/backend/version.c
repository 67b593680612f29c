/*
 * version.c
 *	  Which dbpool this is.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(dbpool_version);

/* The version of the extension's objects in this database, or NULL. */
static char *
extension_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(get_extension_oid("dbpool", true)));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/*
 * dbpool_version() returns record
 *
 * The loaded library's version; that of the SQL objects, which another one means
 * that ALTER EXTENSION dbpool UPDATE or a restart is due; libpq's, as it is loaded;
 * and that of the PostgreSQL whose headers the library was compiled with.
 */
Datum
dbpool_version(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		values[4];
	bool		nulls[4] = {false};
	char	   *extension = extension_version();
	int			libpq = PQlibVersion();

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(DBPOOL_VERSION);
	values[1] = extension ? CStringGetTextDatum(extension) : (Datum) 0;
	nulls[1] = extension == NULL;
	values[2] = CStringGetTextDatum(psprintf("%d.%d", libpq / 10000, libpq % 10000));
	values[3] = CStringGetTextDatum(PG_VERSION);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
